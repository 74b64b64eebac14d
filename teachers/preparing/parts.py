"""The second pass of preparing: rows of runs into a segment's parts, categories by their codes.

One function per task, picklable and idempotent, with bounded memory. Knows nothing of segments or of Ray.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError
from ..storage.seal import replace
from ..transfer_set.arrow_columns import ipc_file
from ..transfer_set.columns import Column, content_hash, inputs_batch, inputs_of
from ..transfer_set.transfer_set import Part
from .categories import dictionaries_of, with_codes
from .moments import Moments, moments
from .shuffle import run_batch


@dataclass(frozen=True)
class PartTask:
    """Rows of one part, in the order of their keys: row `rows[n]` of run `runs[run[n]]`."""

    path: str
    first_row: int
    runs: tuple[str, ...]
    run: NDArray[np.uint32]
    rows: NDArray[np.uint32]


@dataclass(frozen=True)
class Writing:
    """What every task of the second pass is told."""

    folder: Path
    pieces: Path
    columns: tuple[Column, ...]


def write_part(told: Writing, task: PartTask) -> tuple[Part, list[Moments]]:
    """Second pass: gather the rows of a part and publish it; its ids go to a piece of their own (`ids_piece`)."""
    keys = np.empty(len(task.rows), np.uint64)
    inputs = {column.name: _empty(len(keys), column) for column in told.columns}
    ids, at = [], []
    for number, here in _by_run(task):
        batch, rows = run_batch(told.pieces / task.runs[number]), task.rows[here]
        taken = inputs_of(batch, told.columns, rows, as_stored=True)
        keys[here] = batch.column("sample_key").to_numpy()[rows]
        for name, values in with_codes(taken, dictionaries_of(told.columns)).items():
            inputs[name][here] = values
        ids.append(batch.column("id").take(pa.array(rows)))
        at.append(here)
    if not (keys[1:] > keys[:-1]).all():
        raise DataError(f"{task.path}: keys are not ascending; the pieces in {told.pieces} are damaged, remove them")
    payload = ipc_file(inputs_batch(keys, inputs))
    replace(told.folder / task.path, payload)
    in_order = pa.concat_arrays(ids).take(pa.array(np.argsort(np.concatenate(at))))
    replace(told.pieces / ids_piece(task.path), ipc_file(pa.record_batch({"id": in_order})))
    part = Part(task.path, task.first_row, len(keys), len(payload), content_hash(keys, inputs))
    return part, [moments(inputs[column.name], column) for column in told.columns]


def _empty(rows: int, column: Column) -> NDArray[Any]:
    """For a column as it is stored."""
    return np.empty(rows, object) if column.varies else np.empty((rows, *column.shape), column.dtype)


def ids_piece(part_path: str) -> str:
    return "ids-" + part_path.replace("/", "-")


def _by_run(task: PartTask) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(run, where its rows go), run by run."""
    order = np.argsort(task.run, kind="stable")
    starts = np.flatnonzero(np.diff(task.run[order], prepend=-1))
    for here in np.split(order, starts[1:]):
        yield int(task.run[here[0]]), here
