"""A column of encoded images as the reader of epochs takes it: rows of decoded pixels, which are decoded when they are copied."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..rows.rows import Rows
from .columns import Column
from .decoding import decoded


class EncodedRows(Rows):
    """Rows that lie one after another in Arrow arrays of bytes.

    `order`, integers `[num_rows]`: where each row lies in these; None: as they come. To whoever reads it is a column of u8
    `[num_rows, H, W, C]`; `nbytes` are of that, which is what holding it takes.
    """

    def __init__(self, held: Sequence[pa.Array], column: Column, order: np.ndarray | None = None) -> None:
        self.held, self.column, self.order = tuple(held), column, order
        self.starts = np.cumsum([0, *(len(part) for part in held)])
        self.num_rows = int(self.starts[-1]) if order is None else len(order)
        self.shape, self.dtype = column.shape, torch.uint8
        self.nbytes = self.num_rows * column.bytes_per_row

    def copy(self, first_row: int, out: Tensor) -> None:
        """Decode len(out) consecutive rows into `out` u8 `[rows, H, W, C]`, on the CPU."""
        self.gather(np.arange(first_row, first_row + len(out)), out)

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        """Decode the rows with these numbers into `out` u8 `[n, H, W, C]`, on the CPU."""
        places = rows if self.order is None else self.order[rows]
        parts = np.searchsorted(self.starts, places, side="right") - 1
        payloads = [self.held[part][int(at)] for part, at in zip(parts, places - self.starts[parts], strict=True)]
        decoded(payloads, self.shape, self.column.resize, out.numpy())

    @classmethod
    def merged(cls, columns: Sequence["EncodedRows"], order: np.ndarray) -> "EncodedRows":
        """Of columns laid one after another, in an order of all of them."""
        return cls([part for column in columns for part in column.held], columns[0].column, order)
