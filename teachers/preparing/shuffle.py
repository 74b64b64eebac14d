"""The first pass of preparing: chunks of the source into sorted runs, of which each is what memory holds.

One function per task, picklable and idempotent, with bounded memory. Knows nothing of segments or of Ray.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..sources import read
from ..sources.files import Batch, Chunk, Positions, text_of
from ..storage import mirror
from ..storage.seal import replace
from ..tasks.labels import has_label, strata
from ..transfer_set.arrow_columns import ipc_file, label_column
from ..transfer_set.columns import inputs_batch, row_bytes
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import SPLITS
from .bad_rows import Bad, BadPosition, spelt
from .budget import STANDARD, Budget
from .canonical import InputPlan, decode
from .categories import Texts, write_texts
from .labels import codes, names_in
from .splits import UNUSED, first_of_classes, order_of, row_hashes, sample_keys, split_numbers
from .tasks import LABELS
from .tasks.reader import LabelReader, Meant
from .text import cut

BATCH_BYTES = 8 * 2**20
MARK = 1024
"""Of so many rows of a run the key of one tells how keys lie."""
ENCODED_ROWS, KEPT_ROWS = 256, 32
"""In a batch of encoded images, whose size in the source nobody knows; of those that stay so, which may be photographs."""


@dataclass(frozen=True)
class Reading:
    """What every task of the first pass is told. `integers`: what they mean as labels, where not each file says so itself.
    `last_key`: per split, rows behind it are left out (`limit`)."""

    config: TransferSetConfig
    plans: tuple[InputPlan, ...]
    classes: tuple[str, ...] | None
    integers: tuple[str, ...] | None
    root: Path | None
    pieces: Path
    last_key: tuple[int, ...] | None
    budget: Budget = STANDARD
    beside: str = ""
    """Of rows beside the source's, which are all training rows: what their positions begin with."""

    @property
    def labels(self) -> LabelReader:
        return LABELS[self.config.task]

    @property
    def columns(self) -> list[str]:
        """Of the source."""
        names = [name for plan in self.plans for name in plan.sources]
        also = (*self.config.labels, self.config.id, self.config.split.group_by)
        return list(dict.fromkeys([*names, *(name for name in also if name is not None)]))

    @property
    def texts(self) -> list[str]:
        """Columns of the source that are text, whose rows are as long as they like."""
        return [name for plan in self.plans if plan.kind == "text" for name in plan.sources]

    @property
    def rows_per_batch(self) -> int:
        rows = max(1, min(65_536, BATCH_BYTES // sum(plan.column.bytes_per_row for plan in self.plans)))
        rows = min(rows, ENCODED_ROWS) if any(plan.raw is None for plan in self.plans) else rows
        return min(rows, KEPT_ROWS) if any(plan.encoded for plan in self.plans) else rows


@dataclass(frozen=True)
class Run:
    """A file of decoded rows, sorted by split and key. `labels`: what its labels' numbers or columns mean, where the names of the space are unknown."""

    path: str
    num_rows: int
    labels: tuple[str, ...]
    marks: tuple[int, ...]
    """Keys that stand for all of its keys, ascending."""


@dataclass(frozen=True)
class ChunksDone:
    """`bad`: the file of the rows that cannot be used, "" without any. `num_unused`: rows that the shares of the split leave out;
    `num_cut`: that have lost a part of their label."""

    runs: tuple[Run, ...]
    bad: str
    num_unused: int
    num_cut: int = 0


@dataclass
class Decoded:
    """Usable rows of one batch, waiting to be written; `num_unused` others are in no split. `texts`: of categories."""

    num_unused: int
    keys: Keys
    meta: dict[str, pa.Array]
    labels: Meant
    inputs: dict[str, NDArray[Any]]
    texts: Texts

    @property
    def bytes(self) -> int:
        held = self.labels.labels.nbytes + sum(array.nbytes for array in self.meta.values())
        return int(held) + sum(int(row_bytes(values).sum()) for values in self.inputs.values())


def read_chunks(told: Reading, numbered: tuple[int, Sequence[Chunk]]) -> ChunksDone:
    """First pass: decode and check some chunks, write them as runs. What was done before is not done again."""
    number, chunks = numbered
    record = told.pieces / f"chunks-{number:06}.json"
    if mirror.there(record):
        return _chunks_done(json.loads(record.read_bytes()))
    done = _read_chunks(told, number, chunks)
    replace(record, json.dumps(asdict(done)).encode())
    return done


def _read_chunks(told: Reading, number: int, chunks: Sequence[Chunk]) -> ChunksDone:
    bad: list[BadPosition] = []
    runs: list[Run] = []
    waiting: list[Decoded] = []
    num_unused = num_cut = held = 0
    for rows in (decoded for chunk in chunks for decoded in _decoded(told, chunk, bad)):
        waiting.append(rows)
        num_unused, num_cut, held = num_unused + rows.num_unused, num_cut + rows.labels.cut, held + rows.bytes
        if held >= told.budget.run_bytes:
            runs.append(_write_run(told, f"run-{number:06}-{len(runs):04}.arrow", waiting))
            waiting, held = [], 0
    if any(len(rows.keys) for rows in waiting):
        runs.append(_write_run(told, f"run-{number:06}-{len(runs):04}.arrow", waiting))
    name = f"bad-{number:06}.jsonl" if bad else ""
    if bad:
        replace(told.pieces / name, spelt(bad))
    return ChunksDone(tuple(runs), name, num_unused, num_cut)


def _decoded(told: Reading, chunk: Chunk, bad: list[BadPosition]) -> Iterator[Decoded]:
    """The usable rows of a chunk, batch by batch; what cannot be used goes to `bad`."""
    batches = read(chunk, told.columns, told.rows_per_batch)
    for batch in (part for whole in batches for part in cut(placed(whole, told), told.texts, BATCH_BYTES)):
        bad += [BadPosition(position, reason) for position, reason in batch.bad]
        if batch.positions:
            try:
                yield _decode_batch(told, chunk, batch, bad)
            except DataError as error:
                raise DataError(f"{chunk.file.title}: {error}") from error


def placed(batch: Batch, told: Reading) -> Batch:
    """The same; rows that stand beside the source's say so."""
    if not told.beside:
        return batch
    bad = tuple((told.beside + position, reason) for position, reason in batch.bad)
    here = pc.binary_join_element_wise(told.beside, text_of(batch.positions), "")
    return Batch(batch.data, Positions(here), bad)


def _chunks_done(document: dict[str, Any]) -> ChunksDone:
    runs = (Run(**run | {name: tuple(run[name]) for name in ("labels", "marks")}) for run in document["runs"])
    return ChunksDone(**document | {"runs": tuple(runs)})


def _decode_batch(told: Reading, chunk: Chunk, batch: Batch, bad: list[BadPosition]) -> Decoded:
    """Name, split, decode and label the rows of a batch; what cannot be used goes to `bad`."""
    reasons: Bad = {}
    ids, keys, groups, split = named_in(told, chunk, batch, reasons)
    data, positions = batch.data, text_of(batch.positions)
    wanted = split != UNUSED
    num_unused = len(wanted) - int(wanted.sum())
    if told.last_key is not None:
        near = keys <= np.array([*told.last_key, 0], np.uint64)[split]
        of_class = strata(labels_in(told, data, {}).labels, told.config.task)
        wanted &= near | first_of_classes(keys, split, of_class)
    if not wanted.all():
        kept = np.flatnonzero(wanted)
        ids, data = ids.take(pa.array(kept)), data.take(pa.array(kept))
        keys, groups, split, positions = keys[kept], groups[kept], split[kept], positions.take(pa.array(kept))
        reasons = {at: reasons[row] for at, row in enumerate(kept.tolist()) if row in reasons}
    meant = labels_in(told, data, reasons)
    texts: Texts = {}
    inputs, wrong = decode(data, told.plans, chunk.file.root if told.beside else told.root, texts)
    reasons |= {row: reason for row, reason in wrong.items() if row not in reasons}
    bad += [
        BadPosition(positions[row].as_py(), reasons[row], int(split[row]), int(keys[row]), _named(meant, row))
        for row in sorted(reasons)
    ]
    meta = {"split": pa.array(split), "group": pa.array(groups), "id": ids, "position": positions}
    if reasons:
        good = np.setdiff1d(np.arange(len(keys)), np.fromiter(reasons, np.int64, len(reasons)))
        keys, meant = keys[good], Meant(meant.labels[good], meant.names, meant.cut)
        inputs = {name: rows[good] for name, rows in inputs.items()}
        meta = {name: column.take(pa.array(good)) for name, column in meta.items()}
    meta["content"] = pa.array(row_hashes(list(inputs.values())))
    if any(plan.column.varies for plan in told.plans):
        meta["bytes"] = pa.array(sum(row_bytes(values) for values in inputs.values()), pa.int64())
    return Decoded(num_unused, keys, meta, meant, inputs, texts)


def _named(meant: Meant, row: int) -> str:
    """The class of a row of one class."""
    one_class = meant.labels.ndim == 1 and has_label(meant.labels[row : row + 1])[0]
    return meant.names[meant.labels[row]] if one_class else ""


def named_in(told: Reading, chunk: Chunk, batch: Batch, reasons: Bad) -> tuple[pa.Array, Keys, Keys, NDArray[np.uint8]]:
    """(ids, keys, what decides the split, the split's number) of every row; a row without id or group has a reason."""
    ids = ids_in(told, batch, reasons)
    keys = sample_keys(ids, told.config.key_salt)
    groups = _groups_in(told, batch, keys, reasons)
    if told.beside:
        return ids, keys, groups, np.full(len(keys), SPLITS.index("train"), np.uint8)
    return ids, keys, groups, split_numbers(groups, told.config.split, chunk.file.split)


def ids_in(told: Reading, batch: Batch, reasons: Bad) -> pa.Array:
    name = told.config.id
    if name is None:
        return text_of(batch.positions)
    ids = names_in(name, batch.data.column(name))
    for row in np.flatnonzero(np.asarray(ids.is_null())).tolist():
        reasons[row] = f"{name} (the id) is missing"
    return ids.fill_null("")


def _groups_in(told: Reading, batch: Batch, keys: Keys, reasons: Bad) -> Keys:
    """What decides the split of each row: its own key, or the key of its group."""
    name = told.config.split.group_by
    if name is None:
        return keys
    column = batch.data.column(name)
    numbers, values = codes(names_in(name, column))
    for row in np.flatnonzero(numbers < 0).tolist():
        reasons.setdefault(row, f"{name} (the group) is missing")
    return np.append(sample_keys(values, ""), np.uint64(0))[numbers]


def labels_in(told: Reading, data: pa.RecordBatch, reasons: Bad) -> Meant:
    """Labels of a batch, in the names of the space where they are known, else in this batch's own."""
    return told.labels.read(told.config, told.classes, told.integers, data, reasons, told.root)


def _write_run(told: Reading, name: str, waiting: Sequence[Decoded]) -> Run:
    """One Arrow file: split, group, id, position, content hash and inputs, sorted by split and key; with text `bytes`, too.

    Categories are hashes; what they are of lies in a file of its own.
    """
    meta = pa.Table.from_batches([pa.record_batch(rows.meta) for rows in waiting]).combine_chunks()
    meant = told.labels.joined([rows.labels for rows in waiting]) if told.classes is None else None
    labels = np.concatenate([rows.labels.labels for rows in waiting]) if meant is None else meant.labels
    keys = np.concatenate([rows.keys for rows in waiting])
    order = order_of(meta["split"].to_numpy(), keys)
    inputs = {
        plan.name: np.take(np.concatenate([rows.inputs[plan.name] for rows in waiting]), order, axis=0)
        for plan in told.plans
    }
    sorted_meta = meta.take(pa.array(order)).to_batches()[0]
    batch = inputs_batch(keys[order], inputs)
    for column in sorted_meta.schema.names:
        batch = batch.append_column(column, sorted_meta.column(column))
    batch = batch.append_column("label", label_column(labels[order]))
    if any(plan.kind == "category" for plan in told.plans):
        texts = {each: text for rows in waiting for each, text in rows.texts.items()}
        write_texts(told.pieces / texts_piece(name), texts)
    replace(told.pieces / name, ipc_file(batch))
    marks = np.sort(keys)[MARK // 2 :: MARK].tolist() or [int(keys[0])]
    return Run(name, len(keys), () if meant is None else meant.names, tuple(marks))


def texts_piece(run: str) -> str:
    return "texts-" + run


def run_batch(path: Path) -> pa.RecordBatch:
    mirror.bring(path)
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
