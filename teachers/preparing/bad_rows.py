"""Rows that cannot be used, and why: of a batch, and of a whole source, whose lines lie in files and are read one after the other."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..storage import mirror
from ..transfer_set.class_names import places_of

Bad = dict[int, str]
"""Row of the batch: why it cannot be used."""
NAMED_BAD_ROWS = 20
AT_ONCE = 2**20
"""Keys of bad rows that wait to be compared."""


def tell(bad: Bad, wrong: Any, reason: Callable[[int], str]) -> None:
    """Put the rows of `wrong`, bool [rows], to `bad`, but for those that have a reason already."""
    for row in np.flatnonzero(wrong).tolist():
        if row not in bad:
            bad[row] = reason(row)


@dataclass(frozen=True)
class BadPosition:
    """A row that cannot be used; `split` and `key` are -1 where it has none, `label` is empty."""

    position: str
    reason: str
    split: int = -1
    key: int = -1
    label: str = ""


def spelt(rows: Sequence[BadPosition]) -> bytes:
    """A line a row, as `BadRows` reads it."""
    return b"".join(json.dumps(asdict(row)).encode() + b"\n" for row in rows)


@dataclass(frozen=True)
class BadRows:
    """All of a source, in its order: those in memory, then those in files; of each split those up to `last`."""

    rows: tuple[BadPosition, ...] = ()
    files: tuple[Path, ...] = ()
    last: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[BadPosition]:
        for row in self._all():
            if self.last is None or row.key < 0 or row.key <= self.last[row.split]:
                yield row

    def _all(self) -> Iterator[BadPosition]:
        yield from self.rows
        for path in self.files:
            mirror.bring(path)
            with path.open("rb") as lines:
                yield from (BadPosition(**json.loads(line)) for line in lines)

    def up_to(self, last: tuple[int, ...]) -> "BadRows":
        return replace(self, last=last)

    def smallest_keys(self, most: int, num_splits: int) -> list[NDArray[np.uint64]]:
        """Of each split, the keys of its `most` first rows, ascending."""
        found, waiting = [np.zeros(0, np.uint64)] * num_splits, [list[int]() for _ in range(num_splits)]
        for row in self:
            if row.key >= 0:
                waiting[row.split].append(row.key)
                if len(waiting[row.split]) >= AT_ONCE:
                    found[row.split] = _first(found[row.split], waiting[row.split], most)
                    waiting[row.split] = []
        return [_first(keys, more, most) for keys, more in zip(found, waiting, strict=True)]


def _first(keys: NDArray[np.uint64], more: Sequence[int], most: int) -> NDArray[np.uint64]:
    return np.sort(np.concatenate([keys, np.array(more, np.uint64)]))[:most]


@dataclass(frozen=True)
class Told:
    """How many there are, and the first of them."""

    number: int
    first: tuple[BadPosition, ...]

    @classmethod
    def of(cls, *parts: BadRows) -> "Told":
        rows = (row for part in parts for row in part)
        first = tuple(islice(rows, NAMED_BAD_ROWS))
        return cls(len(first) + sum(1 for _ in rows), first)


def judge_bad_rows(bad: Told, config: TransferSetConfig) -> None:
    """Raise DataError for bad rows unless they are to be skipped."""
    if not bad.number or config.on_bad_row == "skip":
        return
    lines = [f"  {row.position}: {row.reason}" for row in bad.first]
    more = [f"  and {bad.number - len(lines)} more"] if bad.number > len(lines) else []
    cure = "mend them, or set transfer_set.on_bad_row: skip to drop them"
    raise DataError("\n".join([f"{bad.number} row{'s' * (bad.number > 1)} cannot be used; {cure}", *lines, *more]))


def first_of_labels(bad: BadRows) -> Mapping[str, BadPosition]:
    """By label, the first row that has it."""
    found: dict[str, BadPosition] = {}
    for row in bad:
        if row.label:
            found.setdefault(row.label, row)
    return found


def check_classes(there: NDArray[np.int64], bad: Mapping[str, BadPosition], classes: Sequence[str]) -> None:
    """Raise DataError for a class of which every row would be skipped: all figures would look better without it.

    `there`: usable rows of each class; `bad`: by label a row that is not.
    """
    for row, place in zip(bad.values(), places_of([*bad], classes), strict=True):
        if place is not None and not there[place]:
            raise DataError(
                f"on_bad_row: skip would drop every row of the class {classes[place]!r}, and figures would be of the others "
                f"alone; {row.position}: {row.reason}; mend that, or take the class out of the source"
            )
