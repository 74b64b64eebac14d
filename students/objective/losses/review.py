"""The loss of ReviewKD: maps compared at several sizes."""

import torch.nn.functional as F
from torch import Tensor

LEVELS = (4, 2, 1)
"""Heights and widths to which maps are pooled, of those that are less than their own height."""


def review(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss between maps `[rows, C, H, W]` of one size, per row `[rows]` (Chen et al., 2021).

    The mean square, plus half of it of maps pooled to 4x4, a quarter to 2x2, an eighth to 1x1, over the sum of these weights; a
    level that is no smaller than the map is left out, and the next one has its weight.
    """
    total, weights = _mean_square(student, teacher), 1.0
    weight = 1.0
    for size in LEVELS:
        if size < student.shape[2]:
            weight /= 2
            pooled = (F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher))
            total, weights = total + weight * _mean_square(*pooled), weights + weight
    return total / weights


def _mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    return F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)
