"""Rows of a new source as a model takes them: which columns they are, read and decoded as the transfer set's were.

Knows nothing of networks, or of what becomes of the answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter

from teachers.config.transfer_set import ImageFolderSource, Source, TransferSetConfig
from teachers.errors import DataError, RecipeError, StoreError
from teachers.models.folder import ModelConfig
from teachers.preparing.canonical import InputPlan, decode
from teachers.preparing.categories import Dictionaries, with_codes
from teachers.preparing.image_sizes import sizes_of
from teachers.preparing.look import LOOKED_AT
from teachers.preparing.refit import refitted
from teachers.preparing.scalars import How
from teachers.preparing.shuffle import BATCH_BYTES
from teachers.preparing.text import cut
from teachers.sources import FORMATS, File, chunks_of, files_of, read, schema_of
from teachers.sources.files import Batch, delimiter_in, plain, walked
from teachers.sources.folders import SUFFIXES as IMAGES
from teachers.transfer_set.columns import UNKNOWN

from .columns import columns_for

ROWS_AT_ONCE = 1024
KINDS = {suffix: kind for kind, known in FORMATS.items() for suffix in known.suffixes} | {".npy": "numpy"}
"""Of tables, by suffix."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a source in their order: `ids` of all, and why some cannot be used, by place among these.

    `inputs`: of the others, canonical, `{column: [rows, ...]}`. `unknown`: by category, how many of these have a value that no
    training row had.
    """

    ids: Sequence[str]
    bad: Mapping[int, str]
    inputs: Mapping[str, NDArray[Any]]
    unknown: Mapping[str, int] = field(default_factory=dict)
    sizes: NDArray[np.float64] | None = None
    """Of a model that says boxes: (height, width) of every row's image as it is seen, 0 of what cannot be used."""


def rows_of(path: Path, config: ModelConfig, given: Sequence[str] = ()) -> Iterator[Rows]:
    """All rows of the file or folder `path`, a batch at a time.

    `given`: columns as `--inputs` names them. Raises RecipeError when the source has not the columns that the model takes,
    or they hold something else; DataError for a file that cannot be read.
    """
    plans = plans_of(config)
    files = _files(path, takes_images=any(plan.kind == "image" for plan in plans))
    found = ["image"] if files[0].source.kind == "image_folder" else schema_of(files).names
    if delimiter := delimiter_in(found, [name for plan in plans for name in plan.sources]):
        files = [replace(file, source=file.source.model_copy(update={"delimiter": delimiter})) for file in files]
        found = schema_of(files).names
    sources = columns_for(plans, found, given, files[0].title)
    names = list(dict.fromkeys(name for columns in sources for name in columns))
    files = [replace(file, columns=tuple(names)) for file in files]  # what else lies in an archive does not count
    dictionaries = _dictionaries(config)
    sample = _sample(files, names)
    if sample is not None:
        plans = [refitted(plan, columns, sample) for plan, columns in zip(plans, sources, strict=True)]
    texts = [name for plan in plans if plan.kind == "text" for name in plan.sources]
    for chunk in chunks_of(files, ROWS_AT_ONCE):
        waiting: list[tuple[str, str]] = []
        batches = read(chunk, names, ROWS_AT_ONCE)
        for batch in (part for whole in batches for part in cut(whole, texts, BATCH_BYTES)):
            waiting += batch.bad
            if batch.positions:
                rows = _decoded(batch, plans, dictionaries, files[0].root, waiting)
                yield rows if not config.space.max_boxes else _with_sizes(rows, batch, plans, files[0].root)
        if waiting:
            yield Rows([at for at, _ in waiting], {row: why for row, (_, why) in enumerate(waiting)}, {})


def canonical(config: ModelConfig, table: pa.Table, given: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The rows of a table with the source's columns as the model takes them, `{column: [rows, ...]}`, in their order.

    `given`: as in `rows_of`. Raises RecipeError for columns that are not there or hold something else, DataError that
    names the first row which cannot be used.
    """
    plans = plans_of(config)
    sources = columns_for(plans, table.column_names, given, "the table")
    names = list(dict.fromkeys(name for columns in sources for name in columns))
    batch = plain(table.select(names).combine_chunks().to_batches()[0])
    plans = [refitted(plan, columns, batch.slice(0, LOOKED_AT)) for plan, columns in zip(plans, sources, strict=True)]
    inputs, bad = decode(batch, plans, None)
    if bad:
        row = min(bad)
        raise DataError(f"{len(bad):,} of {batch.num_rows:,} rows cannot be used, the first is row {row}: {bad[row]}")
    return with_codes(inputs, _dictionaries(config))


def _dictionaries(config: ModelConfig) -> Dictionaries:
    columns = config.preprocess["columns"]
    return {column["name"]: column["values"] for column in columns if column["kind"] == "category"}


def plans_of(config: ModelConfig) -> list[InputPlan]:
    """How the model's columns are made of a source's; of a folder that does not say, as if they had their own names there."""
    try:
        plans = [InputPlan.of_document(document) for document in config.inputs]
    except TypeError as error:
        raise StoreError(
            f"config.json: `inputs` does not say how columns are made ({error}); export the model again"
        ) from None
    read = [{"name": name, "kind": "text", "shape": []} for name in config.preprocess.get("text", {}).get("names", ())]
    return plans or [_plan_of(column) for column in [*config.preprocess["columns"], *read]]


def _plan_of(column: Mapping[str, Any]) -> InputPlan:
    shape = tuple(column["shape"])
    if column["kind"] == "category":
        names = tuple(column["names"])
        return InputPlan(column["name"], "category", names, (), shape, how=(How(missing=True),) * len(names))
    if column["kind"] == "text":
        return InputPlan(column["name"], "text", (column["name"],), (), (), how=(How(),))
    raw = None if column["kind"] == "image" else shape
    return InputPlan(column["name"], column["kind"], (column["name"],), raw, shape, wide=True)  # rounds nothing


def _files(path: Path, *, takes_images: bool) -> list[File]:
    """Those of a table, of a folder of them, an image, a folder of images. Raises RecipeError for anything else."""
    suffixes = {file.suffix.lower() for file in _shown(path)}
    known = KINDS | ({".tsv": "csv"} if path.is_file() else {})  # of a folder, files are listed by their format's own
    kinds = sorted({known[suffix] for suffix in suffixes if suffix in known})
    has_images = takes_images and (not suffixes.isdisjoint(IMAGES) or (path.is_dir() and not kinds))
    if not (has_images or kinds):
        read_here = ", ".join([*known, *(IMAGES if takes_images else ())])
        raise RecipeError(
            f"{path}: neither a table nor an image that this model takes; these are read: {read_here}, and folders of them"
        )
    if not has_images and len(kinds) > 1:
        raise RecipeError(f"{path}: holds files of several kinds ({', '.join(kinds)}); name one of them")
    if has_images:
        source = ImageFolderSource(kind="image_folder", path=str(path))
        return [File(source, path.parent, path.name)] if path.is_file() else _of_source(source)
    return _of_source(TypeAdapter(Source).validate_python({"kind": kinds[0], "path": str(path)}))


def _of_source(source: Source) -> list[File]:
    return files_of(TransferSetConfig(source=source, inputs=[], label=None))


def _shown(path: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder that are not hidden."""
    if path.is_file():
        return iter([path])
    return (at / name for at, _, names in walked(path) for name in names if not name.startswith((".", "_")))


def _sample(files: Sequence[File], names: Sequence[str]) -> pa.RecordBatch | None:
    """The first rows that can be read, None without any."""
    for chunk in chunks_of(files, LOOKED_AT):
        for batch in read(chunk, names, LOOKED_AT):
            if batch.data.num_rows:
                return batch.data
    return None


def _decoded(
    batch: Batch,
    plans: Sequence[InputPlan],
    dictionaries: Dictionaries,
    root: Path | None,
    waiting: list[tuple[str, str]],
) -> Rows:
    """A batch, and of `waiting` (rows that could not be parsed) those that stand before its rows in the file."""
    inputs, wrong = decode(batch.data, plans, root)
    ids: list[str] = []
    bad: dict[int, str] = {}
    for row, position in enumerate(batch.positions):
        while waiting and _row(waiting[0][0]) < _row(position):
            at, bad[len(ids)] = waiting.pop(0)
            ids.append(at)
        if row in wrong:
            bad[len(ids)] = wrong[row]
        ids.append(position)
    if wrong:
        good = np.setdiff1d(np.arange(len(batch.positions)), np.fromiter(wrong, np.int64, len(wrong)))
        inputs = {name: values[good] for name, values in inputs.items()}
    inputs = with_codes(inputs, dictionaries)
    unknown = {
        name: int(count)
        for plan in plans
        if plan.kind == "category"
        for name, count in zip(plan.sources, (inputs[plan.name] == UNKNOWN).sum(axis=0), strict=True)
    }
    return Rows(ids, bad, inputs, unknown)


def _with_sizes(rows: Rows, batch: Batch, plans: Sequence[InputPlan], root: Path | None) -> Rows:
    place = {position: row for row, position in enumerate(batch.positions)}
    found = sizes_of(batch.data.column(plans[0].sources[0]), range(len(place)), {}, root)
    sizes = np.stack([found[place[each]] if each in place else np.zeros(2) for each in rows.ids])
    return replace(rows, sizes=sizes)


def _row(position: str) -> int:
    return int(position.rpartition("#")[2])
