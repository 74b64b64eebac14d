"""PNG and JPEG files as uint8 arrays, through Pillow; images at one size.

Knows nothing of tables or columns. A file that cannot be used raises BadRow, whatever is wrong with it.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG")
GREY, DEEP = {"1", "L", "LA", "La"}, {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error, zlib.error)
"""What Pillow raises on damaged files."""

LUMA = np.array([19595, 38470, 7471], np.uint32)
"""Red, green and blue in grey, of 65,536 (ITU-R BT.601), as Pillow has them."""

Pixels = NDArray[np.uint8]


class BadRow(Exception):
    """A row that cannot be used; the message says why."""


def decode_image(
    payload: bytes, *, channels: int | None = None, edge: int | None = None, to_grey: bool = False
) -> Pixels:
    """u8 [H, W, 1 or 3]: grey stays grey unless `channels` is 3, all else becomes RGB; `edge` resizes to a square.

    Raises BadRow: undecodable, more pixels than Pillow's limit, 16 bits deep; colour where grey is expected, unless it is
    to become grey.
    """
    try:
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise BadRow(f"{image.width} x {image.height} pixels, a decompression bomb? the limit is {limit}")
            if image.mode in DEEP:
                raise BadRow(f"16 or 32 bits a pixel (mode {image.mode}); save it with 8")
            return _pixels(_upright(image), channels, edge, to_grey)
    except Image.DecompressionBombError as error:
        raise BadRow(f"a decompression bomb? {error}") from error
    except UnidentifiedImageError as error:
        raise BadRow("not a PNG or JPEG image") from error
    except UNREADABLE as error:
        raise BadRow(f"cannot be decoded: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if "exif" in image.info else image


def _pixels(image: Image.Image, channels: int | None, edge: int | None, to_grey: bool) -> Pixels:
    mode = "L" if image.mode in GREY and channels != 3 else "RGB"
    if channels == 1 and mode != "L" and not to_grey:
        raise BadRow("3 channels, the rest have 1")
    if image.mode != mode:
        image = image.convert(mode)
    if channels == 1 and mode != "L":
        image, mode = image.convert("L"), "L"  # by way of RGB: what is transparent or indexed has a colour first
    if edge is not None and image.size != (edge, edge):
        image = image.resize((edge, edge), Image.Resampling.BILINEAR)
    pixels: Pixels = np.asarray(image)
    return pixels[..., None] if mode == "L" else pixels


def resized(images: NDArray[Any], edge: int) -> Pixels:
    """u8 [rows, H, W, C] to [rows, edge, edge, C], bilinear with antialiasing, as `decode_image` does it."""
    if images.shape[1:3] == (edge, edge):
        return images
    out = np.empty((len(images), edge, edge, images.shape[-1]), np.uint8)
    for row, pixels in enumerate(images):
        for channel in range(images.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
            out[row, ..., channel] = np.asarray(plane.resize((edge, edge), Image.Resampling.BILINEAR))
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
