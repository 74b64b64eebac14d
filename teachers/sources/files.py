"""What every kind of source has in common: its files, the chunks that are read in parallel, the batches that come out.

Knows nothing of any file format.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..config.transfer_set import Source
from ..errors import DataError, RecipeError, StoreError
from ..storage.seal import inside
from ..transfer_set.transfer_set import SplitName


@dataclass(frozen=True)
class File:
    """One file of a source: a folder for `image_folder` and `.npy`, everything for `sklearn` and `import`.

    `name` is relative to `root`, with forward slashes (`.`: `root` itself); the ids of its rows start with it.
    """

    source: Source
    root: Path | None
    name: str
    split: SplitName | None = None
    columns: tuple[str, ...] = ()
    """What the recipe names of it; empty: anything. What else lies in an archive of arrays is not looked at."""

    @property
    def path(self) -> Path:
        assert self.root is not None
        return self.root / self.name

    @property
    def title(self) -> str:
        """For people."""
        return printable(self.path.resolve().name if self.name == "." else self.name)


@dataclass(frozen=True)
class Chunk:
    """Rows that are read together, in one task. `units`: [start, stop) of row groups or rows, or names of files.

    `num_rows` is None where only reading tells.
    """

    file: File
    first_row: int = 0
    num_rows: int | None = None
    units: tuple[int, int] | tuple[str, ...] = (0, 0)


class Positions(Sequence[str]):
    """Where rows stand in the source: text in Arrow, of which a `str` is made for whoever asks for one."""

    def __init__(self, held: pa.StringArray) -> None:
        self.held = held

    @classmethod
    def numbered(cls, name: str, rows: range | NDArray[np.int64]) -> "Positions":
        """`position(name, row)` of each row."""
        numbers = pa.array(np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows, pa.int64())
        return cls(pc.binary_join_element_wise(f"{printable(name)}#", numbers.cast(pa.string()), ""))

    def __len__(self) -> int:
        return len(self.held)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> "Positions": ...

    def __getitem__(self, at: int | slice) -> "str | Positions":
        return Positions(self.held[at]) if isinstance(at, slice) else str(self.held[int(at)])


def text_of(names: Sequence[str]) -> pa.StringArray:
    """Names or positions as Arrow has them."""
    return names.held if isinstance(names, Positions) else pa.array(names, pa.string())


@dataclass(frozen=True)
class Batch:
    """Some rows of a chunk. `positions`: where each stands in the source; `bad`: rows that could not even be parsed."""

    data: pa.RecordBatch
    positions: Sequence[str]
    bad: tuple[tuple[str, str], ...] = ()


NO_ROWS = pa.record_batch([], names=[])
"""The data of a batch that has bad rows only."""


class Format(NamedTuple):
    """How one kind of source is read."""

    suffixes: tuple[str, ...]
    schema: Callable[[File], pa.Schema]
    chunks: Callable[[File, int], list[Chunk]]
    """(file, about so many rows a chunk)"""
    read: Callable[[Chunk, Sequence[str], int], Iterator[Batch]]
    """(chunk, columns, at most so many rows a batch)"""


def position(name: str, row: int) -> str:
    return f"{printable(name)}#{row}"


def printable(name: str) -> str:
    r"""A file's name as text: bytes in it that are not UTF-8 are written out, `caf\xe9.png`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def batches(name: str, first_row: int, data: pa.Table, rows: int) -> Iterator[Batch]:
    """A table in memory as batches of at most `rows`."""
    for batch in data.to_batches(max_chunksize=rows):
        yield Batch(batch, Positions.numbered(name, range(first_row, first_row + batch.num_rows)))
        first_row += batch.num_rows


def plain(data: pa.RecordBatch) -> pa.RecordBatch:
    """With values instead of categories and runs, and strings and lists instead of views (Polars and DuckDB write them)."""
    if not any(_plain_type(kind) != kind for kind in data.schema.types):
        return data
    arrays = [_plain_array(array) for array in data.columns]
    fields = [pa.field(name, array.type) for name, array in zip(data.schema.names, arrays, strict=True)]
    return pa.record_batch(arrays, schema=pa.schema(fields, data.schema.metadata))


def _plain_array(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        return _plain_array(array.dictionary).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        return _plain_array(pc.run_end_decode(array))
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):  # a cast of a part of one is wrong
        ends = np.cumsum([0, *pc.fill_null(pc.list_value_length(array), 0).to_pylist()])
        return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), array.flatten(), mask=array.is_null())
    return array.cast(_plain_type(array.type))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_type)
    return pa.string() if pa.types.is_string_view(kind) else pa.binary() if pa.types.is_binary_view(kind) else kind


def nearest(name: str, names: Iterable[str]) -> str:
    """`, did you mean 'digit'? It has ...` for an error about `name`."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" there are {', '.join(map(repr, names)) or 'none'}"


def check_columns(file: File, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError when a file lacks a column that the recipe names, or has it twice."""
    if told := column_problem(found, wanted):
        raise DataError(f"{file.title}: {told}")


def column_problem(found: Sequence[str], wanted: Sequence[str]) -> str | None:
    """What is wrong with the first of `wanted` that is not there exactly once."""
    for name in wanted:
        if name not in found:
            if found and all(_is_number(each) for each in found):
                return f"no column {name!r}: the first line holds numbers ({', '.join(found[:3])}); it must name the columns"
            return f"no column {name!r}{separated(name, found) or nearest(name, found)}"
        if found.count(name) > 1:
            return f"column {name!r} is there twice; rename one of them, or leave one out"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def separated(name: str, found: Sequence[str]) -> str | None:
    """The cure, where `name` is a part of the one column that a header was read as."""
    delimiter = delimiter_in(found, [name])
    if delimiter is None:
        return None
    return f"; the header looks separated by {delimiter!r}: say `delimiter: {json.dumps(delimiter)}` in the source"


def delimiter_in(found: Sequence[str], wanted: Sequence[str]) -> str | None:
    """What parts the one column that a header was read as, so that all of `wanted` are there."""
    for delimiter in (";", "\t", "|", ",", ":", " "):
        if len(found) == 1 and {*wanted} <= {part.strip().strip("\"'") for part in found[0].split(delimiter)}:
            return delimiter
    return None


def existing(path: Path, what: str) -> Path:
    """`path`. Raises RecipeError when nothing is there, or the path cannot be one."""
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{what}: {str(path)[:80]!r} is no path: {getattr(error, 'strerror', None) or error}"
        ) from None
    if template := next((mark for mark in ("{{", "${", "<%") if mark in str(path)), None):
        raise RecipeError(f"{what}: {str(path)!r} is a template that was not filled in ({template}); write the path")
    if str(path).startswith("~"):
        raise RecipeError(f"{what}: {str(path)!r}: `~` is a word of the shell; write {str(path.expanduser())!r}")
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, 1, 0.5)
    cure = f"; did you mean {str(path.parent / near[0])!r}?" if near else f" (looked from {Path.cwd()})"
    raise RecipeError(f"{what}: no such file or folder {str(path)!r}{cure}")


def named_inside(root: Path, name: str, what: str) -> Path:
    """`root / name`. Raises RecipeError when that is missing or leaves `root`, links included."""
    try:
        return existing(inside(root, name), what)
    except StoreError:
        raise RecipeError(f"{what}: {name!r} leaves the folder {root}; split files are names inside it") from None


def listed(root: Path, path: Path, suffixes: Sequence[str]) -> list[str]:
    """`path`, or the files with one of `suffixes` below it; relative to `root`, in the order of their names.

    Hidden files and folders are passed over, and so is an OUT. Raises RecipeError when there is none, DataError for a
    link that leads out of `root`.
    """
    if path.is_file():
        return [path.relative_to(root).as_posix()]
    names = sorted(
        os.path.relpath(entry, root).replace(os.sep, "/")
        for folder, _, names in walked(path)
        for entry in (folder / name for name in names)
        if entry.suffix.lower() in suffixes and not entry.name.startswith((".", "_")) and entry.is_file()
    )
    if not names:
        raise RecipeError(f"{path}: no {' or '.join(suffixes)} file in this folder")
    for name in names:
        if not is_inside(root, name):
            raise DataError(
                f"{name}: a link that leads out of the folder {root}; name the folder that really holds the file"
            )
    return names


OF_OUT = ("prepared", "soft_targets", "runs")
"""Folders that tell an OUT, what a run writes, from what it reads."""


def is_out(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in OF_OUT)


def holds_outs_alone(folder: Path) -> bool:
    """Whether it is the `out` in which runs keep theirs by default."""
    inner = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return bool(inner) and all(entry.is_dir() and is_out(entry) for entry in inner)


def walked(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, its folders, its files) below `top`, in order; links are not followed, an OUT and hidden folders not entered.

    Raises RecipeError for an OUT as `top`.
    """
    if is_out(top):
        raise RecipeError(
            f"{top}: is where a run keeps its results, and would be read as data; give --out another folder, or the "
            f"source the folder that holds the data alone"
        )
    for folder, folders, names in os.walk(top):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not is_out(here / name))
        yield here, folders, sorted(names)


def is_inside(root: Path, name: str) -> bool:
    try:
        inside(root, name)
    except StoreError:
        return False
    return True
