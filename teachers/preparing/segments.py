"""Which rows make which segment, kept from an earlier preparation where nothing of it changed, and their files.

Knows nothing of the source.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import StoreError
from ..storage.seal import drafted, local
from ..transfer_set.arrow_columns import label_column
from ..transfer_set.columns import Column, inputs_of
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import EVERY, Segment, SplitName, TransferSet
from .census import Census
from .moments import Moments, moments
from .parts import PartTask, ids_piece
from .shuffle import Run, run_batch
from .splits import row_hashes

ROWS = {"sample_key": pa.uint64(), "group": pa.uint64(), "id": pa.string(), "label": None, "labelled": pa.bool_()}
"""Columns of `rows.arrow`; the type of a label is its task's."""
CONTENT = {"content": pa.uint64()}
"""Beside these, where codes do not tell whether a row is unchanged: one value that nobody knows may become another."""

PART_BYTES = 60 * 2**20
"""Of inputs in one part; what Arrow adds keeps it below 64 MiB."""


class Runner(Protocol):
    """`map`, or something like it: results in the order of the items."""

    def __call__(self, function: Any, items: Any, /) -> Iterable[Any]: ...


@dataclass(frozen=True)
class PlannedSegment:
    """`rows`: its entries of the census, in the order of their keys. `kept`: the same segment of the earlier set."""

    name: str
    split: SplitName
    rows: NDArray[np.int64]
    kept: Segment | None = None


def plan_segments(
    census: Census, columns: Sequence[Column], earlier: TransferSet | None, run: Runner, kind: str | None = None
) -> list[PlannedSegment]:
    """The earlier segments and one more for new rows of each split, if all earlier rows are unchanged; else all anew.

    `kind`: of rows beside the source's, which are in segments of their own.
    """
    try:
        kept = [] if earlier is None else _kept(census, columns, earlier, run, kind)
    except (StoreError, pa.ArrowException, OSError):  # the earlier set is damaged: nothing of it is kept
        kept = []
    planned = list(kept)
    for split in EVERY:
        there = census.of(split)
        new = np.arange(there.start, there.stop)
        of_split = [segment.rows for segment in kept if segment.split == split]
        if of_split:
            new = np.setdiff1d(new, np.concatenate(of_split))
        if len(new):
            planned.append(PlannedSegment(f"{kind or split}-{len(of_split)}", split, new))
    return sorted(planned, key=lambda segment: EVERY.index(segment.split))


def _kept(
    census: Census, columns: Sequence[Column], earlier: TransferSet, run: Runner, kind: str | None
) -> list[PlannedSegment]:
    if [column.content for column in columns] != [column.content for column in earlier.columns]:
        return []
    has_codes = any(column.kind == "category" for column in columns)
    found = []
    for segment in earlier.segments:
        if segment.kind != (kind or segment.split):
            continue
        there, keys = census.of(segment.split), earlier.keys(segment)
        at = np.searchsorted(census.keys[there], keys)
        rows = np.minimum(at, there.stop - there.start - 1) + there.start
        if not np.array_equal(census.keys[rows], keys):
            return []
        of_parts = partial(part_hashes, earlier.folder, earlier.columns)
        paths = [part.path for part in segment.parts]
        hashes = earlier.content(segment) if has_codes else np.concatenate(list(run(of_parts, paths)))
        if not np.array_equal(census.content[rows], hashes):
            return []
        found.append(PlannedSegment(segment.name, segment.split, rows, segment))
    return found


def part_hashes(folder: Path, columns: Sequence[Column], path: str) -> Keys:
    """`row_hashes` of a part that exists."""
    return row_hashes(list(inputs_of(run_batch(local(folder, path)), columns, as_stored=True).values()))


def part_moments(folder: Path, columns: Sequence[Column], path: str) -> list[Moments]:
    """Per column, of a part that exists."""
    inputs = inputs_of(run_batch(local(folder, path)), columns, as_stored=True)
    return [moments(inputs[column.name], column) for column in columns]


def part_tasks(
    segment: PlannedSegment, census: Census, runs: Sequence[Run], columns: Sequence[Column]
) -> Iterator[PartTask]:
    """What is to be written for a new segment; parts hold equally many rows, but for the last, and those with text."""
    starts = _starts(segment, census, columns)
    for number, (first, last) in enumerate(pairwise([*starts, len(segment.rows)])):
        rows = segment.rows[first:last]
        used, run = np.unique(census.run[rows], return_inverse=True)
        path = f"segments/{segment.name}/inputs/{number:06}.arrow"
        yield PartTask(path, first, tuple(runs[at].path for at in used), run.astype(np.uint32), census.row[rows])


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


def write_rows(path: Path, named: Mapping[str, NDArray[Any]], ids: Iterable[pa.Array]) -> None:
    """Publish `rows.arrow` of a segment, a record batch for each piece of `ids`; `named`: its other columns."""
    with drafted(path) as draft, draft.open("xb") as file:
        kinds = ROWS | {name: kind for name, kind in CONTENT.items() if name in named}
        schema = pa.schema([(name, kind or label_column(named["label"][:0]).type) for name, kind in kinds.items()])
        with pa.ipc.new_file(file, schema) as writer:
            first = 0
            for piece in ids:
                rows = slice(first, first + len(piece))
                columns = {"id": piece} | {name: label_column(values[rows]) for name, values in named.items()}
                writer.write_batch(pa.record_batch([columns[name] for name in kinds], schema=schema))
                first += len(piece)
        file.flush()
        os.fsync(file.fileno())


def ids_of(segment: Segment, pieces: Path, kept_from: TransferSet | None) -> Iterator[pa.Array]:
    """The ids of a segment's rows, part by part."""
    if kept_from is not None:
        yield kept_from.ids(segment)
        return
    for part in segment.parts:
        yield run_batch(pieces / ids_piece(part.path)).column("id")


def _starts(segment: PlannedSegment, census: Census, columns: Sequence[Column]) -> list[int]:
    """Where each part begins."""
    if not any(column.varies for column in columns):
        return list(range(0, len(segment.rows), rows_per_part(columns)))
    ends = np.cumsum(8 + census.bytes[segment.rows].astype(np.int64))
    starts, there = list[int](), 0
    while there < len(ends):
        starts.append(there)
        before = int(ends[there - 1]) if there else 0
        there = max(there + 1, int(np.searchsorted(ends, before + PART_BYTES, side="right")))
    return starts


def rows_per_part(columns: Sequence[Column]) -> int:
    return max(1, PART_BYTES // (8 + sum(column.bytes_per_row for column in columns)))
