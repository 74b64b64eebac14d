"""YOLO's `data.yaml`, images and `.txt` files as rows of `image` and `boxes`.

A line is `class x y width height`, the centre and the size as shares of the image's; a longer one is a polygon, whose bounds
count. Knows nothing of what a label may be used for.
"""

import math
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import yaml

from ..config.box_sources import YoloSource
from ..config.transfer_set import SplitFiles
from ..errors import DataError, RecipeError, StoreError
from ..storage.seal import inside
from ..transfer_set.transfer_set import SPLITS, SplitName
from .box_rows import OWN, Box, Noted, rows_of
from .class_label import of_boxes
from .files import Batch, Chunk, File, existing, is_inside, printable, walked
from .folders import SUFFIXES
from .reading import reading

NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
ENTRIES = ("train", "val", "test")
IMAGES, LABELS = "images", "labels"
"""Names of folders: the first in an image's path is the second in its labels'."""
NO_LABELS = ("classes", "labels", "notes", "readme")
"""Text files that lie beside labels and are none."""


def yolo_files(source: YoloSource, splits: SplitFiles | None) -> tuple[Path, list[tuple[str, SplitName | None]]]:
    """(the folder of all, folders or lists of images and their splits). Raises RecipeError for what is not there."""
    path = yaml_of(source)
    root, document = path.parent, read_yaml(path)
    if splits is None:
        given: list[tuple[SplitName | None, str, Any]] = [
            (None, key, document[key]) for key in ENTRIES if document.get(key)
        ]
        if not given:
            raise RecipeError(f"transfer_set.source.path: {path.name} has none of {', '.join(ENTRIES)}")
    else:
        named = [(split, getattr(splits, split)) for split in SPLITS if getattr(splits, split) is not None]
        given = [(split, f"split.files.{split}", document.get(name, name)) for split, name in named]
    found: list[tuple[str, SplitName | None]] = []
    for split, key, value in given:
        for name in value if isinstance(value, list) else [value]:
            found.append((_entry(root, document.get("path"), name, key), split))
    return root, list(dict.fromkeys(found))


def yaml_of(source: YoloSource) -> Path:
    path = existing(Path(source.path), "transfer_set.source.path").absolute()
    if path.is_file():
        return path
    there = [path / name for name in NAMES if (path / name).is_file()]
    if not there:
        raise RecipeError(f"transfer_set.source.path: no {NAMES[0]} in {path}; name the YAML file itself")
    return there[0]


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises DataError for what is not YOLO's; `names` are a dict by number."""
    try:
        document = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path.name}: no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path.name}: a {type(document).__name__}, expected YOLO's keys `names`, `train` and `val`")
    names = document.get("names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise DataError(
            f"{path.name}: `names` is {names!r:.80}, expected a list of class names, or one by each number from 0"
        )
    return document | {"names": {number: str(names[number]).strip() for number in sorted(names)}}


def _entry(root: Path, base: Any, name: Any, key: str) -> str:
    """A folder or list inside `root`, relative to it. `base`: the `path` of the YAML file, which programs resolve in several ways."""
    if not isinstance(name, str):
        raise RecipeError(
            f"transfer_set.source.path: `{key}` is {name!r:.80}, expected a folder, or a list of images in a text file"
        )
    bases = [root / base] if isinstance(base, str) else []
    tried = [at / part for at in (*bases, root) for part in (name, name.removeprefix("../"))]
    for path in map(Path, map(os.path.normpath, tried)):
        if path.exists() and path.is_relative_to(root) and is_inside(root, path.relative_to(root).as_posix()):
            return path.relative_to(root).as_posix()
    raise RecipeError(
        f"transfer_set.{key if '.' in key else f'source.path: `{key}`'}: no {name!r} inside {root}; it is a folder of images or a "
        f"list of them, beside or below the YAML file"
    )


def yolo_schema(file: File) -> pa.Schema:
    return pa.schema(list(OWN.items())).with_metadata(of_boxes(list(_names(file).values())))


def _names(file: File) -> dict[int, str]:
    assert isinstance(file.source, YoloSource)
    path = yaml_of(file.source)
    names: dict[int, str] = _read_yaml(path, path.stat().st_mtime_ns)["names"]
    return names


@lru_cache(maxsize=16)
def _read_yaml(path: Path, mtime_ns: int) -> dict[str, Any]:
    return read_yaml(path)


def yolo_chunks(file: File, rows: int) -> list[Chunk]:
    names = yolo_units(file)
    return [
        Chunk(file, at, len(names[at : at + rows]), tuple(names[at : at + rows])) for at in range(0, len(names), rows)
    ]


def yolo_units(file: File) -> list[str]:
    """The images, and labels of a folder that have none."""
    assert file.root is not None
    if file.path.is_file():
        return _listed(file)
    found = sorted(_in(file.root, file.path, SUFFIXES))
    labels, strays = file.root / labels_folder(file.name), list[str]()
    if labels != file.path and labels.is_dir():
        of_images = set(map(labels_of, found))
        strays = [name for name in sorted(_in(file.root, labels, (".txt",))) if name not in of_images]
    if not found:
        raise DataError(f"{file.title}: no image in this folder")
    return found + strays


def _in(root: Path, top: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    for folder, folders, names in walked(top):
        for name in [*names, *(each for each in folders if (folder / each).is_symlink())]:
            is_other = name.lower().endswith(".txt") and PurePosixPath(name).stem.lower() in NO_LABELS
            if name.lower().endswith(suffixes) and not name.startswith(".") and not is_other:
                yield os.path.relpath(folder / name, root).replace(os.sep, "/")


def _listed(file: File) -> list[str]:
    """Images named in a text file, from its own folder (`./`) or from the folder of all."""
    assert file.root is not None
    with reading(file):
        lines = file.path.read_text("utf-8").splitlines()
    found = [_named(file.root, PurePosixPath(file.name).parent, line.strip()) for line in lines if line.strip()]
    if not found:
        raise DataError(f"{file.title}: names no image")
    return found


def _named(root: Path, own: PurePosixPath, line: str) -> str:
    line = line.replace("\\", "/")
    if PurePosixPath(line).is_relative_to(root):
        return PurePosixPath(line).relative_to(root).as_posix()
    near = os.path.normpath(own / line)
    return near if line.startswith("./") or (root / near).exists() else os.path.normpath(line)


def labels_of(image: str) -> str:
    """Where an image's labels are: in the folder `labels` for the last one `images` in its path, else beside it."""
    path = PurePosixPath(image)
    return (PurePosixPath(labels_folder(str(path.parent))) / path.name).with_suffix(".txt").as_posix()


def labels_folder(folder: str) -> str:
    parts = list(PurePosixPath(folder).parts)
    if IMAGES in parts:
        parts[len(parts) - 1 - parts[::-1].index(IMAGES)] = LABELS
    return PurePosixPath(*parts).as_posix()


def read_yolo(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, names = chunk.file, _names(chunk.file)
    assert isinstance(file.source, YoloSource)
    noted = (_noted(file, str(unit), names, with_boxes="boxes" in columns) for unit in chunk.units)
    yield from rows_of(file, noted, columns, rows, {}, file.source.orientation)


def yolo_contents(file: File) -> list[str]:
    """Every file that its rows are made of."""
    assert file.root is not None and isinstance(file.source, YoloSource)
    units = yolo_units(file)
    names = {yaml_of(file.source).relative_to(file.root).as_posix(), *units, *map(labels_of, units)}
    return sorted(names | ({file.name} if file.path.is_file() else set()))


def _noted(file: File, unit: str, names: dict[int, str], *, with_boxes: bool) -> Noted:
    assert file.root is not None and isinstance(file.source, YoloSource)
    if not unit.lower().endswith(SUFFIXES):
        return Noted(unit, None, bad="no image of this name, or none that is PNG, JPEG, GIF or WebP")
    if not with_boxes:
        return Noted(unit, None)
    labels = labels_of(unit)
    try:
        path = inside(file.root, labels)
        if not path.is_file():
            return Noted(unit, [] if file.source.unannotated == "empty" else None)
        lines = path.read_text("utf-8").splitlines()
        boxes = [
            _box(f"{printable(labels)}, line {at}", line, names) for at, line in enumerate(lines, 1) if line.strip()
        ]
    except StoreError:
        return Noted(unit, None, bad=f"{printable(labels)}: leaves the source's folder, or is a link to itself")
    except UnicodeDecodeError:
        return Noted(unit, None, bad=f"{printable(labels)}: is no text in UTF-8")
    except OSError as error:
        return Noted(unit, None, bad=f"{printable(labels)}: cannot be read: {error.strerror}")
    except _NoBox as error:
        return Noted(unit, None, bad=str(error))
    return Noted(unit, boxes, unit="shares")


class _NoBox(Exception):
    pass


def _box(place: str, line: str, names: dict[int, str]) -> Box:
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise _NoBox(f"{place}: {line!r:.60}, expected `class x y width height`") from None
    if number not in names:
        raise _NoBox(f"{place}: class {number:g}, and `names` has 0 to {len(names) - 1}")
    if len(values) == 5:
        raise _NoBox(f"{place}: six numbers, as predictions with a score have; a label is `class x y width height`")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise _NoBox(
            f"{place}: {len(values) + 1} numbers, expected `class x y width height` or a polygon `class x1 y1 x2 y2 x3 y3 ...`"
        )
    if not all(map(math.isfinite, values)):
        raise _NoBox(f"{place}: {line!r:.60}, where a number is not finite")
    if len(values) == 4:
        x, y, width, height = values
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    return Box(corners, names[int(number)], False, place)
