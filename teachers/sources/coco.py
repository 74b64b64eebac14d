"""COCO's JSON of images, annotations and categories as rows of `image` and `boxes`.

Masks and key points are passed over. Knows nothing of what a label may be used for.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from ..config.box_sources import CocoSource
from ..config.transfer_set import SplitFiles
from ..errors import DataError, RecipeError
from ..transfer_set.transfer_set import SPLITS, SplitName
from .box_rows import OWN, Box, Noted, rows_of
from .class_label import of_boxes
from .files import NO_ROWS, Batch, Chunk, File, existing, named_inside, position, walked
from .reading import reading

PARTS = ("images", "annotations", "categories")
HEAVY = ("segmentation", "keypoints", "counts")
"""Of annotations: what is not kept in memory."""
NAMED_AFTER = ("instances_", "image_info_", "person_keypoints_")
"""Before the name of a folder in COCO's own names of JSON files."""
LOOKED_FOR = 64
"""Images, of which one that is found says where all lie."""
OF_IMAGE = {*OWN, "file_name", "width", "height"}
"""What an entry of `images` cannot add a column of."""


@dataclass(frozen=True)
class Coco:
    """`folder`: of the images, inside the source's. `of_image`: annotations by the image's id; None: there are no labels.

    `strays`: annotations of no image, where they stand and why they are bad.
    """

    names: Mapping[Any, str]
    folder: str
    images: Mapping[str, Mapping[str, Any]]
    of_image: Mapping[Any, list[Mapping[str, Any]]] | None
    strays: tuple[tuple[str, str], ...]
    also: Mapping[str, pa.DataType]


def coco_files(source: CocoSource, splits: SplitFiles | None) -> tuple[Path, list[tuple[str, SplitName | None]]]:
    """(the folder of all, its JSON files and their splits). Raises RecipeError for what is not there."""
    path = existing(Path(source.path), "transfer_set.source.path").absolute()
    root = path if path.is_dir() else path.parent
    if source.images is not None:
        named_inside(root, source.images, "transfer_set.source.images")
    if splits is not None:
        given = [(split, getattr(splits, split)) for split in SPLITS if getattr(splits, split) is not None]
        what = "transfer_set.split.files"
        return root, [(_json(root, name, f"{what}.{split}"), split) for split, name in given]
    if source.annotations is not None:
        return root, [(_json(root, source.annotations, "transfer_set.source.annotations"), None)]
    found = [path.name] if path.is_file() else _jsons(path)
    if len(found) > 1:
        raise RecipeError(
            f"transfer_set.source: {path} holds several JSON files ({', '.join(found[:4])}); name one in `annotations`, or those of "
            f"the splits in `transfer_set.split.files`"
        )
    return root, [(found[0], None)]


def _jsons(top: Path) -> list[str]:
    """JSON files below a folder; those of Roboflow begin with a `_`."""
    names = [folder / name for folder, _, names in walked(top) for name in names if name.endswith(".json")]
    if not names:
        raise RecipeError(f"transfer_set.source.path: no JSON file in {top}")
    return [name.relative_to(top).as_posix() for name in names if not name.name.startswith(".")]


def _json(root: Path, name: str, what: str) -> str:
    path = named_inside(root, name, what)
    if not path.is_file():
        raise RecipeError(f"{what}: {name!r} is no file; name the JSON file")
    return path.relative_to(root).as_posix()


def coco_schema(file: File) -> pa.Schema:
    read = coco_of(file)
    schema = pa.schema([*OWN.items(), *read.also.items()])
    return schema.with_metadata(of_boxes(list(dict.fromkeys(read.names.values()))))


def coco_chunks(file: File, rows: int) -> list[Chunk]:
    names = list(coco_of(file).images)
    return [
        Chunk(file, at, len(names[at : at + rows]), tuple(names[at : at + rows])) for at in range(0, len(names), rows)
    ]


def read_coco(chunk: Chunk, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    file, read = chunk.file, coco_of(chunk.file)
    assert isinstance(file.source, CocoSource)
    if not chunk.first_row and read.strays and "boxes" in columns:
        yield Batch(NO_ROWS, [], read.strays)
    noted = (_noted(file, read, str(name), read.images[str(name)]) for name in chunk.units)
    yield from rows_of(file, noted, columns, rows, read.also, file.source.orientation)


def coco_contents(file: File) -> list[str]:
    return [file.name, *coco_of(file).images]


def coco_of(file: File) -> Coco:
    """Raises DataError for a file that is not COCO's. Read once a process."""
    with reading(file):
        state = file.path.stat()
    return _read(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(file: File, mtime_ns: int, size: int) -> Coco:
    with reading(file):
        document = json.loads(file.path.read_bytes(), object_hook=_light)
    if not isinstance(document, dict) or not all(isinstance(document.get(part, []), list) for part in PARTS):
        raise DataError(
            f"{file.title}: a JSON {type(document).__name__}, expected COCO's object of lists `images`, `annotations` and "
            f"`categories`"
        )
    names = _categories(file, document)
    images = _images(file, document)
    ids = {entry.get("id"): name for name, entry in images.items()}
    if len(ids) < len(images):
        twice = Counter(map(str, (entry.get("id") for entry in images.values()))).most_common(1)[0][0]
        raise DataError(f"{file.title}: two images have the id {twice}; their annotations cannot be told apart")
    of_image: dict[Any, list[Mapping[str, Any]]] | None = None
    strays: list[tuple[str, str]] = []
    if "annotations" in document:
        of_image = {}
        for at, entry in enumerate(document["annotations"]):
            named = entry.get("image_id") if isinstance(entry, dict) else None
            if isinstance(named, int | str) and named in ids:
                of_image.setdefault(named, []).append(entry)
            else:
                strays.append((position(file.name, at), f"{_place(entry)}: image_id {named!r} is none of `images`"))
    folder = _folder(file, list(images)[:LOOKED_FOR])
    named_images = {_joined(folder, name): entry for name, entry in images.items()}
    return Coco(names, folder, named_images, of_image, tuple(strays), _also(images))


def _light(entry: dict[str, Any]) -> dict[str, Any]:
    for name in HEAVY:
        entry.pop(name, None)
    return entry


def _categories(file: File, document: Mapping[str, Any]) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    found: dict[Any, str] = {}
    for entry in document.get("categories", []):
        if not (isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)):
            raise DataError(f"{file.title}: the category {entry!r:.80} has no whole number `id` and `name` in words")
        number, name = entry["id"], entry["name"].strip()
        if number in found or name in found.values():
            raise DataError(
                f"{file.title}: the category {number} ({name!r}) is there twice; ids and names are of one each"
            )
        found[number] = name
    if not found and document.get("annotations"):
        raise DataError(
            f"{file.title}: has annotations and no `categories`, so nobody knows what their classes are called"
        )
    return dict(sorted(found.items()))


def _images(file: File, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Entries by the file's name as it is written there, with forward slashes."""
    found: dict[str, Mapping[str, Any]] = {}
    for at, entry in enumerate(document.get("images", [])):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(entry.get("id"), int | str):
            raise DataError(f"{file.title}: image {at} ({entry!r:.80}) has no `file_name` and `id`")
        name = name.replace("\\", "/")
        if name in found:
            raise DataError(f"{file.title}: two images are the file {name!r}")
        found[name] = entry
    if not found:
        raise DataError(f"{file.title}: has no `images`")
    return found


def _folder(file: File, some: Sequence[str]) -> str:
    """Where the images lie: the recipe says it, or one of `some` is found there."""
    assert file.root is not None and isinstance(file.source, CocoSource)
    if file.source.images is not None:
        return PurePosixPath(file.source.images).as_posix()
    own, stem = PurePosixPath(file.name).parent, PurePosixPath(file.name).stem
    named = next((stem.removeprefix(start) for start in NAMED_AFTER if stem.startswith(start)), stem)
    places = [own, *(PurePosixPath(name) for name in (".", "images", named, f"images/{named}"))]
    for place in places:
        if any((file.root / place / name).is_file() for name in some):
            return place.as_posix()
    looked = ", ".join(dict.fromkeys(f"`{place}`" for place in places))
    raise DataError(
        f"{file.title}: the image {some[0]!r} is in none of the folders {looked} of {file.root}; name theirs in "
        f"`transfer_set.source.images`"
    )


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def _also(images: Mapping[str, Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Columns that entries of `images` have beside our own: whole numbers, numbers, else text."""
    kinds: dict[str, set[type]] = {}
    for entry in images.values():
        for name, value in entry.items():
            if name not in OF_IMAGE and isinstance(value, str | int | float):
                kinds.setdefault(name, set()).add(type(value))
    return {name: _type(found) for name, found in kinds.items()}


def _type(found: set[type]) -> pa.DataType:
    if found <= {int}:
        return pa.int64()
    if found <= {int, float}:
        return pa.float64()
    return pa.bool_() if found == {bool} else pa.string()


def _noted(file: File, read: Coco, name: str, entry: Mapping[str, Any]) -> Noted:
    assert isinstance(file.source, CocoSource)
    also = {each: _as(entry.get(each), kind) for each, kind in read.also.items()}
    width, height = entry.get("width"), entry.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None
    boxes: list[Box] | None = None
    bad = None
    if read.of_image is not None:
        annotations = read.of_image.get(entry.get("id"), [])
        found = [_box(each, read.names) for each in annotations]
        bad = next((each for each in found if isinstance(each, str)), None)
        boxes = [each for each in found if isinstance(each, Box)]
        boxes = None if not annotations and file.source.unannotated == "unlabelled" else boxes
    return Noted(name, boxes, size, also, bad=bad)


def _as(value: Any, kind: pa.DataType) -> Any:
    """What is no plain value is none; text of whatever else, where some of it is text."""
    if not isinstance(value, str | int | float):
        return None
    return str(value) if pa.types.is_string(kind) else value


def _box(entry: Mapping[str, Any], names: Mapping[Any, str]) -> Box | str:
    """A box, or why it is none."""
    place, corners, number = _place(entry), entry.get("bbox"), entry.get("category_id")
    if not (isinstance(corners, list) and len(corners) == 4 and all(isinstance(v, int | float) for v in corners)):
        return f"{place}: bbox is {corners!r:.60}, expected [x, y, width, height]"
    if not isinstance(number, int) or number not in names:
        return f"{place}: category_id {number!r} is none of `categories` ({', '.join(map(str, list(names)[:8]))})"
    x, y, width, height = map(float, corners)
    return Box((x, y, x + width, y + height), names[number], bool(entry.get("iscrowd", 0)), place)


def _place(entry: Any) -> str:
    return f"annotation {entry.get('id')}" if isinstance(entry, dict) else f"annotation {entry!r:.40}"
