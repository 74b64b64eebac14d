"""Mean and standard deviation of columns, part by part: exact until the last rounding, so how rows are cut decides nothing.

A finite float is a whole number times a power of two; sums are kept as whole numbers. A transfer set that grew and one
that was made at once have the same figures to the last bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transfer_set.columns import MISSING, UNKNOWN, Column
from ..transfer_set.decoding import decoded

DECODED_BYTES = 64 * 2**20
"""Of encoded images, at once."""
BLOCK = 2**15
"""Values that are widened at once: a processor's own memory holds them."""
SMALLEST = 700
"""Sums are whole numbers of 2^-700: all of float32 and of its squares; what of float64 is smaller counts as 0."""
EXACT = 53
"""Bits of a whole number that float64 holds."""
LOW = 27
"""Bits of a value that are squared apart, so that no bit that matters is lost."""
CONSTANT = 1e-12
"""Of the mean: a smaller standard deviation is rounding, and beyond the digits to which the mean is known."""


@dataclass(frozen=True)
class Moments:
    """Of one column of one part, per channel, feature or category: sums of values and of their squares, in 2^-SMALLEST."""

    count: int
    total: tuple[int, ...]
    squares: tuple[int, ...]
    scale: int
    """What a value is divided by: 255 of images."""
    missing: tuple[int, ...] = ()
    """Values that are not there and take no part; empty where none can lack."""
    unknown: tuple[int, ...] = ()
    """Of categories: values that have no code of their own."""


def moments(values: NDArray[Any], column: Column) -> Moments:
    """Of u8 [rows, H, W, C] per channel, as value / 255; of f32 or f64 [rows, F] per feature; of codes only what lacks,
    of text how many are empty. Of encoded images, `bytes` [rows], as of their pixels."""
    if column.encoded and values.dtype == object:
        return _of_encoded(values, column)
    if column.kind == "text":
        return Moments(len(values), (), (), 1, (int((values == "").sum()),))
    flat = values.reshape(-1, values.shape[-1])
    if column.kind == "category":
        lack, unknown = ((flat == code).sum(axis=0).tolist() for code in (MISSING, UNKNOWN))
        return Moments(len(flat), (), (), 1, tuple(lack), tuple(unknown))
    step = max(1, BLOCK // flat.shape[1])
    total, squares, missing = [0] * flat.shape[1], [0] * flat.shape[1], [0] * bool(column.missing) * flat.shape[1]
    for at in range(0, len(flat), step):
        block = flat[at : at + step].astype(np.float64)
        if column.missing:
            is_none = np.isnan(block)
            missing = _added(missing, is_none.sum(axis=0).tolist())
            block[is_none] = 0
        for part in square_parts(block):
            squares = _added(squares, exact_sums(part))
        total = _added(total, exact_sums(block))
    return Moments(len(flat), tuple(total), tuple(squares), 255 if column.kind == "image" else 1, tuple(missing))


def _of_encoded(values: NDArray[Any], column: Column) -> Moments:
    """Some at a time, which decides nothing."""
    count, none = 0, [0] * column.shape[-1]
    total, squares = none, none
    step = max(1, DECODED_BYTES // column.bytes_per_row)
    for at in range(0, len(values), step):
        found = moments(decoded(values[at : at + step], column.shape, column.resize), column)
        count, total, squares = count + found.count, _added(total, found.total), _added(squares, found.squares)
    return Moments(count, tuple(total), tuple(squares), 255)


def square_parts(block: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """What adds up to the square of each value: of (high + low)^2 the three products, none of which is rounded above 2^-105."""
    high = (block.view(np.int64) & ~((1 << LOW) - 1)).view(np.float64)
    low = block - high
    return [high * high, 2 * high * low, low * low] if low.any() else [block * block]


def exact_sums(block: NDArray[np.float64]) -> list[int]:
    """Of each column of `block` [rows, F], finite, in 2^-SMALLEST: digit by digit, beginning with the largest.

    A digit has as many bits as float64 can add up exactly, whatever the order. `block` is used up.
    """
    sums, bits = [0] * block.shape[1], EXACT - len(block).bit_length()
    while (largest := np.maximum(block.max(axis=0), -block.min(axis=0))).any():
        exponent = np.maximum(np.frexp(largest)[1] - bits, -SMALLEST)
        digit = block * np.ldexp(1.0, -exponent)
        np.trunc(digit, out=digit)
        found = zip(sums, digit.sum(axis=0).tolist(), (exponent + SMALLEST).tolist(), strict=True)
        sums = [before + (int(more) << places) for before, more, places in found]
        digit *= np.ldexp(1.0, exponent)
        block -= digit
        block[:, exponent == -SMALLEST] = 0
    return sums


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def mean_and_std(parts: Sequence[Moments]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel or feature, to 12 digits, of the values that are there; std of a constant is 1.

    A mean that is many times the std has as many digits more: what is left of a value without it has 12 then.
    """
    count, scale, lack = sum(part.count for part in parts), parts[0].scale, lacking(parts)
    figures = [
        _mean_and_std(
            count - (lack[at] if lack else 0),
            scale,
            sum(part.total[at] for part in parts),
            sum(part.squares[at] for part in parts),
        )
        for at in range(len(parts[0].total))
    ]
    return tuple(mean for mean, _ in figures), tuple(std for _, std in figures)


def lacking(parts: Sequence[Moments]) -> tuple[int, ...]:
    """Values that are not there, per feature or category; empty where none can lack."""
    return tuple(map(sum, zip(*(part.missing for part in parts), strict=True)))


def unknown(parts: Sequence[Moments]) -> tuple[int, ...]:
    """Values without a code of their own, per category; empty of others."""
    return tuple(map(sum, zip(*(part.unknown for part in parts), strict=True)))


def _mean_and_std(count: int, scale: int, total: int, squares: int) -> tuple[float, float]:
    if not count:
        return 0.0, 1.0
    exact = Fraction(total, count * scale << SMALLEST)
    variance = Fraction(squares, count * scale**2 << SMALLEST) - exact**2
    mean, std = float(exact), math.sqrt(max(variance, Fraction(0)))
    std = std if std > CONSTANT * abs(mean) else 1.0
    digits = 12 + int(math.log10(max(abs(mean) / std, 1.0)))
    return float(f"{mean:.{min(digits, 17)}g}"), float(f"{std:.12g}")
