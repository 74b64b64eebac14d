"""How boxes are kept: corners in float32, scores in float16, classes in 16 bits, and how many there are. Knows nothing of images."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...tasks.boxes import BOX, CLASS, NO_CLASS, SCORE
from .encoding import Encoding, Field

UNKNOWN = 65_535
"""Stands for the number of boxes of a row of which nothing is known."""


def _fields(width: int) -> tuple[Field, ...]:
    boxes = width // len(BOX)
    return (
        Field("corners", np.dtype("<f4"), (boxes * 4,)),
        Field("score", np.dtype("<f2"), (boxes,)),
        Field("class", np.dtype("<u2"), (boxes,)),
        Field("num_valid", np.dtype("<u2")),
    )


def _encode(said: Tensor) -> dict[str, Tensor]:
    each = said.reshape(len(said), -1, len(BOX))
    unknown = each[:, 0, CLASS].isnan()
    there = each[..., CLASS] >= 0
    count = there.sum(1).masked_fill(unknown, UNKNOWN)
    each = torch.where(there[..., None], each, 0.0)
    return {
        "corners": each[..., :SCORE].flatten(1),
        "score": each[..., SCORE].half(),
        "class": each[..., CLASS].to(torch.uint16),
        "num_valid": count.to(torch.uint16),
    }


def _decode(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    count, boxes = fields["num_valid"].int(), width // len(BOX)
    out = torch.cat(
        [
            fields["corners"].reshape(-1, boxes, 4),
            fields["score"].float()[..., None],
            fields["class"].float()[..., None],
        ],
        -1,
    )
    nothing = torch.arange(boxes, device=count.device)[None] >= count[:, None]
    out[..., CLASS].masked_fill_(nothing, NO_CLASS)
    return out.flatten(1).masked_fill_((count == UNKNOWN)[:, None], torch.nan)


BOXES = Encoding("boxes", _fields, _encode, _decode)
