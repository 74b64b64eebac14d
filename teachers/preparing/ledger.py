"""All usable rows, in censuses by ranges of keys: one that is held, or files of which each finds room in memory.

What is decided over all rows is counted census by census, put together, and told to each of them again. Knows nothing of what is
decided.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config.task import TaskName
from ..errors import DataError
from ..transfer_set.transfer_set import EVERY, SPLITS
from .census import Census, joined, read_census, write_census

Result = TypeVar("Result")
Change = Callable[[Census], Census]
Held = tuple[int, ...] | None


class Runner(Protocol):
    """`map`, or something like it: results in the order of the items."""

    def __call__(self, function: Any, items: Any, /) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Ledger:
    """`parts`: censuses, or their files; each holds the keys from its own of `bounds` to the next one's. All have the same `task`."""

    parts: tuple[Census, ...] | tuple[Path, ...]
    bounds: tuple[int, ...]
    run: Runner
    task: TaskName
    held: Held = None

    @classmethod
    def of(cls, census: Census) -> "Ledger":
        """One that is held."""
        return cls((replace(census, held=None),), (0,), map, census.task, _told(census.holds()))

    def each(self, work: Callable[[Census], Result]) -> Iterator[Result]:
        """What `work` says of every census, in the order of keys; it goes where `run` has it done."""
        if isinstance(self.parts[0], Census):
            return (work(opened(part, self.held)) for part in self.parts)
        return iter(self.run(partial(_looked_at, work, self.held), self.parts))

    def total(self, work: Callable[[Census], Any]) -> Any:
        """The sum of what it says, which is numbers."""
        return sum(self.each(work), start=0)

    def changed(self, name: str, change: Change) -> "Ledger":
        """With other censuses in place of these; `name` says of files what was changed last."""
        if isinstance(self.parts[0], Census):
            (census,) = (change(part) for part in self.censuses())
            return replace(Ledger.of(census), bounds=self.bounds, run=self.run)
        work = partial(_written, change, name, self.held)
        done = list(self.run(work, self.parts))
        return replace(self, parts=tuple(path for path, _ in done), held=summed([found for _, found in done]))

    def censuses(self) -> Iterator[Census]:
        """One at a time, here."""
        return map(opened, self.parts, repeat(self.held))

    def counts(self) -> dict[str, int]:
        """Rows of each split of EVERY."""
        return dict(zip(EVERY, np.asarray(self.total(Census.counts)).tolist(), strict=True))

    def whole(self) -> Census:
        """All of it in one, for what needs every row in memory anyway."""
        parts = [*self.censuses()]
        return parts[0] if len(parts) == 1 else joined(parts).in_order()


def opened(part: Census | Path, held: Held) -> Census:
    return replace(part, held=held) if isinstance(part, Census) else read_census(part, held)


def _looked_at(work: Callable[[Census], Result], held: Held, path: Path) -> Result:
    return work(read_census(path, held))


def _written(change: Change, name: str, held: Held, path: Path) -> tuple[Path, NDArray[np.int64] | None]:
    census = change(read_census(path, held))
    target = path.with_name(f"{path.name.split('.')[0]}.{name}.arrow")
    write_census(target, census)
    return target, census.holds()


def summed(found: Iterable[NDArray[np.int64] | None]) -> Held:
    """What is held over all censuses, of what each of them holds."""
    parts = [each for each in found if each is not None]
    return _told(sum(parts, np.zeros(1, np.int64))) if parts else None


def _told(holds: NDArray[np.int64] | None) -> Held:
    return None if holds is None else tuple(holds.tolist())


def check_splits(counts: Mapping[str, int], dropped: Mapping[str, int]) -> None:
    """Raise DataError for a split without rows. `dropped`: how many went as duplicates."""
    empty = [split for split in SPLITS if not counts[split]]
    if empty and dropped.get(empty[0]):
        raise DataError(
            f"no row is left in the split {empty[0]!r}: its {dropped[empty[0]]} rows have the inputs of rows of a later "
            f"split; look whether the files of the splits are the same, or set transfer_set.duplicates: keep"
        )
    if empty:
        raise DataError(
            f"no row in the split {empty[0]!r}, of {sum(counts.values())} rows in all; give transfer_set.split larger shares"
        )
