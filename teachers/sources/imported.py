"""A function of the user's as a source: it returns a table, or an iterator of tables.

A table is what Arrow can take over (of pyarrow, pandas, Polars), or a list of dicts, one a row.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..config.transfer_set import ImportSource
from ..errors import RecipeError
from ..process.variables import resolved
from ..storage.seal import digest_of
from ..users_code.calls import calling
from ..users_code.digest import inputs_of
from ..users_code.imports import load
from .files import Batch, Chunk, File, batches, check_columns
from .utf8 import text_array

END = object()


def imported_schema(file: File) -> pa.Schema:
    """Of its first table."""
    for table in _tables(file):
        return table.schema
    return pa.schema([])


def read_imported(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    first_row = 0
    for table in _tables(chunk.file):
        check_columns(chunk.file, table.schema.names, columns)
        yield from batches(chunk.file.name, first_row, table.select(list(columns)), rows)
        first_row += table.num_rows


def imported_digest(source: ImportSource) -> str:
    """Of the code behind the function, what it is given, and the files that are listed."""
    try:
        document = source.model_dump(mode="json")
        return digest_of([document, inputs_of(document)])
    except (TypeError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"transfer_set.source.arguments: {error}; use plain JSON values") from error


def _tables(file: File) -> Iterator[pa.Table]:
    source = file.source
    assert isinstance(source, ImportSource)
    with calling("transfer_set.source.function", source.function):
        made = load(source.function)(**resolved(source.arguments))
    tables = iter([made] if _is_table(made) or not isinstance(made, Iterable) else made)
    while True:
        with calling("transfer_set.source.function", source.function):
            table = next(tables, END)
        if table is END:
            return
        if not _is_table(table):
            raise RecipeError(
                f"{source.function} gives a {type(table).__name__}; return a pyarrow.Table, or an iterator of tables"
            )
        with calling("transfer_set.source.function", source.function):
            table = _as_table(table)
        yield table


def _is_table(made: Any) -> bool:
    if isinstance(made, list):
        return bool(made) and all(isinstance(row, Mapping) for row in made)
    streams = hasattr(made, "__arrow_c_stream__") and not isinstance(
        made, Iterator
    )  # a reader gives its batches one by one
    return streams or isinstance(made, pa.RecordBatch)


def _as_table(made: Any) -> pa.Table:
    if isinstance(made, list):
        names = dict.fromkeys(name for row in made for name in row)
        return pa.table({name: _column([row.get(name) for row in made]) for name in names})
    try:
        return pa.table(made)
    except UnicodeEncodeError:  # of pandas; half a character somewhere, told by whoever reads the row
        return pa.table({name: _column(list(values)) for name, values in dict(made).items()})


def _column(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except UnicodeEncodeError:
        return text_array(values)
