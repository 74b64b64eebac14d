"""Files of boxes that a detector has said of images: COCO results, YOLO's text files, VOC's XML.

Knows nothing of the transfer set's rows, nor whose image is whose.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..config.detecting import BoxFormat
from ..config.predictions import PredictionsTeacher
from ..errors import RecipeError, TeacherError
from ..tasks.boxes import BOX
from ..tasks.space import Space
from .row_names import Names

NAMES_FILE = "classes.txt"
"""Beside YOLO's files, the names of the classes, one a line."""
NO_SCORE = 1.0
"""Of a box that its file gives no score."""
HAIR = 1e-6
BEYOND = 0.5
"""How far beyond the image a corner may lie, as a part of it: detectors say such boxes, pixels taken for parts lie further out."""


@dataclass(frozen=True)
class ImageBoxes:
    """What is said of one image: its name as the file has it, where that stands, and its boxes f32 `[n, 6]`, corners in 0 to 1 of it
    (they may reach beyond), score, number of the class."""

    name: str
    position: str
    boxes: NDArray[np.float32]


@dataclass(frozen=True)
class PredictedBoxes:
    """All of it, in the order in which it stands. `without_score`: how many boxes have none, which is 1 then."""

    classes: tuple[str, ...]
    images: tuple[ImageBoxes, ...]
    without_score: int


def read_boxes(config: PredictionsTeacher, space: Space) -> PredictedBoxes:
    """Raises RecipeError for what is not there or has another form, TeacherError, with its place, for a box that is none."""
    assert config.format is not None
    classes = box_classes(config, space)
    found = tuple(READERS[config.format](config, classes))
    counts = Counter(image.name for image in found)
    if twice := [image for image in found if counts[image.name] > 1]:
        raise TeacherError(
            f"{config.path}: {twice[0].name!r} stands there twice ({twice[0].position} and {twice[1].position}), and nobody knows which "
            f"counts; leave one out"
        )
    lacking = sum(int(np.isnan(image.boxes[:, 4]).sum()) for image in found)
    scored = (ImageBoxes(each.name, each.position, np.nan_to_num(each.boxes, nan=NO_SCORE)) for each in found)
    return PredictedBoxes(classes, tuple(scored), lacking)


def box_classes(config: PredictionsTeacher, space: Space) -> tuple[str, ...]:
    """Whose boxes they are, in the order of their numbers: the recipe's, else the file's own, else the transfer set's. Raises
    RecipeError for a file that is not there, or names none."""
    path = Path(config.path)
    if not path.exists():
        raise RecipeError(f"path: there is no file {path}")
    if config.format == "coco":
        names = [str(each["name"]) for each in _categories(config)]
        if config.classes is not None and len(config.classes) != len(names):
            raise RecipeError(
                f"classes: {len(config.classes)} are named, {config.images} has {len(names)} categories: {', '.join(names[:10])}"
            )
        return tuple(config.classes or names)
    if not path.is_dir():
        raise RecipeError(f"path: {path} is a file; `format: {config.format}` is a folder with a file for each image")
    named = path / NAMES_FILE
    if config.classes is None and config.format == "yolo" and named.is_file():
        return tuple(line.strip() for line in named.read_text("utf-8").splitlines() if line.strip())
    return tuple(config.classes or space.names)


def _json(path: Path, key: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RecipeError(f"{key}: there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{key}: {path} is not readable as JSON ({error})") from error


def _categories(config: PredictionsTeacher) -> list[Mapping[str, Any]]:
    """By their ids. Raises RecipeError where the JSON of images has none."""
    about = _json(Path(str(config.images)), "images")
    found = about.get("categories") if isinstance(about, dict) else None
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(e, dict) and {"id", "name"} <= set(e) for e in found)
    ):
        raise RecipeError(
            f"images: {config.images} has no `categories` with `id` and `name`, so nobody knows which class is which"
        )
    return sorted(found, key=lambda each: each["id"])


def _coco(config: PredictionsTeacher, classes: Sequence[str]) -> Iterator[ImageBoxes]:
    images = {each["id"]: each for each in _images(config)}
    number = {each["id"]: place for place, each in enumerate(_categories(config))}
    results = _json(Path(config.path), "path")
    if not isinstance(results, list):
        raise RecipeError(
            f"path: {config.path} is no list of results; expected [{{image_id, category_id, bbox, score}}, ...]"
        )
    said: dict[Any, list[tuple[float, ...]]] = {key: [] for key in images}
    strange = [
        at for at, each in enumerate(results) if not isinstance(each, dict) or each.get("image_id") not in images
    ]
    if strange:
        first = results[strange[0]]
        what = repr(first.get("image_id")) if isinstance(first, dict) else repr(first)
        raise TeacherError(
            f"{config.path}: result {strange[0]} is of image {what}, which is none of the {len(images):,} in {config.images}; "
            f"{len(strange):,} of {len(results):,} results are so: these are not the images that they are taken for"
        )
    for at, each in enumerate(results):
        where, image = f"{config.path}, result {at}", images[each["image_id"]]
        if each.get("category_id") not in number:
            raise TeacherError(f"{where}: category {each.get('category_id')!r} is none of those in {config.images}")
        low_x, low_y, wide, high = _numbers(where, each.get("bbox"), 4)
        size = image["width"], image["height"], image["width"], image["height"]
        corners = [value / edge for value, edge in zip((low_x, low_y, low_x + wide, low_y + high), size, strict=True)]
        said[each["image_id"]].append(_box(where, corners, each.get("score"), number[each["category_id"]]))
    for key, image in images.items():
        yield _image(str(image["file_name"]), f"{config.images}, image {key!r}", said[key])


def _images(config: PredictionsTeacher) -> list[Mapping[str, Any]]:
    found = _json(Path(str(config.images)), "images")
    found = found.get("images") if isinstance(found, dict) else None
    wanted = {"id", "file_name", "width", "height"}
    if not isinstance(found, list) or not all(isinstance(each, dict) and wanted <= set(each) for each in found):
        raise RecipeError(f"images: {config.images} has no `images` with {', '.join(sorted(wanted))}")
    return found


def _yolo(config: PredictionsTeacher, classes: Sequence[str]) -> Iterator[ImageBoxes]:
    yield from _of_folder(config, ".txt", lambda file: _lines(file, classes))


def _lines(file: Path, classes: Sequence[str]) -> list[tuple[float, ...]]:
    """Class, centre, size, and perhaps a score, in parts of the image."""
    found = []
    for at, line in enumerate(_text(file).splitlines(), 1):
        if not (words := line.split()):
            continue
        where = f"{file}, line {at}"
        if len(words) not in (5, 6):
            raise TeacherError(
                f"{where} has {len(words)} values; expected class, centre x, centre y, width, height, and perhaps a score"
            )
        number, x, y, wide, high, *score = _numbers(where, words, len(words))
        if number != int(number) or not 0 <= number < len(classes):
            raise TeacherError(
                f"{where}: class {words[0]} is none of the {len(classes)} classes {', '.join(classes[:10])}; name what it says in `classes`"
            )
        corners = [x - wide / 2, y - high / 2, x + wide / 2, y + high / 2]
        found.append(_box(where, corners, score[0] if score else None, int(number)))
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise TeacherError(f"{file} is no text in UTF-8 ({error})") from error


def _voc(config: PredictionsTeacher, classes: Sequence[str]) -> Iterator[ImageBoxes]:
    yield from _of_folder(config, ".xml", lambda file: _objects(file, classes))


def _objects(file: Path, classes: Sequence[str]) -> list[tuple[float, ...]]:
    """Of each `object`, in pixels; `score` or `confidence` where there is one."""
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except ElementTree.ParseError as error:
        raise TeacherError(f"{file} is not readable as XML ({error})") from error
    wide, high = _numbers(f"{file}: size", [root.findtext(f"size/{name}") for name in ("width", "height")], 2)
    if wide <= 0 or high <= 0:
        raise TeacherError(f"{file}: a size of {wide:g} x {high:g} pixels")
    found = []
    for at, each in enumerate(root.iter("object")):
        where, name = f"{file}, object {at}", each.findtext("name")
        if name not in classes:
            raise TeacherError(
                f"{where}: {name!r} is none of the classes {', '.join(classes[:10])}; name what it says in `classes`"
            )
        pixels = _numbers(where, [each.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")], 4)
        corners = [value / edge for value, edge in zip(pixels, (wide, high, wide, high), strict=True)]
        score = each.findtext("score") or each.findtext("confidence")
        found.append(_box(where, corners, score, classes.index(str(name))))
    return found


READERS: dict[BoxFormat, Callable[[PredictionsTeacher, Sequence[str]], Iterator[ImageBoxes]]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
}


def _of_folder(
    config: PredictionsTeacher, suffix: str, boxes_in: Callable[[Path], list[tuple[float, ...]]]
) -> Iterator[ImageBoxes]:
    """Of every file with this end, and of the images in `images` that have none: nothing was found there."""
    root, named = Path(config.path), Names([])
    for file in sorted(root.rglob(f"*{suffix}")):
        if file.name != NAMES_FILE:
            name = file.relative_to(root).as_posix()
            named.add(name)
            yield _image(name, str(file), boxes_in(file))
    if not len(named):
        raise RecipeError(f"path: there is no *{suffix} in {root}")
    if config.images is None:
        return
    try:
        lines = Path(config.images).read_text("utf-8").splitlines()
    except OSError as error:
        raise RecipeError(
            f"images: {config.images} cannot be read ({error.strerror}); expected a name on each line"
        ) from error
    for at, line in enumerate(lines, 1):
        if line.strip() and not named.like(line.strip()):
            yield _image(line.strip(), f"{config.images}, line {at}", [])


def _image(name: str, position: str, boxes: Sequence[tuple[float, ...]]) -> ImageBoxes:
    return ImageBoxes(name, position, np.array(boxes, np.float32).reshape(-1, len(BOX)))


def _numbers(where: str, given: Any, how_many: int) -> list[float]:
    try:
        found = [float(each) for each in given]
    except (TypeError, ValueError):
        found = []
    if len(found) != how_many or not np.isfinite(found).all():
        raise TeacherError(f"{where}: {given!r} where {how_many} numbers are expected")
    return found


def _box(where: str, corners: Sequence[float], score: Any, number: int) -> tuple[float, ...]:
    """Raises TeacherError for what is no box, naming its place. Without a score it is NaN."""
    told = ", ".join(f"{value:.4g}" for value in corners)
    if corners[0] > corners[2] or corners[1] > corners[3]:
        raise TeacherError(f"{where}: a box with corners in another order ({told}); expected x1 < x2 and y1 < y2")
    if min(corners) < -BEYOND or max(corners) > 1 + BEYOND:
        raise TeacherError(
            f"{where}: a box far outside its image ({told}, in 0 to 1 of it); is it of an image of another size?"
        )
    if score is None:
        return (*corners, np.nan, float(number))
    [value] = _numbers(f"{where}: score", [score], 1)
    if not -HAIR <= value <= 1 + HAIR:
        raise TeacherError(f"{where}: a score of {value:g}, expected 0 to 1")
    return (*corners, value, float(number))
