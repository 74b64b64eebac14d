"""Which Arrow types hold images, numbers or lists of them, and how deep. Knows nothing of what becomes of them."""

from typing import Any

import numpy as np
import pyarrow as pa


def is_encoded(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(number).name in ("bytes", "path") for number in range(kind.num_fields))
    return is_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def is_time(kind: pa.DataType) -> bool:
    tests = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_time, pa.types.is_duration)
    return any(test(kind) for test in tests)


def is_wide(kind: pa.DataType) -> bool:
    """Whether it holds numbers that float32 does not, text among them."""
    exact = (pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.float16(), pa.float32())
    return kind not in exact


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def leaf(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """Type of the innermost values, and how many lists are around it."""
    if isinstance(kind, pa.BaseExtensionType):
        return leaf(kind.storage_type)
    if not is_list(kind):
        return kind, 0
    innermost, depth = leaf(kind.value_type)
    return innermost, depth + 1


def storage_shape(kind: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A tensor is stored flat; other extension types as they look."""
    return (int(np.prod(shape)),) if isinstance(kind, pa.FixedShapeTensorType) else shape


def shape_of(value: Any) -> tuple[int, ...]:
    """Of one row, as its first items have it; empty for a scalar or a missing value."""
    if isinstance(value.type, pa.FixedShapeTensorType):
        return tuple(value.type.shape) if value.is_valid else ()
    if isinstance(value, pa.ExtensionScalar):
        return shape_of(value.value)
    if not value.is_valid or not is_list(value.type):
        return ()
    items = value.values
    return (len(items), *(shape_of(items[0]) if len(items) else ()))


def family(kind: pa.DataType) -> str:
    """What a column is good for, whatever its width: number, text, image, list of numbers (and how deep)."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    innermost, depth = leaf(kind)
    if depth:
        return f"{depth} lists of {family(innermost)}"
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"{len(kind.shape)} lists of {family(kind.value_type)}"
    for name, test in (("number", is_number), ("text", is_text), ("image", is_encoded), ("nothing", pa.types.is_null)):
        if test(kind):
            return name
    return str(kind)
