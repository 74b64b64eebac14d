"""CSV and JSON lines as batches of rows. What cannot be parsed is a bad row; what is no such file at all is one line.

Knows nothing of which columns are inputs or labels.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from ..config.transfer_set import CsvSource
from ..errors import DataError
from ..transfer_set.class_names import name_of
from .files import NO_ROWS, Batch, Chunk, File, Positions, check_columns, position
from .quotes import Watched
from .reading import check_text, reading

BLOCK = 4 * 2**20
"""Bytes of text that are parsed at once."""
READ = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK)
STRADDLING = "straddling"
"""What Arrow says of a row that no block holds."""
DELIMITERS = (",", ";", "\t", "|")
"""That `delimiter: auto` knows."""
NO_OBJECT = re.compile(rb"(?:^|[}\]])[ \t\r]*null", re.MULTILINE)
"""Instead of a row, or behind one: Arrow ends the process on it."""


Parsed = tuple[pa.Table, Sequence[str], list[tuple[str, str]], int]
"""Rows, where they stand, bad rows, and how many rows there were."""


def whole_file(file: File, rows: int) -> list[Chunk]:
    return [Chunk(file)]


def csv_schema(file: File) -> pa.Schema:
    """Names from the header; every column is text until a row is used."""
    check_text(file)
    options = {"read_options": READ, "parse_options": _parsing(file, lambda row: "skip")}
    with reading(file), _held_by_blocks(file), pa.csv.open_csv(file.path, **options) as opened:
        return pa.schema([(name, pa.string()) for name in opened.schema.names])


@contextmanager
def _held_by_blocks(file: File) -> Iterator[None]:
    """Raises DataError for a row that no block holds."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if STRADDLING not in str(error):
            raise
        raise DataError(
            f"{file.title}: a row has more than {BLOCK >> 20} MiB, which one of a CSV may not; write such text as JSON lines or "
            f"Parquet"
        ) from error


def _parsing(file: File, skip: Any) -> Any:
    return pa.csv.ParseOptions(delimiter=delimiter_of(file), newlines_in_values=True, invalid_row_handler=skip)


def delimiter_of(file: File) -> str:
    """What the recipe says; of `auto`, what parts the header so that all columns are there that the recipe names."""
    given = file.source.delimiter if isinstance(file.source, CsvSource) else ","
    if given != "auto":
        return given
    with file.path.open("rb") as opened:
        header = opened.readline(BLOCK).decode("utf-8-sig", "replace").rstrip("\r\n")
    parted = {mark: next(csv.reader([header], delimiter=mark), []) for mark in DELIMITERS}
    fitting = [mark for mark, names in parted.items() if {*file.columns} <= {name.strip() for name in names}]
    return max(fitting or DELIMITERS, key=lambda mark: len(parted[mark]))


def read_csv(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file = chunk.file
    skipped: list[tuple[int, str]] = []  # data row, reason

    def skip(row: Any) -> str:
        found, expected = row.actual_columns, row.expected_columns
        skipped.append((row.number - 2, f"{found} values, the header names {expected}"))
        return "skip"

    with reading(file), _held_by_blocks(file):
        check_columns(file, csv_schema(file).names, columns)
        watched = Watched(file.path.open("rb"), file.title, delimiter_of(file))
        opened = pa.csv.open_csv(
            pa.PythonFile(watched, mode="r"),
            read_options=READ,
            parse_options=_parsing(file, skip),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,  # whoever reads looks row by row
            ),
        )
        row = told = 0
        for block in map(watched.unhidden, _blocks(opened, watched)):
            dropped = [number for number, _ in skipped if number >= row]
            numbers = np.setdiff1d(np.arange(row, row + block.num_rows + len(dropped)), dropped)[: block.num_rows]
            row = int(numbers[-1]) + 1 if len(numbers) else row
            bad = tuple((position(file.name, number), reason) for number, reason in skipped[told:])
            told = len(skipped)
            yield Batch(NO_ROWS, [], bad)
            for start in range(0, block.num_rows, rows):
                part = Positions.numbered(file.name, numbers[start : start + rows])
                yield Batch(block.slice(start, rows), part)
        yield Batch(NO_ROWS, [], tuple((position(file.name, number), reason) for number, reason in skipped[told:]))


def _blocks(opened: Any, watched: Watched) -> Iterator[pa.RecordBatch]:
    """Closes the file. Raises DataError for a value that no block holds, where an open quote is why."""
    try:
        yield from opened
    except pa.ArrowInvalid as error:
        if watched.opened_in and STRADDLING in str(error):
            raise watched.told(f"and not closed in the {BLOCK >> 20} MiB behind it") from error
        raise
    finally:
        watched.close()


def jsonl_schema(file: File) -> pa.Schema:
    """Of the first block. Raises DataError for one JSON list instead of lines."""
    check_text(file)
    with reading(file), file.path.open("rb") as opened:
        block = opened.read(BLOCK) + opened.readline()
    if block.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and not _is_json(block.splitlines()[0], block):
        raise DataError(
            f"{file.title}: cannot be read as jsonl: it is one JSON list; give one object a line (`jq -c '.[]'` makes that)"
        )
    return _parse_json(file, 0, block)[0].schema if block.strip() else pa.schema([])


def read_jsonl(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, row = chunk.file, 0
    with reading(file), file.path.open("rb") as opened:
        while block := opened.read(BLOCK) + opened.readline():
            if not block.strip():
                continue
            table, positions, bad, read = _parse_json(file, row, block)
            row += read
            yield Batch(NO_ROWS, [], tuple(bad))
            for name in columns:
                if name not in table.column_names:
                    table = table.append_column(name, pa.nulls(table.num_rows))
            start = 0
            for batch in table.select(list(columns)).to_batches(max_chunksize=rows):
                yield Batch(batch, positions[start : start + batch.num_rows])
                start += batch.num_rows


def _parse_json(file: File, first_row: int, block: bytes) -> Parsed:
    try:
        block.decode()  # Arrow does not look
        if NO_OBJECT.search(block):
            return _parse_lines(file, first_row, block)
        table = _read_json(block)
        if (kept := pa.schema([field.with_type(_as_written(field.type)) for field in table.schema])) != table.schema:
            table = _read_json(block, kept)
    except (pa.ArrowInvalid, UnicodeDecodeError):  # line by line, to say which
        return _parse_lines(file, first_row, block)
    if any(_is_rounded(table.column(name)) for name in table.column_names if not file.columns or name in file.columns):
        return _parse_lines(file, first_row, block)
    return table, Positions.numbered(file.name, range(first_row, first_row + table.num_rows)), [], table.num_rows


def _read_json(block: bytes, schema: pa.Schema | None = None) -> pa.Table:
    reading = pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    return pa.json.read_json(io.BytesIO(block), reading, pa.json.ParseOptions(explicit_schema=schema))


def _as_written(kind: pa.DataType) -> pa.DataType:
    """Text that looks like a time is text: a class may be called so, and an id stays as it is."""
    if pa.types.is_list(kind):
        return pa.list_(_as_written(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_written(field.type)) for field in kind])
    return pa.string() if pa.types.is_temporal(kind) else kind


def _is_rounded(column: pa.ChunkedArray) -> bool:
    """Whether whole numbers may have lost digits: those beyond 64 bits are read as floats."""
    return pa.types.is_float64(column.type) and bool(pc.any(pc.greater_equal(pc.abs(column), 2.0**53)).as_py())


class _Twice(Exception):
    """A key that an object has twice."""


def _once(used: Sequence[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        if twice := [name for name in used or names if names.count(name) > 1]:
            raise _Twice(twice[0])
    return made


def _is_json(line: bytes, block: bytes) -> bool:
    """Whether a list is one row among others: a line of its own that ends on it."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return len(block.split(b"\n", 2)[1:]) > 1 or bool(block.partition(b"\n")[2].strip())


def _parse_lines(file: File, first_row: int, block: bytes) -> Parsed:
    """As `_parse_json`; what the recipe does not name is not looked at."""
    good: list[dict[str, Any]] = []
    positions: list[str] = []
    bad: list[tuple[str, str]] = []
    lines = [line for line in block.splitlines() if line.strip()]
    for row, line in enumerate(lines, first_row):
        record = _record(file, line)
        if isinstance(record, str):
            bad.append((position(file.name, row), record))
        else:
            good.append(record)
            positions.append(position(file.name, row))
    names = list(dict.fromkeys(key for record in good for key in record))
    used = [name for name in names if not file.columns or name in file.columns]
    columns = {name: column_of(good, name) if name in used else pa.nulls(len(good)) for name in names if _is_text(name)}
    return pa.table(columns), positions, bad, len(lines)


def _record(file: File, line: bytes) -> dict[str, Any] | str:
    """The object of a line, or why it is none."""
    try:
        record = json.loads(line, object_pairs_hook=partial(_once, file.columns))
        if not isinstance(record, dict):
            return f"a JSON {type(record).__name__}, not an object"
        used = {key: value for key, value in record.items() if not file.columns or key in file.columns}
        json.dumps(used, ensure_ascii=False).encode()
    except _Twice as key:
        return f"the key {str(key)!r} is there twice"
    except UnicodeError:
        return "not text: half a character (a lone surrogate), or not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return record


def _is_text(name: str) -> bool:
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def column_of(records: list[dict[str, Any]], key: str) -> pa.Array:
    """One key of all records. Where they do not agree on a type: lists of numbers if there are any, else text."""
    values = [record.get(key) for record in records]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        if any(isinstance(value, list) for value in values):
            return pa.array([value if _numbers(value) else None for value in values], pa.list_(pa.float64()))
        return pa.array([None if value is None else name_of(value) for value in values])


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)
