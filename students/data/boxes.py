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
from .mosaic import ROWS, drawn, fours, placed
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
"""By the name of an augmentation that boxes can follow within their image."""
MOSAIC = "mosaic"
"""One that brings boxes of other images."""


def moving(augments: Sequence[str], space: Space) -> Callable[[Asked, Views], Asked] | None:
    """What gives the targets of an augmented batch; None where nothing moves. Raises RecipeError for an augmentation that boxes
    cannot follow."""
    if not space.max_boxes or not augments:
        return None
    if strange := [name for name in augments if name not in (*MOVES, MOSAIC)]:
        raise RecipeError(f"train.augment: boxes cannot follow {strange[0]!r}; take {', '.join((*MOVES, MOSAIC))}")

    def moves(asked: Asked, views: Views) -> Asked:
        target = moved(asked.target, augments, views, space.max_boxes)
        labels = None if asked.labels is None else moved(asked.labels, augments, views, space.max_boxes)
        weight = asked.weight
        for number, name in enumerate(augments):
            if name == MOSAIC and weight is not None:
                weight = of_fours(weight, _seeds(views, number))
        return asked._replace(target=target, labels=labels, weight=weight)

    return moves


def moved(boxes: Tensor, augments: Sequence[str], views: Views, max_boxes: int) -> Tensor:
    """Boxes f32 `[rows, ..., M * k]`, as `teachers.tasks.boxes` has labels (k = 8) or what is said (6), cut off at the edges of the
    image; those of which too little is left are gone. Places stay as they are: one in the middle may be empty. After a mosaic there are
    four times as many, filled from the front."""
    each = boxes.reshape(len(boxes), -1, max_boxes, boxes.shape[-1] // max_boxes)
    for number, name in enumerate(augments):
        seeds = _seeds(views, number)
        if name == MOSAIC:
            each = _joined(_cut(each), seeds)
            continue
        corners = MOVES[name](each[..., :SCORE].flatten(1, 2), seeds)
        each = torch.cat([corners.reshape(*each.shape[:-1], SCORE), each[..., SCORE:]], -1)
    return _cut(each).reshape(*boxes.shape[:-1], -1)


def _seeds(views: Views, number: int) -> Tensor:
    """Of augmentation `number`, as of the first column of inputs."""
    return draw(views.seeds(number), 0)


def _cut(each: Tensor) -> Tensor:
    """Boxes `[..., k]`, cut off at the edges of the image."""
    corners = each[..., :SCORE]
    seen = corners.clamp(0, 1)
    gone = (areas(seen) < LEAST_SEEN * areas(corners)) | (areas(seen) <= 0)
    out = torch.cat([seen, each[..., SCORE:]], -1)
    out[..., CLASS] = torch.where(gone & (out[..., CLASS] >= 0), NO_CLASS, out[..., CLASS])
    return out


def _joined(each: Tensor, seeds: Tensor) -> Tensor:
    """`[rows, K, M, k]` to `[rows, K, 4 M, k]`: boxes of all images that a row then shows."""
    found = fours(each)
    found = torch.cat([placed(found[..., :SCORE], seeds), found[..., SCORE:]], -1)
    is_there = drawn(seeds)[0][:, None, None, None] | (torch.arange(ROWS, device=each.device) == 0)[:, None, None]
    found[..., CLASS] = torch.where(is_there, found[..., CLASS], NO_CLASS)
    found = found.transpose(1, 2).flatten(2, 3)
    order = (found[..., CLASS] < 0).to(torch.uint8).argsort(stable=True, dim=2)
    return found.gather(2, order[..., None].expand_as(found))


def of_fours(weight: Tensor, seeds: Tensor) -> Tensor:
    """How much rows `[rows, ...]` count: one of four images as much as the one of them that counts least."""
    is_there = drawn(seeds)[0].reshape(-1, *[1] * (weight.ndim - 1))
    return torch.where(is_there, fours(weight).amin(1), weight)
