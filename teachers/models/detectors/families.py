"""How detectors of transformers write what they found, by architecture: logits and boxes as scores and classes of places.

Each is what the `post_process_object_detection` of its image processor does before its threshold. Imports no transformers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .said import Places

Decoding = Callable[[Tensor, Tensor, int], Places]
"""(logits `[rows, Q, C]`, boxes `[rows, Q, 4]` as centre and size in 0 to 1, how many places are wanted) to places."""


def corners_of(boxes: Tensor) -> Tensor:
    """Centre and size, `[..., 4]`, as corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def best_of_softmax(logits: Tensor, boxes: Tensor, wanted: int) -> Places:
    """DETR: the last class is none; a place has one class."""
    score, label = logits.float().softmax(-1)[..., :-1].max(-1)
    return Places(corners_of(boxes.float()), score, label)


def best_of_sigmoid(logits: Tensor, boxes: Tensor, wanted: int) -> Places:
    """A place may be of several classes, of which each has its own score: the best `wanted` of all."""
    num_classes, flat = logits.shape[2], logits.float().sigmoid().flatten(1)
    score, at = flat.topk(min(wanted, flat.shape[1]), dim=1)
    place = (at // num_classes)[..., None].expand(-1, -1, 4)
    return Places(corners_of(boxes.float()).gather(1, place), score, at % num_classes)


def best_of_as_many(logits: Tensor, boxes: Tensor, wanted: int) -> Places:
    """RT-DETR: as many as there are places."""
    return best_of_sigmoid(logits, boxes, logits.shape[1])


@dataclass(frozen=True)
class Family:
    """Detectors whose answers are read alike. `has_none`: its logits have one class more, the last, which is none."""

    decode: Decoding
    has_none: bool = False


SOFTMAX, SIGMOID, AS_MANY = Family(best_of_softmax, has_none=True), Family(best_of_sigmoid), Family(best_of_as_many)
FAMILIES: Mapping[str, Family] = {
    "detr": SOFTMAX,
    "yolos": SOFTMAX,
    "table-transformer": SOFTMAX,
    "conditional_detr": SIGMOID,
    "deformable_detr": SIGMOID,
    "dab-detr": SIGMOID,
    "rt_detr": AS_MANY,
    "rt_detr_v2": AS_MANY,
    "d_fine": AS_MANY,
}
"""With classes of their own, by the `model_type` of their config."""
