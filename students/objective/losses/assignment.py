"""Which place of a network learns which box: task-aligned assignment (TOOD, Feng et al., 2021), vectorised over rows.

A box is learnt at the places whose point lies in it (at the nearest one, where none does) that already say it best, as
score^0.5 IoU^6 has it, `PLACES` at most. A place that several boxes want learns the one that it overlaps most. Queries, whose
points are the middles of their own boxes, are assigned one to a box, by the least sum of costs (DETR, Carion et al., 2020).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.tasks.overlap import overlaps
from teachers.tasks.places import are_queries

PLACES = 10
OF_SCORE, OF_OVERLAP = 0.5, 6.0
"""Exponents of how well a place says a box."""
OF_CLASS, OF_DISTANCE, OF_IOU = 2.0, 5.0, 2.0
"""Weights of a query's cost."""


@dataclass(frozen=True)
class Assigned:
    """Of each place of each row."""

    corners: Tensor
    """f32 `[rows, A, 4]`: of its box; of a place without one its own."""
    number: Tensor
    """i64 `[rows, A]`: the class of its box, 0 without one."""
    quality: Tensor
    """f32 `[rows, A]`: what its score is to be, 0 without a box."""
    weight: Tensor
    """f32 `[rows, A]`: the score of its box, 0 without one."""


@torch.no_grad()
def assignment(
    corners: Tensor, points: Tensor, logits: Tensor, wanted: Tensor, number: Tensor, score: Tensor
) -> Assigned:
    """Of places with `corners` `[rows, A, 4]`, `points` `[rows, A, 2]` and `logits` `[rows, A, C]`; `wanted` boxes
    `[rows, N, 4]` of class `number` i64 `[rows, N]` with a `score` `[rows, N]`, 0 of what is none."""
    rows, places, boxes = len(corners), corners.shape[1], wanted.shape[1]
    if not boxes:
        nothing = torch.zeros(rows, places, dtype=torch.long, device=corners.device)
        return Assigned(corners, nothing, torch.zeros_like(corners[..., 0]), torch.zeros_like(corners[..., 0]))
    iou = overlaps(wanted, corners)
    said = logits.sigmoid().transpose(1, 2).gather(1, number[..., None].expand(-1, -1, places))
    if bool(are_queries(torch.cat([corners, points], -1)).all()):
        chosen = _one_each(corners, said, iou, wanted, score > 0)
        aligned = iou * chosen
    else:
        aligned = said**OF_SCORE * iou**OF_OVERLAP
        near = _near(points, wanted) & (score > 0)[..., None]
        chosen = _best(aligned, near, iou)
        aligned = aligned * chosen
    wants = torch.where(chosen, iou, -1.0)
    best, box = wants.max(1)
    has_box = best >= 0
    is_own = torch.arange(boxes, device=corners.device)[:, None] == box[:, None]
    aligned = aligned * (is_own & has_box[:, None])
    # the best place of a box is taught its IoU, the others less by how much worse they say it
    largest = aligned.amax(2, keepdim=True).clamp_min(1e-30)
    most = (iou * (aligned > 0)).amax(2, keepdim=True)
    weight = torch.where(has_box, score.gather(1, box), 0.0)
    quality = (aligned / largest * most).gather(1, box[:, None])[:, 0] * weight
    own = torch.where(has_box[..., None], wanted.gather(1, box[..., None].expand(-1, -1, 4)), corners)
    return Assigned(own, number.gather(1, box) * has_box, quality.clamp(0, 1), weight)


def _near(points: Tensor, wanted: Tensor) -> Tensor:
    """Which places may learn which box, bool `[rows, N, A]`: those in it, or the nearest to its middle."""
    inside = is_inside(points, wanted)
    middle = (wanted[..., :2] + wanted[..., 2:]) / 2
    nearest = torch.cdist(middle, points).argmin(2, keepdim=True)
    alone = torch.zeros_like(inside).scatter_(2, nearest, True)
    return torch.where(inside.any(2, keepdim=True), inside, alone)


def is_inside(points: Tensor, corners: Tensor) -> Tensor:
    """Which boxes `[rows, N, 4]` hold which points `[rows, A, 2]`: bool `[rows, N, A]`."""
    low, high = corners[:, :, None, :2], corners[:, :, None, 2:]
    return ((points[:, None] >= low) & (points[:, None] <= high)).all(-1)


def _best(aligned: Tensor, near: Tensor, iou: Tensor) -> Tensor:
    """The `PLACES` best of those that are near, bool `[rows, N, A]`; IoU decides where nothing is said yet."""
    order = torch.where(near, aligned + 1e-9 * iou, -1.0)
    best, place = order.topk(min(PLACES, order.shape[2]), dim=2)
    chosen = torch.zeros_like(near).scatter_(2, place, best >= 0)
    return chosen & near


def _one_each(corners: Tensor, said: Tensor, iou: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    """bool `[rows, N, A]`: a query for each box."""
    from scipy.optimize import linear_sum_assignment

    cost = -OF_CLASS * said + OF_DISTANCE * torch.cdist(wanted, corners, p=1) - OF_IOU * iou
    chosen = torch.zeros_like(said, dtype=torch.bool)
    for row, some in enumerate(there):
        boxes = some.nonzero()[:, 0]
        which, place = linear_sum_assignment(cost[row, boxes].cpu().numpy())
        chosen[row, boxes[torch.from_numpy(which).to(boxes.device)], torch.from_numpy(place).to(boxes.device)] = True
    return chosen
