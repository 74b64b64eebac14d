"""What a label column means: its values as text, and text as class numbers.

Knows nothing of inputs or splits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import DataError
from ..sources.files import nearest
from ..transfer_set.class_names import as_number, in_order, is_number_with_decimals, places_of, plain
from .arrow_types import is_binary, is_list, is_text

MAX_CLASSES = 100_000
Odd = NDArray[np.bool_]
"""Rows whose value names no class."""


def as_text(array: pa.Array, names: Sequence[str] | None = None) -> tuple[pa.Array, Odd]:
    """(values as text, null where there is none; bool [rows]: which have a value that names no class).

    Integers, text, UTF-8 bytes and truth values name classes, and floats that are whole (pandas makes those of integers
    with gaps); others only where the recipe lists them under `classes`, so they are text too. `names`: what the file itself says of its integers, -1 is Hugging Face's "no label".
    Raises DataError for a type that names none.
    """
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return as_text(array.storage, names)
    if pa.types.is_dictionary(kind):
        text, odd = as_text(array.dictionary, names)
        known = np.append(odd, False)[pc.fill_null(array.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)]
        return text.take(array.indices), known
    if is_list(kind) and not len(np.setdiff1d(pc.fill_null(pc.list_value_length(array), 1), [1])):
        held = pc.list_element(array.filter(array.is_valid()), 0)  # of [rows, 1], as scikit-learn's users have it
        places = np.cumsum(np.asarray(array.is_valid())) - 1
        return as_text(held.take(pa.array(places, mask=np.asarray(array.is_null()))), names)
    if is_binary(kind):
        return _decoded(array)
    if is_text(kind):
        text = pc.utf8_trim_whitespace(pc.utf8_trim(array.cast(pa.string()), "\0"))  # zeros pad text of fixed width
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), np.zeros(len(array), bool)
    if pa.types.is_decimal(kind) and names is None:
        return _of_decimals(array)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole, odd = _whole(array.cast(pa.float64()))
        text, outside = as_text(whole, names)
        if odd.any() and names is None:
            text = pc.if_else(pa.array(odd), array.cast(pa.string()), text)
        return text, odd | outside
    if pa.types.is_boolean(kind):
        return array.cast(pa.string()), np.zeros(len(array), bool)
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        return (array.cast(pa.string()), np.zeros(len(array), bool)) if names is None else _named(array, names)
    cure = "; give one a row, not one column a class" if is_list(kind) else ""
    raise DataError(f"a label of type {kind} names no class; give text or integers{cure}")


def _whole(array: pa.Array) -> tuple[pa.Array, Odd]:
    """Floats as integers, null where they are NaN or not whole; which are not whole."""
    values = array.to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        whole = (values == np.floor(values)) & (np.abs(values) < 2**53)
    return pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole), ~whole & ~np.isnan(values)


def _of_decimals(array: pa.Array) -> tuple[pa.Array, Odd]:
    """Decimals as text, digit for digit; which are not whole."""
    held = array.cast(pa.decimal256(max(array.type.precision, 19), array.type.scale)).dictionary_encode()
    written = [f"{value:f}" for value in held.dictionary.to_pylist()]
    numbers = [as_number(text) for text in written]
    text = pa.array([number or text for number, text in zip(numbers, written, strict=True)], pa.string())
    odd = np.array([*(number is None for number in numbers), False])
    return text.take(held.indices), odd[pc.fill_null(held.indices, -1).to_numpy(zero_copy_only=False)]


def _decoded(array: pa.Array) -> tuple[pa.Array, Odd]:
    """Bytes as text; which are not UTF-8."""
    found: list[str | None] = []
    odd = np.zeros(len(array), bool)
    for row, value in enumerate(array.to_pylist()):
        try:
            found.append(None if value is None else value.decode().strip(" \0") or None)
        except UnicodeDecodeError:
            odd[row] = True
            found.append(None)
    return pa.array(found, pa.string()), odd


def _named(array: pa.Array, names: Sequence[str]) -> tuple[pa.Array, Odd]:
    """Integers by what the file says of them; which are outside."""
    numbers = pc.fill_null(array, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    inside = (numbers >= 0) & (numbers < len(names))
    text = pa.array(names, pa.string()).take(pa.array(np.where(inside, numbers, 0), mask=~inside))
    return text, ~inside & (numbers != -1)


def why_odd(value: Any, names: Sequence[str] | None) -> str:
    """Of a value that names no class."""
    if names is not None and as_number(str(value)) is not None:
        return _outside(str(value), names)
    if is_number_with_decimals(str(value)):
        return f"label {value} names no class, it is a number with decimals"
    if isinstance(value, float) and 2**53 <= abs(value) < np.inf:
        return f"label {value:.17g} names no class: floats of that size skip whole numbers; write integers or text"
    return f"label {value!r} names no class"


def names_in(name: str, array: pa.Array) -> pa.Array:
    """An id or group as text, null where it is missing. Raises DataError for a type that names nothing."""
    try:
        return array.cast(pa.string())
    except pa.ArrowException:
        raise DataError(f"{name!r} is {array.type}, which names nothing; give text or integers") from None


def codes(text: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """(number into the distinct values or -1, i32 [rows]; the distinct values)."""
    encoded = text.dictionary_encode()
    numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers, encoded.dictionary.to_pylist()


def classes_of(values: Iterable[str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """(classes of a source that names none: what its distinct values name, in order; the class of each value)."""
    names = plain(values)
    classes = tuple(in_order(names.values()))
    decimals = [name for name in classes if is_number_with_decimals(name)]
    if decimals and all(as_number(name) is not None for name in classes if name not in decimals):
        raise DataError(told_of_decimals("the label", decimals))
    if len(classes) > MAX_CLASSES:
        raise DataError(f"the label column has {len(classes)} distinct values; is it a class?")
    if not classes:
        raise DataError("no row has a label, so the classes are unknown; name them in transfer_set.classes")
    return classes, names


def told_of_decimals(what: str, values: Sequence[str]) -> str:
    return (
        f"{what} is a number with decimals ({', '.join(values[:3])}), and a class is a name or a whole number; write the "
        f"range that it falls into (low, high) in a column of its own, or list its values under transfer_set.classes"
    )


def class_numbers(values: Sequence[str], classes: Sequence[str]) -> tuple[list[int], dict[int, str]]:
    """(class number of each value, -1 for none; {position in `values`: why it names no class})."""
    places = places_of(values, classes)
    outside = {at: _outside(values[at], classes) for at, place in enumerate(places) if place is None}
    return [-1 if place is None else place for place in places], outside


def _outside(value: str, classes: Sequence[str]) -> str:
    if as_number(value) is not None:
        return f"label {value} is outside the {len(classes)} classes {classes[0]!r} to {classes[-1]!r}"
    return f"label {value!r} is not among the classes{nearest(value, classes[:20])}"


def remapped(numbers: NDArray[np.int32], table: Sequence[int]) -> NDArray[np.int32]:
    """Numbers through a table; -1 stays."""
    through: NDArray[Any] = np.append(np.asarray(table, np.int32), np.int32(-1))
    return through[numbers]
