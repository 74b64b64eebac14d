"""A table of predictions: class and probability of rows that need no label. Knows nothing of sources or of the command."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from teachers.errors import RecipeError
from teachers.model_folder import LoadedModel

SCHEMA = pa.schema([("id", pa.string()), ("class", pa.string()), ("probability", pa.float32())])

Rows = tuple[Iterable[str], Mapping[str, NDArray[Any]]]
"""Ids of some rows, and their canonical inputs `{column: [rows, ...]}`."""


def predict(model: LoadedModel, rows: Iterable[Rows]) -> Iterator[pa.RecordBatch]:
    """`id`, `class`, `probability` of each row: what the model says, and how sure it is."""
    names = np.array(model.config.classes, dtype=object)
    for ids, inputs in rows:
        probability, said = torch.softmax(model(inputs).cpu(), dim=-1).max(-1)
        columns = [pa.array(ids, pa.string()), pa.array(names[said.numpy()], pa.string()), probability.numpy()]
        yield pa.record_batch(columns, schema=SCHEMA)


def write_predictions(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write `*.parquet`, `*.csv` or `*.jsonl` in one step, over what was there; returns the rows written."""
    if path.suffix not in WRITERS:
        raise RecipeError(
            f"{path}: predictions are written as {', '.join(WRITERS)}, not as {path.suffix or 'a folder'}"
        )
    draft = path.parent / f".draft-{uuid4().hex}"
    num_rows = 0
    try:
        with WRITERS[path.suffix](draft) as writer:
            for batch in batches:
                writer.write_batch(batch)
                num_rows += batch.num_rows
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return num_rows


class Writer(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> object: ...
    def write_batch(self, batch: pa.RecordBatch) -> object: ...


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self.file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


WRITERS: dict[str, Callable[[Path], Writer]] = {
    ".parquet": lambda path: pyarrow.parquet.ParquetWriter(path, SCHEMA),
    ".csv": lambda path: pyarrow.csv.CSVWriter(path, SCHEMA),
    ".jsonl": JsonLines,
}
