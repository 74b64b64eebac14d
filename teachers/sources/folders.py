"""A folder of images, one folder per class, as rows of `image` (its path; decoding is another's work) and `label`."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from ..transfer_set.class_names import in_order
from .files import Batch, Chunk, File, holds_outs_alone, position, printable, walked
from .reading import NO_TEXT

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
OF_WINDOWS = ("thumbs.db", "desktop.ini")
"""What its file manager leaves in a folder that somebody looked at."""
OF_ARCHIVES = "__MACOSX"
"""What an archive made on a Mac has beside the files: their shadows."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def folder_schema(file: File) -> pa.Schema:
    """`image`, `label`; the names of the class folders are in the metadata."""
    _, folders, _ = next(walked(file.path), (file.path, [], []))
    meant = (name for name in folders if name != OF_ARCHIVES and not holds_outs_alone(file.path / name))
    names = in_order(name.strip() for name in meant if _is_text(name))  # as labels are read
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
        some = [name for name in names[at : at + rows] if _is_text(name)]
        images = pa.array([{"bytes": None, "path": name} for name in some], IMAGE)
        labels = pa.array([_class_of(chunk.file, name) for name in some], pa.string())
        data = pa.record_batch({"image": images, "label": labels}).select(list(columns))
        odd = [position(name, 0) for name in names[at : at + rows] if not _is_text(name)]
        yield Batch(data, [position(name, 0) for name in some], tuple((name, NO_TEXT) for name in odd))


def image_names(file: File) -> list[str]:
    """Everything in the class folders (what is no image comes out as a bad row), and the images beside them.

    Hidden files are passed over. Links are listed, not followed: what they lead to is judged when it is read.
    """
    assert file.root is not None
    if file.path.is_file():
        return [file.name]
    found = []
    for folder, subfolders, names in walked(file.path):
        links = [name for name in subfolders if (folder / name).is_symlink()]
        subfolders[:] = [name for name in subfolders if name != OF_ARCHIVES]
        here = os.path.relpath(folder, file.root).replace(os.sep, "/")
        for name in names + links:
            is_image = name.lower().endswith(SUFFIXES)
            is_hidden = name.startswith(".") or name.lower() in OF_WINDOWS
            if not is_hidden and (is_image or folder != file.path or name in links):
                found.append(name if here == "." else f"{here}/{name}")
    return sorted(found)


def _is_text(name: str) -> bool:
    return printable(name) == name


def _class_of(file: File, name: str) -> str | None:
    """The first folder below the split's own; None for an image that lies beside the class folders."""
    inner = PurePosixPath(name).relative_to(file.name)
    return inner.parts[0] if len(inner.parts) > 1 else None
