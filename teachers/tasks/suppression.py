"""Which of the boxes of one image stay where several are of the same thing. Knows nothing of who says them."""

import torch
from torch import Tensor

from .overlap import overlaps


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
