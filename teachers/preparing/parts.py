"""The second pass of preparing: rows of runs into a segment's parts, categories by their codes.

One function per task, picklable and idempotent, with bounded memory. Knows nothing of segments or of Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError
from ..storage.seal import local
from ..storage.seal import replace as replace_file
from ..transfer_set.arrow_columns import ipc_file
from ..transfer_set.columns import Column, content_hash, inputs_batch, inputs_of
from ..transfer_set.transfer_set import Part, Segment, TransferSet
from .categories import dictionaries_of, with_codes
from .census import Census, by_run, joined, read_census
from .moments import Moments, moments
from .rows_file import rows_batch, write_rows
from .shuffle import run_batch


@dataclass(frozen=True)
class Stretch:
    """Rows of one census: of those that have the `number` the ones from `first` to `stop`."""

    census: Census | Path
    number: int
    first: int
    stop: int

    def rows(self) -> Census:
        whole = read_census(self.census, None) if isinstance(self.census, Path) else self.census
        return whole.take(np.flatnonzero(whole.numbers == self.number)[self.first : self.stop])

    def held(self) -> "Stretch":
        """The same without the rest of a census that is in memory."""
        return replace(self, census=self.rows(), first=0, stop=self.stop - self.first)


@dataclass(frozen=True)
class PartTask:
    """Rows of one part, in the order of their keys. `kept`: the earlier segment whose part it is."""

    path: str
    first_row: int
    rows: tuple[Stretch, ...]
    kept: Segment | None = None


@dataclass(frozen=True)
class Writing:
    """What every task of the second pass is told. `runs`: the files of all; `earlier`: the set whose segments are kept."""

    folder: Path
    pieces: Path
    columns: tuple[Column, ...]
    runs: tuple[str, ...]
    earlier: Path | None = None

    @property
    def has_codes(self) -> bool:
        return any(column.kind == "category" for column in self.columns)


def write_part(told: Writing, task: PartTask) -> tuple[Part | None, list[Moments]]:
    """Second pass: gather the rows of a part and publish it; what is told of them goes to a piece of its own (`rows_piece`)."""
    mine = joined([stretch.rows() for stretch in task.rows])
    if task.kept is not None:
        return None, _keep_part(told, task, task.kept, mine)
    keys = np.empty(len(mine), np.uint64)
    inputs = {column.name: _empty(len(keys), column) for column in told.columns}
    ids, at = [], []
    for number, here in by_run(mine.run):
        batch, rows = run_batch(told.pieces / told.runs[number]), mine.row[here]
        taken = inputs_of(batch, told.columns, rows, as_stored=True)
        keys[here] = batch.column("sample_key").to_numpy()[rows]
        for name, values in with_codes(taken, dictionaries_of(told.columns)).items():
            inputs[name][here] = values
        ids.append(batch.column("id").take(pa.array(rows)))
        at.append(here)
    if not np.array_equal(keys, mine.keys):
        raise DataError(f"{task.path}: keys are not ascending; the pieces in {told.pieces} are damaged, remove them")
    payload = ipc_file(inputs_batch(keys, inputs))
    replace_file(told.folder / task.path, payload)
    in_order = pa.concat_arrays(ids).take(pa.array(np.argsort(np.concatenate(at))))
    _tell_rows(told, task, in_order, mine)
    part = Part(task.path, task.first_row, len(keys), len(payload), content_hash(keys, inputs))
    return part, [moments(inputs[column.name], column) for column in told.columns]


def _keep_part(told: Writing, task: PartTask, segment: Segment, mine: Census) -> list[Moments]:
    """Moments of a part that is there, where anybody asks for them."""
    assert told.earlier is not None
    _tell_rows(told, task, TransferSet.open(told.earlier).ids(segment, task.first_row, len(mine)), mine)
    asked = segment.split == "train" or any(column.can_lack for column in told.columns)
    if segment.kind != segment.split or not asked:
        return []
    inputs = inputs_of(run_batch(local(told.earlier, task.path)), told.columns, as_stored=True)
    return [moments(inputs[column.name], column) for column in told.columns]


def _tell_rows(told: Writing, task: PartTask, ids: pa.Array, mine: Census) -> None:
    named = {"sample_key": mine.keys, "group": mine.group, "label": mine.labels, "labelled": mine.labelled}
    content = {"content": mine.content} if told.has_codes else {}
    replace_file(told.pieces / rows_piece(task.path), ipc_file(rows_batch(ids, named | content)))


def gather_rows(told: Writing, segment: tuple[str, Sequence[str]]) -> None:
    """Publish `rows.arrow` of a segment from the pieces of its parts."""
    path, parts = segment
    write_rows(told.folder / path, (run_batch(told.pieces / rows_piece(part)) for part in parts))


def _empty(rows: int, column: Column) -> NDArray[Any]:
    """For a column as it is stored."""
    return np.empty(rows, object) if column.varies else np.empty((rows, *column.shape), column.dtype)


def rows_piece(part_path: str) -> str:
    return "rows-" + part_path.replace("/", "-")
