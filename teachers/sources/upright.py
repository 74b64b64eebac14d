"""How large an image is, how its EXIF data turns it, and where a box of the stored pixels lies when it is turned.

Reads headers, no pixels. What turns the pixels themselves is `teachers.transfer_set.images`.
"""

from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

UNTURNED = 1
"""EXIF's word for an image that is seen as it is stored."""
SWAPPED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
FROM_RIGHT, FROM_BELOW = (2, 3, 6, 7), (3, 4, 7, 8)
"""Orientations in which what is seen is counted from the other end: x, and y, after the exchange."""


class Size(NamedTuple):
    """Pixels of an image as it is stored, and how EXIF data turns it."""

    width: int
    height: int
    orientation: int = UNTURNED

    @property
    def stored(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def shown(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return (self.height, self.width) if self.orientation in SWAPPED else self.stored


def size_of(path: Path) -> Size:
    """Raises what Pillow raises for a file that is no image (OSError, SyntaxError or ValueError)."""
    with path.open("rb") as file:
        return size_in(file)[0]


def size_in(file: IO[bytes]) -> tuple[Size, str]:
    """Of an open image, and its format in Pillow's words. Raises as `size_of`."""
    with Image.open(file) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, UNTURNED) if "exif" in image.info else UNTURNED
        return Size(*image.size, turned if turned in range(1, 9) else UNTURNED), image.format or ""


def turned(corners: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """Corners x1, y1, x2, y2 `[n, 4]` of the stored pixels as they lie in the upright image."""
    points = corners.reshape(-1, 2, 2)
    if size.orientation in SWAPPED:
        points = points[..., ::-1]
    width, height = size.shown
    x, y = points[..., 0], points[..., 1]
    x = width - x if size.orientation in FROM_RIGHT else x
    y = height - y if size.orientation in FROM_BELOW else y
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1) if len(points) else corners
