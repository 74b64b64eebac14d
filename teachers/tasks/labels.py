"""Labels of rows as arrays, whatever is learnt: which rows have one, and what to divide rows by.

One class of many: i32 `[rows]`, -1 none. Classes that each hold or not: i8 `[rows, C]`, 1, 0, or -1 where nobody knows.
Numbers: f32 `[rows, D]` in their own units, NaN none. Boxes: f32 `[rows, M * 8]`, see `boxes`, NaN none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.task import TaskName
from .boxes import BOX, CLASS, LABEL, SCORE, labels_of

DTYPES: dict[TaskName, np.dtype[Any]] = {
    "classification": np.dtype(np.int32),
    "multilabel": np.dtype(np.int8),
    "regression": np.dtype(np.float32),
    "detection": np.dtype(np.float32),
}


def shape_of(task: TaskName, width: int) -> tuple[int, ...]:
    """Of the label of a row; `width`: of its space."""
    if task == "detection":
        return (width // len(BOX) * len(LABEL),)
    return () if task == "classification" else (width,)


def none_of(task: TaskName, rows: int, width: int) -> NDArray[Any]:
    """Labels of rows that have none."""
    dtype = DTYPES[task]
    return np.full((rows, *shape_of(task, width)), np.nan if dtype.kind == "f" else -1, dtype)


def is_known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements of labels say something."""
    known: NDArray[np.bool_] = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
    return known


def has_label(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a label, bool `[rows]`: one of several elements that is known is one."""
    known = is_known(labels)
    return known if known.ndim == 1 else np.asarray(known.any(1))


def usable(labels: NDArray[Any], may_be_used: NDArray[np.bool_]) -> NDArray[Any]:
    """The same without the labels of rows that may not be used."""
    nothing = labels.dtype.type(np.nan if labels.dtype.kind == "f" else -1)
    return np.where(may_be_used.reshape(-1, *(1,) * (labels.ndim - 1)), labels, nothing)


def holds(labels: NDArray[Any], task: TaskName | None = None, width: int | None = None) -> NDArray[np.bool_] | None:
    """Which of several classes hold of each row, or have a box in it, bool `[rows, C]`; None of one class of many and of numbers."""
    if labels.ndim == 1 or (labels.dtype.kind == "f" and task != "detection"):
        return None
    return classes_in(labels, width) if labels.dtype.kind == "f" else labels == 1


def strata(
    labels: NDArray[Any], task: TaskName | None = None, width: int | None = None, held: Sequence[int] | None = None
) -> NDArray[np.int32]:
    """What rows are divided by, i32 `[rows]`, -1 for a row without a label.

    The class; of several classes the rarest one that holds, or C where none does, and so of the classes of boxes; numbers are
    all of one stratum. `width`: C of boxes; None: as many as are met. `held`: of how many rows each class holds, by which the
    rarest is told; None: of these.
    """
    if labels.ndim == 1:
        return labels.astype(np.int32, copy=False)
    there, found = has_label(labels), holds(labels, task, width)
    if found is None:
        return np.where(there, 0, -1).astype(np.int32)
    rarest_first = np.argsort(found.sum(0) if held is None else np.array(held), kind="stable")
    first = found[:, rarest_first].argmax(1) if found.shape[1] else np.zeros(len(labels), np.int64)
    of_row = np.where(found.any(1), rarest_first[first], found.shape[1]) if found.shape[1] else first
    return np.where(there, of_row, -1).astype(np.int32)


def num_strata(task: TaskName, width: int) -> int:
    """`width`: of the names of the space."""
    return {"classification": width, "multilabel": width + 1, "regression": 1, "detection": width + 1}[task]


def per_name(labels: NDArray[Any], width: int, task: TaskName | None = None) -> NDArray[np.int64]:
    """How many rows are of each class, have each number, or a box of each class, i64 `[width]`."""
    if labels.ndim == 1:
        return np.bincount(labels[labels >= 0], minlength=width)
    if task == "detection":
        return np.asarray(classes_in(labels, width).sum(0), np.int64)
    found: NDArray[np.int64] = (is_known(labels) if labels.dtype.kind == "f" else labels == 1).sum(0)
    return found


def classes_in(labels: NDArray[Any], width: int | None = None) -> NDArray[np.bool_]:
    """Of which classes each row has a box that counts, bool `[rows, width]`; None: as many classes as are met."""
    each = labels_of(labels)
    row, box = np.nonzero((each[..., CLASS] >= 0) & (each[..., SCORE] > 0))
    numbers = each[row, box, CLASS].astype(np.int64)
    found = np.zeros((len(labels), width if width is not None else int(numbers.max(initial=-1)) + 1), bool)
    found[row, numbers] = True
    return found


def in_classes(labels: NDArray[Any], places: Sequence[int], width: int, task: TaskName) -> NDArray[Any]:
    """Labels for who learns `width` classes or numbers; `places`: where each of all stands among these, -1: nowhere.

    A row of one class that is nowhere has no label; a box of one is not there.
    """
    if labels.ndim == 1:
        mine: NDArray[Any] = np.array([*places, -1], np.int32)[labels]
        return mine
    if task != "detection":
        found: NDArray[Any] = labels[:, [[*places].index(place) for place in range(width)]]
        return found
    out = labels.copy()
    numbers = labels_of(out)[..., CLASS]
    there = numbers >= 0
    numbers[there] = np.array(places, np.float32)[numbers[there].astype(np.int64)]
    return out
