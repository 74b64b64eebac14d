"""What numbers are judged by: f32[N, D] in the units of each column, NaN where nobody knows one.

Of one column figures are in its units. Of several, whose units differ, RMSE and MAE are of errors divided by the standard
deviation of the column's training labels (RMSE: the root of the mean over columns of squared ones), R2 and Spearman are
means over columns. A column without a known row counts nowhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from teachers.tasks.space import Space

from .meter import RowMeter, mean
from .ranking import spearman

Column = Callable[[Tensor, Tensor, Tensor | None], float | None]
"""(said, labels, weights), f64 of the rows where the label is known, to a figure of one column."""


def _rmse(said: Tensor, labels: Tensor, weights: Tensor | None) -> float | None:
    squared = mean((said - labels) ** 2, weights)
    return None if squared is None else math.sqrt(squared)


def _mae(said: Tensor, labels: Tensor, weights: Tensor | None) -> float | None:
    return mean((said - labels).abs(), weights)


def _r2(said: Tensor, labels: Tensor, weights: Tensor | None) -> float | None:
    """Share of the labels' variance that is explained; None where they have none."""
    centre = mean(labels, weights)
    if centre is None:
        return None
    missed, spread = (mean((each - labels) ** 2, weights) for each in (said, torch.full_like(labels, centre)))
    return 1 - missed / spread if missed is not None and spread else None


def _spearman(said: Tensor, labels: Tensor, weights: Tensor | None) -> float | None:
    return spearman(said.float(), labels.float(), weights)  # they were of single precision, which sorts faster


COLUMN: dict[str, Column] = {"rmse": _rmse, "mae": _mae, "r2": _r2, "spearman": _spearman}


def _known(said: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    known = ~(labels.isnan() | said.isnan())
    if known.all():
        return said.double(), labels.double(), None
    return said[known].double(), labels[known].double(), known


class ValuesMeter(RowMeter):
    """Keeps what is said and what is so."""

    def __init__(self, space: Space, thresholds: Sequence[float] | None = None) -> None:
        super().__init__("regression")
        self.width = space.width
        self.scale = scale_of(space).tolist()
        self._made: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.empty(0, self.width), torch.empty(0, self.width)

    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        judged = ~(labels.isnan() | said.isnan()).all(1)
        return {"said": said[judged].float(), "label": labels[judged].float()}

    def join(self, parts: Mapping[str, Tensor]) -> None:
        self._made = []
        super().join(parts)

    def by_column(self, of: Column, weights: Tensor | None = None) -> list[float | None]:
        """In the units of each column; None for one of which no row is known."""
        return [
            of(said, labels, weights if weights is None or known is None else weights[known])
            for said, labels, known in self._columns()
        ]

    def _columns(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Of each what is said and so, f64, and of which rows (None: all): made once for all figures and weightings."""
        if not self._made:
            parts = self.parts()
            self._made = [_known(*each) for each in zip(parts["said"].unbind(1), parts["label"].unbind(1), strict=True)]
        return self._made

    def over_columns(self, of: Column, weights: Tensor | None = None) -> float | None:
        """The mean of those that are defined."""
        return mean_of_known(self.by_column(of, weights))

    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        of = COLUMN[key]
        if of not in (_rmse, _mae):
            return self.over_columns(of, weights)
        columns = zip(self.by_column(of, weights), self.scale, strict=True)
        scaled = [each / scale for each, scale in columns if each is not None]
        if len(scaled) < 2:
            return scaled[0] if scaled else None
        return math.sqrt(fmean(each**2 for each in scaled)) if of is _rmse else fmean(scaled)


def mean_of_known(found: Sequence[float | None]) -> float | None:
    defined = [each for each in found if each is not None]
    return fmean(defined) if defined else None


def scale_of(space: Space) -> Tensor:
    """What errors are divided by, f64[D]: nothing where there is one column, or no scale is known."""
    return torch.tensor(space.scale if space.width > 1 and space.scale else [1.0] * space.width, dtype=torch.float64)
