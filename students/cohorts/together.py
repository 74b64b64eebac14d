"""What members of a cohort say together of validation rows: how far they agree, and how their errors go together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.tasks.labels import is_known
from teachers.users_code.calls import calling, within

from ..data.inputs import Network
from ..data.validation import Validation
from ..models import MEANS
from ..objective.units import Units
from ..runs.session import Session
from ..tasks.figure import headline
from ..tasks.task import Meter
from ..training.train import Training


@dataclass(frozen=True)
class Compared:
    """How what two members say of a row is compared, and what a member's error is."""

    name: str
    """Of the curve of `alike`."""
    alike: Callable[[Tensor, Tensor], Tensor]
    """Of two members, f64 `[rows]`."""
    points: Callable[[Tensor], Tensor]
    """What a label is subtracted from, f64 `[..., width]`."""


def same_class(one: Tensor, other: Tensor) -> Tensor:
    return (one.argmax(-1) == other.argmax(-1)).double()


def share_of_classes(one: Tensor, other: Tensor) -> Tensor:
    """In which both say that it holds, or both that it does not."""
    return ((one > 0) == (other > 0)).double().mean(-1)


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """In standard deviations of the label, the mean over numbers."""
    return (one - other).square().mean(-1)


COMPARED: dict[AnswerName, Compared] = {
    "class_axis": Compared("agreement", same_class, lambda said: said.softmax(-1)),
    "class_set": Compared("agreement", share_of_classes, torch.sigmoid),
    "values": Compared("squared_distance", squared_distance, lambda said: said),
}
