"""Mean and standard deviation of columns, part by part: exact until the last rounding, so how rows are cut decides nothing.

A value of float32 is a whole number of 2^-149, its square of 2^-298; sums of these are kept as whole numbers. A transfer
set that grew and one that was made at once have the same figures to the last bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transfer_set.transfer_set import Kind

BLOCK = 2**20
"""Values that are widened at once."""
SMALLEST = 149
"""float32 knows nothing below 2^-149."""
EXACT = 53
"""Bits of a whole number that float64 holds."""


@dataclass(frozen=True)
class Moments:
    """Of one column of one part, per channel or feature: the sum of values in 2^-149, of their squares in 2^-298."""

    count: int
    total: tuple[int, ...]
    squares: tuple[int, ...]
    scale: int
    """What a value is divided by: 255 of images."""


def moments(values: NDArray[Any], kind: Kind) -> Moments:
    """Of u8 [rows, H, W, C] per channel, as value / 255; of f32 [rows, F] per feature."""
    flat = values.reshape(-1, values.shape[-1])
    step = max(1, BLOCK // flat.shape[1])
    total, squares = [0] * flat.shape[1], [0] * flat.shape[1]
    for at in range(0, len(flat), step):
        block = flat[at : at + step].astype(np.float64)
        squares = _added(squares, exact_sums(block * block, 2 * SMALLEST))
        total = _added(total, exact_sums(block, SMALLEST))
    return Moments(len(flat), tuple(total), tuple(squares), 255 if kind == "image" else 1)


def exact_sums(block: NDArray[np.float64], smallest: int) -> list[int]:
    """Of each column of `block` [rows, F], whole numbers of 2^-smallest: digit by digit, beginning with the largest.

    A digit has as many bits as float64 can add up exactly, whatever the order. `block` is used up.
    """
    sums, bits = [0] * block.shape[1], EXACT - len(block).bit_length()
    while (largest := np.maximum(block.max(axis=0), -block.min(axis=0))).any():
        exponent = np.maximum(np.frexp(largest)[1] - bits, -smallest)
        digit = block * np.ldexp(1.0, -exponent)
        np.trunc(digit, out=digit)
        found = zip(sums, digit.sum(axis=0).tolist(), (exponent + smallest).tolist(), strict=True)
        sums = [before + (int(more) << places) for before, more, places in found]
        digit *= np.ldexp(1.0, exponent)
        block -= digit
    return sums


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def mean_and_std(parts: Sequence[Moments]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel or feature, to 12 digits; std of a constant is 1."""
    count, scale = sum(part.count for part in parts), parts[0].scale
    figures = [
        _mean_and_std(count, scale, sum(part.total[at] for part in parts), sum(part.squares[at] for part in parts))
        for at in range(len(parts[0].total))
    ]
    return tuple(mean for mean, _ in figures), tuple(std for _, std in figures)


def _mean_and_std(count: int, scale: int, total: int, squares: int) -> tuple[float, float]:
    mean = Fraction(total, count * scale) / 2**SMALLEST
    variance = Fraction(squares * count - total**2, (count * scale) ** 2) / 4**SMALLEST
    std = math.sqrt(variance)
    return float(f"{float(mean):.12g}"), float(f"{std if std > 1e-9 * abs(mean) else 1.0:.12g}")
