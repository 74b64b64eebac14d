"""Arrays of rows as Arrow columns, and back, and files that hold them. Knows nothing of what rows are."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import StoreError


def fixed_size_list(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """[rows, ...] as an Arrow column of flat lists, without a copy."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(values.shape[1:])))


def text_column(values: NDArray[Any]) -> pa.Array:
    """`str` [rows], or `bytes`, as an Arrow column."""
    is_bytes = len(values) > 0 and isinstance(values[0], bytes)
    return pa.array(values, pa.large_binary() if is_bytes else pa.large_string())


def text_bytes(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(where each row ends, i64 [rows]; the UTF-8 of all rows, u8) of `str` [rows]; of `bytes` as they are."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    _, offsets, held = text_column(values).buffers()
    ends = np.frombuffer(offsets, "<i8", len(values) + 1)[1:]
    return ends, np.frombuffer(held or b"", np.uint8, int(ends[-1]))


def label_column(labels: NDArray[Any]) -> pa.Array:
    """Labels `[rows]` or `[rows, width]` as an Arrow column."""
    return pa.array(labels) if labels.ndim == 1 else fixed_size_list(labels)


def label_values(array: pa.Array) -> NDArray[Any]:
    """What `label_column` made a column of."""
    is_list = pa.types.is_fixed_size_list(array.type)
    values: NDArray[Any] = (array.flatten() if is_list else array).to_numpy(zero_copy_only=False)
    return values.reshape(len(array), array.type.list_size) if is_list else values


def ipc_file(batch: pa.RecordBatch) -> memoryview:
    """An Arrow IPC file of one record batch, in memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def opened(path: Path) -> Any:
    """An Arrow IPC file, mapped. Raises StoreError for one that is none."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); remove the folder and prepare again") from error


def as_numpy(array: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values
