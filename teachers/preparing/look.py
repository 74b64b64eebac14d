"""A look at a source without preparing it: what its columns and classes are, and a digest of its content.

Reads the schema and the first rows, writes nothing. Knows nothing of keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError, RecipeError
from ..sources import BadRows, chunks_of, content_digest, files_of, schema_of, some_rows
from ..sources.annotated import ANNOTATED
from ..sources.files import Chunk, File, column_problem
from ..transfer_set.class_names import plain
from ..transfer_set.columns import Column
from ..transfer_set.transfer_set import SPLITS, SplitName
from .arrow_types import family
from .canonical import InputPlan, decode
from .categories import Texts
from .corrections import correction_files
from .dictionaries import of_few_rows
from .extra import extra_files, extra_of, look_at_extra
from .labels import as_text, names_in
from .munge import check_tabular
from .plans import plan_inputs
from .splits import expected_shares
from .tasks import LABELS

LOOKED_AT = 64
"""Rows that say what the columns are."""
PLANNED_CHUNK = 65_536
TYPED = ("parquet", "arrow", "numpy")
"""Sources whose files say what their columns are."""
PLAIN = ("number", "text")
"""What may name a row, a group or a class."""


@dataclass(frozen=True)
class Look:
    """What is known before anything is prepared. `columns` have no mean and std yet, categories the values that were met.

    `classes`, the names of the space, is None where only reading every label tells; `num_rows` and `num_bytes` (of the prepared inputs) where
    only reading every row does. `rows_by_split`: about how many each split gets; rows fall by chance. `integers`:
    what they mean as labels; None where each file says so itself, or nothing does.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...] | None
    num_rows: int | None
    rows_by_split: Mapping[SplitName, int] | None
    num_bytes: int | None
    plans: tuple[InputPlan, ...]
    integers: tuple[str, ...] | None
    root: Path | None
    bad: tuple[tuple[str, str], ...]
    """Rows that were looked at and cannot be used: where they stand, and why."""
    copies: tuple[str, ...]
    """Inputs that say the label in every row that was looked at."""
    row_bytes: int
    """Of prepared inputs, about: encoded images have that of the rows that were looked at."""
    beside: Mapping[str, int | None] = field(default_factory=dict)
    """Of training rows beside the source's, `extra` and `munge`, how many there are; None where only reading tells. They are among
    the others that are counted here."""
    labels_not_read: tuple[str, ...] = ()
    """Columns of the label that `extra` has."""


def look(config: TransferSetConfig) -> Look:
    """Raises RecipeError for what the recipe gets wrong (paths, columns, classes), DataError for unusable first rows."""
    files = files_of(config)
    sample, positions, bad = _sample(config, files)
    plans = tuple(
        replace(plan, types=tuple(str(sample.schema.field(name).type) for name in plan.sources))
        for plan in plan_inputs(config, sample, files[0].root, _typed(config, files))
    )
    classes, integers = LABELS[config.task].names(config, files)
    texts: Texts = {}
    inputs, wrong = decode(sample, plans, files[0].root, texts)
    columns = of_few_rows([plan.column for plan in plans], inputs, texts)
    bad += [(positions[row], reason) for row, reason in wrong.items()]
    chunks = chunks_of(files, PLANNED_CHUNK)
    by_split = _rows_by_split(config, chunks)
    num_rows = None if by_split is None else sum(chunk.num_rows or 0 for chunk in chunks)
    if num_rows is not None and config.limit is not None:
        num_rows = min(num_rows, config.limit * len(SPLITS))
    row_bytes = sum(_stored_bytes(column, inputs[column.name]) for column in columns)
    num_bytes = None if num_rows is None else num_rows * row_bytes
    about = plans, integers, files[0].root, tuple(bad), tuple(_copies(config, sample)), row_bytes
    return _with_rows_beside(Look(columns, classes, num_rows, by_split, num_bytes, *about), config)


def _with_rows_beside(seen: Look, config: TransferSetConfig) -> Look:
    """The same with what the recipe wants beside the source's rows."""
    beside: dict[str, int | None] = {}
    if config.munge is not None:
        check_tabular(seen.columns)
        beside["munge"] = None if seen.rows_by_split is None else config.munge.of(seen.rows_by_split["train"])
    if config.extra is not None:
        extra = look_at_extra(config, seen.plans, PLANNED_CHUNK, LOOKED_AT)
        rows = None if extra.num_rows is None else min(extra.num_rows, config.limit or extra.num_rows)
        beside = {"extra": rows, **beside}
        seen = replace(seen, bad=(*seen.bad, *extra.bad), labels_not_read=extra.labels)
    return counting(replace(seen, beside=beside))


def counting(seen: Look) -> Look:
    """The same; rows beside the source's count as training rows."""
    if not seen.beside or seen.rows_by_split is None or seen.num_rows is None or seen.num_bytes is None:
        return seen
    numbers = [rows for rows in seen.beside.values() if rows is not None]
    if len(numbers) < len(seen.beside):
        return replace(seen, num_rows=None, rows_by_split=None, num_bytes=None)
    more, by_split = sum(numbers), dict(seen.rows_by_split)
    by_split["train"] += more
    size = seen.num_bytes + more * seen.row_bytes
    return replace(seen, num_rows=seen.num_rows + more, rows_by_split=by_split, num_bytes=size)


def _stored_bytes(column: Column, values: NDArray[Any]) -> int:
    """What a row takes on the disk; of encoded images on average, of text about."""
    if not column.encoded:
        return column.bytes_per_row
    sizes = [len(payload) for payload in values if payload]
    return sum(sizes) // max(1, len(sizes))


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


def digests_beside(config: TransferSetConfig) -> dict[str, str]:
    """The same of `transfer_set.extra` and of `corrections`, of those that there are."""
    found = {"extra": extra_files(config), "corrections": correction_files(config)}
    beside = {"extra": any(_names_images(extra_of(config), file) for file in found["extra"]), "corrections": False}
    return {name: content_digest(files, beside=beside[name]) for name, files in found.items() if files}


Columns = Sequence[tuple[str, str]]
"""(key of the recipe, column that it names)"""


def _sample(config: TransferSetConfig, files: Sequence[File]) -> tuple[pa.RecordBatch, Sequence[str], BadRows]:
    schema = schema_of(files)
    named = _named(config)
    if schema.names:
        for key, name in named:
            if told := column_problem(schema.names, [name]):
                raise RecipeError(f"transfer_set.{key}: {told}")
    _check_types(config, named, files)
    sample, positions, bad = some_rows(files, list(dict.fromkeys(name for _, name in named)), LOOKED_AT)
    for key, name in named:
        if key not in ("inputs", "label"):
            _check_names(f"transfer_set.{key}", name, sample.column(name))
    LABELS[config.task].check(config, sample)
    return sample, positions, bad


def _named(config: TransferSetConfig) -> Columns:
    inputs = config.input_names
    if twice := sorted({name for name in inputs if inputs.count(name) > 1}):
        raise RecipeError(f"transfer_set.inputs: {twice[0]!r} is there twice")
    if not inputs:
        raise RecipeError("transfer_set.inputs: name a column")
    for name in config.labels:
        if config.labels.count(name) > 1:
            raise RecipeError(f"transfer_set.label: {name!r} is there twice")
        if name in inputs:
            raise RecipeError(
                f"transfer_set.inputs: {name!r} is the label, too: who sees it learns to copy it, and nothing else; take it out"
            )
        if name == config.split.group_by:
            raise RecipeError(
                f"transfer_set.split.group_by: {name!r} is the label: every class would lie in one split alone, and the test "
                f"rows would be of classes that nobody has learnt"
            )
    others = {"id": config.id, "split.group_by": config.split.group_by}
    named = [("inputs", name) for name in inputs] + [("label", name) for name in config.labels]
    return named + [(key, name) for key, name in others.items() if name is not None]


def _check_types(config: TransferSetConfig, named: Columns, files: Sequence[File]) -> None:
    """Raise DataError for a file in which a column is another kind of thing than in the files before it."""
    if files[0].source.kind not in TYPED:
        return
    known: dict[str, tuple[pa.DataType, File]] = {}
    categories = {each.column for each in config.input_columns if each.as_ == "category"}
    for file in files:
        types = schema_of([file])
        for key, name in named:
            if told := column_problem(types.names, [name]):
                raise DataError(f"{file.title}: {told}")
            here = types.field(name).type
            if family(here) == "nothing":
                continue
            there, first = known.setdefault(name, (here, file))
            if family(here) != family(there) and (
                (key == "inputs" and name not in categories) or family(here) not in PLAIN
            ):
                raise DataError(
                    f"{file.title}: {name!r} is {here}, and {there} in {first.title}; a column is the same in all files"
                )


def _check_names(key: str, name: str, array: pa.Array) -> None:
    """Raise RecipeError for a column that names nothing: neither text nor a number."""
    try:
        names_in(name, array)
    except DataError as error:
        raise RecipeError(f"{key}: {error}") from error


def _copies(config: TransferSetConfig, sample: pa.RecordBatch) -> Iterator[str]:
    if sample.num_rows < LOOKED_AT // 4:
        return
    labels = [_said(sample.column(name)) for name in config.labels if _is_plain(sample, name)]
    for key, name in _named(config):
        if key != "inputs" or not _is_plain(sample, name):
            continue
        said = _said(sample.column(name))
        if said in labels and len(set(said)) > 1:
            yield name


def _is_plain(sample: pa.RecordBatch, name: str) -> bool:
    return family(sample.schema.field(name).type) in PLAIN


def _said(array: pa.Array) -> list[str | None]:
    """What a column says as a label."""
    text = as_text(array)[0].to_pylist()
    names = plain({value for value in text if value is not None})
    return [None if value is None else names[value] for value in text]


def _typed(config: TransferSetConfig, files: Sequence[File]) -> dict[str, set[pa.DataType]]:
    """How files hold the inputs, where they say so."""
    if files[0].source.kind not in (*TYPED, "import"):
        return {}
    schemas = [schema_of([file]) for file in files]
    return {name: {schema.field(name).type for schema in schemas} for name in config.input_names}


def _names_images(config: TransferSetConfig, file: File) -> bool:
    """Whether the rows of a table may name image files beside holding them."""
    if file.root is None or file.source.kind in ("image_folder", "numpy", "csv", *ANNOTATED):
        return False
    inputs = config.input_names
    schema = schema_of([file])
    kinds = [schema.field(name).type for name in inputs if schema.names.count(name) == 1]
    return any(pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 for kind in kinds)
