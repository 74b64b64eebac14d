"""The loss of ReviewKD: maps compared at several sizes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LEVELS = (4, 2, 1)
"""Heights and widths to which maps are pooled, of those that are less than their own height."""


def review(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss between maps `[rows, C, H, W]` of one size, per row `[rows]` (Chen et al., 2021).

    The mean square, plus half of it of maps pooled to 4x4, a quarter to 2x2, an eighth to 1x1, over the sum of these weights; a
    level that is no smaller than the map is left out, and the next one has its weight.
    """
    found: Tensor = Review.apply(student, teacher)  # type: ignore[no-untyped-call]
    return found


class Review(Function):
    """Pooling is linear, so the maps' difference d is pooled: d M for all levels, with `_pooling`; the value is a |d|^2 + |d M|^2 and its
    gradient 2 (a d + d M M'), which is found beside it."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        apart = (student - teacher).flatten(2)
        pooling, share = _pooling(student)
        pooled = apart @ pooling
        flat = apart.flatten(1)
        value: Tensor = share * torch.linalg.vecdot(flat, flat) + pooled.square().sum((1, 2))
        if ctx.needs_input_grad[0]:  # in place: memory that is new costs more than the sum
            apart.flatten(0, 1).addmm_(pooled.flatten(0, 1), pooling.T, beta=share)
            ctx.save_for_backward(apart.view_as(student))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        found: Tensor = slope * (2 * outer)[:, None, None, None]
        return found, None


def _pooling(maps: Tensor) -> tuple[Tensor, float]:
    """Of maps like these, f `[H * W, positions of all levels]`: means over their bins by the root of what a square of them counts; and
    what one of an element of the maps does."""
    channels, height, width = maps.shape[1:]
    levels = [size for size in LEVELS if size < height]
    total = sum(0.5**level for level in range(len(levels) + 1))
    places = torch.eye(height * width, dtype=maps.dtype, device=maps.device).view(-1, 1, height, width)
    means = [
        F.adaptive_avg_pool2d(places, size).flatten(1) * (0.5**level / total / channels / size**2) ** 0.5
        for level, size in enumerate(levels, 1)
    ]
    return torch.cat([places.new_empty(len(places), 0), *means], 1), 1 / total / channels / height / width
