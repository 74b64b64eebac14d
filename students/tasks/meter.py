"""What the meters of all tasks share: they keep a few numbers a judged row, and work out figures when they are asked."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from teachers.config.task import TaskName

from .figure import FIGURES
from .task import Document

ROWS_AT_ONCE = 1 << 16
"""Of what is said; no figure depends on it."""


class RowMeter(ABC):
    """A `Meter` of rows. A task says what it keeps of a row, and what its figures make of that."""

    def __init__(self, task: TaskName) -> None:
        self._keys = [each.key for each in FIGURES[task]]
        self._chunks: list[dict[str, Tensor]] = []

    def update(self, said: Tensor, labels: Tensor) -> None:
        for first in range(0, max(len(labels), 1), ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            self.join(self._kept(said[some].detach(), labels[some]))

    def join(self, parts: Mapping[str, Tensor]) -> None:
        self._chunks.append({name: values.cpu() for name, values in parts.items()})

    def parts(self) -> dict[str, Tensor]:
        if not self._chunks:
            self.update(*self._nothing())
        if len(self._chunks) > 1:
            self._chunks = [{name: torch.cat([each[name] for each in self._chunks]) for name in self._chunks[0]}]
        return dict(self._chunks[0])

    def figures(
        self, row_weights: Tensor | None = None, keys: Collection[str] | None = None
    ) -> dict[str, float | None]:
        weights = None if row_weights is None else row_weights.double()
        return {key: self._figure(key, weights) for key in self._keys if keys is None or key in keys}

    def details(self) -> Document:
        return {}

    @abstractmethod
    def _nothing(self) -> tuple[Tensor, Tensor]:
        """What is said of no row, and its labels."""

    @abstractmethod
    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Of the rows with a label, some numbers each."""

    @abstractmethod
    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        """`weights` f64 by judged row; None: one each."""


def mean(values: Tensor, weights: Tensor | None) -> float | None:
    """Of f64 by row; None without a row."""
    if weights is None:
        return float(values.mean()) if len(values) else None
    rows = weights.sum()
    return float((weights * values).sum() / rows) if rows else None
