"""`rows.arrow` of a segment: what is told of its rows beside their inputs. Knows nothing of where they came from."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from ..storage import mirror
from ..storage.seal import drafted
from ..transfer_set.arrow_columns import label_column

ROWS = {"sample_key": pa.uint64(), "group": pa.uint64(), "id": pa.string(), "label": None, "labelled": pa.bool_()}
"""Columns of `rows.arrow`; the type of a label is its task's."""
CONTENT = {"content": pa.uint64()}
"""Beside these, where codes do not tell whether a row is unchanged: one value that nobody knows may become another."""


def rows_batch(ids: pa.Array, named: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
    """Some rows of a segment; `named`: the columns beside `id`."""
    columns = {"id": ids} | {name: label_column(values) for name, values in named.items()}
    kinds = ROWS | {name: kind for name, kind in CONTENT.items() if name in named}
    schema = pa.schema([(name, kind or columns["label"].type) for name, kind in kinds.items()])
    return pa.record_batch([columns[name] for name in kinds], schema=schema)


def write_rows(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Publish `rows.arrow` of a segment, whose rows come batch by batch."""
    given = iter(batches)
    first = next(given)
    path.parent.mkdir(parents=True, exist_ok=True)
    with drafted(path) as draft:
        with draft.open("xb") as file:
            with pa.ipc.new_file(file, first.schema) as writer:
                writer.write_batch(first)
                for batch in given:
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        mirror.put(path, draft)
