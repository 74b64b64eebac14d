"""A table of predictions: class and probability of rows that need no label. Knows nothing of the command line."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter

from teachers.config.transfer_set import Source, TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.models.folder import LoadedModel, load_model
from teachers.models.preprocess import ColumnTransform
from teachers.preparing.canonical import InputPlan, decode
from teachers.preparing.look import look
from teachers.sources import chunks_of, files_of, read

SCHEMA = pa.schema([("id", pa.string()), ("class", pa.string()), ("probability", pa.float32())])
ROWS_AT_ONCE = 1024
KINDS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".jsonl": "jsonl", ".npz": "numpy", ".npy": "numpy"}
"""Of sources, by suffix; a folder is what the first such file in it is, else a folder of images."""

Rows = tuple[Sequence[str], Mapping[str, NDArray[Any]]]
"""Ids of some rows, and their canonical inputs `{column: [rows, ...]}`."""


def predict_file(
    folder: Path,
    source: Path,
    output: Path | None,
    *,
    inputs: Sequence[str] = (),
    trust: Sequence[str] = (),
    write_line: Callable[[str], object],
) -> int:
    """Predict every row of `source` (a file or folder, as in a recipe) with the model in `folder`; returns the rows.

    `inputs`: columns of `source` that are the model's input, where they have other names there. Without `output` each
    row goes to `write_line` as JSON. Raises DataError for a row that cannot be used, RecipeError
    when the source has not the columns that the model takes.
    """
    model = load_model(folder, trust=trust)
    like = {**_transfer_set_of(folder), **({"inputs": list(inputs)} if inputs else {})}
    batches = predict(model, rows_of(source, model, like))
    if output is not None:
        return write_predictions(output, batches)
    num_rows = 0
    for batch in batches:
        for row in batch.to_pylist():
            write_line(json.dumps(row, ensure_ascii=False))
        num_rows += batch.num_rows
    return num_rows


def rows_of(source: Path, model: LoadedModel, like: Mapping[str, Any]) -> Iterator[Rows]:
    """Canonical inputs of a source; `like`: the `transfer_set` of the model's recipe, as far as it is known."""
    columns = model.preprocessor.columns
    config = TransferSetConfig(
        source=_source(source),
        inputs=like.get("inputs", [column.name for column in columns]),
        label=None,
        classes=list(model.config.classes),
        image_size=like.get("image_size"),
    )
    found = look(config)
    plans = tuple(_fitted(plan, columns, source) for plan in found.plans)
    names = list(dict.fromkeys(name for plan in plans for name in plan.sources))
    for chunk in chunks_of(files_of(config), ROWS_AT_ONCE):
        for batch in read(chunk, names, ROWS_AT_ONCE):
            inputs, bad = decode(batch.data, plans, found.root)
            for at, reason in [*batch.bad, *((batch.positions[row], reason) for row, reason in bad.items())]:
                raise DataError(f"{at}: {reason}; mend or remove this row")
            yield batch.positions, inputs


def _transfer_set_of(folder: Path) -> Mapping[str, Any]:
    """What the recipe beside an exported model says of its inputs; empty for other model folders."""
    path = folder / "recipe.yaml"
    recipe: dict[str, Any] = yaml.safe_load(path.read_text("utf-8")) if path.exists() else {}
    found: dict[str, Any] = recipe.get("transfer_set", {})
    return found


def _source(path: Path) -> Source:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    kind = next((KINDS[file.suffix] for file in files if file.suffix in KINDS), "image_folder")
    source: Source = TypeAdapter(Source).validate_python({"kind": kind, "path": str(path)})
    return source


def _fitted(plan: InputPlan, columns: Sequence[ColumnTransform], source: Path) -> InputPlan:
    """The plan, with images in the channels that the model takes."""
    takes = {column.name: column for column in columns}
    if plan.raw is None and plan.name in takes:
        plan = replace(plan, shape=takes[plan.name].shape)
    if plan.name not in takes or plan.shape != takes[plan.name].shape:
        expected = ", ".join(f"{column.name} {list(column.shape)}" for column in columns)
        raise RecipeError(f"{source}: has {plan.name} {list(plan.shape)}, the model takes {expected}")
    return plan


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
