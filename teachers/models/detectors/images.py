"""Images as detectors are given them: decoded or as they are stored, of any sizes, in groups of one; and mirrored. Knows nothing of
models.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import TeacherError
from ...transfer_set.decoding import pool
from ...transfer_set.images import BadRow, decode_image

Images = NDArray[Any] | Sequence[NDArray[Any]]
"""uint8 `[rows, H, W, C]`, or as many of `[H, W, C]` whose sizes differ, or as many of `bytes`: files of images. Augmented ones are
f32 in 0 to 255."""


def images_of(values: Images) -> list[NDArray[np.uint8]]:
    """Each image, uint8 `[H, W, 3]`: a grey one three times the same, as its PNG opened as RGB is; of one with transparency
    the colours. Augmented ones are rounded: what makes images ready for a detector from elsewhere takes bytes."""
    return [_coloured(each) for each in decoded(values)]


def decoded(values: Images) -> Images:
    """The same with files of images decoded and upright, by as many threads as there are. Raises TeacherError for what is none."""
    if not len(values) or not isinstance(values[0], bytes):
        return values
    found = np.empty(len(values), object)
    for at, image in enumerate(pool().map(_opened, values)):
        found[at] = image
    return found


def _opened(file: bytes) -> NDArray[np.uint8]:
    try:
        return decode_image(file, channels=3)
    except BadRow as error:
        raise TeacherError(f"an image that could be decoded when it was prepared cannot any more: {error}") from error


def _coloured(image: NDArray[Any]) -> NDArray[np.uint8]:
    image = image[..., None] if image.ndim == 2 else image
    image = image if image.dtype == np.uint8 else image.clip(0, 255).round().astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def of_one_size(images: Sequence[NDArray[Any]], most: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """(which they are, uint8 `[n, H, W, 3]`) of each size, `most` at a time: nobody is padded to another, so that what is said of an image does
    not depend on those beside it."""
    sizes = np.array([image.shape[:2] for image in images]).reshape(len(images), 2)
    for size in np.unique(sizes, axis=0):
        which = np.flatnonzero((sizes == size).all(1))
        for first in range(0, len(which), most):
            some = which[first : first + most]
            yield some, np.stack([images[at] for at in some])


def mirrored(values: Images) -> Images:
    """The same images, left and right changed."""
    values = decoded(values)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return np.ascontiguousarray(values[..., ::-1, :])
    found = np.empty(len(values), object)
    for at, each in enumerate(values):
        found[at] = np.ascontiguousarray(each[:, ::-1])
    return found
