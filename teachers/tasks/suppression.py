"""Which of the boxes of one image stay where several are of the same thing. Knows nothing of who says them."""

import torch
from torch import Tensor


def overlaps(corners: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes f32 `[..., N, 4]` and `[..., K, 4]`, corners, f32 `[..., N, K]`; 0 of two that have no area."""
    low = torch.maximum(corners[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(corners[..., :, None, 2:], others[..., None, :, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    area, other = (_area(each) for each in (corners, others))
    together = area[..., :, None] + other[..., None, :] - common
    return common / together.clamp_min(torch.finfo(together.dtype).tiny)


def _area(corners: Tensor) -> Tensor:
    return (corners[..., 2:] - corners[..., :2]).clamp_min(0).prod(-1)


def not_suppressed(corners: Tensor, label: Tensor, above: float) -> Tensor:
    """Class-wise NMS of the boxes of an image, the best first: which stay, bool `[..., N]`.

    corners f32 `[..., N, 4]`, label `[..., N]`; a label below 0 is no box, and does not stay. A box goes if one of its class
    that stays, and stands before it, overlaps it by more than `above` (IoU). Found as a fixed point: whether a box stays depends
    only on those before it, so that after as many rounds as the longest chain has links nothing changes.
    """
    there = label >= 0
    same = label[..., :, None] == label[..., None, :]
    before = torch.ones(same.shape[-2:], dtype=torch.bool, device=label.device).tril(-1)
    beats = (overlaps(corners, corners) > above) & same & before & there[..., None, :]
    stays = there
    while True:
        after = there & ~(beats & stays[..., None, :]).any(-1)
        if torch.equal(after, stays):
            return stays
        stays = after
