"""Sums of terms that compare layers: a student's with those of peers, or of teachers. Knows nothing of what a layer is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .losses.loss import Loss

Pairs = Sequence[tuple[Tensor, Tensor]]
"""What a loss compares, `[rows, ...]`, for each of its outputs."""


def sum_of_maps(loss: Loss, maps: Pairs, *, is_mean: bool) -> Tensor:
    """Of `feature` the mean over layers and peers, of `channel` the sum over layers, as their papers have it."""
    total = torch.stack([loss(own, theirs).sum() for own, theirs in maps]).sum()
    return total / len(maps) if is_mean else total


def sum_of_hint(loss: Loss, pairs: Pairs, weight: Tensor | None = None) -> Tensor:
    """The sum over its outputs, in float32 or more; `weight`: of each row `[rows]`, None: all 1."""
    values = []
    for own, theirs in pairs:
        precise = own.to(torch.promote_types(own.dtype, torch.float32))
        found = loss(precise, theirs.to(precise.dtype))
        values.append((found if weight is None else found * weight).sum())
    return torch.stack(values).sum()
