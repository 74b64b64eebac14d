"""Synthetic rows beside those of the source: made of its training rows, written as the first pass writes rows.

Knows nothing of how a row is made of two.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.munge import Munge
from ..errors import RecipeError
from ..storage.seal import replace
from ..tasks.labels import none_of
from ..transfer_set.arrow_columns import ipc_file, label_column
from ..transfer_set.columns import Column, inputs_batch, inputs_of
from ..transfer_set.hashes import mixed
from .census import Census, joined
from .shuffle import Reading, Run, run_batch
from .splits import row_hashes, sample_keys
from .synthetic import Table, neighbours, synthetic

TABULAR = ("number", "category")
Inputs = dict[str, NDArray[Any]]


def check_tabular(columns: Sequence[Column]) -> None:
    """Raise RecipeError for inputs of which no synthetic rows are made."""
    for column in columns:
        if column.kind not in TABULAR:
            cure = "`train.mix` of a student mixes images" if column.kind == "image" else "take it out"
            raise RecipeError(
                f"transfer_set.munge: column {column.name!r} is {'an image' if column.kind == 'image' else 'text'}, and synthetic "
                f"rows are made of numbers and categories; {cure}"
            )


def munged(
    munge: Munge, census: Census, runs: Sequence[Run], told: Reading, columns: Sequence[Column], width: int
) -> tuple[Census, list[Run]]:
    """(the synthetic rows, in the order of their keys; the runs that hold them, which the census counts from 0).

    They are made of the training rows of `census`, whose inputs are read into memory, and of no others; they have no label.
    `width`: of the space that labels would be of.
    """
    train = census.take(census.of("train"))
    inputs, ids = _read(train, runs, told, columns)
    table = Table(train.keys, _joined(inputs, columns, "number"), _joined(inputs, columns, "category"))
    near = neighbours(table)
    parts: list[Census] = []
    written: list[Run] = []
    for number, rows in enumerate(_passes(munge, train)):
        made = _apart(synthetic(table, near, munge, number), columns, rows)
        names = pa.array([f"munge-{number} of {ids[row]}" for row in rows.tolist()], pa.string())
        keys, content = sample_keys(names, told.config.key_salt), row_hashes(list(made.values()))
        part = Census(
            keys,
            train.group[rows],
            np.zeros(len(rows), np.uint8),
            none_of(told.config.task, len(rows), width),
            content,
            np.full(len(rows), number, np.uint32),
            np.arange(len(rows), dtype=np.uint32),
            np.zeros(len(rows), np.uint32),
            np.zeros(len(rows), bool),
            told.config.task,
            width,
        )
        parts.append(part)
        written.append(_write(told, f"munge-{number:06}.arrow", part, names, made))
    whole = joined(parts)
    return whole.take(np.argsort(whole.keys, kind="stable")), written


def _passes(munge: Munge, train: Census) -> Iterator[NDArray[np.int64]]:
    """Of which training rows each pass makes a row: of all, in the last one of those that are left, chosen by their keys."""
    left, number = munge.of(len(train.keys)), 0
    while left > 0:
        order = np.argsort(mixed(train.keys, f"munge pass {number}", munge.seed), kind="stable")
        yield np.sort(order[:left])
        left, number = left - len(train.keys), number + 1


def _read(
    train: Census, runs: Sequence[Run], told: Reading, columns: Sequence[Column]
) -> tuple[Inputs, NDArray[np.object_]]:
    """(inputs, where categories are hashes; ids) of these rows."""
    inputs = {each.name: np.empty((0,)) for each in columns}
    ids = np.empty(len(train.keys), object)
    for run in np.unique(train.run).tolist():
        here = np.flatnonzero(train.run == run)
        batch, rows = run_batch(told.pieces / runs[run].path), train.row[here]
        for name, values in inputs_of(batch, columns, rows).items():
            if not len(inputs[name]):
                inputs[name] = np.empty((len(train.keys), *values.shape[1:]), values.dtype)
            inputs[name][here] = values
        ids[here] = batch.column("id").take(pa.array(rows)).to_pylist()
    return inputs, ids


def _joined(inputs: Mapping[str, NDArray[Any]], columns: Sequence[Column], kind: str) -> NDArray[Any]:
    """All columns of a kind side by side, [rows, values]."""
    mine = [inputs[column.name] for column in columns if column.kind == kind]
    flat = [values.reshape(len(values), -1) for values in mine]
    rows = len(next(iter(inputs.values())))
    dtype = np.float64 if kind == "number" else np.uint64
    return np.concatenate([np.empty((rows, 0), dtype), *flat], 1).astype(dtype)


def _apart(table: Table, columns: Sequence[Column], rows: NDArray[np.int64]) -> Inputs:
    """Some rows of a table as the columns that it was joined of."""
    found, at = {}, {"number": 0, "category": 0}
    for column in columns:
        whole = table.numbers if column.kind == "number" else table.categories
        size, first = int(np.prod(column.shape)), at[column.kind]
        dtype = column.dtype if column.kind == "number" else np.dtype(np.uint64)
        found[column.name] = whole[rows, first : first + size].astype(dtype).reshape(len(rows), *column.shape)
        at[column.kind] = first + size
    return found


def _write(told: Reading, name: str, part: Census, names: pa.Array, inputs: Inputs) -> Run:
    batch = inputs_batch(part.keys, inputs)
    about = {"split": part.split, "group": part.group, "content": part.content}
    for column, values in {**about, "id": names, "position": names, "label": label_column(part.labels)}.items():
        batch = batch.append_column(column, pa.array(values) if isinstance(values, np.ndarray) else values)
    replace(told.pieces / name, ipc_file(batch))
    return Run(name, len(part.keys), (), ())
