"""What an encoding is, to a store and to who makes one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Field:
    """One column `<output>.<name>`: `shape` and `dtype` of a row."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Encoding:
    output: str
    """What the columns are named after."""
    fields: Callable[[int], tuple[Field, ...]]
    """The columns, for so many classes or numbers."""
    encode: Callable[[Tensor], dict[str, Tensor]]
    """What is said, float32 [rows, width], to {field: [rows, *shape]}: finite, NaN of what is unknown (of one class of many in
    whole rows)."""
    decode: Callable[[Mapping[str, Tensor], int, float], Tensor]
    """({field: [rows, *shape]}, width, probability_floor) to float32 [rows, width], on the fields' device."""
