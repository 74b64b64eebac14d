"""How much of boxes is one area: corners x1, y1, x2, y2 as tensors of any dtype, which are broadcast. Knows nothing of classes."""

import torch
from torch import Tensor


def areas(corners: Tensor) -> Tensor:
    """Of `[..., 4]`: `[...]`, 0 where there is none."""
    return (corners[..., 2] - corners[..., 0]).clamp_min(0) * (corners[..., 3] - corners[..., 1]).clamp_min(0)


def shared(one: Tensor, other: Tensor) -> Tensor:
    """Area that boxes `[..., 4]` have in common, which are broadcast."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    sides = (high - low).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes `[..., 4]`; 0 of two that have no area."""
    common = shared(one, other)
    together = areas(one) + areas(other) - common
    return common / together.clamp_min(torch.finfo(together.dtype).tiny)


def overlaps(corners: Tensor, others: Tensor) -> Tensor:
    """The same of each of boxes `[..., N, 4]` with each of `[..., K, 4]`: `[..., N, K]`."""
    return overlap(corners[..., :, None, :], others[..., None, :, :])
