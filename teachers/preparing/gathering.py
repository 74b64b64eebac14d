"""Between the passes: from what was read to who is in which split, what is a duplicate, and which bad rows count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from .bad_rows import BadRows, Told, check_classes, first_of_labels, judge_bad_rows
from .census import Census
from .duplicates import copies, without_copies, without_duplicates
from .ledger import Ledger, Runner, check_splits
from .limiting import limited
from .look import Look
from .shuffle import ChunksDone, Reading, Run
from .stratify import stratified
from .taking import Taking, bounds_of, check_apart, names_of, taken

NONE_HOLDS = "no class at all"
"""Of rows with several classes that each hold or not: one more stratum, called so in the report."""


@dataclass(frozen=True)
class Pass:
    """The first pass's outcome: what tasks were told, what they gave of the source and of the rows beside."""

    told: Reading
    done: Sequence[ChunksDone]
    beside: Sequence[ChunksDone]

    @property
    def bad(self) -> BadRows:
        return self._bad(self.done)

    @property
    def bad_beside(self) -> BadRows:
        return self._bad(self.beside)

    def _bad(self, done: Sequence[ChunksDone]) -> BadRows:
        return BadRows(files=tuple(self.told.pieces / each.bad for each in done if each.bad))


@dataclass(frozen=True)
class Gathered:
    """All usable rows, and what is left over."""

    ledger: Ledger
    everyone: tuple[Ledger, ...]
    """All usable rows, whoever is left out of the ledger."""
    extra: Ledger | None
    """The rows of `transfer_set.extra`, where there is one."""
    classes: tuple[str, ...]
    runs: tuple[Run, ...]
    bad: Told
    num_unused: int
    divided: tuple[str, ...]
    """Classes of which rows are in another split than their hash says."""
    duplicates: Mapping[str, int]
    """By two splits, rows of the later one that stood in the earlier one too."""
    dropped: Mapping[str, int]
    """By split, how many of these were taken out of it."""
    num_cut: int
    """Rows that have lost a part of their label, which was too long."""


def gathered(config: TransferSetConfig, seen: Look, read: Pass, run: Runner) -> Gathered:
    """Raises DataError for what the rows together cannot be."""
    pieces = read.told.pieces
    runs, beside = (tuple(part for each in done for part in each.runs) for done in (read.done, read.beside))
    if not runs:
        told = Told.of(read.bad)
        judge_bad_rows(told, config)
        raise DataError(f"no usable row in the source; {told.number} were skipped")
    classes, stands_for = names_of(runs, seen.classes, config.task)
    taking = Taking.of(pieces, runs, 0, config.task, classes, stands_for)
    bounds = bounds_of(taking, [*runs, *beside], read.told.budget)
    everyone = [taken(taking, bounds, run)]
    ledger, moved = stratified(everyone[0], config, len(classes))
    ledger, bad = limited(ledger, read.bad, config.limit, len(classes))
    extra, bad_beside = None, BadRows()
    if config.extra is not None:
        all_of_extra = _extra(config, read, taking, beside, bounds, run)
        extra, bad_beside = limited(all_of_extra, read.bad_beside, config.limit, len(classes))
        check_apart([ledger, extra], (*runs, *beside), pieces)
        everyone.append(all_of_extra)
    told = Told.of(bad, bad_beside)
    judge_bad_rows(told, config)
    if spoilt := first_of_labels(bad):
        check_classes(ledger.total(partial(_of_classes, len(classes))), spoilt, classes)
    check_splits(ledger.counts(), {})
    found, dropped = copies(pieces, ledger), dict[str, int]()
    duplicates = found.pairs()
    if config.duplicates == "drop":
        ledger, dropped = without_duplicates(ledger, found)
        check_splits(ledger.counts(), dropped)
    if extra is not None:
        drop = config.duplicates == "drop"
        extra, shared, gone = without_copies(extra, copies(pieces, ledger, extra), drop=drop)
        duplicates, dropped = duplicates | shared, dropped | gone
    num_unused, num_cut = (sum(getattr(each, name) for each in read.done) for name in ("num_unused", "num_cut"))
    divided = tuple((*classes, NONE_HOLDS)[number] for number in moved)
    about = classes, (*runs, *beside), told, num_unused, divided, duplicates, dropped, num_cut
    return Gathered(ledger, tuple(everyone), extra, *about)


def _extra(
    config: TransferSetConfig, read: Pass, source: Taking, runs: tuple[Run, ...], bounds: tuple[int, ...], run: Runner
) -> Ledger:
    """Rows of `transfer_set.extra`, none with a label. Raises DataError where there is none."""
    if not runs:
        bad = Told.of(read.bad_beside)
        judge_bad_rows(bad, config)
        raise DataError(f"transfer_set.extra: no usable row in it; {bad.number} were skipped")
    taking = Taking.of(source.pieces, runs, len(source.runs), config.task, source.known, None, unlabelled=True)
    return taken(taking, bounds, run)


def _of_classes(num: int, census: Census) -> NDArray[np.int64]:
    return np.bincount(census.strata[census.has_label], minlength=num)
