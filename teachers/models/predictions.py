"""Files of what somebody has said of rows: which columns hold it, of which classes, and the numbers themselves.

Knows nothing of the transfer set's rows, nor whose row is whose.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..config.predictions import PredictionsTeacher
from ..config.transfer_set import CsvSource, JsonLinesSource, NumpySource, TableSource
from ..errors import RecipeError, TeacherError
from ..sources import FORMATS, chunks_of, class_label, read, schema_of
from ..sources.files import File, column_problem, existing, listed
from ..sources.reading import reading
from ..tasks.space import Space
from ..transfer_set.class_names import name_of, places_of
from .largest import dense

CLASSES = "classes"
"""In which a file may say itself what its numbers are of: an array of an `.npz`, a JSON list in Arrow's metadata."""
KINDS = ("parquet", "arrow", "csv", "jsonl", "numpy")
NAMED = 5


@dataclass(frozen=True)
class Said:
    """Some rows of a file. `scores` f32 [rows, C], NaN where nothing is said; `positions`: where each row stands."""

    data: pa.RecordBatch
    scores: NDArray[np.float32]
    positions: Sequence[str]


@dataclass(frozen=True)
class Predictions:
    """Files of one kind with the same columns. `classes` are those of the numbers, in their order."""

    config: PredictionsTeacher
    files: tuple[File, ...]
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    space: Space
    """The transfer set's."""

    @classmethod
    def open(cls, config: PredictionsTeacher, space: Space) -> "Predictions":
        """Look at the first file. Raises RecipeError for what is not there or does not fit, DataError for a damaged file."""
        if config.indices is not None and space.answer != "class_axis":
            raise RecipeError(
                "indices: the most probable classes are of one class of many; give a number for each class instead"
            )
        files = _files(config)
        schema = schema_of(files)
        columns = _columns(config, schema, space)
        about = [each for each in (config.id, config.sample_key, config.label, config.indices) if each is not None]
        if told := column_problem(schema.names, [*columns, *about]):
            raise RecipeError(f"path: {files[0].title}: {told}")
        files = tuple(replace(file, columns=(*columns, *about)) for file in files)
        classes = _classes(config, schema, columns, files[0], space)
        return cls(config, files, columns, classes, space)

    def read(self, rows: int) -> Iterator[Said]:
        """All rows in their order, at most so many at a time. Raises TeacherError for values that are no scores of these classes."""
        columns = self.files[0].columns
        convert = _class_scores if self.config.output == "classes" else _numbers
        convert = convert if self.config.indices is None else _largest
        for chunk in chunks_of(self.files, rows):
            for batch in read(chunk, columns, rows):
                if batch.bad:
                    raise TeacherError(f"{batch.bad[0][0]}: {batch.bad[0][1]}")
                if batch.data.num_rows:
                    yield Said(batch.data, convert(self, batch.data, batch.positions), batch.positions)


def _files(config: PredictionsTeacher) -> tuple[File, ...]:
    path = existing(Path(config.path), "path").absolute()
    if is_store(path):
        from .predicted_stores import files_of_store

        return files_of_store(config, path)
    root = path if path.is_dir() else path.parent
    names = [path.name] if path.is_file() else [each.name for each in sorted(path.iterdir())]
    kind = next((k for k in KINDS for name in names if Path(name).suffix.lower() in FORMATS[k].suffixes), None)
    if kind is None:
        known = ", ".join(suffix for each in KINDS for suffix in FORMATS[each].suffixes)
        raise RecipeError(f"path: {config.path} is none of the files that are read here ({known})")
    sources: dict[str, Callable[[], Any]] = {
        "csv": lambda: CsvSource(kind="csv", path=str(path), delimiter=config.delimiter),
        "jsonl": lambda: JsonLinesSource(kind="jsonl", path=str(path)),
        "numpy": lambda: NumpySource(kind="numpy", path=str(path)),
        "parquet": lambda: TableSource(kind="parquet", path=str(path)),
        "arrow": lambda: TableSource(kind="arrow", path=str(path)),
    }
    return tuple(File(sources[kind](), root, name) for name in listed(root, path, FORMATS[kind].suffixes))


def is_store(path: Path) -> bool:
    """Of soft targets; who reads one imports torch, and who reads a file does not."""
    return (path / "spec.json").is_file()


def _columns(config: PredictionsTeacher, schema: pa.Schema, space: Space) -> tuple[str, ...]:
    if isinstance(config.scores, str):
        return (config.scores,)
    if is_store(path := Path(config.path).absolute()):
        from .predicted_stores import column_of_store

        return (column_of_store(path),)
    if config.scores is not None:
        return tuple(config.scores)
    columns = tuple(config.classes or [name for name in space.names if name in schema.names])
    if not columns:
        raise RecipeError(
            f"scores: {config.path} has no column that is called like a class ({_some(space.names)}); name the column of "
            f"lists, or the columns: it has {_some(schema.names)}"
        )
    return columns


def _classes(
    config: PredictionsTeacher, schema: pa.Schema, columns: tuple[str, ...], file: File, space: Space
) -> tuple[str, ...]:
    """The recipe's, else the file's own, else the transfer set's. Raises RecipeError where they are not as many as the numbers."""
    kind = schema.field(columns[0]).type if len(columns) == 1 else None
    fields = _fields(kind) if kind is not None and pa.types.is_struct(kind) else ()
    if config.classes and (strange := [name for name in config.classes if fields and name not in fields]):
        raise RecipeError(
            f"classes: {_some(strange)} are not in {columns[0]!r} of {config.path}, which has {_some(fields)}"
        )
    if config.output == "classes" or len(columns) == 1:
        classes = tuple(config.classes or fields or _named_in_file(config, schema, columns[0], file) or space.names)
    else:
        classes = tuple(config.classes or columns)
    is_partial = config.output == "classes" or config.indices is not None
    width = None if is_partial or fields else len(columns) if kind is None else _width(kind)
    if width is not None and width != len(classes):
        raise RecipeError(
            f"scores: {config.path} has {width} numbers a row, and there are {len(classes)} classes ({_some(classes)}); say in "
            f"`classes` which the numbers are of, in their order"
        )
    return classes


def _fields(kind: pa.DataType) -> tuple[str, ...]:
    return tuple(kind.field(number).name for number in range(kind.num_fields))


def _named_in_file(config: PredictionsTeacher, schema: pa.Schema, column: str, file: File) -> list[str] | None:
    if is_store(path := Path(config.path).absolute()):
        from .predicted_stores import spec_of

        return list(spec_of(path).names)
    if file.path.suffix.lower() == ".npz":
        with reading(file), np.load(file.path, allow_pickle=False) as arrays:
            return [name_of(each) for each in arrays[CLASSES]] if CLASSES in arrays.files else None
    for metadata in (schema.field(column).metadata, schema.metadata):
        try:
            found = json.loads((metadata or {}).get(CLASSES.encode(), b"null"))
        except ValueError:
            found = None
        if isinstance(found, list):
            return [name_of(each) for each in found]
    named = column if config.output == "classes" else config.label
    return class_label(schema, named) if named is not None else None


def _width(kind: pa.DataType) -> int | None:
    """How many numbers a column has in each row; None where only its rows tell."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return int(np.prod(kind.shape))
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    return None if _is_list(kind) else 1


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _numbers(predictions: Predictions, data: pa.RecordBatch, positions: Sequence[str]) -> NDArray[np.float32]:
    """f32 [rows, C], NaN for what is missing."""
    columns = [data.column(name) for name in predictions.columns]
    if len(columns) == 1 and pa.types.is_struct(columns[0].type):
        columns = [pc.struct_field(columns[0], name) for name in predictions.classes]
    elif len(columns) == 1 and (_is_list(columns[0].type) or isinstance(columns[0], pa.ExtensionArray)):
        return _of_lists(predictions, columns[0], positions)
    return np.stack([_floats(predictions, column, positions) for column in columns], axis=1)


def _largest(predictions: Predictions, data: pa.RecordBatch, positions: Sequence[str]) -> NDArray[np.float32]:
    config, name = predictions.config, predictions.columns[0]
    scores, indices = data.column(name), data.column(str(config.indices))
    if not (_is_list(scores.type) and _is_list(indices.type)):
        raise TeacherError(f"{positions[0]}: {name!r} and {config.indices!r} are lists where `indices` is given")
    return dense(scores, indices, len(predictions.classes), positions, logs=config.output == "log_probabilities")


def _of_lists(predictions: Predictions, column: Any, positions: Sequence[str]) -> NDArray[np.float32]:
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    width, known = len(predictions.classes), np.asarray(column.is_valid())
    lengths = pc.fill_null(pc.list_value_length(column), width).to_numpy(zero_copy_only=False)
    if (wrong := np.flatnonzero(lengths != width)).size:
        raise TeacherError(
            f"{positions[wrong[0]]}: {lengths[wrong[0]]} numbers in {predictions.columns[0]!r}, {width} expected, one a class "
            f"({_some(predictions.classes)}); {wrong.size} rows here are so"
        )
    scores = np.full((len(column), width), np.nan, np.float32)
    scores[known] = _floats(predictions, column.flatten(), positions, width).reshape(-1, width)
    return scores


def _floats(
    predictions: Predictions, column: pa.Array, positions: Sequence[str], width: int = 1
) -> NDArray[np.float32]:
    """Numbers, or text that is one, as f32; NaN for null. Raises TeacherError that names the first that is none."""
    try:
        values = column.cast(pa.float64()) if not pa.types.is_float16(column.type) else column
        found: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
        return found
    except pa.ArrowException:
        row = next((row for row, value in enumerate(column.to_pylist()) if not _is_number(value)), 0)
        raise TeacherError(
            f"{positions[row // width]}: {column[row].as_py()!r} stands where a number is expected "
            f"({', '.join(predictions.columns[:NAMED])})"
        ) from None


def _is_number(value: Any) -> bool:
    try:
        return value is None or float(value) is not None
    except (TypeError, ValueError):
        return False


def _class_scores(predictions: Predictions, data: pa.RecordBatch, positions: Sequence[str]) -> NDArray[np.float32]:
    """1 for the class (or each of the classes) of a row and 0 for the others."""
    column, classes = data.column(predictions.columns[0]), predictions.classes
    rows = np.arange(len(column))
    if _is_list(column.type):
        rows, column = rows[np.asarray(pc.list_parent_indices(column))], column.flatten()
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    own = _named_in_file(predictions.config, data.schema, predictions.columns[0], predictions.files[0])
    named = [
        own[value] if own and isinstance(value, int) and 0 <= value < len(own) else name_of(value) for value in values
    ]
    places = places_of(named, classes)
    known = np.asarray(encoded.is_valid())
    at = np.array([-1 if place is None else place for place in [*places, None]])[
        pc.fill_null(encoded.indices, len(values)).to_numpy(zero_copy_only=False).astype(np.int64)
    ]
    if (strange := np.flatnonzero(known & (at < 0))).size:
        first = strange[0]
        raise TeacherError(
            f"{positions[rows[first]]}: {column[first].as_py()!r} in {predictions.columns[0]!r} is none of the "
            f"classes {_some(classes)}; {strange.size} values here are so: `classes` names what the file has, `class_map` which is which"
        )
    scores = np.zeros((data.num_rows, len(classes)), np.float32)
    scores[rows[known], at[known]] = 1
    if not _is_list(data.column(predictions.columns[0]).type):
        scores[~known] = np.nan
    else:
        scores[~np.asarray(data.column(predictions.columns[0]).is_valid())] = np.nan
    return scores


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
