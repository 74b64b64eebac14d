"""Where the rows of a transfer set come from: one table of formats, read chunk by chunk.

Knows nothing of splits, keys or what a column means.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa

from ..config.transfer_set import ImportSource, SklearnSource, SplitConfig, TransferSetConfig
from ..errors import DataError, RecipeError
from ..storage.at_once import at_once
from ..storage.remembered import remembered_sha256
from ..storage.seal import digest_of
from ..transfer_set.transfer_set import SPLITS
from .annotated import ANNOTATED, contents_of
from .arrays import numpy_chunks, numpy_schema, read_numpy, read_sklearn, sklearn_chunks, sklearn_digest, sklearn_schema
from .class_label import class_label
from .coco import coco_chunks, coco_schema, read_coco
from .files import (
    Batch,
    Chunk,
    File,
    Format,
    Positions,
    existing,
    is_inside,
    listed,
    named_inside,
    plain,
    position,
    printable,
    walked,
)
from .folders import folder_chunks, folder_schema, image_names, read_folder
from .imported import imported_digest, imported_schema, read_imported
from .lines import csv_schema, jsonl_schema, read_csv, read_jsonl, whole_file
from .reading import reading
from .tables import arrow_chunks, arrow_schema, parquet_chunks, parquet_schema, read_arrow, read_parquet
from .utf8 import not_utf8
from .voc import read_voc, voc_chunks, voc_schema
from .yolo import read_yolo, yolo_chunks, yolo_schema

BadRows = list[tuple[str, str]]
"""(position, why it cannot be used)"""
PLACES = 16
"""Of a source, where rows are looked at."""
LOOKED_INTO = 4096
"""Rows between two of these, at least, where there are many."""

FORMATS: dict[str, Format] = {
    "parquet": Format((".parquet", ".pq"), parquet_schema, parquet_chunks, read_parquet),
    "arrow": Format((".arrow", ".arrows", ".ipc", ".feather"), arrow_schema, arrow_chunks, read_arrow),
    "csv": Format((".csv",), csv_schema, whole_file, read_csv),
    "jsonl": Format((".jsonl", ".ndjson", ".json"), jsonl_schema, whole_file, read_jsonl),
    "numpy": Format((".npz",), numpy_schema, numpy_chunks, read_numpy),
    "image_folder": Format((), folder_schema, folder_chunks, read_folder),
    "coco": Format((), coco_schema, coco_chunks, read_coco),
    "voc": Format((), voc_schema, voc_chunks, read_voc),
    "yolo": Format((), yolo_schema, yolo_chunks, read_yolo),
    "sklearn": Format((), sklearn_schema, sklearn_chunks, read_sklearn),
    "import": Format((), imported_schema, whole_file, read_imported),
}


def files_of(config: TransferSetConfig) -> list[File]:
    """Every file of the source in reading order: by split, then by name. Raises RecipeError for what is not there."""
    source, split_files, columns = config.source, config.split.files, columns_of(config)
    if isinstance(source, SklearnSource | ImportSource):
        if split_files is not None:
            raise RecipeError(f"transfer_set.split.files: a source of kind {source.kind} has no files; use shares")
        return [File(source, None, source.name if isinstance(source, SklearnSource) else source.function)]
    if source.kind in ANNOTATED:
        root, named = ANNOTATED[source.kind].files(source, split_files)
        return [File(source, root, name, split, columns) for name, split in named]
    path = existing(Path(source.path), "transfer_set.source.path").absolute()  # whatever folder a worker runs in
    if split_files is None:
        root = path if path.is_dir() else path.parent
        return [File(source, root, name, None, columns) for name in _names(source.kind, root, path)]
    if not path.is_dir():
        raise RecipeError(f"transfer_set.source.path: {path} is a file; split.files names files inside a folder")
    return _split_files(config, path, config.split)


def _split_files(config: TransferSetConfig, root: Path, split: SplitConfig) -> list[File]:
    files: list[File] = []
    for name in SPLITS:
        given = getattr(split.files, name)
        if given is not None:
            what = f"transfer_set.split.files.{name}"
            found = _names(config.source.kind, root, named_inside(root, given, what))
            if twice := sorted({file.name for file in files} & set(found)):
                raise RecipeError(f"{what}: {twice[0]} is a file of another split, too")
            files += [File(config.source, root, file, name, columns_of(config)) for file in found]
    return files


def columns_of(config: TransferSetConfig) -> tuple[str, ...]:
    """Every column that the recipe names."""
    named = (*config.input_names, *config.labels, config.id, config.split.group_by)
    return tuple(dict.fromkeys(name for name in named if name is not None))


def _names(kind: str, root: Path, path: Path) -> list[str]:
    """What at `path` counts as a file of this kind, relative to `root`."""
    whole = path.relative_to(root).as_posix()
    if kind == "image_folder":
        if not path.is_dir():
            raise RecipeError(f"{path}: not a folder; an image_folder holds one folder of images per class")
        return [whole]
    if kind == "numpy" and path.is_dir() and any(path.glob("*.npy")):
        listed(root, path, (".npy",))  # for its checks
        return [whole]
    return listed(root, path, FORMATS[kind].suffixes)


def schema_of(files: Sequence[File]) -> pa.Schema:
    """Of the first file. Raises DataError when it cannot be read."""
    file = files[0]
    if file.source.kind not in ("parquet", "arrow") or not file.path.is_file():
        return FORMATS[file.source.kind].schema(file)
    state = file.path.stat()
    return _schema_of_table(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _schema_of_table(file: File, mtime_ns: int, size: int) -> pa.Schema:
    """Asked for several times while a source is looked at; a file may lie on a disk that is far away."""
    return FORMATS[file.source.kind].schema(file)


def chunks_of(files: Sequence[File], rows: int) -> list[Chunk]:
    """All that is to be read, in order; about `rows` rows each, more where a format cannot be entered in the middle."""
    return [chunk for file in files for chunk in FORMATS[file.source.kind].chunks(file, rows)]


def read(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    """The rows of a chunk, at most `rows` at a time, `columns` only; categories and views as the values they stand for."""
    for batch in FORMATS[chunk.file.source.kind].read(chunk, columns, rows):
        yield _checked(chunk.file, replace(batch, data=plain(batch.data)))


def _checked(file: File, batch: Batch) -> Batch:
    """Arrow takes any bytes for text: a row with what is none is a bad one. Raises DataError for what else is damaged."""
    with reading(file):
        try:
            batch.data.validate(full=True)
            return batch
        except pa.ArrowInvalid:
            wrong = not_utf8(batch.data)
            if not wrong:
                raise
    good = [row for row in range(batch.data.num_rows) if row not in wrong]
    bad = [(batch.positions[row], f"{name} is not UTF-8; save it as UTF-8") for row, name in sorted(wrong.items())]
    positions = [batch.positions[row] for row in good]
    return Batch(batch.data.take(pa.array(good, pa.int64())), positions, (*batch.bad, *bad))


def some_rows(
    files: Sequence[File], columns: Sequence[str], rows: int
) -> tuple[pa.RecordBatch, Sequence[str], BadRows]:
    """At most `rows` rows from all over the source, where they stand, and bad ones that were met on the way.

    They are the first ones, and some of chunks that are spread over it.

    One class, one file or one year often comes after the other: the first rows alone would speak for rows that are
    otherwise. Raises DataError when there is none; it says why the first cannot be used.
    """
    chunks = chunks_of(files, LOOKED_INTO)
    if len(chunks) < PLACES:
        chunks = chunks_of(files, rows)
    spread = list(dict.fromkeys(len(chunks) * at // PLACES for at in range(PLACES))) if chunks else []
    found: list[Batch] = []
    bad: BadRows = []
    each = max(1, rows // max(1, len(spread)))
    for at in spread:
        taken = sum(batch.data.num_rows for batch in found)
        _take(read(chunks[at], columns, rows), min(each, rows - taken) if taken else each, found, bad)
    if not found:  # none where it was looked at: whatever there is
        for chunk in chunks:
            _take(read(chunk, columns, rows), rows, found, bad)
            if found:
                break
    if not found:
        why = f"no row can be used; {bad[0][0]}: {bad[0][1]}" if bad else "no rows"
        raise DataError(f"{files[0].title}: {why}{f' (in {len(files)} files)' if len(files) > 1 else ''}")
    try:
        tables = [pa.Table.from_batches([batch.data.replace_schema_metadata()]) for batch in found]
        joined = pa.concat_tables(tables, promote_options="permissive").combine_chunks().to_batches()[0]
        return joined, [position for batch in found for position in batch.positions], bad
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return found[0].data, found[0].positions, bad  # files that differ in type: the first of them stands for all


def _take(read_from: Iterator[Batch], rows: int, found: list[Batch], bad: BadRows) -> None:
    """Put at most so many rows, and bad ones on the way, to those that are there."""
    for batch in read_from:
        bad += batch.bad
        if rows > 0 and batch.data.num_rows:
            found.append(Batch(batch.data.slice(0, rows), batch.positions[:rows]))
            rows -= found[-1].data.num_rows
        if rows <= 0:
            return


def positions_of(chunk: Chunk) -> Sequence[str] | None:
    """Where each row of a chunk stands, if that is known before it is read."""
    if chunk.file.source.kind in ("image_folder", *ANNOTATED):
        return [position(str(name), 0) for name in chunk.units]
    if chunk.num_rows is None:
        return None
    return Positions.numbered(chunk.file.name, range(chunk.first_row, chunk.first_row + chunk.num_rows))


def class_names(files: Sequence[File], label: str) -> list[tuple[File, list[str] | None]]:
    """By file, the names that it gives itself to the label's values: ClassLabel metadata, or class folders."""
    return [(file, class_label(schema_of([file]), label)) for file in files]


def content_digest(files: Sequence[File], *, beside: bool) -> str:
    """SHA-256 over names and contents of the source's files; `beside`: of all files of its folder, since rows name images."""
    source, root = files[0].source, files[0].root
    if isinstance(source, SklearnSource):
        return digest_of([source.kind, sklearn_digest(source)])
    if isinstance(source, ImportSource):
        return digest_of([source.kind, imported_digest(source)])
    assert root is not None
    names = sorted({*(_all_in(root) if beside else ()), *(name for file in files for name in _contents(file))})
    hashes = at_once(partial(_sha256, root), names, max(2, os.cpu_count() or 1))  # hashing leaves Python's lock alone
    return digest_of([source.kind, [[printable(name), found] for name, found in zip(names, hashes, strict=True)]])


def _sha256(root: Path, name: str) -> str:
    try:
        return remembered_sha256(root / name)
    except OSError as error:
        raise DataError(f"{printable(name)}: cannot be read: {error.strerror}") from error


def _contents(file: File) -> list[str]:
    """The real files that `file` stands for; a link that leaves the source is none of it (its row will be a bad one)."""
    assert file.root is not None
    if file.source.kind in ANNOTATED:
        return contents_of(file)
    if file.source.kind == "image_folder":
        return [name for name in image_names(file) if is_inside(file.root, name) and (file.root / name).is_file()]
    if file.path.is_dir():
        return [entry.relative_to(file.root).as_posix() for entry in file.path.glob("*.npy")]
    return [file.name]


NO_IMAGES = (".md", ".txt", ".yaml", ".yml", ".json", ".py", ".ipynb", ".html", ".log")
"""What lies beside data and is no image that a row could name."""


def _all_in(root: Path) -> list[str]:
    entries = (folder / name for folder, _, names in walked(root) for name in names if not name.endswith(NO_IMAGES))
    names = [os.path.relpath(entry, root).replace(os.sep, "/") for entry in entries if entry.is_file()]
    return [name for name in names if is_inside(root, name)]


__all__ = [
    "FORMATS",
    "Batch",
    "Chunk",
    "File",
    "chunks_of",
    "class_label",
    "class_names",
    "content_digest",
    "files_of",
    "image_names",
    "read",
    "schema_of",
    "some_rows",
]
