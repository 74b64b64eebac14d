"""Tables of predictions on disk: Parquet, CSV, JSON lines, each written in one step. Knows nothing of models."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from teachers.errors import RecipeError
from teachers.storage.seal import drafted


class Writer(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> object: ...
    def write_batch(self, batch: pa.RecordBatch) -> object: ...


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self.file.writelines(json_line(row) + "\n" for row in batch.to_pylist())


WRITERS: dict[str, Callable[[Path, pa.Schema], Writer]] = {
    ".parquet": pyarrow.parquet.ParquetWriter,
    ".csv": pyarrow.csv.CSVWriter,
    ".jsonl": JsonLines,
}


def json_line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def check_output(path: Path, source: Path) -> None:
    """Raise RecipeError for a name that says no format, a folder that is not there, or the source itself."""
    if path.suffix not in WRITERS:
        raise RecipeError(
            f"{path}: predictions are written as {', '.join(WRITERS)}, not as {path.suffix or 'a folder'}"
        )
    if not path.parent.is_dir():
        raise RecipeError(f"{path}: there is no folder {path.parent}")
    if path.exists() and path.samefile(source):
        raise RecipeError(f"{path} is what is read; write the predictions to another file")


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write `*.parquet`, `*.csv` or `*.jsonl` in one step, over what was there."""
    with drafted(path) as draft, WRITERS[path.suffix](draft, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
