"""Which teacher a row names under `combine: route`. Knows nothing of what teachers say."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from teachers.errors import RecipeError
from teachers.transfer_set.columns import FIRST
from teachers.transfer_set.transfer_set import Segment, TransferSet

NOBODY = -1
SHOWN = 10
"""Names in a message."""


def heard_in(transfer_set: TransferSet, segment: Segment, column: str, teachers: Sequence[str]) -> NDArray[np.int64]:
    """Of each row the number of the teacher that `column` names, NOBODY where it has no value, i64 [rows].

    Raises RecipeError for a column that is none of names, and for a name that is none of `teachers`.
    """
    names = _values(transfer_set, segment, column)
    known, numbers = np.unique(names, return_inverse=True)
    if strange := [name for name in known.tolist() if name and name not in teachers]:
        raise RecipeError(
            f"the column {column!r} names {strange[:SHOWN]}, who are not among the teachers {list(teachers)}; leave such a "
            f"row empty, or give it the name of a teacher of this term"
        )
    places = np.array([teachers.index(name) if name else NOBODY for name in known.tolist()], np.int64)
    return places[numbers] if len(places) else np.empty(0, np.int64)


def _values(transfer_set: TransferSet, segment: Segment, column: str) -> NDArray[np.str_]:
    """Of each row, empty where there is none."""
    plain = replace(transfer_set, derived=None)
    for each in transfer_set.columns:
        if each.kind == "text" and each.name == column:
            return np.array(plain.inputs(segment)[column].tolist(), dtype=np.str_)
        if each.kind == "category" and column in each.names:
            place = each.names.index(column)
            values = np.array([*[""] * FIRST, *each.values[place]], dtype=np.str_)
            found: NDArray[np.str_] = values[plain.inputs(segment)[each.name][:, place]]
            return found
    there = [
        name
        for each in transfer_set.columns
        for name in (each.names or (each.name,))
        if each.kind in ("text", "category")
    ]
    raise RecipeError(
        f"there is no column {column!r} of names among `transfer_set.inputs`, expected a category or text; it has "
        f"{', '.join(there) or 'none'}"
    )
