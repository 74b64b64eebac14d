"""Input columns of prepared rows, and how they lie in an Arrow file: one fixed width a row, but for text and encoded images.

Knows nothing of segments, labels or of where rows came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ..config.preprocess import FitName
from ..config.transfer_set import ResampleName
from .arrow_columns import fixed_size_list, text_bytes, text_column
from .decoding import decoded
from .images import Resize

INPUT = "input."
"""Before the name of an input column in a file: it may be any word, also one of ours."""
FEATURES = "features"
"""The column that numeric scalar columns are joined to, and what networks take of categories."""
CATEGORIES = "categories"
"""The column that categories are joined to."""
MISSING, UNKNOWN, FIRST = 0, 1, 2
"""Codes of a category: no value; a value that no training row has; the first of those that they have."""

TEXT_BYTES = 256
"""Of a row's text, where a plan needs a width and nobody has looked yet."""

AROUND_TEXT = 64
"""Bytes of a `str` beside its characters."""

OF_ENCODED = ("encoded", "fit", "resample")
"""What a column says of encoded images."""

Kind = Literal["image", "number", "category", "text"]


@dataclass(frozen=True)
class Column:
    """One input column: `image` is uint8 [H, W, C], `number` is float32 [F], or float64 where it is `wide`.

    `category` is int32 [K], a code for each of the source's columns `names`. `text` is one `str` a row, shape [], which has
    no fixed width: it is read in order, by who labels and by what derives columns of fixed width from it. `mean` and `std`
    are of the training rows that have a value, per channel (of value / 255) or per feature; `std` of a constant is 1.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    wide: bool = False
    """Its source has numbers that float32 does not hold: seconds since 1970, say, which differ in their last digits."""
    missing: tuple[int, ...] = ()
    """Per feature or category, training rows without a value, which is NaN; empty: none may lack one. Of text the empty ones."""
    names: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    """Per category, what its codes from FIRST on mean: sorted values of the training rows."""
    unknown: tuple[int, ...] = ()
    """Per category, training rows whose value has no code of its own (`most_common`)."""
    encoded: bool = False
    """Images that lie there as they came, and become [H, W, C] when they are read: by `fit` and `resample`."""
    fit: FitName = "squash"
    resample: ResampleName = "bilinear"

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.kind == "number":
            return np.dtype(np.float64 if self.wide else np.float32)
        return np.dtype({"image": np.uint8, "category": np.int32, "text": object}[self.kind])

    @property
    def bytes_per_row(self) -> int:
        """Of text about so many: rows are counted out by what they really hold (`row_bytes`)."""
        if self.kind == "text":
            return TEXT_BYTES
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def content(self) -> list[Any]:
        """What the bytes of its rows mean, for a digest: not what is only told of them."""
        meant = [self.name, self.kind, list(self.shape)]
        if self.kind == "category":
            return [*meant, list(self.names), [list(values) for values in self.values]]
        if self.encoded:
            return [*meant, "encoded", self.fit, self.resample]
        return meant + ["float64"] * self.wide

    @property
    def can_lack(self) -> bool:
        """Whether a row may have no value, or one that nobody knows."""
        return self.kind == "category" or bool(self.missing)

    @property
    def varies(self) -> bool:
        """Whether its rows are as long as they like: text and encoded images."""
        return self.kind == "text" or self.encoded

    @property
    def resize(self) -> Resize:
        """What is made of an encoded image."""
        return Resize(self.shape[0], self.fit, self.resample)

    def seen(self, resize: Resize) -> Self:
        """The same encoded images for who reads them otherwise."""
        shape = (resize.edge, resize.edge, *self.shape[2:])
        return replace(self, shape=shape, fit=resize.fit, resample=resize.resample)

    def document(self) -> dict[str, Any]:
        """JSON for a manifest; of what is not encoded nothing is said of that."""
        found = asdict(self)
        return found if self.encoded else {name: value for name, value in found.items() if name not in OF_ENCODED}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` gave, read from JSON. Raises KeyError or TypeError for anything else."""
        named = [field.name for field in fields(cls) if field.name in document or field.name not in OF_ENCODED]
        return cls(**{name: _as_tuples(document[name]) for name in named})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def seen_otherwise(
    columns: tuple[Column, ...], made_of: tuple[dict[str, Any], ...], sees: Mapping[str, Resize]
) -> tuple[tuple[Column, ...], tuple[dict[str, Any], ...]]:
    """Columns, and documents of the plans by which they were made, with encoded images as `sees` has them by name."""
    changed = {each.name: each.seen(sees[each.name]) for each in columns if each.encoded and each.name in sees}
    plans = [
        plan | {**asdict(changed[plan["name"]].resize), "shape": list(changed[plan["name"]].shape)}
        if plan["name"] in changed
        else plan
        for plan in made_of
    ]
    return tuple(changed.get(each.name, each) for each in columns), tuple(plans)


def inputs_of(
    batch: pa.RecordBatch, columns: Sequence[Column], rows: NDArray[Any] | None = None, *, as_stored: bool = False
) -> dict[str, NDArray[Any]]:
    """{column: [rows, *shape]} of an Arrow batch, or of these rows of it; of all without a copy, but for text.

    Encoded images are decoded; `as_stored`: they are `bytes` [rows].
    """
    found = {}
    for column in columns:
        held = batch.column(INPUT + column.name)
        if column.varies:  # what is not asked for never becomes a `str`
            held = held if rows is None else held.take(pa.array(rows))
            is_read = column.encoded and not as_stored
            found[column.name] = (
                decoded(held, column.shape, column.resize) if is_read else held.to_numpy(zero_copy_only=False)
            )
        else:
            values = held.flatten().to_numpy().reshape(batch.num_rows, *column.shape)
            found[column.name] = values if rows is None else values[rows]
    return found


def inputs_batch(keys: NDArray[np.uint64], inputs: Mapping[str, NDArray[Any]]) -> pa.RecordBatch:
    """The one record batch of a part's file."""
    columns = {name: text_column(v) if v.dtype == object else fixed_size_list(v) for name, v in inputs.items()}
    arrays = {"sample_key": pa.array(keys)} | {INPUT + name: column for name, column in columns.items()}
    return pa.RecordBatch.from_pydict(arrays)


def row_bytes(values: NDArray[Any]) -> NDArray[np.int64]:
    """What each row of a column takes in a file and in memory, i64 [rows]: of text its UTF-8 and what is around a `str`."""
    if values.dtype != object:
        return np.full(len(values), values.nbytes // max(len(values), 1), np.int64)
    return np.diff(text_bytes(values)[0], prepend=0) + AROUND_TEXT


def content_hash(keys: NDArray[np.uint64], inputs: Mapping[str, NDArray[Any]]) -> str:
    """xxh3_128 of little-endian keys, then of each column in turn; of text where each row ends, then the UTF-8 of all."""
    hashed = xxhash.xxh3_128(keys.astype("<u8", copy=False).tobytes())
    for values in inputs.values():
        for part in text_bytes(values) if values.dtype == object else [np.ascontiguousarray(values)]:
            hashed.update(part.data)
    return hashed.hexdigest()
