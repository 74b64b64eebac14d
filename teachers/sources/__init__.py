"""Where the rows of a transfer set come from: one table of formats, read chunk by chunk.

Knows nothing of splits, keys or what a column means.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ..config.transfer_set import ImportSource, SklearnSource, SplitConfig, TransferSetConfig
from ..errors import DataError, RecipeError
from ..storage.seal import digest_of, sha256_file
from ..transfer_set.transfer_set import SPLITS
from .arrays import numpy_chunks, numpy_schema, read_numpy, read_sklearn, sklearn_chunks, sklearn_digest, sklearn_schema
from .files import Batch, Chunk, File, Format, existing, is_inside, listed, named_inside, position
from .folders import folder_chunks, folder_schema, image_names, in_order, read_folder
from .imported import imported_digest, imported_schema, read_imported
from .tables import (
    arrow_chunks,
    arrow_schema,
    csv_schema,
    jsonl_schema,
    parquet_chunks,
    parquet_schema,
    read_arrow,
    read_csv,
    read_jsonl,
    read_parquet,
    whole_file,
)

FORMATS: dict[str, Format] = {
    "parquet": Format((".parquet", ".pq"), parquet_schema, parquet_chunks, read_parquet),
    "arrow": Format((".arrow", ".arrows", ".ipc", ".feather"), arrow_schema, arrow_chunks, read_arrow),
    "csv": Format((".csv",), csv_schema, whole_file, read_csv),
    "jsonl": Format((".jsonl", ".ndjson", ".json"), jsonl_schema, whole_file, read_jsonl),
    "numpy": Format((".npz",), numpy_schema, numpy_chunks, read_numpy),
    "image_folder": Format((), folder_schema, folder_chunks, read_folder),
    "sklearn": Format((), sklearn_schema, sklearn_chunks, read_sklearn),
    "import": Format((), imported_schema, whole_file, read_imported),
}


def files_of(config: TransferSetConfig) -> list[File]:
    """Every file of the source in reading order: by split, then by name. Raises RecipeError for what is not there."""
    source, split_files = config.source, config.split.files
    if isinstance(source, SklearnSource | ImportSource):
        if split_files is not None:
            raise RecipeError(f"transfer_set.split.files: a source of kind {source.kind} has no files; use shares")
        return [File(source, None, source.name if isinstance(source, SklearnSource) else source.function)]
    path = existing(Path(source.path), "transfer_set.source.path")
    if split_files is None:
        root = path if path.is_dir() else path.parent
        return [File(source, root, name) for name in _names(source.kind, root, path)]
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
            files += [File(config.source, root, file, name) for file in found]
    return files


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
    return FORMATS[files[0].source.kind].schema(files[0])


def chunks_of(files: Sequence[File], rows: int) -> list[Chunk]:
    """All that is to be read, in order; about `rows` rows each, more where a format cannot be entered in the middle."""
    return [chunk for file in files for chunk in FORMATS[file.source.kind].chunks(file, rows)]


def read(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    """The rows of a chunk, at most `rows` at a time, `columns` only."""
    return FORMATS[chunk.file.source.kind].read(chunk, columns, rows)


def first_rows(files: Sequence[File], columns: Sequence[str], rows: int) -> pa.RecordBatch:
    """At most `rows` rows from the start of the source. Raises DataError when it has none."""
    chunks = (chunk for file in files for chunk in FORMATS[file.source.kind].chunks(file, rows))
    found: list[pa.RecordBatch] = []
    for batch in (batch for chunk in chunks for batch in read(chunk, columns, rows)):
        if batch.data.num_rows:
            found.append(batch.data)
        if sum(data.num_rows for data in found) >= rows:
            break
    if not found:
        raise DataError(f"{files[0].title}: no rows{f' in {len(files)} files' if len(files) > 1 else ''}")
    try:
        return pa.concat_batches(found).slice(0, rows)
    except pa.ArrowInvalid:  # files that differ in type: the first of them stands for all
        return found[0]


def positions_of(chunk: Chunk) -> list[str] | None:
    """Where each row of a chunk stands, if that is known before it is read."""
    if chunk.file.source.kind == "image_folder":
        return [position(str(name), 0) for name in chunk.units]
    if chunk.num_rows is None:
        return None
    return [position(chunk.file.name, chunk.first_row + row) for row in range(chunk.num_rows)]


def class_names(files: Sequence[File], label: str) -> list[str] | None:
    """Names that the source itself gives to the label's values: ClassLabel metadata, or class folders."""
    if files[0].source.kind != "image_folder":
        return _class_label(schema_of(files[:1]), label)
    return in_order(name for file in files for name in _class_label(folder_schema(file), label) or []) or None


def _class_label(schema: pa.Schema, label: str) -> list[str] | None:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        feature = features[label]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else None


def content_digest(files: Sequence[File], *, beside: bool) -> str:
    """SHA-256 over names and contents of the source's files; `beside`: of all files of its folder, since rows name images."""
    source, root = files[0].source, files[0].root
    if isinstance(source, SklearnSource):
        return digest_of([source.kind, sklearn_digest(source)])
    if isinstance(source, ImportSource):
        return digest_of([source.kind, imported_digest(source)])
    assert root is not None
    names = sorted({name for file in files for name in (_all_in(root) if beside else _contents(file))})
    return digest_of([source.kind, [[name, sha256_file(root / name)] for name in names]])


def _contents(file: File) -> list[str]:
    """The real files that `file` stands for; a link that leaves the source is none of it (its row will be a bad one)."""
    assert file.root is not None
    if file.source.kind == "image_folder":
        return [name for name in image_names(file) if is_inside(file.root, name) and (file.root / name).is_file()]
    if file.path.is_dir():
        return [entry.relative_to(file.root).as_posix() for entry in file.path.glob("*.npy")]
    return [file.name]


def _all_in(root: Path) -> list[str]:
    names = [entry.relative_to(root).as_posix() for entry in root.rglob("*") if entry.is_file()]
    return [name for name in names if is_inside(root, name)]


__all__ = [
    "FORMATS",
    "Batch",
    "Chunk",
    "File",
    "chunks_of",
    "class_names",
    "content_digest",
    "files_of",
    "image_names",
    "read",
    "schema_of",
]
