"""What becomes of boxes when the images that they lie in are augmented: of true ones and of those that teachers say alike.

The same seeds that move an image move its boxes, so nothing is stored, and a control sees what its student sees. Knows nothing
of images beyond what moves them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.tasks.boxes import CLASS, NO_CLASS, SCORE
from teachers.tasks.overlap import areas
from teachers.tasks.places import resized
from teachers.tasks.space import Space
from teachers.transfer_set.views import below, draw

from ..objective.targets import Asked, Batch
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
SEEDS = "seeds."
"""Of a batch, before the number of an augmentation: from what it moves each row."""
MOSAIC = "mosaic"
"""One that brings boxes of other images."""


@dataclass(frozen=True)
class Moves:
    """What becomes of boxes in an augmented batch."""

    augments: Sequence[str]
    max_boxes: int
    """Of an image as it is stored."""

    def drawn(self, views: Views) -> dict[str, Tensor]:
        """Columns for the batch: a seed for each row and augmentation, i64 `[rows]`."""
        return {f"{SEEDS}{number}": draw(views.seeds(number), 0) for number, _ in enumerate(self.augments)}

    def _seeds(self, batch: Batch) -> list[Tensor]:
        return [batch[f"{SEEDS}{number}"] for number, _ in enumerate(self.augments)]

    def __call__(self, asked: Asked, batch: Batch, *, seen: bool) -> Asked:
        """The targets of a term. `seen`: they are of the augmented images already."""
        seeds = self._seeds(batch)
        target = asked.target if seen else moved(asked.target, self.augments, seeds, self.max_boxes)
        labels = None if asked.labels is None else moved(asked.labels, self.augments, seeds, self.max_boxes)
        weight = asked.weight
        for name, each in zip(self.augments, seeds, strict=True):
            if name == MOSAIC and weight is not None:
                weight = of_fours(weight, each)
        return asked._replace(target=target, labels=labels, weight=weight)

    def as_seen(self, boxes: Tensor, batch: Batch, is_live: bool) -> Tensor:
        """Boxes of rows f32 `[rows, M * k]`, of labels or of one teacher, as the augmented images have them: those of who was asked
        about these, `is_live`, as they are. All in one width; a row that shows one of which nothing is known is unknown."""
        if is_live:
            return resized(boxes, self.max_boxes * ROWS ** [*self.augments].count(MOSAIC))
        found = moved(boxes, self.augments, self._seeds(batch), self.max_boxes)
        return found.masked_fill(found.isnan().any(1, keepdim=True), torch.nan)


def moving(augments: Sequence[str], space: Space) -> Moves | None:
    """What gives the targets of an augmented batch; None where nothing moves. Raises RecipeError for an augmentation that boxes
    cannot follow."""
    if not space.max_boxes or not augments:
        return None
    if strange := [name for name in augments if name not in (*MOVES, MOSAIC)]:
        raise RecipeError(f"train.augment: boxes cannot follow {strange[0]!r}; take {', '.join((*MOVES, MOSAIC))}")
    return Moves(augments, space.max_boxes)


def moved(boxes: Tensor, augments: Sequence[str], seeds: Sequence[Tensor], max_boxes: int) -> Tensor:
    """Boxes f32 `[rows, ..., M * k]`, as `teachers.tasks.boxes` has labels (k = 8) or what is said (6), cut off at the edges of the
    image; those of which too little is left are gone. Places stay as they are: one in the middle may be empty. After a mosaic there are
    four times as many, filled from the front. `seeds`: of each augmentation, as of the first column of inputs, i64 `[rows]`."""
    each = boxes.reshape(len(boxes), -1, max_boxes, boxes.shape[-1] // max_boxes)
    for name, own in zip(augments, seeds, strict=True):
        if name == MOSAIC:
            each = _joined(_cut(each), own)
            continue
        corners = MOVES[name](each[..., :SCORE].flatten(1, 2), own)
        each = torch.cat([corners.reshape(*each.shape[:-1], SCORE), each[..., SCORE:]], -1)
    return _cut(each).reshape(*boxes.shape[:-1], -1)


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
