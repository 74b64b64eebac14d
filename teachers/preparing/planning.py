"""Which rows make which segment; segments of an earlier preparation stay as they are where all of their rows are there unchanged.

Knows nothing of the source, nor of how rows are written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import StoreError
from ..storage import mirror
from ..storage.seal import digest_of, local
from ..storage.seal import replace as replace_file
from ..transfer_set.arrow_columns import ipc_file, opened
from ..transfer_set.columns import Column, inputs_of
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import EVERY, Part, Segment, SplitName, TransferSet
from .census import Census
from .ledger import Ledger, Runner
from .shuffle import run_batch
from .splits import row_hashes

Contents = tuple[Path, ...]
"""Files with key and content of the rows of an earlier segment, in the order of their keys."""


@dataclass(frozen=True)
class PlannedSegment:
    """Rows of a ledger that have the `number`, `counts` of them in each of its censuses. `kept`: the same segment of the earlier set."""

    name: str
    split: SplitName
    ledger: Ledger
    number: int
    counts: tuple[int, ...]
    kept: Segment | None = None

    @property
    def num_rows(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Earlier:
    """A set that was prepared before, and where it is put down what its rows are."""

    transfer_set: TransferSet
    pieces: Path
    run: Runner


def plan_segments(
    ledger: Ledger, columns: Sequence[Column], earlier: Earlier | None, kind: str | None = None
) -> list[PlannedSegment]:
    """The earlier segments and one more for new rows of each split, if all earlier rows are unchanged; else all anew.

    `kind`: of rows beside the source's, which are in segments of their own.
    """
    try:
        kept = {} if earlier is None else _kept(ledger, columns, earlier, kind)
    except (StoreError, pa.ArrowException, OSError):  # the earlier set is damaged: nothing of it is kept
        kept = {}
    if kept:
        digest = digest_of([segment.digest for segment in kept])[:12]
        given = [(segment.split, files) for segment, files in kept.items()]
        ledger = ledger.changed(f"planned-{digest}", partial(_numbered, given))
    counts = np.stack([*ledger.each(partial(_counts, len(kept) + len(EVERY)))], 1).tolist()
    planned = [
        PlannedSegment(segment.name, segment.split, ledger, number, tuple(counts[number]), segment)
        for number, segment in enumerate(kept)
    ]
    for at, split in enumerate(EVERY):
        number, before = len(kept) + at, sum(segment.split == split for segment in kept)
        if any(counts[number]):
            planned.append(PlannedSegment(f"{kind or split}-{before}", split, ledger, number, tuple(counts[number])))
    return sorted(planned, key=lambda segment: EVERY.index(segment.split))


def _counts(num: int, census: Census) -> NDArray[np.int64]:
    return np.bincount(census.numbers, minlength=num)


def _kept(ledger: Ledger, columns: Sequence[Column], earlier: Earlier, kind: str | None) -> dict[Segment, Contents]:
    """The earlier segments of this kind; none where one of them has a row that is gone or another now."""
    before = earlier.transfer_set
    if [column.content for column in columns] != [column.content for column in before.columns]:
        return {}
    has_codes, found = any(column.kind == "category" for column in columns), dict[Segment, Contents]()
    for segment in before.segments:
        if segment.kind != (kind or segment.split):
            continue
        if has_codes:
            found[segment] = (local(before.folder, segment.rows_path),)
        else:
            work = partial(_note, earlier.pieces, before.folder, before.columns)
            found[segment] = tuple(earlier.run(work, segment.parts))
        if ledger.total(partial(_num_alike, segment.split, found[segment])) != segment.num_rows:
            return {}
    return found


def _note(pieces: Path, folder: Path, columns: Sequence[Column], part: Part) -> Path:
    """Put down what the rows of a part are."""
    path, batch = pieces / f"earlier-{part.xxh3_128}.arrow", run_batch(local(folder, part.path))
    content = row_hashes([*inputs_of(batch, columns, as_stored=True).values()])
    replace_file(path, ipc_file(pa.record_batch({"sample_key": batch.column("sample_key"), "content": content})))
    return path


def _alike(split: SplitName, files: Contents, census: Census) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Some at a time: where the rows of an earlier segment stand that are in the range of this census; which are what they were."""
    there = census.of(split)
    keys = census.keys[there]
    if not len(keys):
        return
    for before, content in _contents(files):
        here = slice(int(np.searchsorted(before, keys[0])), int(np.searchsorted(before, keys[-1], side="right")))
        rows = np.searchsorted(keys, before[here]) + there.start
        yield rows, (census.keys[rows] == before[here]) & (census.content[rows] == content[here])


def _contents(files: Contents) -> Iterator[tuple[Keys, Keys]]:
    for path in files:
        mirror.bring(path)
        file = opened(path)
        for batch in map(file.get_batch, range(file.num_record_batches)):
            yield batch.column("sample_key").to_numpy(), batch.column("content").to_numpy()


def _num_alike(split: SplitName, files: Contents, census: Census) -> int:
    return sum(int(alike.sum()) for _, alike in _alike(split, files, census))


def _numbered(kept: Sequence[tuple[SplitName, Contents]], census: Census) -> Census:
    """With the number of its segment for each row: that of an earlier one, else behind these that of its split."""
    numbers = (census.split + np.uint16(len(kept))).astype(np.uint16)
    for number, (split, files) in enumerate(kept):
        for rows, _ in _alike(split, files, census):
            numbers[rows] = number
    return replace(census, segment=numbers)
