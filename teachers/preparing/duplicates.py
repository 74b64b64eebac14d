"""Rows of two splits that have exactly the same inputs: how many there are, and which of them go.

Rows are told apart by the hash of their inputs, `content`. Each census gives what it has of each content once, in files by ranges of
contents, and these are compared range by range. Knows nothing of inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..storage.seal import replace
from ..transfer_set.arrow_columns import ipc_file
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import SPLITS
from .census import Census, read_census
from .ledger import Ledger
from .shuffle import run_batch
from .taking import END, within

EXTRA = len(SPLITS)
"""Stands for the split of rows beside the source's."""
KINDS = EXTRA + 1


@dataclass(frozen=True)
class Contents:
    """Distinct contents, ascending, of the rows of one census or range; `rows` u32 [KINDS, contents]: how many rows of each split."""

    content: Keys
    rows: NDArray[np.uint32]

    @classmethod
    def of(cls, parts: "Sequence[Contents]") -> "Contents":
        """Of several, as of one."""
        content = np.concatenate([part.content for part in parts])
        order = np.argsort(content)
        content = content[order]
        starts = np.flatnonzero(np.diff(content, prepend=~content[:1]) != 0)
        rows = np.take(np.concatenate([part.rows for part in parts], 1), order, axis=1)
        return cls(content[starts], np.stack([np.add.reduceat(row, starts) if len(starts) else row for row in rows]))

    @property
    def splits(self) -> NDArray[np.uint8]:
        """In which splits each is, one bit for each."""
        return np.asarray(((self.rows > 0) << np.arange(KINDS)[:, None]).sum(0), np.uint8)

    def shared(self) -> NDArray[np.int64]:
        """Rows of the second split whose content is in the first, i64 [KINDS, KINDS]; of one split it is not asked."""
        rows = self.in_several().rows.astype(np.int64)
        return (rows > 0).astype(np.int64) @ rows.T

    def in_several(self) -> "Contents":
        """Those that are in several splits."""
        several = np.flatnonzero((self.rows > 0).sum(0, dtype=np.uint8) > 1)
        return Contents(self.content[several], self.rows[:, several])


@dataclass(frozen=True)
class Copies:
    """`shared`: as of `Contents`, over all rows; `parts`: those contents that are in several splits, and in which, by ranges."""

    shared: NDArray[np.int64]
    parts: tuple[Contents, ...] | tuple[Path, ...]

    def pairs(self) -> dict[str, int]:
        """For each two splits, rows of the later one whose inputs are exactly those of a row of the earlier one."""
        both = combinations(enumerate(SPLITS), 2)
        return {f"{earlier}/{later}": int(self.shared[one, other]) for (one, earlier), (other, later) in both}


def copies(pieces: Path, *ledgers: Ledger) -> Copies:
    """Of the source's rows and, where there is a second ledger, of those beside."""
    source = ledgers[0]
    if len(source.parts) == 1:
        kinds = [_contents(is_extra, census) for is_extra, each in enumerate(ledgers) for census in each.censuses()]
        whole = Contents.of(kinds)
        return Copies(whole.shared(), (whole.in_several(),))
    files = tuple(
        path
        for is_extra, each in enumerate(ledgers)
        for path in each.run(partial(_write, is_extra, each.held), each.parts)
    )
    num = len(source.parts)
    ranges = [(number, (END * number // num, END * (number + 1) // num)) for number in range(num)]
    found = list(source.run(partial(_compared, pieces, files), ranges))
    return Copies(
        sum((shared for shared, _ in found), np.zeros((KINDS, KINDS), np.int64)), tuple(path for _, path in found)
    )


def _contents(is_extra: int, census: Census) -> Contents:
    """`is_extra`: 1 of rows beside the source's."""
    split = np.full(len(census), EXTRA) if is_extra else census.split
    rows = (np.arange(KINDS)[:, None] == split).astype(np.uint32)
    return Contents.of([Contents(census.content, rows)])


def _write(is_extra: int, held: Any, path: Path) -> Path:
    target = path.with_name(f"contents-{path.name}")
    _save(target, _contents(is_extra, read_census(path, held)))
    return target


def _compared(
    pieces: Path, files: Sequence[Path], numbered: tuple[int, tuple[int, int]]
) -> tuple[NDArray[np.int64], Path]:
    number, contents = numbered
    whole = Contents.of([_load(path, contents) for path in files])
    target = pieces / f"copies-{len(files):06}-{number:06}.arrow"
    _save(target, whole.in_several())
    return whole.shared(), target


def _save(path: Path, found: Contents) -> None:
    columns = {"content": pa.array(found.content)} | {str(at): pa.array(found.rows[at]) for at in range(KINDS)}
    replace(path, ipc_file(pa.RecordBatch.from_pydict(columns)))


def _load(path: Path, contents: tuple[int, int] = (0, END)) -> Contents:
    batch = run_batch(path)
    content = batch.column("content").to_numpy()
    here = slice(*within(content, 0, len(content), contents))
    rows = [batch.column(str(at)).to_numpy()[here] for at in range(KINDS)]
    return Contents(np.array(content[here]), np.stack(rows))


def without_duplicates(ledger: Ledger, found: Copies) -> tuple[Ledger, dict[str, int]]:
    """(the ledger without rows whose inputs are those of a row of a later split, how many that are by split).

    The copy that goes is that of the split which learns or chooses: a test row stays, so that figures are of rows nobody
    has seen, and adding training rows never changes what is tested; of the rest a validation row stays.
    """
    return _without(ledger, found, "apart", partial(_stays, found.parts), SPLITS[:-1])


def without_copies(extra: Ledger, found: Copies, *, drop: bool) -> tuple[Ledger, dict[str, int], dict[str, int]]:
    """(rows beside the source's, by `drop` without those that have exactly the inputs of a validation or test row; how many these are,
    by split; how many went)."""
    shared = {f"extra/{split}": int(found.shared[SPLITS.index(split), EXTRA]) for split in SPLITS[1:]}
    if not drop:
        return extra, shared, {}
    left, gone = _without(extra, found, "apart", partial(_extra_stays, found.parts), ("train",))
    return left, shared, {"extra": gone["train"]}


def _without(
    ledger: Ledger, found: Copies, name: str, stays: Any, splits: Sequence[str]
) -> tuple[Ledger, dict[str, int]]:
    before = ledger.counts()
    if not found.shared.any():
        return ledger, dict.fromkeys(splits, 0)
    ledger = ledger.changed(name, stays)
    after = ledger.counts()
    return ledger, {split: before[split] - after[split] for split in splits}


def _stays(parts: Sequence[Contents | Path], census: Census) -> Census:
    of_source = _splits_of(parts, census.content) & np.uint8(2**EXTRA - 1)
    return census.take(of_source >> (census.split + np.uint8(1)) == 0)


def _extra_stays(parts: Sequence[Contents | Path], census: Census) -> Census:
    judging = sum(1 << SPLITS.index(split) for split in SPLITS[1:])
    return census.take((_splits_of(parts, census.content) & judging) == 0)


def _splits_of(parts: Sequence[Contents | Path], content: Keys) -> NDArray[np.uint8]:
    """In which splits the content of each row is, as `Contents.splits`, where it is in several; else 0."""
    found = np.zeros(len(content), np.uint8)
    for part in parts:
        copied = _load(part) if isinstance(part, Path) else part
        if len(copied.content):
            at = np.minimum(np.searchsorted(copied.content, content), len(copied.content) - 1)
            found |= np.where(copied.content[at] == content, copied.splits[at], 0).astype(np.uint8)
    return found
