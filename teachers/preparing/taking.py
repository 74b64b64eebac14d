"""From the runs of the first pass to the ledger: what is known of the rows in one range of keys, after the other.

Each range is as large as the budget allows. A run is sorted by split and key, so what is of a range lies together in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.task import TaskName
from ..errors import DataError
from ..tasks.labels import has_label, none_of, shape_of
from ..transfer_set.arrow_columns import label_values
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import SPLITS
from .budget import Budget
from .census import Census, by_run, check_unique, joined, write_census
from .ledger import Ledger, Runner, opened, summed
from .shuffle import Run, run_batch
from .tasks import LABELS
from .tasks.reader import Meant

MOST_ALONE = 50
"""Classes that may have one row each before nobody believes that they are classes."""
Range = tuple[int, int]
"""The first key, and the one behind the last."""
END = 2**64


@dataclass(frozen=True)
class Taking:
    """What is told to whoever takes a census. `known`: names of the space; `stands_for`: which of them each label that was met
    means, None where runs have the numbers of the space. `first_run`: number of the first of `runs` among all."""

    pieces: Path
    runs: tuple[Run, ...]
    first_run: int
    task: TaskName
    known: tuple[str, ...]
    stands_for: Mapping[str, str] | None
    unlabelled: bool = False
    """Nobody reads the labels of these rows, whatever they are."""

    @classmethod
    def of(cls, pieces: Path, runs: Sequence[Run], *about: Any, unlabelled: bool = False) -> "Taking":
        """Without what of the runs is of no use here."""
        told = cls(pieces, tuple(replace(run, marks=()) for run in runs), *about)
        return replace(told, unlabelled=unlabelled)


def names_of(runs: Sequence[Run], classes: tuple[str, ...] | None, task: TaskName) -> tuple[tuple[str, ...], Any]:
    """(the classes, or names of numbers: those known, else the distinct values of the label; `Taking.stands_for`)."""
    if not runs:
        raise DataError("no row is left to work with")
    if classes:
        return classes, None
    return LABELS[task].discovered(list(dict.fromkeys(value for run in runs for value in run.labels)))


def bounds_of(told: Taking, runs: Sequence[Run], budget: Budget) -> tuple[int, ...]:
    """The first keys of ranges in which about as many of the rows lie as a process may know of."""
    labels = _no_rows(told).labels
    most = budget.census_rows(int(np.prod(labels.shape[1:])) * labels.itemsize)
    num_rows = sum(run.num_rows for run in runs)
    if num_rows <= most:
        return (0,)
    marks = np.sort(np.concatenate([np.array(run.marks, np.uint64) for run in runs]))
    step = max(1, len(marks) * most // num_rows)
    return (0, *dict.fromkeys(marks[step::step].tolist()))


def taken(told: Taking, bounds: tuple[int, ...], run: Runner) -> Ledger:
    """Every row of the runs. Raises DataError for two rows of one id or one key."""
    if len(bounds) == 1:
        ledger = replace(Ledger.of(take_census(told, (0, END))), run=run)
    else:
        ranges = list(pairwise([*bounds, END]))
        done = list(run(partial(_taken, told), list(enumerate(ranges))))
        ledger = Ledger(tuple(path for path, _ in done), bounds, run, told.task, summed([found for _, found in done]))
    if told.stands_for is not None and not shape_of(told.task, len(told.known)):  # one class of many
        _check_not_alone(ledger, told.known)
    return ledger


def _taken(told: Taking, numbered: tuple[int, Range]) -> tuple[Path, NDArray[np.int64] | None]:
    number, keys = numbered
    census, path = take_census(told, keys), told.pieces / f"census-{told.first_run:06}-{number:06}.arrow"
    write_census(path, census)
    return path, census.holds()


def take_census(told: Taking, keys: Range) -> Census:
    """What the runs have in a range of keys. Raises DataError for two rows of one id or one key."""
    found = [part for number, run in enumerate(told.runs) for part in _in_run(told, number, run, keys)]
    census = joined([_no_rows(told), *found])
    check_unique(replace(census, run=census.run - np.uint32(told.first_run)), told.runs, told.pieces)
    return census.in_order()


def _in_run(told: Taking, number: int, run: Run, keys: Range) -> list[Census]:
    batch = run_batch(told.pieces / run.path)
    places = rows_in(batch, keys)
    return [_census(told, told.first_run + number, run, batch, rows) for rows in places if rows.start < rows.stop]


def rows_in(batch: pa.RecordBatch, keys: Range) -> list[slice]:
    """Where the rows of a range stand in a run, split by split."""
    split, sample_key = batch.column("split").to_numpy(), batch.column("sample_key").to_numpy()
    starts = np.searchsorted(split, np.arange(len(SPLITS) + 1, dtype=np.uint8)).tolist()
    return [slice(*within(sample_key, start, stop, keys)) for start, stop in pairwise(starts)]


def within(sample_key: Keys, start: int, stop: int, keys: Range) -> tuple[int, int]:
    """Which of the rows from `start` to `stop`, whose keys ascend, are of a range."""
    first, last = keys
    there = sample_key[start:stop]
    begin = int(np.searchsorted(there, np.uint64(first)))
    end = len(there) if last >= END else int(np.searchsorted(there, np.uint64(last)))
    return start + begin, start + end


def _census(told: Taking, number: int, run: Run, batch: pa.RecordBatch, rows: slice) -> Census:
    part = batch.slice(rows.start, rows.stop - rows.start)
    # Copies: a mapping that lives on holds its pages, and each look-up of a key has touched some of every run.
    columns = {name: np.array(part.column(name).to_numpy()) for name in ("sample_key", "group", "split", "content")}
    labels = np.array(label_values(part.column("label")))
    if told.unlabelled:
        labels = none_of(told.task, len(part), len(told.known))
    elif told.stands_for is not None:
        labels = LABELS[told.task].placed(Meant(labels, run.labels), told.known, told.stands_for)
    held = part.column("bytes").to_numpy() if "bytes" in part.schema.names else np.zeros(len(part))
    return Census(
        columns["sample_key"],
        columns["group"],
        columns["split"].astype(np.uint8),
        labels,
        columns["content"],
        np.full(len(part), number, np.uint32),
        np.arange(rows.start, rows.stop, dtype=np.uint32),
        held.astype(np.uint32),
        has_label(labels),
        told.task,
        len(told.known),
    )


def _no_rows(told: Taking) -> Census:
    run = told.runs[0]
    return _census(told, told.first_run, run, run_batch(told.pieces / run.path), slice(0, 0))


def _check_not_alone(ledger: Ledger, known: Sequence[str]) -> None:
    """Raise DataError for a label that says which row it is."""
    if MOST_ALONE < len(known) == ledger.total(_num_with_label):
        raise DataError(
            f"each of the {len(known):,} rows with a label has one of its own ({known[0]!r}, {known[1]!r}, ...): such names "
            f"say which row it is, not of which class; see transfer_set.label, or list them under transfer_set.classes"
        )


def _num_with_label(census: Census) -> int:
    return int(np.count_nonzero(census.has_label))


def ids_of(told: Sequence[Run], pieces: Path, census: Census) -> list[str]:
    """What the rows of a census are called; `told`: all runs."""
    found = np.empty(len(census), object)
    for number, here in by_run(census.run):
        ids = run_batch(pieces / told[number].path).column("id")
        found[here] = ids.take(pa.array(census.row[here])).to_numpy(zero_copy_only=False)
    return found.tolist()


def divided(census: Census, like: Ledger, pieces: Path) -> Ledger:
    """Rows that are in memory, in a ledger with the bounds of another."""
    if len(like.bounds) == 1:
        return Ledger.of(census)
    paths = []
    for number, (first, last) in enumerate(pairwise([*like.bounds, END])):
        paths.append(pieces / f"census-made-{number:06}.arrow")
        here = census.keys >= np.uint64(first)
        write_census(paths[-1], census.take(here if last >= END else here & (census.keys < np.uint64(last))))
    return replace(like, parts=tuple(paths), held=Ledger.of(census).held)


def check_apart(ledgers: Sequence[Ledger], runs: Sequence[Run], pieces: Path) -> None:
    """Raise DataError for a key that is in two of them; all have the same bounds."""
    parts = list(zip(*(ledger.parts for ledger in ledgers), strict=True))
    work = partial(_check_apart, tuple(runs), pieces)
    if len(parts) == 1:
        work(parts[0])
    else:
        list(ledgers[0].run(work, parts))


def _check_apart(runs: Sequence[Run], pieces: Path, parts: Sequence[Census | Path]) -> None:
    check_unique(joined([replace(opened(part, None), segment=None) for part in parts]), runs, pieces)
