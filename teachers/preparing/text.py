"""One text a row of a source, as it is: nothing is stripped, folded or cut. Knows nothing of what is made of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..sources.files import Batch
from ..sources.utf8 import decoded
from .arrow_types import is_binary, is_text
from .bad_rows import Bad, tell
from .scalars import How

LONGEST = 16 * 2**20
"""Bytes of UTF-8 in a row."""


def texts_in(name: str, array: pa.Array, how: How, bad: Bad) -> NDArray[Any]:
    """`str` [rows], "" in bad rows and where there is none and may be none; what is empty is a value.

    Bytes are UTF-8. Bad: a value that is missing and must not be, one that is no text, and one of more than LONGEST bytes.
    """
    if is_binary(array.type):
        array, wrong = decoded(array)
        tell(bad, wrong, lambda row: f"{name} is not UTF-8")
        array = pc.if_else(pa.array(wrong), pa.scalar("", array.type), array)
    elif not is_text(array.type):
        tell(bad, array.is_valid(), lambda row: f"{name} is {array[row].as_py()!r:.80}, which is no text")
        array = pa.nulls(len(array), pa.string())
    if how.nulls:
        array = pc.if_else(pc.is_in(array, pa.array(how.nulls, array.type)), pa.scalar(None, array.type), array)
    if not how.missing:
        tell(bad, array.is_null(), lambda row: f"{name} is missing; `missing: allow` takes that for empty text")
    lengths = lengths_of(array)
    tell(bad, lengths > LONGEST, lambda row: f"{name} has {lengths[row]:,} bytes; a text may have {LONGEST:,}")
    found: NDArray[Any] = array.fill_null("").to_numpy(zero_copy_only=False)
    return found


def lengths_of(array: pa.Array) -> NDArray[np.int64]:
    """Bytes of each value, i64 [rows], 0 where there is none."""
    found: NDArray[Any] = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)


def cut(batch: Batch, names: Sequence[str], most: int) -> Iterator[Batch]:
    """A batch as several, each of at most `most` bytes in the columns `names`, or of one row."""
    held = [batch.data.column(name) for name in names] if batch.positions else []
    lengths = [lengths_of(array) for array in held if is_text(array.type) or is_binary(array.type)]
    if not lengths:
        yield batch
        return
    ends = np.cumsum(np.sum(lengths, axis=0))
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + most, side="right")))
        yield Batch(batch.data.slice(first, last - first), batch.positions[first:last], batch.bad if not first else ())
        first = last
