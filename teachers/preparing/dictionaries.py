"""The dictionaries of categories: which values training rows have, out of the pieces of a preparation.

Only these are read as text. Knows nothing of sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..transfer_set.class_names import in_order
from ..transfer_set.columns import Column, inputs_of
from .categories import NONE, Hashes, Texts, chosen, counted, together
from .census import Census, by_run
from .ledger import Ledger
from .shuffle import Run, run_batch, texts_piece

Counts = tuple[Hashes, NDArray[np.int64]]
"""Distinct values, and how often each is there."""
MOST_VALUES = 1000
"""Of a category, where the recipe does not say how many are enough."""


def with_dictionaries(
    columns: Sequence[Column], config: TransferSetConfig, ledger: Ledger, runs: Sequence[Run], pieces: Path
) -> tuple[Column, ...]:
    """Columns with the values of the training rows. Raises DataError for a category with none, or too many."""
    return tuple(
        _of_training_rows(column, config, ledger, runs, pieces) if column.kind == "category" else column
        for column in columns
    )


def of_few_rows(columns: Sequence[Column], inputs: Mapping[str, NDArray[Any]], texts: Texts) -> tuple[Column, ...]:
    """Columns with the values of rows that are at hand: a guess, which nothing is prepared by."""
    found = []
    for column in columns:
        if column.kind == "category":
            each = [np.unique(hashes[hashes != NONE]).tolist() for hashes in inputs[column.name].T]
            lack = [int((hashes == NONE).sum()) for hashes in inputs[column.name].T]
            values = tuple(tuple(in_order(texts[one] for one in known)) for known in each)
            column = replace(column, values=values, missing=tuple(lack), unknown=(0,) * len(values))
        found.append(column)
    return tuple(found)


def _of_training_rows(
    column: Column, config: TransferSetConfig, ledger: Ledger, runs: Sequence[Run], pieces: Path
) -> Column:
    most_common = {each.column: each.most_common for each in config.input_columns}
    parts_of = list(ledger.each(partial(_counts, column, tuple(run.path for run in runs), pieces)))
    counts = [[each[at] for each in parts_of] for at in range(len(column.names))]
    found = [
        chosen(name, *together(parts), most_common[name], MOST_VALUES)
        for name, parts in zip(column.names, counts, strict=True)
    ]
    texts = _texts(np.unique(np.concatenate([hashes for hashes, _, _ in found])), runs, pieces)
    values = tuple(tuple(in_order(texts[each] for each in hashes.tolist())) for hashes, _, _ in found)
    missing, unknown = tuple(lack for _, lack, _ in found), tuple(left for _, _, left in found)
    return replace(column, values=values, missing=missing, unknown=unknown)


def _counts(column: Column, runs: Sequence[str], pieces: Path, census: Census) -> list[Counts]:
    """Of the training rows of a census, for each category."""
    train = census.of("train")
    parts: list[list[Counts]] = [[] for _ in column.names]
    for number, here in by_run(census.run[train]):
        batch = run_batch(pieces / runs[number])
        hashes = inputs_of(batch, [column])[column.name][census.row[train][here]]
        for at in range(len(column.names)):
            parts[at].append(counted(hashes[:, at]))
    return [together(each) for each in parts]


def _texts(wanted: Hashes, runs: Sequence[Run], pieces: Path) -> Texts:
    found: Texts = {}
    for run in runs:
        batch = run_batch(pieces / texts_piece(run.path))
        hashes = batch.column("hash").to_numpy()
        here = np.flatnonzero(np.isin(hashes, wanted))
        found |= dict(zip(hashes[here].tolist(), batch.column("text").take(pa.array(here)).to_pylist(), strict=True))
        if len(found) == len(wanted):
            break
    return found
