"""Text that may be none: bytes that are not UTF-8, and halves of characters, told row by row. Knows nothing of files."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def decoded(array: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """(bytes as text, null where they are none; bool [rows]: where they are not UTF-8)."""
    wrong = np.zeros(len(array), bool)
    held = array.cast(pa.large_binary())
    try:
        return held.cast(pa.large_string()), wrong
    except pa.ArrowInvalid:  # row by row, to say which
        for row, value in enumerate(held):
            wrong[row] = value.is_valid and not _is_utf8(value.as_buffer())
    return pc.if_else(pa.array(wrong), pa.scalar(None, held.type), held).cast(pa.large_string()), wrong


def _is_utf8(value: pa.Buffer) -> bool:
    try:
        str(memoryview(value), "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def not_utf8(data: pa.RecordBatch) -> dict[int, str]:
    """Rows whose text is none, and which column it is."""
    found: dict[int, str] = {}
    for name, array in zip(data.schema.names, data.columns, strict=True):
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            _, wrong = decoded(array.cast(pa.large_binary()))
            found |= {row: name for row in np.flatnonzero(wrong).tolist() if row not in found}
    return found


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Text as Arrow has it. A lone surrogate, which is half a character, becomes bytes that `not_utf8` tells."""
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        held = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(held, pa.large_binary()).view(pa.large_string())
