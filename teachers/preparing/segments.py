"""A planned segment as parts: where each begins, and what is told to whoever writes one.

Knows nothing of the source.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..storage.seal import drafted, local
from ..transfer_set.columns import Column
from ..transfer_set.transfer_set import Segment
from .census import Census
from .parts import PartTask, Stretch
from .planning import PlannedSegment

PART_BYTES = 60 * 2**20
"""Of inputs in one part; what Arrow adds keeps it below 64 MiB."""


def part_tasks(planned: PlannedSegment, columns: Sequence[Column]) -> Iterator[PartTask]:
    """What is to be written of a segment; parts hold equally many rows, but for the last, and those with text."""
    if planned.kept is not None:
        for part in planned.kept.parts:
            rows = tuple(_stretches(planned, part.first_row, part.first_row + part.num_rows))
            yield PartTask(part.path, part.first_row, rows, planned.kept)
        return
    for number, (first, last) in enumerate(pairwise([*_starts(planned, columns), planned.num_rows])):
        path = f"segments/{planned.name}/inputs/{number:06}.arrow"
        yield PartTask(path, first, tuple(_stretches(planned, first, last)))


def _stretches(planned: PlannedSegment, first: int, last: int) -> Iterator[Stretch]:
    """Where the rows of a segment from `first` to `last` lie."""
    starts = [0, *accumulate(planned.counts)]
    parts: Sequence[Census | Path] = planned.ledger.parts
    for part, (start, stop) in zip(parts, pairwise(starts), strict=True):
        if start < last and stop > first:
            stretch = Stretch(part, planned.number, max(first - start, 0), min(last, stop) - start)
            yield stretch if isinstance(part, Path) else stretch.held()


def keep_parts(segment: Segment, earlier: Path, folder: Path) -> None:
    """The parts of a kept segment in the new folder: hard-linked, or copied where links are refused."""
    for part in segment.parts:
        source, target = local(earlier, part.path), folder / part.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with drafted(target) as draft:
            try:
                os.link(source, draft)
            except OSError:
                shutil.copyfile(source, draft)


def _starts(planned: PlannedSegment, columns: Sequence[Column]) -> list[int]:
    """Where each part begins."""
    if not any(column.varies for column in columns):
        return list(range(0, planned.num_rows, rows_per_part(columns)))
    starts, before, row, held = [0], 0, 0, 0
    for sizes in planned.ledger.each(partial(_sizes, planned.number)):
        ends = held + np.cumsum(sizes)
        while True:
            there = max(starts[-1] + 1, row + int(np.searchsorted(ends, before + PART_BYTES, side="right")))
            if there >= row + len(ends):
                break
            before = int(ends[there - row - 1]) if there > row else held
            starts.append(there)
        row, held = row + len(ends), int(ends[-1]) if len(ends) else held
    return starts


def _sizes(number: int, census: Census) -> NDArray[np.int64]:
    """Bytes of each row of a segment."""
    return np.asarray(8 + census.bytes[census.numbers == number].astype(np.int64))


def rows_per_part(columns: Sequence[Column]) -> int:
    return max(1, PART_BYTES // (8 + sum(column.bytes_per_row for column in columns)))
