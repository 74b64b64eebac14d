"""A look at a source without preparing it: what its columns and classes are, and a digest of its content.

Reads the schema and the first rows, writes nothing. Knows nothing of keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, RecipeError
from ..sources import FORMATS, chunks_of, class_names, content_digest, files_of, first_rows, read, schema_of
from ..sources.files import Chunk, File, nearest
from ..transfer_set.transfer_set import SPLITS, Column, SplitName
from .canonical import InputPlan, plan_inputs
from .labels import as_text
from .splits import expected_shares

LOOKED_AT = 32
"""Rows that say what the columns are."""
PLANNED_CHUNK = 65_536


@dataclass(frozen=True)
class Look:
    """What is known before anything is prepared. `columns` have no mean and std yet.

    `classes` is None where only reading every label tells; `num_rows` and `num_bytes` (of the prepared inputs) where
    only reading every row does. `rows_by_split`: about how many each split gets; rows fall by chance. `from_metadata`:
    the source itself says that the label is a class.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...] | None
    num_rows: int | None
    rows_by_split: Mapping[SplitName, int] | None
    num_bytes: int | None
    plans: tuple[InputPlan, ...]
    from_metadata: bool
    root: Path | None


def look(config: TransferSetConfig) -> Look:
    """Raises RecipeError for what the recipe gets wrong (paths, columns, classes), DataError for unusable first rows."""
    files = files_of(config)
    sample = _sample(config, files)
    plans = tuple(
        replace(plan, types=tuple(str(sample.schema.field(name).type) for name in plan.sources))
        for plan in plan_inputs(config, sample, files[0].root)
    )
    classes, from_metadata = _classes(config, files)
    columns = tuple(plan.column for plan in plans)
    chunks = chunks_of(files, PLANNED_CHUNK)
    by_split = _rows_by_split(config, chunks)
    num_rows = None if by_split is None else sum(chunk.num_rows or 0 for chunk in chunks)
    if num_rows is not None and config.limit is not None:
        num_rows = min(num_rows, config.limit * len(SPLITS))
    num_bytes = None if num_rows is None else num_rows * sum(column.bytes_per_row for column in columns)
    return Look(columns, classes, num_rows, by_split, num_bytes, plans, from_metadata, files[0].root)


def _rows_by_split(config: TransferSetConfig, chunks: Sequence[Chunk]) -> dict[SplitName, int] | None:
    if any(chunk.num_rows is None for chunk in chunks):
        return None
    expected = dict.fromkeys(SPLITS, 0.0)
    for chunk in chunks:
        for split, share in expected_shares(config.split, chunk.file.split).items():
            expected[split] += share * (chunk.num_rows or 0)
    return {split: min(round(rows), config.limit or round(rows)) for split, rows in expected.items()}


def source_digest(config: TransferSetConfig) -> str:
    """Names the content of the source: its files' relative names and SHA-256, scikit-learn's version, or the import's code."""
    files = files_of(config)
    return content_digest(files, beside=any(_names_images(config, file) for file in files))


def _sample(config: TransferSetConfig, files: Sequence[File]) -> pa.RecordBatch:
    schema = schema_of(files)
    inputs = [config.inputs] if isinstance(config.inputs, str) else config.inputs
    if twice := sorted({name for name in inputs if inputs.count(name) > 1}):
        raise RecipeError(f"transfer_set.inputs: {twice[0]!r} is there twice")
    others = {"label": config.label, "id": config.id, "split.group_by": config.split.group_by}
    named = [("inputs", name) for name in inputs] + [(key, name) for key, name in others.items() if name is not None]
    if not named or not inputs:
        raise RecipeError("transfer_set.inputs: name a column")
    if schema.names:
        for key, name in named:
            if name not in schema.names:
                raise RecipeError(f"transfer_set.{key}: no column {name!r}{nearest(name, schema.names)}")
    sample = first_rows(files, list(dict.fromkeys(name for _, name in named)), LOOKED_AT)
    for key, name in named[len(inputs) :]:
        _check_plain(f"transfer_set.{key}", sample.column(name), is_label=key == "label")
    return sample


def _check_plain(key: str, array: pa.Array, *, is_label: bool) -> None:
    """Raise RecipeError for a column that names nothing: neither text nor a number."""
    try:
        as_text(array) if is_label else array.cast(pa.string())
    except (DataError, pa.ArrowException) as error:
        raise RecipeError(f"{key}: {error}") from error


def _classes(config: TransferSetConfig, files: Sequence[File]) -> tuple[tuple[str, ...] | None, bool]:
    """(classes, if they are known; whether the source's metadata says that the label is a class)."""
    given = class_names(files, config.label) if config.label is not None else None
    classes = config.classes if config.classes is not None else given
    if classes is None and config.label is None:
        raise RecipeError("transfer_set.classes: without a label column the classes must be named here")
    if classes is None:
        return None, False
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise RecipeError(f"transfer_set.classes: {twice[0]!r} is there twice")
    if not classes:
        raise RecipeError("transfer_set.classes: name at least one class")
    return tuple(classes), given is not None


def _names_images(config: TransferSetConfig, file: File) -> bool:
    """Whether the rows of a table name image files instead of holding them; the first row tells."""
    if file.root is None or file.source.kind in ("image_folder", "numpy", "csv"):
        return False
    inputs = [config.inputs] if isinstance(config.inputs, str) else config.inputs
    schema = FORMATS[file.source.kind].schema(file)
    structs = [name for name in inputs if name in schema.names and pa.types.is_struct(schema.field(name).type)]
    if not structs:
        return False
    rows = (batch.data for chunk in chunks_of([file], 1) for batch in read(chunk, structs, 1) if batch.data.num_rows)
    first = next(rows, None)
    return first is not None and any(
        row[name].get("bytes") is None for row in first.to_pylist()[:1] for name in structs
    )
