"""Mean and standard deviation of columns, part by part, always to the same digits.

Images are summed in integers, so exactly; numbers in float64 about a value of their own (Chan et al., 1983).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transfer_set.transfer_set import Kind

BLOCK = 2**20
"""Values that are widened at once."""
CONSTANT = 1e-12
"""Of the mean: a smaller standard deviation is rounding, and beyond the digits to which the mean is known."""


@dataclass(frozen=True)
class Moments:
    """Of one column of one part: `mean` [C] and `squares` [C], the sum of squared distances from it."""

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]


def moments(values: NDArray[Any], kind: Kind) -> Moments:
    """Of u8 [rows, H, W, C] per channel, as value / 255; of f32 or f64 [rows, F] per feature."""
    flat = values.reshape(-1, values.shape[-1])
    step = max(1, BLOCK // flat.shape[1])
    blocks = (flat[at : at + step].astype(np.float64) for at in range(0, len(flat), step))
    origin = np.zeros(flat.shape[1]) if kind == "image" else flat[0].astype(np.float64)
    total, squares = np.zeros(flat.shape[1]), np.zeros(flat.shape[1])
    for block in blocks:  # sums of integers below 2^53 are exact in float64, in any order
        away = block - origin
        total += away.sum(axis=0)
        squares += np.einsum("nc,nc->c", away, away)
    scale = 255.0 if kind == "image" else 1.0
    mean = total / len(flat)
    return Moments(len(flat), (origin + mean) / scale, np.maximum(squares - total * mean, 0.0) / scale**2)


def merged(parts: Sequence[Moments]) -> Moments:
    """Of all parts together, in their order."""
    count, mean, squares = parts[0].count, parts[0].mean, parts[0].squares
    for part in parts[1:]:
        away, total = part.mean - mean, count + part.count
        mean = mean + away * part.count / total
        squares = squares + part.squares + away**2 * count * part.count / total
        count = total
    return Moments(count, mean, squares)


def mean_and_std(parts: Sequence[Moments]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel or feature, to 12 digits (what a machine's order of summing cannot reach); std of a constant is 1.

    A mean that is many times the std has as many digits more: what is left of a value without it has 12 then.
    """
    whole = merged(parts)
    std = np.sqrt(whole.squares / whole.count)
    std = np.where(std > CONSTANT * np.abs(whole.mean), std, 1.0)
    more = np.floor(np.log10(np.maximum(np.abs(whole.mean) / std, 1.0))).astype(int)
    mean = tuple(float(f"{value:.{min(12 + n, 17)}g}") for value, n in zip(whole.mean, more, strict=True))
    return mean, tuple(float(f"{value:.12g}") for value in std)
