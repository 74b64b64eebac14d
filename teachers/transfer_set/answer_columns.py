"""What is said of rows, and their labels, as columns for people: by the kind of answer. Knows nothing of stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.task import AnswerName
from ..tasks.boxes import BOX, CLASS, LABEL, boxes_of, labels_of

if TYPE_CHECKING:
    from torch import Tensor

Names = Sequence[str]


@dataclass(frozen=True)
class AnswerColumns:
    """`label`, `said`: the types for these names; `labels`, `answers`: the columns themselves, the latter by what follows the
    teacher's name. `sure`: whether more than the class is kept."""

    label: Callable[[Names], pa.DataType]
    labels: Callable[[NDArray[Any], Names], pa.Array]
    said: Callable[[Names, bool], Mapping[str, pa.DataType]]
    answers: Callable[["Tensor", Names, bool], Mapping[str, pa.Array]]


def _numbers(names: Names) -> pa.DataType:
    return pa.struct([pa.field(each, pa.float32()) for each in names])


def _struct(columns: NDArray[Any], names: Names) -> pa.Array:
    """Null where a number is NaN: unknown."""
    each = [pa.array(np.ascontiguousarray(column), mask=np.isnan(column)) for column in columns.T]
    return pa.StructArray.from_arrays(each, fields=list(_numbers(names)))


def _lists(values: NDArray[Any]) -> pa.Array:
    """Null where it is NaN: unknown."""
    ends, flat = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], values.reshape(-1)
    return pa.ListArray.from_arrays(ends, pa.array(flat, mask=np.isnan(flat)))


def _held(holds: NDArray[np.bool_], names: Names) -> pa.Array:
    """Names of those that hold, row by row."""
    ends = np.concatenate([[0], holds.sum(1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(names, pa.string()).take(pa.array(np.nonzero(holds)[1])))


def _class_labels(labels: NDArray[Any], names: Names) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(labels, mask=labels < 0))


def _class_types(names: Names, sure: bool) -> Mapping[str, pa.DataType]:
    more = {"probabilities": _numbers(names), "logits": pa.list_(pa.float32())} if sure else {}
    return {"class": pa.string()} | more


def _class_answers(logits: "Tensor", names: Names, sure: bool) -> Mapping[str, pa.Array]:
    unknown = logits[:, 0].isnan().numpy()
    said = {"class": pa.array(names, pa.string()).take(pa.array(logits.argmax(1).numpy(), mask=unknown))}
    if sure:
        said |= {"probabilities": _struct(logits.softmax(1).numpy(), names), "logits": _lists(logits.numpy())}
    return said


def _set_labels(labels: NDArray[Any], names: Names) -> pa.Array:
    return _null_where(np.asarray((labels < 0).all(1)), _held(labels == 1, names))


def _null_where(unknown: NDArray[Any], lists: pa.Array) -> pa.Array:
    return lists.take(pa.array(np.arange(len(lists)), mask=unknown)) if unknown.any() else lists


def _set_types(names: Names, sure: bool) -> Mapping[str, pa.DataType]:
    return {**_class_types(names, sure), "class": pa.list_(pa.string())}


def _set_answers(logits: "Tensor", names: Names, sure: bool) -> Mapping[str, pa.Array]:
    said = {"class": _null_where(logits.isnan().all(1).numpy(), _held((logits > 0).numpy(), names))}
    if sure:
        said |= {"probabilities": _struct(logits.sigmoid().numpy(), names), "logits": _lists(logits.numpy())}
    return said


CORNERS = ("x1", "y1", "x2", "y2")


def box_type(more: Names) -> pa.DataType:
    """A list of boxes, whose corners are in 0 to 1 of the image."""
    numbers = [pa.field(name, pa.float32()) for name in (*CORNERS, *more)]
    return pa.list_(pa.struct([*numbers, pa.field("class", pa.string())]))


def box_lists(boxes: NDArray[Any], columns: Mapping[str, int], names: Names) -> pa.Array:
    """Boxes `[rows, M, k]` as lists of those that there are, with these of the k numbers; null where all is NaN."""
    there = boxes[..., CLASS] >= 0
    ends = np.concatenate([[0], there.sum(1).cumsum()]).astype(np.int32)
    found = boxes[there]
    fields = [pa.array(found[:, at], pa.float32()) for at in columns.values()]
    of_class = pa.array(names, pa.string()).take(pa.array(found[:, CLASS].astype(np.int64)))
    inner = pa.StructArray.from_arrays([*fields, of_class], [*columns, "class"])
    return _null_where(np.isnan(boxes[..., CLASS]).all(1), pa.ListArray.from_arrays(ends, inner))


def _box_labels(labels: NDArray[Any], names: Names) -> pa.Array:
    columns = {name: at for at, name in enumerate(LABEL) if name in (*CORNERS, "height", "width")}
    return box_lists(labels_of(labels), columns, names)


def _box_answers(said: "Tensor", names: Names) -> pa.Array:
    return box_lists(boxes_of(said.numpy()), {name: at for at, name in enumerate(BOX[:CLASS])}, names)


ANSWER_COLUMNS: dict[AnswerName, AnswerColumns] = {
    "class_axis": AnswerColumns(lambda names: pa.string(), _class_labels, _class_types, _class_answers),
    "class_set": AnswerColumns(lambda names: pa.list_(pa.string()), _set_labels, _set_types, _set_answers),
    "values": AnswerColumns(
        _numbers,
        _struct,
        lambda names, sure: {"value": _numbers(names)},
        lambda values, names, sure: {"value": _struct(values.numpy(), names)},
    ),
    "boxes": AnswerColumns(
        lambda names: box_type(("height", "width")),
        _box_labels,
        lambda names, sure: {"boxes": box_type(("score",))},
        lambda said, names, sure: {"boxes": _box_answers(said, names)},
    ),
}
