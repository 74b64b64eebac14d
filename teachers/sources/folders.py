"""A folder of images, one folder per class, as rows of `image` (its path; decoding is another's work) and `label`."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from .files import Batch, Chunk, File, position

SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def folder_schema(file: File) -> pa.Schema:
    """`image`, `label`; the names of the class folders are in the metadata."""
    names = in_order(e.name for e in file.path.iterdir() if e.is_dir() and not e.name.startswith("."))
    features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
    schema = pa.schema([("image", IMAGE), ("label", pa.string())])
    return schema.with_metadata({"huggingface": json.dumps(features)})


def folder_chunks(file: File, rows: int) -> list[Chunk]:
    names = image_names(file)
    return [
        Chunk(file, 0, len(names[at : at + rows]), tuple(names[at : at + rows])) for at in range(0, len(names), rows)
    ]


def read_folder(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    names = [str(name) for name in chunk.units]
    for at in range(0, len(names), rows):
        some = names[at : at + rows]
        images = pa.array([{"bytes": None, "path": name} for name in some], IMAGE)
        labels = pa.array([_class_of(chunk.file, name) for name in some], pa.string())
        data = pa.record_batch({"image": images, "label": labels}).select(list(columns))
        yield Batch(data, [position(name, 0) for name in some])


def image_names(file: File) -> list[str]:
    """Everything in the class folders (what is no image comes out as a bad row), and the images beside them.

    Hidden files are passed over. Links are listed, not followed: what they lead to is judged when it is read.
    """
    assert file.root is not None
    if file.path.is_file():
        return [file.name]
    found = []
    for folder, subfolders, names in os.walk(file.path):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names + links:
            is_image = name.lower().endswith(SUFFIXES)
            if not name.startswith(".") and (is_image or folder != str(file.path) or name in links):
                found.append(os.path.relpath(os.path.join(folder, name), file.root).replace(os.sep, "/"))
    return sorted(found)


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted: as integers when all are, else as text."""
    names = set(names)
    return sorted(names, key=int) if all(name.removeprefix("-").isdecimal() for name in names) else sorted(names)


def _class_of(file: File, name: str) -> str | None:
    """The first folder below the split's own; None for an image that lies beside the class folders."""
    inner = PurePosixPath(name).relative_to(file.name)
    return inner.parts[0] if len(inner.parts) > 1 else None
