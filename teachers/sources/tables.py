"""Parquet and Arrow IPC (file and stream) as batches of rows.

Knows nothing of which columns are inputs or labels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .files import Batch, Chunk, File, Positions, batches, check_columns
from .reading import reading

AT_ONCE_BYTES = 64 * 2**20
"""Of a row group, unpacked."""
CHUNKS_PER_ARROW_FILE = 32
"""At most: each reads the headers of what lies before it."""


def parquet_schema(file: File) -> pa.Schema:
    with reading(file):
        return pq.read_schema(file.path)


def parquet_chunks(file: File, rows: int) -> list[Chunk]:
    """Consecutive row groups, about `rows` together."""
    with reading(file), pq.ParquetFile(file.path) as opened:
        sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
    chunks, first_row, start = [], 0, 0
    for number in range(len(sizes)):
        held = sum(sizes[start : number + 1])
        if held >= rows or number == len(sizes) - 1:
            chunks.append(Chunk(file, first_row, held, (start, number + 1)))
            first_row, start = first_row + held, number + 1
    return chunks


def read_parquet(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, row = chunk.file, chunk.first_row
    with reading(file), pq.ParquetFile(file.path, memory_map=True) as opened:
        check_columns(file, opened.schema_arrow.names, columns)
        groups = range(*chunk.units)
        rows = min(rows, *(_rows_at_once(opened.metadata.row_group(number)) for number in groups))
        for batch in opened.iter_batches(rows, row_groups=list(groups), columns=list(columns), use_threads=False):
            yield Batch(batch, Positions.numbered(file.name, range(row, row + batch.num_rows)))
            row += batch.num_rows


def _rows_at_once(group: Any) -> int:
    """Of a row group, so that memory holds them however long they are."""
    return max(1, AT_ONCE_BYTES * int(group.num_rows) // max(int(group.total_byte_size), 1))


def arrow_schema(file: File) -> pa.Schema:
    with reading(file), pa.memory_map(str(file.path)) as mapped:
        return _opened(mapped).schema


def arrow_chunks(file: File, rows: int) -> list[Chunk]:
    """Ranges of rows, whatever the record batches."""
    with reading(file), pa.memory_map(str(file.path)) as mapped:
        total = sum(batch.num_rows for batch in _record_batches(_opened(mapped)))
    rows = max(rows, -(-total // CHUNKS_PER_ARROW_FILE))
    return [
        Chunk(file, start, min(rows, total - start), (start, min(start + rows, total)))
        for start in range(0, total, rows)
    ]


def read_arrow(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, first, (start, stop) = chunk.file, 0, chunk.units
    assert isinstance(start, int) and isinstance(stop, int)
    with reading(file), pa.memory_map(str(file.path)) as mapped:
        opened = _opened(mapped)
        check_columns(file, opened.schema.names, columns)
        for batch in _record_batches(opened):
            if first >= stop:
                break
            wanted = batch.slice(max(start - first, 0), max(stop - max(first, start), 0))
            if wanted.num_rows:
                yield from batches(file.name, max(first, start), pa.table(wanted).select(list(columns)), rows)
            first += batch.num_rows


def _opened(mapped: Any) -> Any:
    """The reader of an Arrow IPC file or stream."""
    is_file = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)


def _record_batches(opened: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(opened, pa.RecordBatchFileReader):
        return (opened.get_batch(number) for number in range(opened.num_record_batches))
    return iter(opened)
