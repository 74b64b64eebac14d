"""A few real rows as a transfer set of their own: what `plan --check` tries teachers and students on.

Every split has the same rows. Knows nothing of keys or of which split a row will be in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..sources import chunks_of, files_of, read
from ..sources.files import Batch
from ..storage.seal import replace as replace_file
from ..tasks.labels import has_label, strata
from ..tasks.space import Space
from ..transfer_set.arrow_columns import ipc_file
from ..transfer_set.columns import Column, content_hash, inputs_batch
from ..transfer_set.decoding import decoded
from ..transfer_set.transfer_set import NAME, SPLITS, Part, Segment, TransferSet, segment_digest
from .bad_rows import Bad, BadPosition, BadRows, Told, judge_bad_rows
from .canonical import decode
from .categories import Texts, dictionaries_of, with_codes
from .dictionaries import of_few_rows
from .look import Look
from .moments import moments
from .rows_file import rows_batch, write_rows
from .shuffle import Reading, labels_in
from .splits import expected_shares
from .statistics import with_moments

PLACES = 16
"""Of the source that rows are taken from."""
AT_ONCE = 256


@dataclass(frozen=True)
class Sample:
    """Inputs `[rows, ...]` of some rows as they are stored, and their labels in `space`."""

    columns: tuple[Column, ...]
    space: Space
    inputs: dict[str, NDArray[Any]]
    labels: NDArray[Any]

    def take(self, num_rows: int) -> "Sample":
        """The first rows, which are of as many classes as there are."""
        inputs = {name: values[:num_rows] for name, values in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels[:num_rows])

    @property
    def num_rows(self) -> int:
        return len(self.labels)

    @property
    def seen(self) -> dict[str, NDArray[Any]]:
        """Canonical inputs: encoded images as pixels."""
        encoded = [column for column in self.columns if column.encoded]
        return self.inputs | {each.name: decoded(self.inputs[each.name], each.shape, each.resize) for each in encoded}


def sample_prepared(transfer_set: TransferSet, num_rows: int) -> Sample:
    """Of a set that is prepared: some of its first training rows, with the columns' statistics."""
    segment = transfer_set.of("train")[0]
    looked_at = min(PLACES * num_rows, segment.num_rows)
    labels = transfer_set.labels(segment)[:looked_at]
    order = _by_turns(strata(labels, transfer_set.space.task))[:num_rows]
    stored = transfer_set.inputs(segment, 0, looked_at, as_stored=True)
    inputs = {name: values[order] for name, values in stored.items()}
    return Sample(transfer_set.columns, transfer_set.space, inputs, labels[order])


def sample(config: TransferSetConfig, seen: Look, classes: tuple[str, ...], num_rows: int) -> Sample:
    """Rows from all over the source, of as many classes as are met.

    Raises DataError when none can be used, or for one that cannot and is not to be skipped.
    """
    told = Reading(config, seen.plans, classes, seen.integers, seen.root, Path(), last_key=None)
    inputs: list[dict[str, NDArray[Any]]] = []
    labels: list[NDArray[Any]] = []
    bad_rows: list[BadPosition] = []
    texts: Texts = {}
    batches = [*_batches(told, seen.num_rows)]
    for batch in batches:
        reasons: Bad = {}
        named = labels_in(told, batch.data, reasons).labels
        chosen = np.sort(_by_turns(strata(named, config.task))[: -(-num_rows // len(batches))])
        decoded, bad = decode(batch.data.take(pa.array(chosen)), told.plans, told.root, texts)
        good = [at for at, row in enumerate(chosen.tolist()) if at not in bad and row not in reasons]
        bad_rows += [BadPosition(batch.positions[chosen[at]], reason) for at, reason in sorted(bad.items())]
        inputs.append({name: values[good] for name, values in decoded.items()})
        labels.append(named[chosen][good])
    if config.limit is None and sum(expected_shares(config.split, None).values()) > 1 - 1e-9:
        judge_bad_rows(Told.of(BadRows(tuple(bad_rows))), config)  # nobody leaves them out
    if not sum(map(len, labels)):
        raise DataError(f"none of the rows that were looked at can be used: {bad_rows[0].reason if bad_rows else ''}")
    order = _by_turns(strata(whole := np.concatenate(labels), config.task))[:num_rows]
    joined = {name: np.concatenate([each[name] for each in inputs])[order] for name in inputs[0]}
    columns = of_few_rows([plan.column for plan in seen.plans], joined, texts)
    joined = with_codes(joined, dictionaries_of(columns))
    columns = with_moments(columns, [[moments(joined[column.name], column) for column in columns]])
    return Sample(columns, _space(told, classes, whole), joined, whole[order])


def _space(told: Reading, names: tuple[str, ...], labels: NDArray[Any]) -> Space:
    """Of few rows, whose labels may all be the same by chance."""
    try:
        return told.labels.space(names, lambda: [labels])
    except DataError:
        return Space(told.config.task, names, (0.0,) * len(names), (1.0,) * len(names))


def _batches(told: Reading, num_rows: int | None) -> Iterator[Batch]:
    """Rows from up to PLACES places that lie evenly apart. `num_rows`: of the source, as far as it is known."""
    chunks = chunks_of(files_of(told.config), AT_ONCE)
    places = sorted({round(at) for at in np.linspace(0, len(chunks) - 1, PLACES)})
    each = -(-PLACES // len(places))
    step = max(1, -(-(num_rows or 0) // (len(chunks) * AT_ONCE * each)))
    for place in places:
        batches = islice(read(chunks[place], told.columns, AT_ONCE), 0, each * step, step)
        yield from (batch for batch in batches if batch.positions)


def _by_turns(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """An order of rows in which every class has its turn; within a class as they come."""
    turn = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        mine = labels == label
        turn[mine] = np.arange(mine.sum())
    return np.argsort(turn, kind="stable")


def as_transfer_set(rows: Sample, folder: Path, *, some_unlabelled: bool = False) -> TransferSet:
    """Write `rows` as a transfer set whose splits are all the same. `some_unlabelled`: the label of half of them may not be used."""
    keys = np.arange(1, rows.num_rows + 1, dtype=np.uint64)
    usable = has_label(rows.labels)
    if some_unlabelled:
        usable &= np.arange(rows.num_rows) < -(-rows.num_rows // 2)
    segments = []
    for split in SPLITS:
        name = f"{split}-0"
        path = f"segments/{name}/inputs/000000.arrow"
        (folder / path).parent.mkdir(parents=True)
        payload = ipc_file(inputs_batch(keys, rows.inputs))
        replace_file(folder / path, payload)
        part = Part(path, 0, rows.num_rows, payload.nbytes, content_hash(keys, rows.inputs))
        segment = Segment(name, split, 0, rows.num_rows, segment_digest(rows.columns, 0, [part]), (part,))
        named: dict[str, NDArray[Any]] = {"sample_key": keys, "group": keys, "label": rows.labels, "labelled": usable}
        write_rows(folder / segment.rows_path, [rows_batch(pa.array([f"row {key}" for key in keys.tolist()]), named)])
        segments.append(segment)
    report = {
        "rows": {split: rows.num_rows for split in SPLITS},
        "labelled": {split: int(usable.sum()) for split in SPLITS},
    }
    made = TransferSet(folder, rows.columns, rows.space, tuple(segments), int(usable.sum()), report)
    replace_file(folder / NAME, made.manifest())
    return made
