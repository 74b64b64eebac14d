"""Pascal VOC as rows of `image` and `boxes`: an XML file for each image, lists of names for splits.

Knows nothing of what a label may be used for.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ..config.box_sources import VocSource
from ..config.transfer_set import SplitFiles
from ..errors import DataError, RecipeError, StoreError
from ..storage.seal import inside
from ..transfer_set.transfer_set import SPLITS, SplitName
from .box_rows import OWN, Box, Noted, rows_of
from .files import Batch, Chunk, File, existing, named_inside
from .folders import SUFFIXES
from .reading import check_text, reading
from .voc_xml import NotVoc, VocObject, read_voc_xml

LISTS = "ImageSets/Main"
WHOLE = "."
"""Name of the file that is all of the folder."""


def voc_files(source: VocSource, splits: SplitFiles | None) -> tuple[Path, list[tuple[str, SplitName | None]]]:
    """(the folder of all, lists of names and their splits; `WHOLE`: every image). Raises RecipeError for what is not there."""
    root = existing(Path(source.path), "transfer_set.source.path").absolute()
    for key in ("annotations", "images"):
        if not named_inside(root, getattr(source, key), f"transfer_set.source.{key}").is_dir():
            raise RecipeError(f"transfer_set.source.{key}: {getattr(source, key)!r} is no folder of {root}")
    if splits is None:
        return root, [(WHOLE, None)]
    given = [(split, getattr(splits, split)) for split in SPLITS]
    return root, [(_list(root, name, split), split) for split, name in given if name is not None]


def _list(root: Path, name: str, split: str) -> str:
    what = f"transfer_set.split.files.{split}"
    for at in (f"{LISTS}/{name}.txt", f"{LISTS}/{name}"):
        if (root / at).is_file():
            return at
    path = named_inside(root, name, what)
    if not path.is_file():
        raise RecipeError(f"{what}: {name!r} is no list of names; name one of {LISTS}")
    return path.relative_to(root).as_posix()


def voc_schema(file: File) -> pa.Schema:
    """No XML file says which classes there are: reading all of them tells."""
    return pa.schema(list(OWN.items()))


def voc_chunks(file: File, rows: int) -> list[Chunk]:
    names = voc_units(file)
    return [
        Chunk(file, at, len(names[at : at + rows]), tuple(names[at : at + rows])) for at in range(0, len(names), rows)
    ]


def voc_units(file: File) -> list[str]:
    """The images; the XML file, which there may be or not, of a name that has none."""
    folder, images = _source(file).annotations, _images(file)
    stems = sorted({*images, *_stems(file, folder, (".xml",))}) if file.name == WHOLE else _listed(file)
    return [images[stem][0] if stem in images else f"{folder}/{stem}.xml" for stem in stems]


def read_voc(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, images = chunk.file, _images(chunk.file)
    noted = (_noted(file, str(name), images, with_boxes="boxes" in columns) for name in chunk.units)
    yield from rows_of(file, noted, columns, rows, {}, _source(file).orientation)


def voc_contents(file: File) -> list[str]:
    """Every file that its rows are made of."""
    found = {name for unit in voc_units(file) for name in (unit, _xml(file, unit))}
    return sorted(found | ({file.name} if file.name != WHOLE else set()))


def _source(file: File) -> VocSource:
    assert isinstance(file.source, VocSource)
    return file.source


def _images(file: File) -> Mapping[str, Sequence[str]]:
    """Of each stem, the images that have it; one should."""
    return _stems(file, _source(file).images, SUFFIXES)


def _stems(file: File, folder: str, suffixes: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    assert file.root is not None
    with reading(file):
        return _found(file.root, folder, suffixes, (file.root / folder).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _found(root: Path, folder: str, suffixes: tuple[str, ...], mtime_ns: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(root / folder)):
        if name.lower().endswith(suffixes) and not name.startswith("."):
            found.setdefault(PurePosixPath(name).stem, []).append(f"{folder}/{name}")
    return found


def _listed(file: File) -> list[str]:
    """Names in a list; what stands behind one in its line (whether a class is there) is passed over."""
    check_text(file)
    with reading(file):
        lines = file.path.read_text("utf-8").splitlines()
    found = [_name(line) for line in lines if line.strip()]
    if not found:
        raise DataError(f"{file.title}: names no image")
    return found


def _name(line: str) -> str:
    name, _, flag = line.strip().rpartition(" ")
    return name.strip() if name and flag in ("1", "-1", "0") else line.strip()


def _xml(file: File, unit: str) -> str:
    return f"{_source(file).annotations}/{PurePosixPath(unit).stem}.xml"


def _noted(file: File, unit: str, images: Mapping[str, Sequence[str]], *, with_boxes: bool) -> Noted:
    assert file.root is not None
    source, xml = _source(file), _xml(file, unit)
    stem = PurePosixPath(unit).stem
    if not unit.lower().endswith(SUFFIXES):
        what = "" if (file.root / xml).is_file() else f", and no {xml}"
        return Noted(unit, None, bad=f"there is no image {source.images}/{stem}.*{what}")
    if len(same := images[stem]) > 1:
        return Noted(unit, None, bad=f"{' and '.join(same)} have one annotation; remove one of them")
    if not with_boxes:
        return Noted(unit, None)
    try:
        path = inside(file.root, xml)
        if not path.is_file():
            return Noted(unit, [] if source.unannotated == "empty" else None)
        found = read_voc_xml(path)
        boxes = [_box(source, xml, each) for each in found.objects if not _is_dropped(source, each)]
    except NotVoc as error:
        return Noted(unit, None, bad=f"{xml}: {error}")
    except StoreError:
        return Noted(unit, None, bad=f"{xml}: leaves the source's folder, or is a link to itself")
    except OSError as error:
        return Noted(unit, None, bad=f"{xml}: cannot be read: {error.strerror}")
    return Noted(unit, boxes, found.size)


def _is_difficult(each: VocObject) -> bool:
    return each.said.get("difficult", "0").strip() in ("1", "true", "True")


def _is_dropped(source: VocSource, each: VocObject) -> bool:
    return source.difficult == "drop" and _is_difficult(each)


def _box(source: VocSource, xml: str, each: VocObject) -> Box:
    """Raises NotVoc for what is none."""
    x1, y1, x2, y2 = each.corners
    name = each.said.get("name", "")
    if not name:
        raise NotVoc(f"line {each.line}: the object has no name")
    crowd = source.difficult == "ignore" and _is_difficult(each)
    corners = (x1 - source.first_pixel, y1 - source.first_pixel, x2, y2)
    return Box(corners, name, crowd, f"{xml}, line {each.line}")
