"""What becomes of boxes when the images that they lie in are augmented: of true ones and of those that teachers say alike.

The same seeds that move an image move its boxes, so nothing is stored, and a control sees what its student sees. Knows nothing
of images beyond what moves them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.tasks.boxes import CLASS, NO_CLASS, SCORE
from teachers.tasks.overlap import areas
from teachers.tasks.space import Space
from teachers.transfer_set.views import below, draw

from ..objective.targets import Asked
from .draws import Views
from .zoom import windows

Move = Callable[[Tensor, Tensor], Tensor]
"""(corners f32 `[rows, N, 4]`, seeds i64 `[rows]`) to corners, which may lie outside of 0 to 1."""
LEAST_SEEN = 0.35
"""Of a box, the part that must be left of it in the image: with less nobody can say what it is."""


def flipped(corners: Tensor, seeds: Tensor) -> Tensor:
    x1, y1, x2, y2 = corners.unbind(-1)
    there = below(2, seeds, 0).bool()[:, None, None]
    return torch.where(there, torch.stack([1 - x2, y1, 1 - x1, y2], -1), corners)


def zoomed(corners: Tensor, seeds: Tensor) -> Tensor:
    """Into the window that the image is cut to."""
    left, top, width, height = (each[:, None] for each in windows(seeds))
    x1, y1, x2, y2 = corners.unbind(-1)
    return torch.stack([(x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height], -1)


def unmoved(corners: Tensor, seeds: Tensor) -> Tensor:
    return corners


MOVES: dict[str, Move] = {"flip": flipped, "zoom": zoomed, "colour": unmoved, "cutout": unmoved, "noise": unmoved}
"""By the name of an augmentation that boxes can follow."""


def moving(augments: Sequence[str], space: Space) -> Callable[[Asked, Views], Asked] | None:
    """What gives the targets of an augmented batch; None where nothing moves. Raises RecipeError for an augmentation that boxes
    cannot follow."""
    if not space.max_boxes or not augments:
        return None
    if strange := [name for name in augments if name not in MOVES]:
        raise RecipeError(f"train.augment: boxes cannot follow {strange[0]!r}; take {', '.join(MOVES)}")

    def moves(asked: Asked, views: Views) -> Asked:
        target = moved(asked.target, augments, views, space.max_boxes)
        labels = None if asked.labels is None else moved(asked.labels, augments, views, space.max_boxes)
        return asked._replace(target=target, labels=labels)

    return moves


def moved(boxes: Tensor, augments: Sequence[str], views: Views, max_boxes: int) -> Tensor:
    """Boxes f32 `[rows, ..., M * k]`, as `teachers.tasks.boxes` has labels (k = 8) or what is said (6), cut off at the edges of the
    image; those of which too little is left are gone. Places stay as they are: one in the middle may be empty."""
    each = boxes.reshape(len(boxes), -1, boxes.shape[-1] // max_boxes)
    corners = each[..., :SCORE]
    for number, name in enumerate(augments):
        corners = MOVES[name](corners, draw(views.seeds(number), 0))  # as of the first column of inputs
    seen = corners.clamp(0, 1)
    gone = (areas(seen) < LEAST_SEEN * areas(corners)) | (areas(seen) <= 0)
    out = torch.cat([seen, each[..., SCORE:]], -1)
    out[..., CLASS] = torch.where(gone & (out[..., CLASS] >= 0), NO_CLASS, out[..., CLASS])
    return out.reshape(boxes.shape)
