"""What a label column means: its values as text, and text as class numbers.

Knows nothing of inputs or splits.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import DataError
from ..sources.files import nearest
from ..sources.folders import in_order

MAX_CLASSES = 100_000
WHOLE = r"^-?\d+$"


def as_text(array: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """(values as text, null where there is none; bool [rows]: which have a value that names no class).

    Integers, text and booleans name classes, and floats that are whole (pandas makes those of integers with gaps).
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_text(array.dictionary_decode())
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
        whole = pc.equal(array, pc.floor(array))
        whole = pc.and_(whole, pc.less(pc.abs(array), 2**53))
        kept = pc.if_else(whole, array, pa.scalar(None, kind))
        odd = np.asarray(pc.fill_null(pc.invert(whole), False))
        return pc.cast(pc.cast(kept, pa.int64()), pa.string()), odd
    none = np.zeros(len(array), bool)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = pc.utf8_trim_whitespace(array.cast(pa.string()))
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), none
    if pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.string()), none
    raise DataError(f"a label of type {kind} names no class; give text or integers")


def codes(text: pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """(number into the distinct values or -1, i32 [rows]; the distinct values)."""
    encoded = text.dictionary_encode()
    numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return numbers, encoded.dictionary.to_pylist()


def classes_of(values: Iterable[str]) -> tuple[str, ...]:
    """Classes of a source that names none: the distinct values, in order."""
    classes = tuple(in_order(values))
    if len(classes) > MAX_CLASSES:
        raise DataError(f"the label column has {len(classes)} distinct values; is it a class?")
    if not classes:
        raise DataError("no row has a label, so the classes are unknown; name them in transfer_set.classes")
    return classes


def class_numbers(
    values: Sequence[str], classes: Sequence[str], *, from_metadata: bool
) -> tuple[list[int], dict[int, str]]:
    """(class number of each value, -1 for none; {position in `values`: why it names no class}).

    A value is a class's name or, unless all names are integers themselves, its number. -1 is Hugging Face's "no label".
    """
    numbers = {name: number for number, name in enumerate(classes)}
    by_number = not all(name.removeprefix("-").isdecimal() for name in classes)
    found, outside = [], {}
    for at, value in enumerate(values):
        number = numbers.get(value)
        if number is None and by_number and value.isdecimal() and int(value) < len(classes):
            number = int(value)
        if number is None and not (from_metadata and value == "-1"):
            outside[at] = _outside(value, classes)
        found.append(-1 if number is None else number)
    return found, outside


def _outside(value: str, classes: Sequence[str]) -> str:
    if value.removeprefix("-").isdecimal():
        return f"label {value} is outside the {len(classes)} classes {classes[0]!r} to {classes[-1]!r}"
    return f"label {value!r} is not among the classes{nearest(value, classes[:20])}"


def remapped(numbers: NDArray[np.int32], table: Sequence[int]) -> NDArray[np.int32]:
    """Numbers through a table; -1 stays."""
    through: NDArray[Any] = np.append(np.asarray(table, np.int32), np.int32(-1))
    return through[numbers]
