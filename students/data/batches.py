"""From a run to the batches that it trains on: which rows, in which order, and what a batch becomes for the network.

The order of rows is a function of (seed, epoch, window) alone: any step is reached directly, by any number of ranks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import psutil
import torch
from torch import Generator, Tensor

from teachers.config.training import TrainConfig
from teachers.errors import DataError, RecipeError
from teachers.models.preprocess import Preprocessor
from teachers.rows.epoch import EpochReader
from teachers.rows.rows import Rows
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..config.cohort_terms import CohortTerm
from ..config.student import PeerLossName, Term
from ..objective.objective import Objective, every_row, labels_of
from ..objective.peer_targets import NEED_LABELS
from ..objective.targets import Asked, Batch, Column, Targets, check_encodings, combination_of, voice_of
from ..runs.run import Run
from ..runs.session import Session
from .augment import augmentation

Network = Tensor | dict[str, Tensor]
"""What a network takes: one tensor, or one per input column."""

Inputs = Callable[[Batch, Generator | None], Network]
Canonical = Callable[[Batch, Generator | None], dict[str, Tensor]]
CHUNK = 4096
INPUT = "input."
KEY = "sample_key"  # of a batch for live teachers: the bits of u64 as i64


@dataclass(frozen=True)
class TrainingRows:
    """Row-aligned columns for the reader, and what turns them into a step: shared by the seeds of one stage."""

    columns: dict[str, Column]
    labelled: np.ndarray
    """bool `[num_rows]`."""
    objective: Objective
    inputs: Inputs
    """A batch and the generator of its augmentation to what the network takes."""
    memory_bytes: int
    canonical: Canonical | None = None
    """The same before the network's own preprocess; None where a batch does not bring it."""
    live: "LiveRows | None" = None
    """Of a run with live teachers: its batches must pass `students.training.look_ahead` before they become a step."""


@dataclass(frozen=True)
class LiveRows:
    """Who is asked about every batch, how many batches ahead, and about what: the rows as the student will see them."""

    teachers: tuple[str, ...]
    prefetch: int
    augmented: Canonical
    """Canonical inputs by column, after augmentation; put back into the batch, `inputs` augments them no more."""


def memory_for(session: Session) -> int:
    """What the rows of a run may take: half of what is free on a GPU; of RAM a quarter, shared by this host's ranks."""
    if session.device.type == "cuda":
        free: int = torch.cuda.mem_get_info(session.device)[0]
        return free // 2
    return int(psutil.virtual_memory().available) // (4 * session.world)


def load_rows(run: Run, transfer_set: TransferSet, preprocessor: Preprocessor, memory_bytes: int) -> TrainingRows:
    """Open the train segments and the stores of `run`; what fits `memory_bytes` is computed and held once.

    Raises DataError when no row can be drawn, RecipeError or StoreError when the stores cannot serve the objective.
    """
    train = MergedSplit(transfer_set, "train")
    live = live_sources(run)
    if live:
        columns, inputs, augmented = live_columns(run, train, preprocessor)
    else:
        columns, inputs, augmented = input_columns(run, train, preprocessor, memory_bytes)
    labels = train.labels().astype(np.int64)
    labelled = train.labelled() & (labels >= 0)
    columns["label"] = torch.from_numpy(labels.clip(min=0))
    if not labelled.all() and not run.labelled_only:
        columns["has_label"] = torch.from_numpy(labelled.astype(np.float32))
    objective, targets = bring_targets(run, train, memory_bytes)
    asked = LiveRows(tuple(live), max(live.values()), augmented) if live and augmented else None
    return TrainingRows(columns | targets.columns, labelled, objective, inputs, memory_bytes, augmented, asked)


def bring_targets(run: Run, train: MergedSplit, memory_bytes: int) -> tuple[Objective, Targets]:
    """The objective of `run`, and the columns of soft targets that it needs."""
    combinations = [combination_of(term, run.sources, number) for number, term in enumerate(run.objective)]
    heard = {name for combination in combinations if combination for name in combination.teachers}
    voices = {source.name: voice_of(source, train) for source in run.sources if source.name in heard}
    if silent := sorted(heard - set(voices)):
        raise RecipeError(f"{run.stage_name}: the objective listens to {silent}, who have no soft targets here")
    targets = Targets(voices, train.num_rows, memory_bytes)
    asks: list[Callable[[Batch], Asked]] = []
    for number, (term, combination) in enumerate(zip(run.objective, combinations, strict=True)):
        if combination is not None:
            check_encodings(term, number, combination, voices)
        asks.append(ask_without_teachers(term, run) if combination is None else targets.answer(combination))
    return Objective(run.objective, asks), targets


def ask_without_teachers(term: Term | CohortTerm, run: Run) -> Callable[[Batch], Asked]:
    """Of a term that compares with labels, or with what peers say of every row, or of the labelled ones."""
    of_peers = term.loss in get_args(PeerLossName)
    return every_row if of_peers and run.membership.peer_rule not in NEED_LABELS else labels_of


def input_columns(
    run: Run, train: MergedSplit, preprocessor: Preprocessor, memory_bytes: int
) -> tuple[dict[str, Column], Inputs, Canonical | None]:
    """Preprocessed once where that fits memory and nothing random comes before it, else canonical and per step."""
    once = run.train.augment is None and not run.membership.keeps_canonical
    if once and bytes_preprocessed(train.num_rows, preprocessor) <= memory_bytes:
        ready = preprocess_all(train, preprocessor)
        columns: dict[str, Column] = {INPUT + name: tensor for name, tensor in ready.items()}
        return columns, lambda batch, _: as_network_takes_it({name: batch[INPUT + name] for name in ready}), None
    rows, augmented = canonical_columns(run, train)

    def inputs(batch: Batch, generator: Generator | None) -> Network:
        ready: Network = preprocessor(augmented(batch, generator))
        return ready

    return {INPUT + name: column for name, column in rows.items()}, inputs, augmented


def canonical_columns(run: Run, train: MergedSplit) -> tuple[dict[str, Rows], Canonical]:
    """The columns as they are stored, and what gives those of a batch after augmentation by a generator."""
    rows = train.inputs()
    augment = augmentation(run.train.augments)

    def augmented(batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        canonical = {name: batch[INPUT + name] for name in rows}
        if augment is None or generator is None:
            return canonical
        moved = augment(as_network_takes_it(canonical), generator)
        return moved if isinstance(moved, dict) else dict.fromkeys(canonical, moved)

    return rows, augmented


def live_sources(run: Run) -> dict[str, int]:
    """Live teachers that the objective listens to: for how many batches ahead each is asked."""
    combinations = [combination_of(term, run.sources, number) for number, term in enumerate(run.objective)]
    heard = {name for combination in combinations if combination for name in combination.teachers}
    return {source.name: source.live.prefetch for source in run.sources if source.live and source.name in heard}


def live_columns(
    run: Run, train: MergedSplit, preprocessor: Preprocessor
) -> tuple[dict[str, Column], Inputs, Canonical | None]:
    """Canonical columns and keys, which every teacher is told; `inputs` only preprocesses: the rows are augmented before."""
    rows, augmented = canonical_columns(run, train)
    keys = torch.from_numpy(train.keys().view(np.int64))
    columns = {INPUT + name: column for name, column in rows.items()} | {KEY: keys}

    def inputs(batch: Batch, _: Generator | None) -> Network:
        ready: Network = preprocessor({name: batch[INPUT + name] for name in rows})
        return ready

    return columns, inputs, augmented


def as_network_takes_it(columns: dict[str, Tensor]) -> Network:
    return next(iter(columns.values())) if len(columns) == 1 else columns


def bytes_preprocessed(num_rows: int, preprocessor: Preprocessor) -> int:
    """What so many rows take as the network takes them, in float32."""
    shapes = preprocessor.input_shape
    values = sum(math.prod(shape) for shape in (shapes.values() if isinstance(shapes, dict) else [shapes]))
    return 4 * values * num_rows


def preprocess_all(split: MergedSplit, preprocessor: Preprocessor) -> dict[str, Tensor]:
    """All rows of `split` as the network takes them, one tensor per input."""
    chunks = [*preprocessed(split, preprocessor, torch.device("cpu"))]
    if isinstance(chunks[0], Tensor):
        return {"": torch.cat(chunks)}  # type: ignore[arg-type]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}  # type: ignore[index]


def preprocessed(
    split: MergedSplit, preprocessor: Preprocessor, device: torch.device, rows: int = CHUNK
) -> Iterator[Network]:
    """The inputs of a split, some rows at a time, in order."""
    for chunk in split.chunks(rows):
        yield preprocessor({name: column.to(device) for name, column in chunk.items()})


class Batches:
    """This rank's share of an endless stream of global batches, from any step on."""

    def __init__(self, rows: TrainingRows, run: Run, session: Session) -> None:
        self.readers = [
            EpochReader(
                {name: chosen(column, index) for name, column in rows.columns.items()},
                batch_size=batch_size,
                seed=run.seed,
                window=run.train.shuffle_window,
                memory_bytes=rows.memory_bytes,
                device=session.device,
                rank=session.rank,
                world=session.world,
            )
            for index, batch_size in draws(rows.labelled, run, session.world)
        ]

    def from_step(self, step: int) -> Iterator[dict[str, Tensor]]:
        """The batches of step `step` (counted from 0) and all after it."""
        streams = [endless(reader, step) for reader in self.readers]
        if len(streams) == 1:
            yield from streams[0]
        for parts in zip(*streams, strict=True):
            yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def endless(reader: EpochReader, step: int) -> Iterator[dict[str, Tensor]]:
    epoch, start = divmod(step, reader.num_batches)
    while True:
        yield from reader.batches(epoch, start)
        epoch, start = epoch + 1, 0


def draws(labelled: np.ndarray, run: Run, world: int) -> list[tuple[np.ndarray | None, int]]:
    """From which rows (None: all) how many rows of each global batch are drawn."""
    train = run.train
    number, of = run.membership.share_of_rows
    mine = None if of == 1 else np.arange(len(labelled)) % of == number
    everything = None if labelled.all() else np.flatnonzero(labelled)
    groups: list[tuple[np.ndarray | None, int]]
    if run.labelled_only:
        groups = [(everything, train.batch_size)]
    elif train.labelled_fraction is None or everything is None:
        groups = [(None, train.batch_size)]
    else:
        share = labelled_share(train, world)
        groups = [(everything, share), (np.flatnonzero(~labelled), train.batch_size - share)]
    if mine is not None:
        groups = [(np.flatnonzero(mine) if index is None else index[mine[index]], size) for index, size in groups]
    return [(enough(index, len(labelled), batch_size, run), batch_size) for index, batch_size in groups]


def labelled_share(train: TrainConfig, world: int) -> int:
    """Labelled rows of a global batch: the same number on every rank, at least one and not all."""
    assert train.labelled_fraction is not None
    per_rank = train.batch_size // world
    if per_rank < 2:
        raise RecipeError("train.labelled_fraction needs two rows or more per worker and batch; raise batch_size")
    return world * min(max(round(train.labelled_fraction * per_rank), 1), per_rank - 1)


def enough(index: np.ndarray | None, num_rows: int, batch_size: int, run: Run) -> np.ndarray | None:
    """`index`, as often as it takes to fill a batch. Raises DataError without a row."""
    found = num_rows if index is None else len(index)
    if found == 0:
        needed = "labelled rows" if run.labelled_only else "rows"
        raise DataError(f"{run.stage_name}: there are no {needed} to train {run.name} on")
    if found >= batch_size:
        return index
    return np.tile(np.arange(num_rows) if index is None else index, math.ceil(batch_size / found))


def chosen(column: Column, index: np.ndarray | None) -> Column:
    """Some rows of a column, in one buffer of their own."""
    if index is None:
        return column
    if isinstance(column, Tensor):
        return column[torch.from_numpy(index)]
    unique, inverse = np.unique(index, return_inverse=True)
    out = torch.empty(len(unique), *column.shape, dtype=column.dtype)
    column.gather(unique, out)
    return out if np.array_equal(unique, index) else out[torch.from_numpy(inverse)]
