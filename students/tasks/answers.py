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
from teachers.tasks.space import Space

from .class_set import THRESHOLD

SEPARATOR = ";"
"""Between two classes that both hold."""
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


ANSWERS: dict[AnswerName, Answer] = {
    "class_axis": Answer((("class", pa.string()), ("probability", pa.float32())), False, _of_one_class),
    "class_set": Answer((("classes", pa.string()),), False, _of_classes),
    "values": Answer((), True, _of_numbers),
}
