"""The rows, targets and weights that an estimator is fitted on, by the kind of answer and what it learns of it.

Knows nothing of estimators beyond what their `fit` takes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teachers.config.task import AnswerName
from teachers.models.estimator_module import Learns
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Estimator, Run
from .copies import Copies, copies, taught
from .elements import copies_of_sets, elements


@dataclass(frozen=True)
class Lesson:
    """`rows` i64 [N]: which training rows there are, in the order of keys. Of each copy `row` i64 [M]: which of these it is
    (None: each once), `y`: what is learnt of it, [M] or [M, W], and `weight` [M]."""

    learns: Learns
    rows: NDArray[np.intp]
    row: NDArray[np.intp] | None
    y: NDArray[Any]
    weight: NDArray[Any]
    present: tuple[int, ...]
    """Which classes, or numbers, it can learn from that."""


def _class_lesson(run: Run, how: Estimator, transfer_set: TransferSet) -> Lesson:
    learnt = taught(run, transfer_set, how.probability_floor)
    if how.learns == "logits":
        weight = learnt.weights.sum(1, dtype=np.float64)
        return Lesson("logits", learnt.rows, None, learnt.logits, weight, _all(learnt.logits))
    some = copies(learnt.weights, how.least_weight)
    present, numbers = np.unique(some.label, return_inverse=True)  # many want 0 to K - 1, without a gap
    return _of_copies(some, numbers, learnt.rows, tuple(present.tolist()))


def _set_lesson(run: Run, how: Estimator, transfer_set: TransferSet) -> Lesson:
    learnt = elements(run, transfer_set, how.probability_floor)
    if how.learns == "logits":
        return Lesson("logits", learnt.rows, None, _column(learnt.logits), learnt.weight, _all(learnt.logits))
    some = copies_of_sets(learnt.target, learnt.weight, how.least_weight)
    return _of_copies(some, some.label, learnt.rows, _all(learnt.target))


def _value_lesson(run: Run, how: Estimator, transfer_set: TransferSet) -> Lesson:
    learnt = elements(run, transfer_set, how.probability_floor)
    return Lesson("values", learnt.rows, None, _column(learnt.target), learnt.weight, _all(learnt.target))


def _of_copies(some: Copies, y: NDArray[Any], rows: NDArray[np.intp], present: tuple[int, ...]) -> Lesson:
    return Lesson("probabilities", rows, some.row, y, some.weight, present)


def _column(y: NDArray[Any]) -> NDArray[Any]:
    """Of one number [N]: as every regressor takes it."""
    return y[:, 0] if y.shape[1] == 1 else y


def _all(y: NDArray[Any]) -> tuple[int, ...]:
    return tuple(range(y.shape[1]))


LESSONS: dict[AnswerName, Callable[[Run, Estimator, TransferSet], Lesson]] = {
    "class_axis": _class_lesson,
    "class_set": _set_lesson,
    "values": _value_lesson,
}
