"""Parquet, Arrow IPC (file and stream), CSV and JSON lines as batches of rows.

Knows nothing of which columns are inputs or labels.
"""

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from .files import NO_ROWS, Batch, Chunk, File, batches, check_columns, position, reading

BLOCK = 4 * 2**20
"""Bytes of text that are parsed at once."""
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
        for batch in opened.iter_batches(rows, row_groups=list(groups), columns=list(columns), use_threads=False):
            yield Batch(batch, [position(file.name, row + n) for n in range(batch.num_rows)])
            row += batch.num_rows


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


def whole_file(file: File, rows: int) -> list[Chunk]:
    return [Chunk(file)]


def csv_schema(file: File) -> pa.Schema:
    """Names from the header; every column is text until a row is used."""
    skipping = pa.csv.ParseOptions(invalid_row_handler=lambda row: "skip")
    with reading(file), pa.csv.open_csv(file.path, parse_options=skipping) as opened:
        return pa.schema([(name, pa.string()) for name in opened.schema.names])


def read_csv(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file = chunk.file
    skipped: list[tuple[int, str]] = []  # data row, reason

    def skip(row: Any) -> str:
        found, expected = row.actual_columns, row.expected_columns
        skipped.append((row.number - 2, f"{found} values, the header names {expected}"))
        return "skip"

    with reading(file):
        check_columns(file, csv_schema(file).names, columns)
        opened = pa.csv.open_csv(
            file.path,
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        row = told = 0
        for block in opened:
            numbers: list[int] = []
            dropped = {number for number, _ in skipped}
            while len(numbers) < block.num_rows:
                if row not in dropped:
                    numbers.append(row)
                row += 1
            bad = tuple((position(file.name, number), reason) for number, reason in skipped[told:])
            told = len(skipped)
            yield Batch(NO_ROWS, [], bad)
            for start in range(0, block.num_rows, rows):
                part = numbers[start : start + rows]
                yield Batch(block.slice(start, rows), [position(file.name, number) for number in part])


def jsonl_schema(file: File) -> pa.Schema:
    """Of the first block."""
    with reading(file), file.path.open("rb") as opened:
        block = opened.read(BLOCK) + opened.readline()
    return _parse_json(file.name, 0, block)[0].schema if block.strip() else pa.schema([])


def read_jsonl(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, row = chunk.file, 0
    with reading(file), file.path.open("rb") as opened:
        while block := opened.read(BLOCK) + opened.readline():
            if not block.strip():
                continue
            table, positions, bad, read = _parse_json(file.name, row, block)
            row += read
            yield Batch(NO_ROWS, [], tuple(bad))
            for name in columns:
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(table.num_rows))
            start = 0
            for batch in table.select(list(columns)).to_batches(max_chunksize=rows):
                yield Batch(batch, positions[start : start + batch.num_rows])
                start += batch.num_rows


def _parse_json(name: str, first_row: int, block: bytes) -> tuple[pa.Table, list[str], list[tuple[str, str]], int]:
    """Table, position of its rows, bad rows, and how many rows there were."""
    try:
        table = pa.json.read_json(io.BytesIO(block), pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1))
    except pa.ArrowInvalid:  # line by line, to say which
        return _parse_lines(name, first_row, block)
    return table, [position(name, first_row + row) for row in range(table.num_rows)], [], table.num_rows


def _parse_lines(name: str, first_row: int, block: bytes) -> tuple[pa.Table, list[str], list[tuple[str, str]], int]:
    good: list[dict[str, Any]] = []
    positions: list[str] = []
    bad: list[tuple[str, str]] = []
    lines = [line for line in block.splitlines() if line.strip()]
    for row, line in enumerate(lines, first_row):
        try:
            record = json.loads(line)
        except ValueError as error:
            bad.append((position(name, row), f"not JSON: {error}"))
            continue
        if isinstance(record, dict):
            good.append(record)
            positions.append(position(name, row))
        else:
            bad.append((position(name, row), f"a JSON {type(record).__name__}, not an object"))
    names = list(dict.fromkeys(key for record in good for key in record))
    return pa.table({key: _column(good, key) for key in names}), positions, bad, len(lines)


def _column(records: list[dict[str, Any]], key: str) -> pa.Array:
    """One key of all records. Where they do not agree on a type: lists of numbers if there are any, else text."""
    values = [record.get(key) for record in records]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        if any(isinstance(value, list) for value in values):
            return pa.array([value if _numbers(value) else None for value in values], pa.list_(pa.float64()))
        return pa.array([None if value is None else str(value) for value in values])


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)
