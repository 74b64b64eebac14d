"""Image files as uint8 arrays, through Pillow; images at one size.

Knows nothing of tables or columns. A file that cannot be used raises BadRow, whatever is wrong with it.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..config.preprocess import FitName
from ..config.transfer_set import ResampleName

FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
GREY, DEEP = {"1", "L", "LA", "La"}, {"I", "I;16", "I;16L", "I;16B", "I;16N"}
DEEPEST = 2**16 - 1
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error)  # fmt: skip
"""What Pillow raises on damaged files."""
COLOUR = "3 channels, the rest have 1"
EXIF, ORIENTATION, LYING = "exif", 0x0112, (5, 6, 7, 8)
"""EXIF's tag of how an image is turned, and its values for a quarter turn."""

LUMA = np.array([19595, 38470, 7471], np.uint32)
"""Red, green and blue in grey, of 65,536 (ITU-R BT.601), as Pillow has them."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Resize:
    """To a square of `edge` pixels. `fit`: what becomes of an image that is none."""

    edge: int
    fit: FitName = "squash"
    resample: ResampleName = "bilinear"

    def __call__(self, image: Image.Image) -> Image.Image:
        size, resample = (self.edge, self.edge), Image.Resampling[self.resample.upper()]
        if image.size == size:
            return image
        if self.fit == "crop":
            return ImageOps.fit(image, size, resample)
        if self.fit == "pad":
            return ImageOps.pad(image, size, resample, color=0)
        return image.resize(size, resample)


class BadRow(Exception):
    """A row that cannot be used; the message says why."""


def decode_image(
    payload: bytes, *, channels: int | None = None, resize: Resize | None = None, to_grey: bool = False
) -> Pixels:
    """u8 [H, W, 1 or 3] of the first frame, upright: grey stays grey unless `channels` is 3, all else becomes RGB.

    Transparency is dropped; 16 bits are scaled to 8. Raises BadRow: undecodable, more pixels than Pillow's limit; colour
    where grey is expected, unless it is to become grey.
    """
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise BadRow(f"{image.width} x {image.height} pixels, a decompression bomb? the limit is {limit}")
            return _pixels(_shallow(_upright(image)), channels, resize, to_grey)
    except Image.DecompressionBombError as error:
        raise BadRow(f"a decompression bomb? {error}") from error
    except UnidentifiedImageError as error:
        raise BadRow("not a PNG, JPEG, GIF or WebP image") from error
    except UNREADABLE as error:
        raise BadRow(f"cannot be decoded: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if EXIF in image.info else image


def _shallow(image: Image.Image) -> Image.Image:
    """With 8 bits a pixel and channel, of 16 the whole range becomes 0 to 255; a palette of greys is grey."""
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > DEEPEST:
            raise BadRow(f"values from {deep.min()} to {deep.max()}; save it with 8 or 16 bits a pixel")
        return Image.fromarray(np.round(deep / (DEEPEST / 255)).astype(np.uint8))
    if image.mode != "P":
        return image
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    if (colours == colours[:, :1]).all():  # as a GIF has grey
        return image.convert("L")
    return image.convert("RGBA") if "transparency" in image.info else image


def _pixels(image: Image.Image, channels: int | None, resize: Resize | None, to_grey: bool) -> Pixels:
    mode = "L" if image.mode in GREY and channels != 3 else "RGB"
    if channels == 1 and mode != "L" and not to_grey:
        raise BadRow(COLOUR)
    if image.mode != mode:
        image = image.convert(mode)
    if channels == 1 and mode != "L":
        image, mode = image.convert("L"), "L"  # by way of RGB: what is transparent or indexed has a colour first
    pixels: Pixels = np.asarray(image if resize is None else resize(image))
    return pixels[..., None] if mode == "L" else pixels


def resized(images: NDArray[Any], resize: Resize) -> Pixels:
    """u8 [rows, H, W, C] to [rows, edge, edge, C], as `decode_image` does it."""
    if images.shape[1:3] == (resize.edge, resize.edge):
        return images
    out = np.empty((len(images), resize.edge, resize.edge, images.shape[-1]), np.uint8)
    for row, pixels in enumerate(images):
        for channel in range(images.shape[-1]):
            out[row, ..., channel] = np.asarray(resize(Image.fromarray(np.ascontiguousarray(pixels[..., channel]))))
    return out


def in_channels(images: NDArray[Any], channels: int) -> Pixels:
    """u8 [rows, H, W, C] with so many channels: grey thrice, or colour weighed as `decode_image` weighs it."""
    found = images.shape[-1]
    if found == channels:
        return images
    if found == 1:
        return np.repeat(images, channels, axis=-1)
    weighed = images[..., :3].astype(np.uint32) @ LUMA + 0x8000
    return (weighed >> 16).astype(np.uint8)[..., None]


def upright_size(payload: bytes) -> tuple[int, int]:
    """(height, width) of the first frame as `decode_image` turns it, from the header alone. Raises BadRow."""
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            lies = EXIF in image.info and image.getexif().get(ORIENTATION) in LYING
            return image.size if lies else (image.height, image.width)
    except (UnidentifiedImageError, Image.DecompressionBombError, *UNREADABLE) as error:
        raise BadRow("its size cannot be read") from error
