"""How many rows and labels each split has of each class, counted without decoding any input: what `prepare` will find.

Reads the columns that decide it of every row; writes nothing. Raises what `prepare` raises for the same rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.task import TaskName
from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..sources import chunks_of, files_of, read
from ..sources.files import Batch, Chunk
from ..tasks.labels import has_label, per_name, usable
from ..transfer_set.transfer_set import SPLITS, SplitName, TransferSet
from .bad_rows import Bad, BadPosition, BadRows, Told, judge_bad_rows
from .census import Census, same_key
from .corrections import corrected
from .extra import reading_extra
from .labelling import with_labelled
from .ledger import Ledger, check_splits
from .limiting import limited
from .look import Look
from .shuffle import Reading, ids_in, labels_in, named_in, placed
from .splits import UNUSED, sample_keys
from .stratify import stratified
from .tasks.reader import Meant

MOST_ROWS = 5_000_000
AT_ONCE = 65_536
Columns = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8], Meant]
"""Of one batch: keys, groups, splits and labels."""


@dataclass(frozen=True)
class Counted:
    """By split: rows, rows whose label may be used, and such rows of each class, or with each number."""

    classes: tuple[str, ...]
    rows: Mapping[SplitName, int]
    num_labelled: Mapping[SplitName, int]
    labelled: Mapping[SplitName, tuple[int, ...]]
    beside: Mapping[str, int] = field(default_factory=dict)
    """Of the training rows, those beside the source's: `extra`, `munge`."""

    def of_class(self, split: SplitName) -> dict[str, int]:
        return dict(zip(self.classes, self.labelled[split], strict=True))


def count_prepared(transfer_set: TransferSet) -> Counted:
    """Of a set that is prepared already."""
    labels = {split: [transfer_set.usable_labels(segment) for segment in transfer_set.of(split)] for split in SPLITS}
    rows = {split: sum(segment.num_rows for segment in transfer_set.of(split)) for split in SPLITS}
    more = {kind: n for kind, n in transfer_set.report.get("beside", {}).items() if isinstance(n, int)}
    return replace(_counted(transfer_set.space.task, transfer_set.classes, rows, labels), beside=more)


def count(config: TransferSetConfig, seen: Look, most: int = MOST_ROWS) -> Counted | None:
    """Every row's split and class; None where the source has more rows than `most`.

    Rows whose inputs cannot be used are counted, and so are duplicates that would be dropped. Raises DataError for labels
    that name no class, ids that are missing, a split without rows, and more labels asked for than there are.
    """
    told = Reading(config, (), seen.classes, seen.integers, seen.root, Path(), last_key=None)
    bad: list[BadPosition] = []
    found: list[Columns] = []
    num_rows = 0
    for columns in _columns(told, bad):
        found.append(columns)
        num_rows += len(columns[0])
        if num_rows > most:
            return None
    if not num_rows:
        judge_bad_rows(Told.of(BadRows(tuple(bad))), config)
        raise DataError(f"no usable row in the source; {len(bad)} were skipped")
    classes = seen.classes
    stands_for: Mapping[str, str] = {name: name for name in classes or ()}
    if classes is None:
        values = dict.fromkeys(name for *_, meant in found for name in meant.names)
        classes, stands_for = told.labels.discovered(list(values))
    beside, readings = _keys_beside(told, bad), [told, *([reading_extra(told)] if config.extra is not None else [])]
    _check_unique(readings, np.concatenate([*(keys for keys, *_ in found), beside]))
    everyone = Ledger.of(_census(told, found, classes, stands_for))
    ledger, _ = stratified(everyone, config, len(classes))
    ledger, left = limited(ledger, BadRows(tuple(bad)), config.limit, len(classes))
    judge_bad_rows(Told.of(left), config)
    check_splits(ledger.counts(), {})
    ledger = with_labelled(ledger, config, len(classes))
    ledger, _ = corrected(config, ledger, [everyone], partial(_names, told), classes)
    census = ledger.whole()
    labels = {split: usable(census.labels, census.labelled)[census.of(split)] for split in SPLITS}
    if seen.classes is not None or config.labels:
        told.labels.space(classes, lambda: [labels["train"]])
    counts = ledger.counts()
    rows = {split: counts[split] for split in SPLITS}
    more: dict[str, int] = {}
    if config.extra is not None:
        more["extra"] = len(beside[: config.limit])
    if config.munge is not None:
        more["munge"] = config.munge.of(rows["train"])
    rows["train"] += sum(more.values())
    return replace(_counted(config.task, classes, rows, {split: [each] for split, each in labels.items()}), beside=more)


def _names(told: Reading, census: Census) -> list[str]:
    """What all rows are called, in the order of their keys."""
    ids = [ids_in(told, batch, {}) for _, batch in _batches(told) if batch.positions]
    called = pa.concat_arrays([pa.array([], pa.string()), *ids])
    keys = sample_keys(called, told.config.key_salt)
    order = np.argsort(keys)
    names: list[str] = called.take(pa.array(order[np.searchsorted(keys[order], census.keys)])).to_pylist()
    return names


def _keys_beside(told: Reading, bad: list[BadPosition]) -> NDArray[np.uint64]:
    """Of the rows of `transfer_set.extra`, as far as there are any."""
    if told.config.extra is None:
        return np.zeros(0, np.uint64)
    found = [keys for keys, *_ in _columns(reading_extra(told), bad)]
    return np.concatenate([np.zeros(0, np.uint64), *found])


def _counted(
    task: TaskName,
    classes: tuple[str, ...],
    rows: Mapping[SplitName, int],
    labels: Mapping[SplitName, list[NDArray[Any]]],
) -> Counted:
    num = {split: sum(int(has_label(each).sum()) for each in parts) for split, parts in labels.items()}
    per = {
        split: tuple(
            sum((per_name(each, len(classes), task) for each in parts), np.zeros(len(classes), np.int64)).tolist()
        )
        for split, parts in labels.items()
    }
    return Counted(classes, rows, num, per)


def _batches(told: Reading) -> Iterator[tuple[Chunk, Batch]]:
    config = told.config
    names = told.columns or [config.input_names[0]]
    for chunk in chunks_of(files_of(config), AT_ONCE):
        yield from ((chunk, placed(batch, told)) for batch in read(chunk, names, AT_ONCE))


def _columns(told: Reading, bad: list[BadPosition]) -> Iterator[Columns]:
    """Of the usable rows of each batch; what cannot be used goes to `bad`."""
    for chunk, batch in _batches(told):
        bad += [BadPosition(position, reason) for position, reason in batch.bad]
        if not batch.positions:
            continue
        reasons: Bad = {}
        _, keys, groups, split = named_in(told, chunk, batch, reasons)
        meant = labels_in(told, batch.data, reasons)
        wanted = split != UNUSED
        bad += [
            BadPosition(str(batch.positions[row]), reasons[row], int(split[row]), int(keys[row]))
            for row in sorted(reasons)
            if wanted[row]
        ]
        wanted[[*reasons]] = False
        yield keys[wanted], groups[wanted], split[wanted], Meant(meant.labels[wanted], meant.names)


def _check_unique(readings: Sequence[Reading], keys: NDArray[np.uint64]) -> None:
    """Raise DataError for two rows of one key, whose ids are read again."""
    ordered = np.sort(keys)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return
    named: list[tuple[str, str]] = []
    for told, batch in ((each, batch) for each in readings for _, batch in _batches(each)):
        if not batch.positions:
            continue
        ids = ids_in(told, batch, {})
        same = np.flatnonzero(sample_keys(ids, told.config.key_salt) == twice[0])
        named += [(ids[row].as_py(), batch.positions[row]) for row in same.tolist()]
    raise same_key(*named[:2])


def _census(told: Reading, found: Sequence[Columns], classes: Sequence[str], stands_for: Mapping[str, str]) -> Census:
    """As `take_census` has it, without what is known of inputs only."""
    keys, groups, split = (np.concatenate([columns[at] for columns in found]) for at in range(3))
    labels = np.concatenate([told.labels.placed(meant, classes, stands_for) for *_, meant in found])
    nothing = np.zeros(len(keys), np.uint32)
    about = nothing, nothing, nothing, has_label(labels), told.config.task, len(classes)
    return Census(keys, groups, split, labels, keys, *about).in_order()
