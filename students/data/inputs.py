"""From stored rows to what a network takes: once for all rows, or anew for every batch, after augmentation.

Knows nothing of labels, of teachers or of the order of rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from teachers.models.preprocess import Preprocessor
from teachers.rows.rows import Chosen, Rows
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.shown import Others, shown
from teachers.transfer_set.transfer_set import TransferSet

from ..objective.targets import SAMPLE_KEY, Batch, Column
from ..runs.run import Run
from .augment import augmentation
from .draws import Views
from .mixes import Mixing

Network = Tensor | dict[str, Tensor]
"""What a network takes: one tensor, or one per input column."""

Inputs = Callable[[Batch, Views | None], Network]
Canonical = Callable[[Batch, Views | None], dict[str, Tensor]]
Only = np.ndarray | None
"""bool `[rows]`, which rows of the training segments are drawn at all; None: all."""
CHUNK, CHUNK_BYTES = 4096, 256 << 20
"""Rows at once, and what they may take as they are stored: images of 640 x 640 pixels are 1.2 MB each."""
INPUT = "input."
KEY = SAMPLE_KEY
"""Of a batch for live teachers, and of one in views: the bits of u64 as i64."""
OTHER = "other."
"""Of a batch in views that are mixed, before the name of a column: of the row that each is mixed with."""
VIEW = "view"
"""Of a batch in views: i64 `[rows]`, in which each row is seen."""


def made_once(stored: Mapping[str, Rows], preprocessor: Preprocessor) -> tuple[dict[str, Column], Inputs]:
    """All rows as the network takes them, one column an input."""
    chunks = [*preprocessed(stored, preprocessor, torch.device("cpu"))]
    if isinstance(chunks[0], Tensor):
        ready = {"": torch.cat(chunks)}  # type: ignore[arg-type]
    else:
        ready = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}  # type: ignore[index]
    columns: dict[str, Column] = {INPUT + name: tensor for name, tensor in ready.items()}
    return columns, lambda batch, _: as_network_takes_it({name: batch[INPUT + name] for name in ready})


def made_anew(
    rows: dict[str, Rows], augmented: Canonical, preprocessor: Preprocessor
) -> tuple[dict[str, Column], Inputs]:
    """The columns as they are stored; each batch is augmented and preprocessed by itself."""

    def inputs(batch: Batch, views: Views | None) -> Network:
        ready: Network = preprocessor(augmented(batch, views))
        return ready

    return {INPUT + name: column for name, column in rows.items()}, inputs


def made_before(
    rows: dict[str, Rows], keys: np.ndarray, preprocessor: Preprocessor
) -> tuple[dict[str, Column], Inputs]:
    """Stored columns and keys, which live teachers are told; their batches are augmented before they become inputs."""
    columns = {INPUT + name: column for name, column in rows.items()} | {
        KEY: torch.from_numpy(np.array(keys).view(np.int64))
    }

    def inputs(batch: Batch, _: Views | None) -> Network:
        ready: Network = preprocessor({name: batch[INPUT + name] for name in rows})
        return ready

    return columns, inputs


def stored_columns(split: MergedSplit, only: Only = None) -> dict[str, Rows]:
    """The input columns of a split as they are stored, in the order of keys."""
    rows = split.inputs()
    return rows if only is None else {name: Chosen(column, np.flatnonzero(only)) for name, column in rows.items()}


def augmenting(names: Sequence[str], run: Run, mixing: Mixing | None = None) -> Canonical:
    """What gives the stored columns `names` of a batch after the run's augmentation, and `mixing` after that."""
    augment, viewing = augmentation(run.train.augments), run.views

    def moved(canonical: dict[str, Tensor], views: Views) -> dict[str, Tensor]:
        if augment is None:
            return canonical
        found = augment(as_network_takes_it(canonical), views)
        return found if isinstance(found, dict) else dict.fromkeys(canonical, found)

    def others(batch: Batch) -> Others:
        return Others({name: batch[OTHER + INPUT + name] for name in names}, batch[OTHER + KEY])

    def augmented(batch: Batch, views: Views | None) -> dict[str, Tensor]:
        canonical = {name: batch[INPUT + name] for name in names}
        if viewing is not None:
            canonical = shown(viewing, canonical, batch[KEY], batch[VIEW], others(batch) if viewing.mixes else None)
        if views is None:
            return canonical
        canonical = moved(canonical, views)
        return canonical if mixing is None else mixing.inputs(canonical, batch, views)

    return augmented


def as_network_takes_it(columns: dict[str, Tensor]) -> Network:
    return next(iter(columns.values())) if len(columns) == 1 else columns


def in_order(
    split: MergedSplit, preprocessor: Preprocessor, device: torch.device, *, only: Only = None, rows: int = CHUNK
) -> Iterator[Network]:
    """The inputs of a split's rows, some at a time, in the order of keys; text as it is, for an estimator that reads it."""
    if not any(column.kind == "text" for column in preprocessor.columns):
        yield from preprocessed(stored_columns(split, only), preprocessor, device, rows)
        return
    numbers = np.arange(split.num_rows) if only is None else np.flatnonzero(only)
    for first in range(0, len(numbers), rows):
        yield preprocessor(split.chosen(numbers[first : first + rows]))


def preprocessed(
    stored: Mapping[str, Rows], preprocessor: Preprocessor, device: torch.device, rows: int = CHUNK
) -> Iterator[Network]:
    """The inputs of stored columns, at most so many rows at a time, in order."""
    num_rows = next(iter(stored.values())).num_rows
    row_bytes = sum(column.nbytes for column in stored.values()) // max(1, num_rows)
    rows = max(1, min(rows, CHUNK_BYTES // max(1, row_bytes)))
    for first in range(0, num_rows, rows):
        here = min(rows, num_rows - first)
        chunk = {name: torch.empty(here, *column.shape, dtype=column.dtype) for name, column in stored.items()}
        for name, out in chunk.items():
            stored[name].copy(first, out)
        yield preprocessor({name: column.to(device) for name, column in chunk.items()})


def bytes_of_validation(transfer_set: TransferSet, preprocessor: Preprocessor, world: int) -> int:
    """Of one rank's share of the validation rows, as the network takes them."""
    num_rows = sum(segment.num_rows for segment in transfer_set.of("validation"))
    return -(-num_rows // world) * preprocessor.bytes_per_row
