"""Relations in place of values: how classes stand to each other in a row, and rows to each other in a class."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .known import LEFT_OUT

LEAST = 1e-14
"""Variance of probabilities below which there is none: float32 has errors of 1e-8 in them."""


def dist(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float,
    beta: float = 1.0,
    gamma: float = 1.0,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """T^2 (beta (1 - correlation over the row's classes) + gamma (1 - mean over classes of the correlation over the rows)) of
    softened probabilities of `[rows, classes]` logits (DIST, Huang et al., 2022), per row `[rows]`.

    The second part is of all rows given, and every row has the same. `weight` `[rows]`: what a row counts in it; 0: it takes no
    part. A class whose target is ruled out takes part in neither, and where the target's probabilities are all alike there is
    nothing to compare: a row has the value 0 then, and the mean is over the other classes.
    """
    own, theirs = F.softmax(student / temperature, dim=-1), F.softmax(target / temperature, dim=-1)
    known = (target > LEFT_OUT).to(own.dtype)
    within, _ = _unlike(own, theirs, known, dim=1)
    between, varies = _unlike(own, theirs, known if weight is None else known * weight.to(own)[:, None], dim=0)
    of_classes = between.sum() / varies.sum().clamp_min(1)
    return temperature**2 * (beta * within + gamma * of_classes)


def _unlike(own: Tensor, theirs: Tensor, weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """1 - Pearson's correlation along `dim` of elements of `weight`, 0 where `theirs` are all alike, and where they are not."""
    share = weight / weight.sum(dim, keepdim=True).clamp_min(1e-12)
    theirs = theirs - (share * theirs).sum(dim, keepdim=True)
    variance = (share * theirs.square()).sum(dim, keepdim=True)
    varies = variance.squeeze(dim) > LEAST
    towards = share * theirs * variance.clamp_min(LEAST).rsqrt()
    own = own - (share * own).sum(dim, keepdim=True)
    of_own = (share * own.square()).sum(dim).clamp_min(LEAST)
    return torch.where(varies, 1 - (towards * own).sum(dim) * of_own.rsqrt(), 0.0), varies
