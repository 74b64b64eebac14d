"""NumPy arrays as columns: an `.npz` file, a folder of `.npy` files, the data sets inside scikit-learn. Never unpickles."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..config.transfer_set import SklearnSource
from ..errors import DataError
from .files import Batch, Chunk, File, batches, check_columns
from .reading import reading
from .utf8 import text_array

BATCH_BYTES = 16 * 2**20

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether in Fortran order, dtype."""


def as_arrow(values: NDArray[Any]) -> pa.Array:
    """[rows, ...] as an Arrow column: of tensors where it has more than one axis; text in [rows, 1] is one a row."""
    if values.dtype.kind == "U":
        return text_array(values.reshape(len(values)).tolist())
    if values.dtype.kind == "S":
        return pa.array(values.reshape(len(values)))
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:  # of extended precision, which Arrow does not have
        values = values.astype(np.float64)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if values.ndim == 1:
        return pa.array(values)
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), int(np.prod(values.shape[1:])))
    return pa.ExtensionArray.from_storage(kind, flat)


def numpy_schema(file: File) -> pa.Schema:
    """Of every array that can be a column. Raises DataError for one that the recipe names and that cannot."""
    headers = _headers(file)
    return pa.schema(
        [(name, as_arrow(np.empty((0, *shape[1:]), dtype)).type) for name, (shape, _, dtype) in headers.items()]
    )


def _named(file: File, headers: Mapping[str, Header]) -> dict[str, Header]:
    """Of the arrays that the recipe names: what else lies there (names of classes, say) has a length of its own."""
    return {name: header for name, header in headers.items() if not file.columns or name in file.columns}


def numpy_chunks(file: File, rows: int) -> list[Chunk]:
    """Ranges of rows of mapped `.npy` files; an `.npz` file is read in one go, so it is one chunk."""
    total = _num_rows(file, _named(file, _headers(file)))
    if not _mapped(file.path):
        return [Chunk(file, 0, total, (0, total))]
    return [
        Chunk(file, start, min(rows, total - start), (start, min(start + rows, total)))
        for start in range(0, total, rows)
    ]


def read_numpy(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    headers = _headers(chunk.file)
    check_columns(chunk.file, list(headers), columns)
    _num_rows(chunk.file, {name: headers[name] for name in columns})
    blocks = _read_npy if _mapped(chunk.file.path) else _read_npz
    first_row = chunk.first_row
    with reading(chunk.file):
        for block in blocks(chunk, columns, headers, rows):
            table = pa.table({name: as_arrow(values) for name, values in block.items()})
            yield from batches(chunk.file.name, first_row, table, rows)
            first_row += table.num_rows


def _read_npy(
    chunk: Chunk, columns: Sequence[str], headers: Mapping[str, Header], rows: int
) -> Iterator[dict[str, NDArray[Any]]]:
    start, stop = chunk.units
    assert isinstance(start, int) and isinstance(stop, int)
    files = _mapped(chunk.file.path)
    mapped = {name: np.load(files[name], mmap_mode="r", allow_pickle=False) for name in columns}
    for first in range(start, stop, rows):
        yield {name: values[first : min(first + rows, stop)] for name, values in mapped.items()}


def _read_npz(
    chunk: Chunk, columns: Sequence[str], headers: Mapping[str, Header], rows: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Side by side through the archive, so that it is never unpacked as a whole (but for arrays in Fortran order)."""
    assert chunk.num_rows is not None
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(chunk.file.path))
        opened = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in columns}
        for member in opened.values():
            _header(member)
        whole = {
            name: npy.read_array(archive.open(f"{name}.npy"), allow_pickle=False)
            for name in columns
            if headers[name][1]
        }
        for first in range(0, chunk.num_rows, rows):
            number = min(rows, chunk.num_rows - first)
            yield {
                name: whole[name][first : first + number] if name in whole else _next(member, headers[name], number)
                for name, member in opened.items()
            }


def _next(member: IO[bytes], header: Header, rows: int) -> NDArray[Any]:
    shape, _, dtype = header
    expected = rows * int(np.prod(shape[1:])) * dtype.itemsize
    payload = member.read(expected)
    if len(payload) != expected:
        raise EOFError(f"an array of shape {list(shape)} ends too early")
    return np.frombuffer(payload, dtype).reshape(rows, *shape[1:])


def _headers(file: File) -> dict[str, Header]:
    """Of every array that can be a column. Raises DataError for one that the recipe names and that cannot."""
    found: dict[str, Header] = {}
    with reading(file), ExitStack() as stack:
        for name, member in _members(file.path, stack):
            try:
                header = _header(member)
                problem = _problem(header)
            except ValueError as error:
                problem = f"cannot be read: {error}"
            if problem is None:
                found[name] = header
            elif name in file.columns:
                raise DataError(f"{file.title}: array {name!r} {problem}")
    return found


def _problem(header: Header) -> str | None:
    """Why an array is no column."""
    shape, _, dtype = header
    if dtype.hasobject:
        return "holds pickled objects, which are never loaded; save numbers or text"
    if not shape:
        return "is one value, not one a row"
    if 0 in shape[1:]:
        return f"has shape {list(shape)}: its rows hold no value"
    is_text = dtype.kind in "US" and int(np.prod(shape[1:])) == 1
    return (
        None
        if dtype.kind in "biuf" or is_text
        else f"holds {dtype} of shape {list(shape)}; save numbers, or one text a row"
    )


def _mapped(path: Path) -> dict[str, Path]:
    """The `.npy` files of a folder, or the one that `path` is, by what their columns are called; none of an archive."""
    files = [path] if path.suffix.lower() == ".npy" and path.is_file() else sorted(path.glob("*.npy"))
    return {entry.stem: entry for entry in files}


def _members(path: Path, stack: ExitStack) -> Iterator[tuple[str, IO[bytes]]]:
    if files := _mapped(path):
        for name, entry in files.items():
            yield name, stack.enter_context(entry.open("rb"))
        return
    archive = stack.enter_context(zipfile.ZipFile(path))
    for name in sorted(archive.namelist()):
        if name.endswith(".npy"):
            yield name.removesuffix(".npy"), stack.enter_context(archive.open(name))


def _header(member: IO[bytes]) -> Header:
    version = npy.read_magic(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of the .npy format is not known here")
    shape, fortran, dtype = read(member)
    return shape, fortran and len(shape) > 1, dtype


def _num_rows(file: File, headers: Mapping[str, Header]) -> int:
    rows = {name: shape[0] for name, (shape, _, _) in headers.items()}
    if len(set(rows.values())) > 1:
        raise DataError(
            f"{file.title}: arrays of different length: {', '.join(f'{n} {r}' for n, r in rows.items())}; a row of each belongs to one"
        )
    return next(iter(rows.values()), 0)


def sklearn_schema(file: File) -> pa.Schema:
    return _sklearn_table(file.name).schema


def sklearn_chunks(file: File, rows: int) -> list[Chunk]:
    total = _sklearn_table(file.name).num_rows
    return [
        Chunk(file, start, min(rows, total - start), (start, min(start + rows, total)))
        for start in range(0, total, rows)
    ]


def read_sklearn(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    start, stop = chunk.units
    assert isinstance(start, int) and isinstance(stop, int)
    table = _sklearn_table(chunk.file.name).slice(start, stop - start)
    yield from batches(chunk.file.name, start, table.select(list(columns)), rows)


@lru_cache
def _sklearn_table(name: str) -> pa.Table:
    """The data set as a table; its class names stand in the metadata, as Hugging Face writes them."""
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")()
    names = [str(value) for value in loaded.target_names]
    if name == "digits":
        inputs = {"image": loaded.images.astype(np.uint8)[..., None]}
    else:
        inputs = {"features": loaded.data.astype(np.float64)}
    label = "digit" if name == "digits" else "target"
    features = {"info": {"features": {label: {"_type": "ClassLabel", "names": names}}}}
    columns = {column: as_arrow(values) for column, values in inputs.items()} | {label: pa.array(loaded.target)}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})


def sklearn_digest(source: SklearnSource) -> str:
    return f"{source.name}@scikit-learn=={version('scikit-learn')}"
