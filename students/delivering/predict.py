"""Predictions: what a model says of rows that need no label, a null where a row cannot be used.

Knows nothing of the command line.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.folder import LoadedModel, Vouching, load_model
from teachers.models.heads import heads_of
from teachers.tasks.places import in_pixels
from teachers.tasks.space import Space

from ..measuring.uncertainty import said_by_each
from ..tasks.answers import ANSWERS
from ..tasks.uncertainty import uncertainty as doubts
from .source import Rows, rows_of
from .tables import check_output, json_line, write_table
from .thresholds import thresholds_beside


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
    uncertainty: bool = False,
    vouching: Vouching = "python",
    write_line: Callable[[str], object],
    tell_bad: Callable[[str], object],
) -> Predicted:
    """Predict every row of `source` (a table, an image, or a folder of these) with the model in `folder`.

    `inputs` names columns as `--inputs` does; `uncertainty`: of a student with a head for each teacher, how unsure it is and of what.
    Without `output` each row goes to `write_line` as JSON; why a row has no
    prediction goes to `tell_bad`. Raises RecipeError when the source has not the columns that the model takes,
    DataError for a file that cannot be read, StoreError for a folder that is no model or names code that is not trusted.
    """
    if output is not None:
        check_output(output, source)
    model = load_model(folder, trust=trust, vouching=vouching)
    space = model.config.space
    if probabilities and not space.has_classes:
        raise RecipeError(f"{folder}: this model gives numbers, and no probabilities; leave `--probabilities` out")
    if uncertainty and heads_of(model.module) is None:
        raise RecipeError(
            f"{folder}: this model has one head, which cannot tell what it does not know from what nobody can know; leave "
            f"`--uncertainty` out, or train a student with `hydra`"
        )
    if output is not None and output.suffix == ".csv" and space.max_boxes:
        raise RecipeError(f"{output}: boxes are lists, which a CSV has no place for; write .jsonl or .parquet")
    schema = schema_for(space, probabilities=probabilities, uncertainty=uncertainty)
    thresholds = thresholds_beside(folder, space.names)
    num_rows = num_bad = 0
    unknown: Counter[str] = Counter()

    def read() -> Iterator[Rows]:
        for rows in rows_of(source, model.config, inputs):
            unknown.update(rows.unknown)
            yield rows

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal num_rows, num_bad
        for batch, why in predict(model, read(), schema, thresholds, uncertainty=uncertainty):
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


def schema_for(space: Space, *, probabilities: bool = False, uncertainty: bool = False) -> pa.Schema:
    """Of the table: `id`; of one class `class` and `probability`, of several `classes`, of boxes lists of `boxes` (x1, y1, x2, y2 in
    pixels of the image as it is seen), `classes` and `scores`; `total`, `aleatoric` and `epistemic` where uncertainty is asked
    for, of numbers the last alone; and where they are numbers, or probabilities are asked for, a column for each name, under it."""
    answer = ANSWERS[space.answer]
    fields = [("id", pa.string()), *answer.fields]
    fields += [(name, pa.float32()) for name in UNSURE[space.answer]] if uncertainty else []
    taken = {name for name, _ in fields}
    for name in space.names if probabilities or answer.of_names else ():
        while name in taken:  # a class that is called `id`
            name += "_"
        taken.add(name)
        fields.append((name, pa.float32()))
    return pa.schema(fields)


def predict(
    model: LoadedModel,
    rows: Iterable[Rows],
    schema: pa.Schema | None = None,
    thresholds: Sequence[float] | None = None,
    *,
    uncertainty: bool = False,
) -> Iterator[tuple[pa.RecordBatch, list[str]]]:
    """(a table of what the model says; why rows in it have nulls), a batch at a time. `schema`: of `schema_for`."""
    space = model.config.space
    answer, schema = ANSWERS[space.answer], schema or schema_for(space, uncertainty=uncertainty)
    for some in rows:
        said, bad = asked(model, some)
        if some.sizes is not None:
            said = in_pixels(said, torch.from_numpy(some.sizes))
        without = np.isin(np.arange(len(said)), list(bad))
        first, of_names = answer.columns(said.nan_to_num(0.0), space, thresholds)
        unsure = unsure_of(model, some, without) if uncertainty else []
        columns = [*first, *unsure, *of_names.T][: len(schema) - 1]
        arrays = [pa.array(values, kind, mask=without) for values, kind in zip(columns, schema.types[1:], strict=True)]
        yield (
            pa.record_batch([pa.array(some.ids, pa.string()), *arrays], schema=schema),
            [f"{some.ids[row]}: {why}" for row, why in sorted(bad.items())],
        )


UNSURE: dict[AnswerName, tuple[str, ...]] = {
    "class_axis": ("total", "aleatoric", "epistemic"),
    "class_set": ("total", "aleatoric", "epistemic"),
    "values": ("epistemic",),
}
"""Columns that say how unsure a model of several heads is."""


def unsure_of(model: LoadedModel, some: Rows, without: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The columns `UNSURE` of some rows, 0 in those that are `without` an answer."""
    found = [np.zeros(len(without)) for _ in UNSURE[model.config.space.answer]]
    usable = np.ones(len(without), bool)
    usable[list(some.bad)] = False
    if usable.any():
        with torch.inference_mode():
            parts = doubts(said_by_each(model, some.inputs), model.config.space).parts
        for column, name in zip(found, UNSURE[model.config.space.answer], strict=True):
            column[usable] = parts[name].cpu().nan_to_num(0.0).numpy()
    return found


def asked(model: LoadedModel, some: Rows) -> tuple[Tensor, dict[int, str]]:
    """(f32 `[rows, W]` as the model says it, NaN where it says nothing; why, by row)."""
    bad = dict(some.bad)
    said = torch.full((len(some.ids), model.config.space.width), torch.nan)
    used = torch.ones(len(said), dtype=torch.bool)
    used[list(bad)] = False
    if used.any():
        with torch.inference_mode():
            said[used] = torch.cat([model(part).cpu() for part in _parts(some.inputs)])
    finite = said.isfinite().all(1)
    for row in (~finite).nonzero().flatten().tolist():
        bad.setdefault(row, "the model's answer is not finite")
    return torch.where(finite[:, None], said, torch.nan), bad


VALUES_AT_ONCE = 1 << 26
"""Of inputs in one forward: large images come in fewer rows."""


def _parts(inputs: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """The rows of canonical inputs, so many at a time that they have room."""
    rows = len(next(iter(inputs.values())))
    values = sum(math.prod(column.shape[1:]) for column in inputs.values())
    at_once = max(1, VALUES_AT_ONCE // max(1, values))
    for first in range(0, rows, at_once):
        yield {name: column[first : first + at_once] for name, column in inputs.items()}
