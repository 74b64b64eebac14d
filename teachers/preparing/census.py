"""What is decided over all rows together: unique keys, limits, class numbers, duplicates, labelled rows, segments.

Holds about 50 bytes a row, never inputs. Knows nothing of how pieces are read or parts written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.task import DEFAULT_TASK, TaskName
from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..tasks.labels import has_label, num_strata, strata
from ..transfer_set.arrow_columns import label_values
from ..transfer_set.class_names import places_of
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import EVERY, SPLITS, SplitName
from .shuffle import BadPosition, Run, run_batch
from .splits import choose_labelled, first_of_classes
from .tasks import LABELS
from .tasks.reader import Meant

NAMED_BAD_ROWS = 20
MOST_ALONE = 50
"""Classes that may have one row each before nobody believes that they are classes."""


@dataclass(frozen=True)
class Census:
    """One entry a usable row, sorted by split, then key. Row `row[n]` of run `run[n]`; `content` hashes the inputs, `bytes`
    is what they take, of rows that hold text (else 0).

    `group`: the key of its group, which is its own where the split has no `group_by`. `labels` as `teachers.tasks.labels`
    has them.
    """

    keys: Keys
    group: Keys
    split: NDArray[np.uint8]
    labels: NDArray[Any]
    content: Keys
    run: NDArray[np.uint32]
    row: NDArray[np.uint32]
    bytes: NDArray[np.uint32]
    task: TaskName = DEFAULT_TASK
    num_classes: int | None = None
    """Of boxes; None: as many as are met."""

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Census":
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {name: each[rows] for name, each in arrays.items() if isinstance(each, np.ndarray)}
        return replace(self, **taken)

    @cached_property
    def strata(self) -> NDArray[np.int32]:
        """By what rows are divided, i32 [rows], -1 without a label."""
        return strata(self.labels, self.task, self.num_classes)

    @cached_property
    def has_label(self) -> NDArray[np.bool_]:
        return has_label(self.labels)

    def of(self, split: SplitName) -> slice:
        """Where the rows of a split stand."""
        start, stop = np.searchsorted(self.split, [EVERY.index(split), EVERY.index(split) + 1])
        return slice(int(start), int(stop))

    def counts(self) -> dict[str, int]:
        return {split: self.of(split).stop - self.of(split).start for split in SPLITS}


def take_census(
    runs: Sequence[Run], pieces: Path, classes: tuple[str, ...] | None, task: TaskName
) -> tuple[Census, tuple[str, ...]]:
    """(every row of the runs; the classes, or names of numbers: those known, else the distinct values of the label).

    Raises DataError for two rows of one id or one key.
    """
    if not runs:
        raise DataError("no row is left to work with")
    labels_of, values = LABELS[task], list(dict.fromkeys(value for run in runs for value in run.labels))
    known, stands_for = (classes, {}) if classes else labels_of.discovered(values)
    found: dict[str, list[NDArray[np.uint64]]] = {name: [] for name in ("sample_key", "group", "split", "content")}
    parts: list[NDArray[Any]] = []
    for run in runs:
        batch = run_batch(pieces / run.path)
        for name, columns in found.items():
            columns.append(np.array(batch.column(name).to_numpy()))
        labels = np.array(label_values(batch.column("label")))
        parts.append(labels if classes else labels_of.placed(Meant(labels, run.labels), known, stands_for))
    keys, group, split, content = (np.concatenate(columns) for columns in found.values())
    numbers = np.repeat(np.arange(len(runs), dtype=np.uint32), [run.num_rows for run in runs])
    rows = np.concatenate([np.arange(run.num_rows, dtype=np.uint32) for run in runs])
    about = np.concatenate(parts), content, numbers, rows, _bytes(runs, pieces), task, len(known)
    census = Census(keys, group, split.astype(np.uint8), *about)
    check_unique(census, runs, pieces)
    if not classes and census.labels.ndim == 1 and MOST_ALONE < len(known) == np.count_nonzero(census.has_label):
        raise DataError(
            f"each of the {len(known):,} rows with a label has one of its own ({known[0]!r}, {known[1]!r}, ...): such names "
            f"say which row it is, not of which class; see transfer_set.label, or list them under transfer_set.classes"
        )
    return census.take(np.lexsort((census.keys, census.split))), known


def _bytes(runs: Sequence[Run], pieces: Path) -> NDArray[np.uint32]:
    batches = [run_batch(pieces / run.path) for run in runs]
    if "bytes" not in batches[0].schema.names:
        return np.zeros(sum(run.num_rows for run in runs), np.uint32)
    return np.concatenate([batch.column("bytes").to_numpy() for batch in batches]).astype(np.uint32)


def joined(parts: Sequence[Census]) -> Census:
    """One after the other, not sorted."""
    first = parts[0]
    arrays = [each.name for each in fields(Census) if isinstance(getattr(first, each.name), np.ndarray)]
    together: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays}
    return replace(first, **together)


def check_unique(census: Census, runs: Sequence[Run], pieces: Path) -> None:
    """Raise DataError for two rows of one id or one key."""
    order = np.lexsort((census.row, census.run, census.keys))
    twice = np.flatnonzero(np.diff(census.keys[order]) == 0)
    if not len(twice):
        return
    named = []
    for at in order[twice[0] : twice[0] + 2].tolist():
        batch, row = run_batch(pieces / runs[census.run[at]].path), int(census.row[at])
        named.append((batch.column("id")[row].as_py(), batch.column("position")[row].as_py()))
    raise same_key(*named)


def same_key(one: tuple[str, str], other: tuple[str, str]) -> DataError:
    """Of two rows (id, position) that have one key."""
    (first, there), (second, here) = one, other
    if first == second:
        return DataError(f"the id {first!r} is there twice, at {there} and {here}; an id names one row")
    return DataError(
        f"the ids {first!r} (at {there}) and {second!r} (at {here}) have the same sample_key; "
        f"give transfer_set.key_salt any text, and keys are made anew"
    )


def limited(census: Census, bad: Iterable[BadPosition], limit: int | None) -> tuple[Census, list[BadPosition]]:
    """The first `limit` rows of each split in key order, and the first of each class that has none among them.

    Bad rows are counted, so that what is left never depends on which rows are bad elsewhere.
    """
    bad = list(bad)
    if limit is None:
        return census, bad
    last = []
    for number, split in enumerate(SPLITS):
        there = np.array([row.key for row in bad if row.split == number], np.uint64)
        keys = np.sort(np.concatenate([census.keys[census.of(split)], there]))
        last.append(int(keys[min(limit, len(keys)) - 1]) if len(keys) else 0)
    near = census.keys <= np.array(last, np.uint64)[census.split]
    kept = census.take(near | first_of_classes(census.keys, census.split, census.strata))
    return kept, [row for row in bad if row.key < 0 or row.key <= last[row.split]]


def judge_bad_rows(bad: Sequence[BadPosition], config: TransferSetConfig) -> None:
    """Raise DataError for bad rows unless they are to be skipped."""
    if not bad or config.on_bad_row == "skip":
        return
    lines = [f"  {row.position}: {row.reason}" for row in bad[:NAMED_BAD_ROWS]]
    more = [f"  and {len(bad) - len(lines)} more"] if len(bad) > len(lines) else []
    cure = "mend them, or set transfer_set.on_bad_row: skip to drop them"
    raise DataError("\n".join([f"{len(bad)} row{'s' * (len(bad) > 1)} cannot be used; {cure}", *lines, *more]))


def check_classes(census: Census, bad: Sequence[BadPosition], classes: Sequence[str]) -> None:
    """Raise DataError for a class of which every row would be skipped: all figures would look better without it."""
    labelled = [row for row in bad if row.label]
    if not labelled:
        return
    there = np.bincount(census.strata[census.has_label], minlength=len(classes))
    for row, place in zip(labelled, places_of([row.label for row in labelled], classes), strict=True):
        if place is not None and not there[place]:
            raise DataError(
                f"on_bad_row: skip would drop every row of the class {classes[place]!r}, and figures would be of the others "
                f"alone; {row.position}: {row.reason}; mend that, or take the class out of the source"
            )


def check_splits(census: Census, dropped: Mapping[str, int]) -> None:
    """Raise DataError for a split without rows. `dropped`: how many went as duplicates."""
    empty = [split for split, rows in census.counts().items() if not rows]
    if empty and dropped.get(empty[0]):
        raise DataError(
            f"no row is left in the split {empty[0]!r}: its {dropped[empty[0]]} rows have the inputs of rows of a later "
            f"split; look whether the files of the splits are the same, or set transfer_set.duplicates: keep"
        )
    if empty:
        raise DataError(
            f"no row in the split {empty[0]!r}, of {len(census.keys)} rows in all; give transfer_set.split larger shares"
        )


def with_labelled(census: Census, config: TransferSetConfig, width: int) -> tuple[Census, NDArray[np.bool_]]:
    """(the census, in which rows of teachers are a split of their own; whose label may be used, bool [rows]).

    `labelled` restricts the splits that it names, and never test. Raises DataError for more labels than there are.
    """
    usable, wanted = census.has_label.copy(), config.labelled_by_split
    of_teachers = wanted.pop("teachers", 0)
    for split, count in wanted.items():
        usable[census.of(split)] = _chosen(census, census.has_label, config, width, split, count)
    if not of_teachers:
        return census, usable
    train = census.of("train")
    own = np.zeros(len(usable), bool)
    own[train] = _chosen(census, census.has_label & ~usable, config, width, "teachers", of_teachers)
    moved = replace(census, split=np.where(own, np.uint8(EVERY.index("teachers")), census.split))
    order = np.lexsort((moved.keys, moved.split))
    return moved.take(order), (usable | own)[order]


def _chosen(
    census: Census, free: NDArray[np.bool_], config: TransferSetConfig, width: int, split: SplitName, count: int
) -> NDArray[np.bool_]:
    """`count` of the rows of a split that are `free`, stratified; those of teachers are training rows."""
    rows = census.of("train" if split == "teachers" else split)
    there = int(free[rows].sum())
    if count > there and config.limit is None:  # of the rows that `limit` leaves there may be fewer
        asked, left = f"{count:,} labels of {split} rows may be used", f"{there:,} {split} rows have one"
        if split == "teachers":
            asked, left = (
                f"{count:,} training rows are the teachers' alone",
                f"{there:,} further ones have a label",
            )
        raise DataError(f"transfer_set.labelled: {asked}, and {left}; say fewer, or null for all of them")
    strata = np.where(free[rows], census.strata[rows], -1).astype(np.int32)
    seed, divided = config.split.seed, num_strata(config.task, width)
    return choose_labelled(census.keys[rows], strata, divided, count, seed, split)


def duplicates_across_splits(census: Census) -> dict[str, int]:
    """For each two splits, rows of the later one whose inputs are exactly those of a row of the earlier one."""
    return {
        f"{earlier}/{later}": int(np.isin(census.content[census.of(later)], census.content[census.of(earlier)]).sum())
        for earlier, later in combinations(SPLITS, 2)
    }


def without_duplicates(census: Census) -> tuple[Census, dict[str, int]]:
    """(the census without rows whose inputs are those of a row of a later split, how many that are by split).

    The copy that goes is that of the split which learns or chooses: a test row stays, so that figures are of rows nobody
    has seen, and adding training rows never changes what is tested; of the rest a validation row stays.
    """
    stays = np.ones(len(census.keys), bool)
    for number, split in enumerate(SPLITS[:-1]):
        stays[census.of(split)] = ~np.isin(census.content[census.of(split)], census.content[census.split > number])
    dropped: dict[str, int] = {split: int((~stays[census.of(split)]).sum()) for split in SPLITS[:-1]}
    return census.take(stays), dropped
