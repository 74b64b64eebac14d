"""A model from elsewhere on rows that were prepared here: its own dictionaries, and what it cannot know of missing numbers.

Knows nothing of networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TeacherError
from ..transfer_set.columns import FIRST, MISSING, UNKNOWN, Column
from .categories import CategoryTransform
from .transforms import ColumnTransform, Transform

Batch = Mapping[str, NDArray[Any]]


class Recoding:
    """Canonical rows by the dictionaries of `ours`, as a model takes them whose transforms are `theirs`."""

    def __init__(self, theirs: Sequence[Transform], ours: Sequence[Column]) -> None:
        """Raises TeacherError for categories that are not there, and numbers that may be missing and never were."""
        self.tables: dict[str, list[tuple[int, NDArray[np.int32]]]] = {}
        here = {column.name: column for column in ours}
        for column in theirs:
            mine = here.get(column.name)
            if mine is None:
                continue  # told where the inputs are made
            if isinstance(column, CategoryTransform):
                if (column.names, column.values) != (mine.names, mine.values):
                    self.tables[column.name] = [_table(name, column, mine) for name in column.names]
            elif isinstance(column, ColumnTransform) and mine.missing and column.fill is None:
                raise TeacherError(
                    f"the model has learnt from rows whose {column.name} are all there, and here some may be missing "
                    f"(`missing: allow`); train it on such rows, or refuse them"
                )

    def __call__(self, batch: Batch) -> Batch:
        recoded = {
            name: np.stack([table[batch[name][:, at]] for at, table in tables], axis=1)
            for name, tables in self.tables.items()
        }
        return {**batch, **recoded}


def _table(name: str, theirs: CategoryTransform, ours: Column) -> tuple[int, NDArray[np.int32]]:
    """(where the category stands here; the model's code by ours)."""
    if name not in ours.names:
        raise TeacherError(f"the model takes a category {name!r}; here are {', '.join(ours.names) or 'none'}")
    at = ours.names.index(name)
    known = {value: code for code, value in enumerate(theirs.values[theirs.names.index(name)], FIRST)}
    codes = [MISSING, UNKNOWN, *(known.get(value, UNKNOWN) for value in ours.values[at])]
    return at, np.array(codes, np.int32)
