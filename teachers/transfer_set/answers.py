"""What teachers said of the rows of a transfer set, beside what the rows are: one Parquet table, for everyone else.

A row of it: `id`, `split`, `label` (the class's name, a list of those that hold, or the numbers; null without one),
`labelled` (whether the recipe lets it be used), `sample_key`; and of each teacher `NAME.class`, `NAME.probabilities` by the
name of the class and `NAME.logits` as they are kept, or `NAME.value`; of what its layers gave `NAME.OUTPUT`, one flat list.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..errors import StoreError
from ..soft_targets.schema import KEY, Spec
from ..soft_targets.store import SoftTargetStore
from ..storage import mirror
from ..storage.seal import NAME as SEAL
from ..storage.seal import drafted
from ..tasks.space import Space
from .answer_columns import ANSWER_COLUMNS
from .transfer_set import Segment, TransferSet

if TYPE_CHECKING:
    from torch import Tensor

    from ..rows.rows import Rows
    from ..soft_targets.reader import SoftTargets

PROBABILITY_FLOOR = 1e-3
"""Of stores that keep classes only, whose probabilities are not told."""
WINDOW_BYTES = 64 << 20
"""Of one teacher's probabilities in a row group."""


@dataclass(frozen=True)
class Answered:
    """One segment's rows, and the stores of what was said of them by column name. `rows`: None where they are not there."""

    digest: str
    rows: tuple[TransferSet, Segment] | None
    stores: Mapping[str, SoftTargetStore]

    @property
    def name(self) -> str:
        return next(iter(self.stores.values())).spec.segment


def answered_segments(folders: Sequence[Path], prepared: Path) -> Iterator[Answered]:
    """The stores in `folders` by what they are about; rows are those of the newest transfer set in `prepared` that has them.

    Of two stores of one teacher the newer one has its plain name. Raises StoreError for one that is damaged.
    """
    stores = sorted(map(SoftTargetStore.open, folders), key=lambda store: _age(store.folder), reverse=True)
    newest = sorted(prepared.glob(f"*/{SEAL}"), key=lambda seal: seal.stat().st_mtime, reverse=True)
    rows: dict[str, tuple[TransferSet, Segment]] = {}
    for transfer_set in (TransferSet.open(seal.parent) for seal in newest):
        for segment in transfer_set.segments:
            rows.setdefault(segment.digest, (transfer_set, segment))
    by_segment: dict[str, dict[str, SoftTargetStore]] = {}
    for store in stores:
        beside = by_segment.setdefault(store.spec.segment_digest, {})
        name = store.spec.teacher
        beside[name if name not in beside else f"{name}-{store.folder.name[-12:]}"] = store
    place = {digest: number for number, digest in enumerate(rows)}
    for digest in sorted(by_segment, key=lambda each: (place.get(each, len(place)), each)):
        yield Answered(digest, rows.get(digest), by_segment[digest])


def of_newest(segments: Sequence[Answered]) -> list[Answered]:
    """Those of the transfer set that the first one is of; they have the same columns."""
    first = segments[0].rows
    kept = [each for each in segments if first is not None and each.rows is not None and each.rows[0] is first[0]]
    return kept or [segments[0]]


def write_answers(segments: Sequence[Answered], path: Path) -> int:
    """Write all rows of these segments into one file, in one step; how many. Raises StoreError while shards are missing."""
    for store in (store for each in segments for store in each.stores.values()):
        if missing := store.missing():
            raise StoreError(
                f"{store.folder}: {len(missing)} of {store.num_shards} shards are missing; run the recipe again to label them"
            )
    teachers = {name: store.spec for each in segments for name, store in each.stores.items()}
    rows = [each.rows for each in segments if each.rows is not None]
    schema = _schema(teachers, rows[0][0].space if len(rows) == len(segments) else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    num_rows = 0
    with drafted(path) as draft, parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for table in (table for each in segments for table in _tables(each, teachers, schema)):
            writer.write_table(table)
            num_rows += table.num_rows
    return num_rows


def _age(folder: Path) -> float:
    seal = folder / SEAL
    mirror.refresh(seal)
    return seal.stat().st_mtime if seal.exists() else 0.0


def _schema(teachers: Mapping[str, Spec], space: Space | None) -> pa.Schema:
    """`space`: of the rows, where they are there."""
    fields = []
    if space is not None:
        label = ANSWER_COLUMNS[space.answer].label(space.names)
        about = [("id", pa.string()), ("split", pa.string()), ("label", label), ("labelled", pa.bool_())]
        fields += [pa.field(name, kind) for name, kind in about]
    fields.append(pa.field(KEY, pa.uint64()))
    for name, spec in teachers.items():
        types = ANSWER_COLUMNS[spec.answer].said(spec.names, spec.encoding == "dense")
        fields += [pa.field(f"{name}.{what}", kind) for what, kind in types.items()]
        fields += [pa.field(f"{name}.{output}", pa.list_(pa.float32())) for output in spec.layers]
    return pa.schema(fields)


def _tables(segment: Answered, teachers: Mapping[str, Spec], schema: pa.Schema) -> Iterator[pa.Table]:
    """In windows that memory has room for."""
    from ..soft_targets.reader import SoftTargets  # imports torch

    opened = {name: SoftTargets.open(store.folder) for name, store in segment.stores.items()}
    keys = next(iter(opened.values())).keys()
    about = _about(segment, keys)
    wide = max(output.width for spec in teachers.values() for output in spec.said)
    for first in range(0, len(keys), window := max(1, WINDOW_BYTES // (4 * wide))):
        rows = slice(first, min(first + window, len(keys)))
        columns = {name: array[rows] for name, array in about.items()}
        for name, said in opened.items():
            columns |= _said(name, said, rows)
        arrays = [columns.get(field.name, pa.nulls(rows.stop - first, field.type)) for field in schema]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _about(segment: Answered, keys: np.ndarray) -> dict[str, pa.Array]:
    if segment.rows is None:
        return {KEY: pa.array(keys)}
    transfer_set, its = segment.rows
    space = transfer_set.space
    return {
        "id": pa.array(transfer_set.ids(its), pa.string()),
        "split": pa.repeat(its.split, len(keys)),
        "label": ANSWER_COLUMNS[space.answer].labels(transfer_set.labels(its), space.names),
        "labelled": pa.array(transfer_set.labelled(its)),
        KEY: pa.array(keys),
    }


def _window(column: "Rows", rows: slice) -> "Tensor":
    import torch

    part = column.parts[0]
    window = torch.from_numpy(np.empty((rows.stop - rows.start, *part.shape[1:]), part.dtype))
    column.copy(rows.start, window)
    return window


def answers_of(said: "SoftTargets", rows: slice) -> "Tensor":
    """f32 `[rows, width]` of a window of rows, in the teacher's own names; NaN where it knows nothing."""
    fields = {field: _window(values, rows) for field, values in said.rows().items()}
    output = said.spec.answered
    return output.encodes.decode(fields, output.width, PROBABILITY_FLOOR)


def _said(name: str, said: "SoftTargets", rows: slice) -> dict[str, pa.Array]:
    """The columns of one teacher, for a window of rows."""
    spec, answer = said.spec, answers_of(said, rows)
    columns = ANSWER_COLUMNS[spec.answer].answers(answer, spec.names, spec.encoding == "dense")
    layers = {what: _flat(_window(said.rows(layer)["value"], rows)) for what, layer in spec.layers.items()}
    return {f"{name}.{what}": column for what, column in {**columns, **layers}.items()}


def _flat(features: "Tensor") -> pa.Array:
    """Lists f32 of f16 `[rows, width]`."""
    ends = np.arange(len(features) + 1, dtype=np.int32) * features.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(features.float().numpy().reshape(-1)))
