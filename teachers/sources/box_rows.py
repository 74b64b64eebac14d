"""Images and what annotation files say of them as rows: boxes checked one by one, and turned as their image is.

Knows nothing of how COCO, VOC or YOLO write it down.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..config.box_sources import OrientationName
from ..errors import StoreError
from ..storage.seal import inside
from .files import Batch, File, position, printable
from .folders import IMAGE
from .reading import NO_TEXT
from .upright import UNTURNED, Size, size_of, turned

CORNERS = ("x1", "y1", "x2", "y2")
BOXES = pa.list_(
    pa.struct([*((name, pa.float64()) for name in CORNERS), ("class", pa.string()), ("crowd", pa.bool_())])
)
OWN = {"image": IMAGE, "boxes": BOXES, "file": pa.string(), "folder": pa.string()}
"""Columns that every such source has."""
SLACK = 1.0
"""Pixels that a box may reach beyond its image, by rounding; it is cut there."""


class Box(NamedTuple):
    """As the file has it. `place`: where in the file, for people."""

    corners: tuple[float, float, float, float]
    name: str
    crowd: bool
    place: str


@dataclass(frozen=True)
class Noted:
    """What the files say of one image. `boxes`: None where it has no label. `size`: (width, height), if they say so.

    `unit`: corners are pixels, or shares of width and height; `bad`: why the row cannot be used, where the files tell.
    """

    image: str
    boxes: Sequence[Box] | None
    size: tuple[int, int] | None = None
    also: Mapping[str, Any] = field(default_factory=dict)
    unit: Literal["pixels", "shares"] = "pixels"
    bad: str | None = None


class Unusable(Exception):
    """A row that cannot be used; the message says why."""


def rows_of(
    file: File,
    noted: Iterable[Noted],
    columns: Sequence[str],
    rows: int,
    also: Mapping[str, pa.DataType],
    orientation: OrientationName,
) -> Iterator[Batch]:
    """`noted` as batches of at most `rows`. `also`: columns beside `OWN`."""
    assert file.root is not None
    waiting: list[tuple[Noted, list[dict[str, Any]] | None]] = []
    bad: list[tuple[str, str]] = []
    for each in noted:
        try:
            waiting.append((each, _boxes(file.root, each, orientation) if "boxes" in columns else None))
        except Unusable as error:
            bad.append((position(each.image, 0), str(error)))
        if len(waiting) == rows:
            yield _batch(waiting, columns, also, bad)
            waiting, bad = [], []
    if waiting or bad:
        yield _batch(waiting, columns, also, bad)


def _batch(
    waiting: Sequence[tuple[Noted, list[dict[str, Any]] | None]],
    columns: Sequence[str],
    also: Mapping[str, pa.DataType],
    bad: Sequence[tuple[str, str]],
) -> Batch:
    made = {
        "image": [{"bytes": None, "path": each.image} for each, _ in waiting],
        "boxes": [boxes for _, boxes in waiting],
        "file": [each.image for each, _ in waiting],
        "folder": [str(PurePosixPath(each.image).parent) for each, _ in waiting],
    }
    made |= {name: [each.also.get(name) for each, _ in waiting] for name in also}
    types = {**also, **OWN}
    data = pa.record_batch({name: pa.array(made[name], types[name]) for name in columns})
    return Batch(data, [position(each.image, 0) for each, _ in waiting], tuple(bad))


def _boxes(root: Path, each: Noted, orientation: OrientationName) -> list[dict[str, Any]] | None:
    """Of one image, in pixels of the upright one."""
    if printable(each.image) != each.image:
        raise Unusable(NO_TEXT)
    if each.bad is not None:
        raise Unusable(each.bad)
    size = _size(root, each.image)
    is_shown = _is_shown(each.size, size, orientation)
    if each.boxes is None:
        return None
    corners = np.array([box.corners for box in each.boxes], np.float64).reshape(-1, 4)
    width, height = size.shown if is_shown else size.stored
    if each.unit == "shares":
        corners = corners * np.array([width, height, width, height])
    corners = _checked(corners, each.boxes, width, height)
    if not is_shown:
        corners = turned(corners, size)
    return [
        dict(zip(CORNERS, at, strict=True)) | {"class": box.name, "crowd": box.crowd}
        for at, box in zip(corners.tolist(), each.boxes, strict=True)
    ]


def _size(root: Path, image: str) -> Size:
    try:
        path = inside(root, image)
    except StoreError:
        raise Unusable(f"the path {image!r} leaves the source's folder, or is a link to itself") from None
    except ValueError as error:
        raise Unusable(f"the path {image!r} is none ({error})") from error
    if not path.is_file():
        raise Unusable(f"the image {image!r} is {'no file' if path.exists() else 'missing'}")
    try:
        return size_of(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unusable(f"the image {image!r} cannot be read: {str(error).splitlines()[0]}") from error


def _is_shown(said: tuple[int, int] | None, size: Size, orientation: OrientationName) -> bool:
    """Whether boxes are of the image as it is seen, by the size that their file says it has."""
    if said is not None and said not in (size.stored, size.shown):
        raise Unusable(
            f"its annotation is of {said[0]} x {said[1]} pixels, the image has {size.width} x {size.height}: another image, "
            f"or one that was resized"
        )
    if orientation != "auto" or size.orientation == UNTURNED:
        return orientation == "shown"
    if said is None or size.stored == size.shown:
        raise Unusable(
            f"its EXIF data turns it (orientation {size.orientation}), and no size says whether boxes are of the pixels as stored "
            f"or as shown; say `orientation: stored` or `orientation: shown` in the source"
        )
    return said == size.shown


def _checked(corners: NDArray[np.float64], boxes: Sequence[Box], width: int, height: int) -> NDArray[np.float64]:
    """The corners, cut at the image's edge. Raises Unusable for the first box that is none."""
    edge = np.array([width, height, width, height], np.float64)
    cut = corners.clip(0, edge)
    finite = np.isfinite(corners).all(1)
    area = (corners[:, 2:] > corners[:, :2]).all(1)
    within = (np.abs(corners - cut) <= SLACK).all(1)
    remains = (cut[:, 2:] > cut[:, :2]).all(1)
    for good, what in (
        (finite, "is not finite"),
        (area, "has no area"),
        (within & remains, f"reaches beyond the image, {width} x {height}"),
    ):
        if not good.all():
            at = int(np.flatnonzero(~good)[0])
            where = ", ".join(f"{value:g}" for value in corners[at])
            raise Unusable(f"{boxes[at].place}: the box x1, y1, x2, y2 = {where} {what}{_more(int((~good).sum()))}")
    _check_different(cut, boxes)
    return cut


def _more(found: int) -> str:
    return f", and so {found - 1} more" if found > 1 else ""


def _check_different(corners: NDArray[np.float64], boxes: Sequence[Box]) -> None:
    """Raise Unusable for a box that is there twice: the same corners and class."""
    names = {name: number for number, name in enumerate(dict.fromkeys(box.name for box in boxes))}
    whole = np.column_stack([corners, [names[box.name] for box in boxes]]) if boxes else np.zeros((0, 5))
    _, first, place = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    twice = np.flatnonzero(first[place.reshape(-1)] != np.arange(len(whole)))
    if len(twice):
        at = int(twice[0])
        again = boxes[int(first[place.reshape(-1)[at]])].place
        raise Unusable(f"{boxes[at].place}: the same box as {again}{_more(len(twice))}")
