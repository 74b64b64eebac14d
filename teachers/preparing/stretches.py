"""What one task of the first pass reads: consecutive chunks, so many rows as memory sorts at once, fewer where there are few.

So there are as many runs as memory makes necessary, whatever files and row groups the source has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..sources import positions_of
from ..sources.files import Chunk
from ..transfer_set.transfer_set import SPLITS
from .budget import Budget
from .canonical import InputPlan
from .splits import sample_keys, split_numbers

TASKS = 64
"""Into which the rows of a source are divided at least, so that many machines have something to do."""
ROW_BYTES = 96
"""Of a row beside its inputs, about: keys, hashes, its name."""
Stretch = tuple[Chunk, ...]


@dataclass(frozen=True)
class Stretches:
    """Of the source, and of `transfer_set.extra`."""

    source: list[Stretch]
    extra: list[Stretch]

    @property
    def chunks(self) -> list[Chunk]:
        return [chunk for stretch in (*self.source, *self.extra) for chunk in stretch]


def stretches_of(chunks: Sequence[Chunk], plans: Sequence[InputPlan], room: Budget, rows: int) -> list[Stretch]:
    """As many rows as memory takes; so many that there are TASKS of them, if each has `rows` then."""
    row_bytes = ROW_BYTES + sum(plan.column.bytes_per_row for plan in plans)
    sizes = [_rows(chunk, row_bytes) for chunk in chunks]
    most = min(max(1, room.run_bytes // row_bytes), max(rows, sum(sizes) // TASKS))
    return [tuple(chunks[first:last]) for first, last in _cuts(sizes, most)]


def _rows(chunk: Chunk, row_bytes: int) -> int:
    """Known, or told from the size of its file."""
    if chunk.num_rows is not None:
        return chunk.num_rows
    there = chunk.file.root is not None and chunk.file.path.is_file()
    return max(1, chunk.file.path.stat().st_size // row_bytes) if there else 2**62


def _cuts(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of what has `most` together, or is one alone."""
    first = held = 0
    for at, size in enumerate(sizes):
        if at > first and held + size > most:
            yield first, at
            first, held = at, 0
        held += size
    if len(sizes) > first:
        yield first, len(sizes)


def last_keys(config: TransferSetConfig, stretches: Sequence[Stretch]) -> tuple[int, ...] | None:
    """Per split, the key of the last row that `limit` lets in, where ids are known before rows are read."""
    if config.stratifies != "no":  # labels are known when all rows are read
        return None
    if config.limit is None or config.id is not None or config.split.group_by is not None:
        return None
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)] * len(SPLITS)
    for chunk in (chunk for stretch in stretches for chunk in stretch):
        positions = positions_of(chunk)
        if positions is None:
            return None
        of_chunk = sample_keys(positions, config.key_salt)
        split = split_numbers(of_chunk, config.split, chunk.file.split)
        for number, before in enumerate(keys):
            keys[number] = np.sort(np.concatenate([before, of_chunk[split == number]]))[: config.limit]
    return tuple(int(of_split[-1]) if len(of_split) else 0 for of_split in keys)
