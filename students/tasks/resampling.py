"""How a figure would be on other rows: bootstrap of rows, or of groups of rows (Efron, 1979)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only tells of a gain needs no torch
    from torch import Tensor

    from .task import Meter

REPLICATES = 200
"""A standard deviation of so many is 5 % wrong, which no verdict hangs on."""
FEWEST = 50
ELEMENTS = 50_000_000
"""Rows x replicates of one model, beyond which there are fewer replicates."""


def resampled(meter: "Meter", key: str, groups: NDArray[np.uint64] | None = None) -> NDArray[np.float64]:
    """The figure `key` under weights of rows drawn anew, f64[replicates]; NaN where it is not defined.

    The same rows and groups give the same draws, so that differences between models are paired.
    """
    rows = len(next(iter(meter.parts().values())))
    values = [meter.figures(weights, (key,))[key] for weights in draws(rows, groups)]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def draws(rows: int, groups: NDArray[np.uint64] | None = None) -> Iterator["Tensor"]:
    """How often each row is there, i64[rows] a replicate: as many units as there are, drawn with replacement."""
    import torch

    members = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(members.max()) + 1 if rows else 0
    numbers = np.random.Generator(np.random.Philox(0))
    for _ in range(num_replicates(rows)):
        counts = np.bincount(numbers.integers(0, units, units), minlength=units) if units else np.zeros(0, np.int64)
        yield torch.from_numpy(counts[members])


def num_replicates(rows: int) -> int:
    return max(FEWEST, min(REPLICATES, ELEMENTS // max(rows, 1)))


def variance(replicates: NDArray[np.float64], units: int) -> float:
    """Of a figure, or of a difference of two, from its replicates; where it is not defined it is left out."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) < 2 or units < 2:
        return float("nan")
    return float(defined.var(ddof=1)) * units / (units - 1)
