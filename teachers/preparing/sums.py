"""Sums of numbers that come part by part, to the last bit those that NumPy has of one array. Knows nothing of what they are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2**20
"""NumPy halves an array until few numbers are left; halves of at most so many are left to itself."""
EVEN = 8
"""It halves at multiples of so many."""


def summed(parts: Iterator[NDArray[np.float64]], count: int) -> Any:
    """Of `count` numbers in all."""
    return _summed(_Ahead(parts), count)


def _summed(ahead: "_Ahead", count: int) -> Any:
    if count <= AT_ONCE:
        return np.add.reduce(ahead.next(count))
    half = count // 2 - count // 2 % EVEN
    return _summed(ahead, half) + _summed(ahead, count - half)


class _Ahead:
    """Numbers that are handed out in their order."""

    def __init__(self, parts: Iterator[NDArray[np.float64]]) -> None:
        self.parts, self.left = parts, np.zeros(0)

    def next(self, count: int) -> NDArray[np.float64]:
        found, held = [self.left], len(self.left)
        while held < count:
            found.append(next(self.parts))
            held += len(found[-1])
        whole = np.concatenate(found)
        self.left = whole[count:]
        return whole[:count]
