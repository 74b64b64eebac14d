"""Columns whose rows lie in mapped Arrow files. Knows nothing of what they mean or of the order of use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from .buffers import empty


def map_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of an Arrow IPC file with one record batch, as read-only views of the mapped file: {name: [rows, ...]}.

    Fixed-size lists come as [rows, size]. The file may be unlinked while it is mapped, but must not be written to.
    """
    with pa.memory_map(str(path)) as source:  # the views keep the mapping, and closing gives the descriptor back
        batch = pa.ipc.open_file(source).get_batch(0)
    return {name: view_column(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def view_column(column: pa.Array) -> np.ndarray:
    """A column without nulls as a view of its buffer: [rows], or [rows, size] of fixed-size lists."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=True)  # type: ignore[no-any-return]
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(column), column.type.list_size)


class Rows:
    """One column whose rows lie one after another in parts, arrays [n_i, *shape] of one dtype, usually mapped files."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        if len({(part.shape[1:], part.dtype) for part in parts}) != 1:
            raise ValueError(f"parts of one shape and dtype expected, found {[(p.shape, p.dtype) for p in parts]}")
        self.parts = tuple(np.ascontiguousarray(part) for part in parts)
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self.num_rows = int(self.starts[-1])
        self.shape: tuple[int, ...] = self.parts[0].shape[1:]
        self.dtype = torch.from_numpy(np.empty(0, self.parts[0].dtype)).dtype
        self.nbytes = sum(part.nbytes for part in self.parts)

    def owned(self) -> Tensor:
        """All rows in one contiguous buffer of their own, [num_rows, *shape]."""
        out = empty(self.num_rows, self.shape, self.dtype)
        self.copy(0, out)
        return out

    def copy(self, first_row: int, out: Tensor) -> None:
        """Copy len(out) consecutive rows into `out` [rows, *shape], on the CPU."""
        target = out.numpy()
        last_row = first_row + len(target)
        for number in range(self._part_of(first_row), len(self.parts)):
            start, stop = int(self.starts[number]), int(self.starts[number + 1])
            if start >= last_row:
                break
            begin, end = max(first_row, start), min(last_row, stop)
            np.copyto(target[begin - first_row : end - first_row], self.parts[number][begin - start : end - start])

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        """Copy the rows with these numbers, ascending i64 [n], into `out` [n, *shape], on the CPU."""
        target = _as_items(out.numpy())
        bounds = np.searchsorted(rows, self.starts)
        for number, part in enumerate(self.parts):
            begin, end = int(bounds[number]), int(bounds[number + 1])
            if begin < end:
                index = rows[begin:end] - self.starts[number]
                np.take(_as_items(part), index, axis=0, out=target[begin:end], mode="clip")

    def _part_of(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1


class Merged(Rows):
    """One column whose rows lie in several columns, each in an order of its own, and are used in the order of them all.

    `order`, integers [num_rows]: where each row lies in the columns laid one after another; ascending in each column, so
    any window of rows reads every column from front to back.
    """

    def __init__(self, columns: Sequence[Rows], order: np.ndarray) -> None:
        super().__init__([part for column in columns for part in column.parts])
        self.order = order
        self.bounds = np.cumsum([0, *(column.num_rows for column in columns)])

    def copy(self, first_row: int, out: Tensor) -> None:
        self._take(self.order[first_row : first_row + len(out)], out)

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        self._take(self.order[rows], out)

    def _take(self, places: np.ndarray, out: Tensor) -> None:
        target = _as_items(out.numpy())
        for first, last in pairwise(self.bounds.tolist()):
            mine = np.flatnonzero((places >= first) & (places < last))
            there = places[mine]
            for number in range(*self._parts_between(there)):
                start, stop = int(self.starts[number]), int(self.starts[number + 1])
                begin, end = np.searchsorted(there, [start, stop]).tolist()
                target[mine[begin:end]] = _some(_as_items(self.parts[number]), there[begin:end] - start)

    def _parts_between(self, ascending: np.ndarray) -> tuple[int, int]:
        return (self._part_of(ascending[0]), self._part_of(ascending[-1]) + 1) if len(ascending) else (0, 0)


def _some(items: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The items at ascending places; consecutive ones without a copy."""
    consecutive = len(index) and index[-1] - index[0] == len(index) - 1
    some: np.ndarray = items[index[0] : index[-1] + 1] if consecutive else items[index]
    return some


class Chosen(Rows):
    """The rows of a column with these numbers, ascending i64 [n], where they lie: nothing is copied before it is asked for."""

    def __init__(self, rows: Rows, numbers: np.ndarray) -> None:
        self.rows, self.numbers = rows, numbers
        self.num_rows, self.shape, self.dtype = len(numbers), rows.shape, rows.dtype
        self.nbytes = rows.nbytes // max(rows.num_rows, 1) * len(numbers)

    def copy(self, first_row: int, out: Tensor) -> None:
        self._take(self.numbers[first_row : first_row + len(out)], out)

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        self._take(self.numbers[rows], out)

    def _take(self, numbers: np.ndarray, out: Tensor) -> None:
        self.rows.gather(numbers, out)


class Consecutive(Rows):
    """`num_rows` rows of a column from `first_row` on, where they lie."""

    def __init__(self, rows: Rows, first_row: int, num_rows: int) -> None:
        self.rows, self.first_row = rows, first_row
        self.num_rows, self.shape, self.dtype = num_rows, rows.shape, rows.dtype
        self.nbytes = rows.nbytes // max(rows.num_rows, 1) * num_rows

    def copy(self, first_row: int, out: Tensor) -> None:
        self.rows.copy(self.first_row + first_row, out)

    def gather(self, rows: np.ndarray, out: Tensor) -> None:
        self.rows.gather(self.first_row + rows, out)


class Placed(Chosen):
    """The rows of a column with these numbers, in any order and as often as they come, integers [n], where they lie."""

    def _take(self, numbers: np.ndarray, out: Tensor) -> None:
        ascending, places = np.unique(numbers, return_inverse=True)
        found = torch.empty(len(ascending), *self.shape, dtype=self.dtype)
        self.rows.gather(ascending, found)
        np.take(_as_items(found.numpy()), places, axis=0, out=_as_items(out.numpy()), mode="clip")


@dataclass(frozen=True)
class Among:
    """A column whose rows lie in memory, among those that other columns hold there too."""

    held: Tensor
    """[m, *shape]."""
    numbers: Tensor
    """Where each row lies in `held`, integers [num_rows], in any order."""

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device | str) -> "Among":
        return Among(self.held.to(device), self.numbers.to(device))

    def __getitem__(self, rows: "slice | Tensor") -> "Among":
        return replace(self, numbers=self.numbers[rows])


def _as_items(array: np.ndarray) -> np.ndarray:
    """The rows as single opaque items [n]: NumPy then moves each in one piece."""
    width = math.prod(array.shape[1:])
    return array.reshape(len(array), width).view(f"V{width * array.itemsize}").reshape(-1) if array.size else array


def chosen(column: Rows | Tensor, index: np.ndarray | None) -> Rows | Tensor:
    """Some rows of a column: of one in memory in a buffer of their own, of a mapped one where they lie."""
    if index is None:
        return column
    if isinstance(column, Tensor):
        return column[torch.from_numpy(index)]
    if (index[1:] > index[:-1]).all():
        return Chosen(column, index)
    unique, inverse = np.unique(index, return_inverse=True)
    out = torch.empty(len(unique), *column.shape, dtype=column.dtype)
    column.gather(unique, out)
    return out if np.array_equal(unique, index) else out[torch.from_numpy(inverse)]
