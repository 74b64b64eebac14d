"""A function of the user's as a source: it returns a table, or an iterator of tables."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from ..config.transfer_set import ImportSource
from ..errors import RecipeError
from ..process.variables import resolved
from ..storage.seal import digest_of
from ..users_code.calls import calling
from ..users_code.digest import inputs_of
from ..users_code.imports import load
from .files import Batch, Chunk, File, batches, check_columns

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
    if isinstance(made, pa.Table | pa.RecordBatch) or not isinstance(made, Iterable):
        made = [made]
    tables = iter(made)
    while True:
        with calling("transfer_set.source.function", source.function):
            table = next(tables, END)
        if table is END:
            return
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if not isinstance(table, pa.Table):
            raise RecipeError(
                f"{source.function} gives a {type(table).__name__}; return a pyarrow.Table, or an iterator of tables"
            )
        yield table
