"""From what a network of detection gives to what it says: the best boxes of an image, each once.

Such a network gives f32 `[rows, A, 6 + C]`: of A places each a box (x1, y1, x2, y2 in 0 to 1 of the image), the point it stands
at (x, y) and a logit for each class. Places are cells of a grid, or queries, whose point is the middle of their own box. All
is vectorised over rows. Knows nothing of how a network is made, or trained.
"""

import torch
from torch import Tensor

from .boxes import BOX, NO_CLASS
from .overlap import areas
from .suppression import not_suppressed

CORNERS, POINT, LOGITS = slice(0, 4), slice(4, 6), 6
"""Where they stand in what is given of a place; logits are all that follows."""
LEAST_SCORE = 0.01
"""Below it nothing is said."""
OVERLAP = 0.6
"""IoU from which on two boxes of one class are one (cells alone: queries are taught to say each thing once)."""
CANDIDATES = 4
"""Boxes that are looked at for each that can be said."""
ROWS_AT_ONCE = 16
MIDDLE = 1e-6
BOX_WIDTH = len(BOX)


def are_queries(given: Tensor) -> Tensor:
    """Of which rows of `[rows, A, 6 + C]` the places are queries, bool `[rows]`."""
    middle = (given[..., :2] + given[..., 2:4]) / 2
    return ((middle - given[..., POINT]).abs() < MIDDLE).flatten(1).all(1)


def said_of_places(given: Tensor, max_boxes: int, overlap: float = OVERLAP) -> Tensor:
    """What is said, f32 `[rows, max_boxes * 6]` as `boxes` has it, of what a network gives, `[rows, A, 6 + C]`."""
    return torch.cat([_said(part, max_boxes, overlap) for part in given.split(ROWS_AT_ONCE)])


def _said(given: Tensor, max_boxes: int, overlap: float) -> Tensor:
    given = given.float()
    places, classes = given.shape[1], given.shape[2] - LOGITS
    scores = given[..., LOGITS:].sigmoid().flatten(1)
    score, which = scores.topk(min(CANDIDATES * max_boxes, places * classes), sorted=True)
    place, number = which // classes, which % classes
    low, high = torch.minimum(given[..., :2], given[..., 2:4]), torch.maximum(given[..., :2], given[..., 2:4])
    corners = torch.cat([low, high], -1).clamp(0, 1).gather(1, place[..., None].expand(-1, -1, 4))
    valid = (score >= LEAST_SCORE) & (areas(corners) > 0)
    valid = torch.where(are_queries(given)[:, None], valid, not_suppressed(corners, number.where(valid, -1), overlap))
    first = (~valid).to(torch.uint8).sort(dim=1, stable=True).indices[:, :max_boxes]
    boxes = torch.cat([corners, score[..., None], number[..., None].to(score.dtype)], -1)
    boxes = boxes.gather(1, first[..., None].expand(-1, -1, BOX_WIDTH))
    nothing = boxes.new_zeros(BOX_WIDTH)
    nothing[-1] = NO_CLASS
    boxes = torch.where(valid.gather(1, first)[..., None], boxes, nothing)
    return resized(boxes.flatten(1), max_boxes)


def resized(said: Tensor, max_boxes: int) -> Tensor:
    """What is said `[rows, m * 6]` with room for `max_boxes`: the first of them, or with nothing behind them."""
    there = said.shape[1] // BOX_WIDTH
    if there >= max_boxes:
        return said[:, : max_boxes * BOX_WIDTH]
    nothing = said.new_zeros(len(said), max_boxes - there, BOX_WIDTH)
    nothing[..., -1] = NO_CLASS
    nothing[said.isnan().all(1)] = torch.nan
    return torch.cat([said, nothing.flatten(1)], 1)


def renumbered(said: Tensor, numbers: Tensor) -> Tensor:
    """What is said `[rows, M * 6]` with each class as i64 `numbers` has it; boxes of those that are below 0 there are gone."""
    each = said.reshape(len(said), -1, BOX_WIDTH)
    old = each[..., -1]
    now = torch.where(old >= 0, numbers[old.nan_to_num(0).clamp_min(0).long()].to(old.dtype), old)
    nothing = each.new_zeros(BOX_WIDTH)
    nothing[-1] = NO_CLASS
    gone = now < 0
    each = torch.where(gone[..., None], nothing, torch.cat([each[..., :-1], now[..., None]], -1))
    order = gone.to(torch.uint8).sort(dim=1, stable=True).indices
    return each.gather(1, order[..., None].expand_as(each)).flatten(1)


def in_pixels(said: Tensor, sizes: Tensor) -> Tensor:
    """What is said `[rows, M * 6]` with corners in pixels of images of these (height, width), `[rows, 2]`."""
    each = said.reshape(len(said), -1, BOX_WIDTH)
    scale = torch.cat([sizes[:, [1, 0, 1, 0]], torch.ones_like(sizes)], 1).to(said.dtype)
    return (each * scale[:, None]).flatten(1)
