"""Predictions: class and probability of rows that need no label, a null where a row cannot be used.

Knows nothing of the command line.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from teachers.models.folder import LoadedModel, Vouching, load_model

from .source import Rows, rows_of
from .tables import check_output, json_line, write_table

SCHEMA = pa.schema([("id", pa.string()), ("class", pa.string()), ("probability", pa.float32())])


@dataclass(frozen=True)
class Predicted:
    """How many rows there were, and how many of them have no prediction.

    `unknown`: by category, rows with a value that no training row had.
    """

    num_rows: int
    num_bad: int
    unknown: Mapping[str, int] = field(default_factory=dict)


def predict_file(
    folder: Path,
    source: Path,
    output: Path | None,
    *,
    inputs: Sequence[str] = (),
    trust: Sequence[str] = (),
    probabilities: bool = False,
    vouching: Vouching = "python",
    write_line: Callable[[str], object],
    tell_bad: Callable[[str], object],
) -> Predicted:
    """Predict every row of `source` (a table, an image, or a folder of these) with the model in `folder`.

    `inputs` names columns as `--inputs` does. Without `output` each row goes to `write_line` as JSON; why a row has no
    prediction goes to `tell_bad`. Raises RecipeError when the source has not the columns that the model takes,
    DataError for a file that cannot be read, StoreError for a folder that is no model or names code that is not trusted.
    """
    if output is not None:
        check_output(output, source)
    model = load_model(folder, trust=trust, vouching=vouching)
    schema = schema_for(model.config.classes if probabilities else ())
    num_rows = num_bad = 0
    unknown: Counter[str] = Counter()

    def read() -> Iterator[Rows]:
        for rows in rows_of(source, model.config, inputs):
            unknown.update(rows.unknown)
            yield rows

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal num_rows, num_bad
        for batch, why in predict(model, read(), schema):
            num_rows, num_bad = num_rows + batch.num_rows, num_bad + len(why)
            for line in why:
                tell_bad(line)
            yield batch

    if output is not None:
        write_table(output, schema, counted())
        return Predicted(num_rows, num_bad, +unknown)
    for batch in counted():
        for row in batch.to_pylist():
            write_line(json_line(row))
    return Predicted(num_rows, num_bad, +unknown)


def schema_for(classes: Sequence[str]) -> pa.Schema:
    """Of the table: `id`, `class`, `probability`, and a column for each of `classes`, under its name."""
    taken = set(SCHEMA.names)
    names = []
    for name in classes:
        while name in taken:  # a class that is called `id`
            name += "_"
        taken.add(name)
        names.append(name)
    return pa.schema([*SCHEMA, *((name, pa.float32()) for name in names)])


def predict(
    model: LoadedModel, rows: Iterable[Rows], schema: pa.Schema = SCHEMA
) -> Iterator[tuple[pa.RecordBatch, list[str]]]:
    """(a table of what the model says, and how sure it is; why rows in it have nulls), a batch at a time."""
    names = np.array(model.config.classes, dtype=object)
    for some in rows:
        bad = dict(some.bad)
        p = np.full((len(some.ids), len(names)), np.nan, np.float32)
        used = np.ones(len(p), bool)
        used[list(bad)] = False
        if used.any():
            with torch.inference_mode():
                p[used] = torch.softmax(model(some.inputs), dim=-1).cpu().numpy()
        for row in np.flatnonzero(~np.isfinite(p).all(axis=1)).tolist():
            bad.setdefault(row, "the model's answer is not finite")
        without = np.zeros(len(p), bool)
        without[list(bad)] = True
        said = np.nan_to_num(p).argmax(axis=1)
        columns = [names[said], p[np.arange(len(p)), said], *(p.T if len(schema) > len(SCHEMA) else ())]
        arrays = [pa.array(values, kind, mask=without) for values, kind in zip(columns, schema.types[1:], strict=True)]
        yield (
            pa.record_batch([pa.array(some.ids, pa.string()), *arrays], schema=schema),
            [f"{some.ids[row]}: {why}" for row, why in sorted(bad.items())],
        )
