"""Boxes of rows as arrays of one width: what a detector says, and labels. Knows nothing of images.

What is said of a row is f32 `[M * 6]`, M boxes of `BOX` each: the corners in 0 to 1 of the image as it is seen (turned
upright), x to the right and y down, its score in 0 to 1 and the number of its class. The best come first, after the last one
all is 0 but the class, which is -1. Of a row that nobody knows, as an image that was never asked of, all is NaN: no box
is said of an empty image, which is something else.

Labels of a row are f32 `[M * 8]`, M boxes of `LABEL` each: the corners, `counts` (1; 0 of a region in which nothing is
judged, COCO's `iscrowd`), the class, and the image's height and width in pixels, which stand in every box, so that an empty
image has them too. An image without a label is NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOX = ("x1", "y1", "x2", "y2", "score", "class")
LABEL = ("x1", "y1", "x2", "y2", "counts", "class", "height", "width")
SCORE, CLASS, HEIGHT, WIDTH = 4, 5, 6, 7
"""Places in `BOX` and `LABEL`; `counts` stands where the score does."""
NO_CLASS = -1.0


def boxes_of(said: NDArray[Any]) -> NDArray[Any]:
    """What is said, `[..., M * 6]`, as `[..., M, 6]`; a view."""
    return said.reshape(*said.shape[:-1], said.shape[-1] // len(BOX), len(BOX))


def labels_of(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels `[..., M * 8]` as `[..., M, 8]`; a view."""
    return labels.reshape(*labels.shape[:-1], labels.shape[-1] // len(LABEL), len(LABEL))


def num_valid(boxes: NDArray[Any]) -> NDArray[np.int64]:
    """How many boxes each row of `boxes_of` or `labels_of` has, i64 `[...]`; 0 of one that nobody knows."""
    found: NDArray[np.int64] = (boxes[..., CLASS] >= 0).sum(-1)
    return found


def no_boxes(rows: int, columns: int, max_boxes: int) -> NDArray[np.float32]:
    """Rows in which nothing is, f32 `[rows, max_boxes * columns]`."""
    out = np.zeros((rows, max_boxes, columns), np.float32)
    out[..., CLASS] = NO_CLASS
    return out.reshape(rows, -1)


def width_of(names: Sequence[str], max_boxes: int) -> int:
    """Of what is said of a row: a column a name, or `BOX` for each of `max_boxes`."""
    return max_boxes * len(BOX) or len(names)


def boxes_by_class(labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """How many boxes that count each row has of each class, i64 `[rows, classes]`, of `labels_of` `[rows, M, 8]`."""
    found = np.zeros((len(labels), classes), np.int64)
    row, box = np.nonzero((labels[..., CLASS] >= 0) & (labels[..., SCORE] > 0))
    np.add.at(found, (row, labels[row, box, CLASS].astype(np.int64)), 1)
    return found
