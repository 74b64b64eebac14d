"""What every kind of source has in common: its files, the chunks that are read in parallel, the batches that come out.

Knows nothing of any file format.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

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

    @property
    def path(self) -> Path:
        assert self.root is not None
        return self.root / self.name

    @property
    def title(self) -> str:
        """For people."""
        return self.path.resolve().name if self.name == "." else self.name


@dataclass(frozen=True)
class Chunk:
    """Rows that are read together, in one task. `units`: [start, stop) of row groups or rows, or names of files.

    `num_rows` is None where only reading tells.
    """

    file: File
    first_row: int = 0
    num_rows: int | None = None
    units: tuple[int, int] | tuple[str, ...] = (0, 0)


@dataclass(frozen=True)
class Batch:
    """Some rows of a chunk. `positions`: where each stands in the source; `bad`: rows that could not even be parsed."""

    data: pa.RecordBatch
    positions: list[str]
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
    return f"{name}#{row}"


def batches(name: str, first_row: int, data: pa.Table, rows: int) -> Iterator[Batch]:
    """A table in memory as batches of at most `rows`."""
    for batch in data.to_batches(max_chunksize=rows):
        yield Batch(batch, [position(name, first_row + row) for row in range(batch.num_rows)])
        first_row += batch.num_rows


def nearest(name: str, names: Iterable[str]) -> str:
    """`, did you mean 'digit'? It has ...` for an error about `name`."""
    names = list(names)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" there are {', '.join(map(repr, names)) or 'none'}"


def check_columns(file: File, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError when a file lacks a column that the recipe names."""
    for name in wanted:
        if name not in found:
            raise DataError(f"{file.title}: no column {name!r}{nearest(name, found)}")


@contextmanager
def reading(file: File) -> Iterator[None]:
    """Turn what a reader raises on a damaged file into a DataError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file.title}: cannot be read as {file.source.kind}: {reason}") from error


def existing(path: Path, what: str) -> Path:
    """`path`. Raises RecipeError when nothing is there."""
    if not path.exists():
        beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, 1, 0.5)
        cure = f"; did you mean {str(path.parent / near[0])!r}?" if near else f" (looked from {Path.cwd()})"
        raise RecipeError(f"{what}: no such file or folder {str(path)!r}{cure}")
    return path


def named_inside(root: Path, name: str, what: str) -> Path:
    """`root / name`. Raises RecipeError when that is missing or leaves `root`, links included."""
    try:
        return existing(inside(root, name), what)
    except StoreError:
        raise RecipeError(f"{what}: {name!r} leaves the folder {root}; split files are names inside it") from None


def listed(root: Path, path: Path, suffixes: Sequence[str]) -> list[str]:
    """`path`, or the files with one of `suffixes` below it; relative to `root`, in the order of their names.

    Raises RecipeError when there is none, DataError for a link that leads out of `root`.
    """
    if path.is_file():
        return [path.relative_to(root).as_posix()]
    names = sorted(
        entry.relative_to(root).as_posix()
        for entry in path.rglob("*")
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


def is_inside(root: Path, name: str) -> bool:
    try:
        inside(root, name)
    except StoreError:
        return False
    return True
