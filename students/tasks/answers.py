"""What a model's answers are for people: columns of a table, by what is said. Knows nothing of files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.tasks.boxes import CLASS, SCORE, boxes_of
from teachers.tasks.space import Space

from .class_set import THRESHOLD

SEPARATOR = ";"
"""Between two classes that both hold."""
SCORE_FROM = 0.5
"""From which on a box is said of whose class validation tells nothing."""
Columns = list[NDArray[Any]]


@dataclass(frozen=True)
class Answer:
    fields: tuple[tuple[str, pa.DataType], ...]
    """Columns that are there whatever is learnt."""
    of_names: bool
    """Whether each class or number has a column of its own: always; else where probabilities are asked for."""
    columns: Callable[[Tensor, Space, Sequence[float] | None], tuple[Columns, NDArray[np.float32]]]
    """(said, space, thresholds) to (values of `fields`, those of the names f32[rows, width])."""


def _of_one_class(
    said: Tensor, space: Space, thresholds: Sequence[float] | None
) -> tuple[Columns, NDArray[np.float32]]:
    """The class, and its probability."""
    p = torch.softmax(said, dim=-1).numpy()
    best = np.nan_to_num(p).argmax(axis=1)
    return [np.array(space.names, dtype=object)[best], p[np.arange(len(p)), best]], p


def _of_classes(said: Tensor, space: Space, thresholds: Sequence[float] | None) -> tuple[Columns, NDArray[np.float32]]:
    """Those whose probability reaches their threshold, by a semicolon; empty where none does."""
    p = said.double().sigmoid().numpy()
    holds = p >= np.array(thresholds or [THRESHOLD] * space.width)
    names = np.array(space.names, dtype=object)
    # a list a row at once: rows of one pattern have one text
    patterns, which = np.unique(holds, axis=0, return_inverse=True)
    texts = np.array([SEPARATOR.join(names[pattern]) for pattern in patterns], dtype=object)
    return [texts[which.reshape(-1)] if len(texts) else np.empty(0, object)], p.astype(np.float32)


def _of_numbers(said: Tensor, space: Space, thresholds: Sequence[float] | None) -> tuple[Columns, NDArray[np.float32]]:
    """In the units of the label."""
    return [], said.float().numpy()


def _of_boxes(said: Tensor, space: Space, thresholds: Sequence[float] | None) -> tuple[Columns, NDArray[np.float32]]:
    """Those whose score reaches the threshold of their class (0.5 without one), the best first: corners in 0 to 1 of the image, class
    and score, a list each."""
    each = boxes_of(said.float().numpy())
    at = np.array(thresholds or [SCORE_FROM] * len(space.names))
    number = each[..., CLASS].astype(np.int64)
    is_said = (number >= 0) & (each[..., SCORE] >= at[number])
    names = np.array(space.names, dtype=object)
    found: list[list[Any]] = [[], [], []]
    for row, some in zip(each, is_said, strict=True):
        mine = row[some]
        told = mine[:, :SCORE].tolist(), names[mine[:, CLASS].astype(np.int64)].tolist(), mine[:, SCORE].tolist()
        for column, value in zip(found, told, strict=True):
            column.append(value)
    return [_objects(column) for column in found], np.zeros((len(each), 0), np.float32)


def _objects(values: list[Any]) -> NDArray[Any]:
    """One list a row, of whatever lengths."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


ANSWERS: dict[AnswerName, Answer] = {
    "class_axis": Answer((("class", pa.string()), ("probability", pa.float32())), False, _of_one_class),
    "class_set": Answer((("classes", pa.string()),), False, _of_classes),
    "values": Answer((), True, _of_numbers),
    "boxes": Answer(
        (
            ("boxes", pa.list_(pa.list_(pa.float32()))),
            ("classes", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
        ),
        False,
        _of_boxes,
    ),
}
