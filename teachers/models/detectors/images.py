"""Images as detectors are given them: any sizes, in groups of one; and mirrored. Knows nothing of models."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[Any] | Sequence[NDArray[Any]]
"""uint8 `[rows, H, W, C]`, or as many of `[H, W, C]` whose sizes differ."""


def images_of(values: Images) -> list[NDArray[np.uint8]]:
    """Each image, uint8 `[H, W, 3]`: a grey one three times the same, as its PNG opened as RGB is; of one with transparency
    the colours."""
    return [_coloured(np.asarray(each)) for each in values]


def _coloured(image: NDArray[Any]) -> NDArray[np.uint8]:
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def of_one_size(images: Sequence[NDArray[Any]]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """(which they are, uint8 `[n, H, W, 3]`) of each size: nobody is padded to another, so that what is said of an image does
    not depend on those beside it."""
    sizes = np.array([image.shape[:2] for image in images]).reshape(len(images), 2)
    for size in np.unique(sizes, axis=0):
        which = np.flatnonzero((sizes == size).all(1))
        yield which, np.stack([images[at] for at in which])


def mirrored(values: Images) -> Images:
    """The same images, left and right changed."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return np.ascontiguousarray(values[..., ::-1, :])
    found = np.empty(len(values), object)
    for at, each in enumerate(values):
        found[at] = np.ascontiguousarray(each[:, ::-1])
    return found
