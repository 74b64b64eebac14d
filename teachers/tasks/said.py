"""What a network gives, and what it says thereby: the same but for boxes. By the kind of answer; knows nothing of networks."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..config.task import AnswerName
from .places import LOGITS, said_of_places
from .space import Space


def _itself(given: Tensor, space: Space) -> Tensor:
    return given


def _boxes(given: Tensor, space: Space) -> Tensor:
    return said_of_places(given, space.max_boxes)


SAYS: dict[AnswerName, Callable[[Tensor, Space], Tensor]] = {
    "class_axis": _itself,
    "class_set": _itself,
    "values": _itself,
    "boxes": _boxes,
}


def said_by(given: Tensor, space: Space) -> Tensor:
    """f32 `[rows, width]` of what a network at rest gives: logits, standardised numbers, or places with boxes."""
    return SAYS[space.answer](given.float(), space)


def made_up(rows: int, names: Sequence[str], space: Space, numbers: np.random.Generator) -> Tensor:
    """What a teacher of `names` might say, f32 `[rows, width]`: that of a network which gives any numbers."""
    shape = (rows, space.max_boxes, LOGITS + len(names)) if space.max_boxes else (rows, len(names))
    return said_by(torch.from_numpy(numbers.standard_normal(shape, np.float32)), space)


def is_given(shape: Sequence[int], rows: int, space: Space) -> bool:
    """Whether a network of `space` gives this shape of so many rows."""
    if space.max_boxes:
        return len(shape) == 3 and shape[0] == rows and shape[1] > 0 and shape[2] == LOGITS + len(space.names)
    return [*shape] == [rows, space.width]


def expected_of(rows: int, space: Space) -> str:
    """That shape in words."""
    if space.max_boxes:
        return f"[{rows}, places, {LOGITS + len(space.names)}]"
    return f"[{rows}, {space.width}]"
