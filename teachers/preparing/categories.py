"""Categories: from values to codes by a dictionary of what training rows have.

Until the dictionary is known a value is its hash, so that rows can be sorted, counted and compared before anybody knows
which of them are training rows. Knows nothing of sources, splits or keys. What is done in Python is done once a distinct
value.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from ..errors import DataError
from ..storage.seal import replace
from ..transfer_set.arrow_columns import ipc_file
from ..transfer_set.columns import FIRST, MISSING, UNKNOWN, Column
from .labels import as_text
from .scalars import How

Hashes = NDArray[np.uint64]
NONE = np.uint64(0)
"""The hash of no value."""
Texts = dict[int, str]
"""What hashes are of."""


def hashed(array: pa.Array, how: How, texts: Texts | None = None) -> tuple[Hashes, NDArray[np.bool_]]:
    """(xxh3_64 of each value, u64 [rows], NONE where there is none; bool [rows]: which name no category).

    Values are named as labels are: text, whole numbers, truth values, `3` for 3.0. `texts` gets what was met.
    """
    named, odd = as_text(array)
    encoded = named.dictionary_encode()
    found = [_spelt(value, how) for value in encoded.dictionary.to_pylist()]
    hashes = [0 if value is None else hash_of(value) for value in found]
    if texts is not None:
        texts |= {each: value for each, value in zip(hashes, found, strict=True) if value is not None}
    table = np.array([*hashes, 0], np.uint64)
    places = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return table[places], odd


def write_texts(path: Path, texts: Texts) -> None:
    """What the hashes of a run are of, as an Arrow file."""
    columns = {"hash": pa.array([*texts], pa.uint64()), "text": pa.array([*texts.values()], pa.string())}
    replace(path, ipc_file(pa.record_batch(columns)))


def hash_of(value: str) -> int:
    return xxhash.xxh3_64_intdigest(value.encode()) or 1


def _spelt(value: str | None, how: How) -> str | None:
    """One spelling of truth values, whatever the format; None for what the recipe calls no value."""
    if value is None or value in how.nulls:
        return None
    return value.lower() if value.lower() in ("true", "false") else value


def coded(hashes: Hashes, values: Sequence[Sequence[str]]) -> NDArray[np.int32]:
    """Codes of hashes u64 [rows, K] by the dictionaries `values`, i32 [rows, K]."""
    out = np.empty(hashes.shape, np.int32)
    for at, known in enumerate(values):
        table, order = _table(tuple(known))
        place = np.minimum(np.searchsorted(table, hashes[:, at]), max(len(table) - 1, 0))
        is_known = table[place] == hashes[:, at] if len(table) else np.zeros(len(hashes), bool)
        codes = (order[place] + FIRST if len(table) else place).astype(np.int32)
        out[:, at] = np.where(is_known, codes, np.where(hashes[:, at] == NONE, MISSING, UNKNOWN))
    return out


@lru_cache(maxsize=64)
def _table(values: tuple[str, ...]) -> tuple[Hashes, NDArray[np.int64]]:
    """(the hashes of a dictionary, ascending; where the value of each stands in it)."""
    table = np.array([hash_of(value) for value in values], np.uint64)
    order = np.argsort(table)
    return table[order], order


Dictionaries = Mapping[str, Sequence[Sequence[str]]]
"""By column of categories, the values of each of them."""


def dictionaries_of(columns: Sequence[Column]) -> Dictionaries:
    return {column.name: column.values for column in columns if column.kind == "category"}


def with_codes(inputs: Mapping[str, NDArray[Any]], values: Dictionaries) -> dict[str, NDArray[Any]]:
    """Canonical inputs, where those of categories are hashes as yet."""
    return {name: coded(array, values[name]) if name in values else array for name, array in inputs.items()}


def counted(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """(the distinct ones, ascending; how often each is there)."""
    distinct, counts = np.unique(hashes, return_counts=True)
    return distinct, counts.astype(np.int64)


def together(parts: Sequence[tuple[Hashes, NDArray[np.int64]]]) -> tuple[Hashes, NDArray[np.int64]]:
    """Counts of several parts as those of one."""
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part for part, _ in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(number for _, number in parts)])
    distinct, place = np.unique(hashes, return_inverse=True)
    return distinct, np.bincount(place, counts, len(distinct)).astype(np.int64)


def chosen(
    name: str, distinct: Hashes, counts: NDArray[np.int64], most_common: int | None, most: int
) -> tuple[Hashes, int, int]:
    """(the hashes of the dictionary of column `name`; training rows without a value, and with one that is left out).

    Raises DataError where no row has a value, or where there are too many values and nobody says how many are enough.
    """
    is_value = distinct != NONE
    rows, missing = int(counts.sum()), int(counts[~is_value].sum())
    distinct, counts = distinct[is_value], counts[is_value]
    if not len(distinct):
        raise DataError(f"column {name!r}: none of the {rows:,} training rows has a value; take it out of the inputs")
    if most_common is None and len(distinct) > most:
        raise DataError(
            f"column {name!r}: {len(distinct):,} different values in {rows:,} training rows, and a category may have {most:,}; "
            f"`most_common: 500` keeps the commonest and takes the others for unknown, `as: text` reads it, or take it out of the "
            f"inputs"
        )
    kept = np.lexsort((distinct, -counts))[:most_common]
    return distinct[kept], missing, int(counts.sum() - counts[kept].sum())
