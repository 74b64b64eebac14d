"""How what teachers say becomes the fixed-width columns of a store, and back. Knows nothing of files, teachers or losses.

An encoding is one entry of `ENCODINGS`, by what is said and the recipe's own word; the store and its reader take the
columns from it and never look inside.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...config.any_teacher import EncodingName
from ...config.task import AnswerName
from .boxes import BOXES
from .encoding import Encoding, Field

Array = np.ndarray
FLOOR = -6e4
"""Lowest stored logit (less the largest, of one class of many): float16 ends at -65504."""


def _shifted_fields(width: int) -> tuple[Field, ...]:
    return Field("value", np.dtype("<f2"), (width,)), Field("offset", np.dtype("<f4"))


def _encode_shifted(logits: Tensor) -> dict[str, Tensor]:
    offset = logits.amax(dim=1)
    return {"value": (logits - offset[:, None]).clamp_(FLOOR, 0).half(), "offset": offset}


def _decode_shifted(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    return fields["value"].float().add_(fields["offset"][:, None])


def _label_fields(width: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("<i4")),)


def _encode_label(logits: Tensor) -> dict[str, Tensor]:
    return {"value": logits.argmax(dim=1).int().masked_fill_(logits[:, 0].isnan(), -1)}


def _decode_label(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    unknown = fields["value"] < 0
    label = fields["value"].long().masked_fill_(unknown, 0)
    probability = torch.full((len(label), width), probability_floor / width, device=label.device)
    probability.scatter_(1, label[:, None], 1 - probability_floor + probability_floor / width)
    return probability.log_().masked_fill_(unknown[:, None], torch.nan)


def _half_fields(width: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("<f2"), (width,)),)


def _encode_half(logits: Tensor) -> dict[str, Tensor]:
    """No shift: that of a class says whether it holds, and no other class is its measure."""
    return {"value": logits.clamp(FLOOR, -FLOOR).half()}


def _decode_value(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    return fields["value"].float()


def _labels_fields(width: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("u1"), (width,)),)


UNKNOWN = 255


def _encode_labels(logits: Tensor) -> dict[str, Tensor]:
    return {"value": (logits > 0).byte().masked_fill_(logits.isnan(), UNKNOWN)}


def _decode_labels(fields: Mapping[str, Tensor], width: int, probability_floor: float) -> Tensor:
    """The log-odds of (1 - E) p + E / 2, p 0 or 1."""
    odds = math.log((1 - probability_floor / 2) / (probability_floor / 2))
    return ((fields["value"].float() * 2 - 1) * odds).masked_fill_(fields["value"] == UNKNOWN, torch.nan)


def _single_fields(width: int) -> tuple[Field, ...]:
    return (Field("value", np.dtype("<f4"), (width,)),)


def _encode_single(values: Tensor) -> dict[str, Tensor]:
    return {"value": values}


ENCODINGS: dict[AnswerName, dict[EncodingName, Encoding]] = {
    "class_axis": {
        "dense": Encoding("logits", _shifted_fields, _encode_shifted, _decode_shifted),
        "label": Encoding("label", _label_fields, _encode_label, _decode_label),
    },
    "class_set": {
        "dense": Encoding("logits", _half_fields, _encode_half, _decode_value),
        "label": Encoding("label", _labels_fields, _encode_labels, _decode_labels),
    },
    "values": {
        "dense": Encoding("values", _single_fields, _encode_single, _decode_value),
    },
    "boxes": {"dense": BOXES},
}


def bytes_per_row(encoding: EncodingName, width: int, answer: AnswerName = "class_axis") -> int:
    """Bytes of one row on disk, its `sample_key` included."""
    return 8 + sum(field.nbytes for field in ENCODINGS[answer][encoding].fields(width))


def decode(
    encoding: EncodingName,
    fields: Mapping[str, Tensor],
    *,
    width: int,
    probability_floor: float = 1e-3,
    answer: AnswerName = "class_axis",
) -> Tensor:
    """What float32 [rows, width] a batch of stored fields stands for, on the fields' device.

    Of one class of many `dense` gives back the raw logits within float16 of logit - max, `label` the log of
    (1 - E) onehot + E / classes; of classes that each hold or not logits in float16, or log-odds of the floor; numbers are
    kept in float32. What was unknown is NaN.
    """
    return ENCODINGS[answer][encoding].decode(fields, width, probability_floor)
