"""How well a score ranks rows, under weights of rows; equal scores count at once. Functions of one column, summed in float64.

A weight is how often its row is there: every figure is that of the rows repeated so often.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranked:
    """N rows by descending score. Sorting is most of the work, so it is done once for many weightings."""

    order: Tensor
    """i64[N]: the rows, best first."""
    last: Tensor
    """i64[distinct scores]: places in `order` that are the last of an equal score."""

    @classmethod
    def of(cls, scores: Tensor) -> "Ranked":
        """`scores` f32 or f64 [N]."""
        order = torch.from_numpy(np.argsort(scores.numpy())[::-1].copy())  # NumPy sorts several times as fast as torch
        ordered = scores[order]
        ends = torch.ones(len(scores), dtype=torch.bool)
        ends[:-1] = ordered[1:] != ordered[:-1]
        return cls(order, ends.nonzero().flatten())

    def up_to_each(self, counts: Tensor) -> Tensor:
        """Of f64[N] by row, the sum over all rows with a score and better ones, f64[distinct scores]."""
        return counts[self.order].cumsum(0)[self.last]


def gained(sums: Tensor) -> Tensor:
    """What each place adds to sums that run, f64 of the same length."""
    return torch.diff(sums, prepend=sums.new_zeros(1))


def average_precision(ranked: Ranked, is_of: Tensor, weights: Tensor | None = None) -> float | None:
    """Sum over ranks of precision times the recall that is gained there; None where no row `is_of` bool[N] the class.

    It depends on no threshold, so it tells of a class that is too rare to be said.
    """
    hits = ranked.up_to_each(is_of.double() if weights is None else weights * is_of)
    rows = (ranked.last + 1).double() if weights is None else ranked.up_to_each(weights)
    if not len(hits) or not hits[-1]:
        return None
    return float((gained(hits) * hits / rows.clamp_min(1)).sum() / hits[-1])


def placements(ranked: Ranked, is_of: Tensor) -> Tensor:
    """How well each row is placed among the rows of the other side, f64[N] from 0 to 1 (DeLong et al., 1988).

    Of a row that `is_of` the class, the share of the others that score less; of another, the share of those of it that
    score more; an equal score counts half. 0.5 where there is no other side.
    """
    own = is_of.double()
    hits, others = ranked.up_to_each(own), ranked.up_to_each(1 - own)
    if not len(hits) or not hits[-1] or not others[-1]:
        return torch.full((len(is_of),), 0.5, dtype=torch.float64)
    below = 1 - (others - gained(others) / 2) / others[-1]
    above = (hits - gained(hits) / 2) / hits[-1]
    sizes = torch.diff(ranked.last, prepend=ranked.last.new_full((1,), -1))
    placed = torch.empty(len(is_of), dtype=torch.float64)
    placed[ranked.order] = torch.where(
        is_of[ranked.order], below.repeat_interleave(sizes), above.repeat_interleave(sizes)
    )
    return placed


def correlation(one: Tensor, other: Tensor, weights: Tensor | None = None) -> float | None:
    """Pearson's, of f64[N] each; None where either is the same in every row."""
    if not len(one):
        return None
    if weights is None:
        one, other = one - one.mean(), other - other.mean()
        spread = float(one @ one) * float(other @ other)
        return float(one @ other) / math.sqrt(spread) if spread else None
    rows = weights.sum()
    if not rows:
        return None
    one, other = (each - (weights * each).sum() / rows for each in (one, other))
    spread = float((weights * one) @ one) * float((weights * other) @ other)
    return float((weights * one) @ other) / math.sqrt(spread) if spread else None


def spearman(one: Tensor, other: Tensor, weights: Tensor | None = None) -> float | None:
    """Pearson's correlation of ranks, equal values at their mean rank; None where either is the same in every row."""
    return correlation(_ranks(one, weights), _ranks(other, weights), weights)


def _ranks(values: Tensor, weights: Tensor | None) -> Tensor:
    """Of each row the mean rank of its value among the repeated rows, f64[N]; that it is from above changes nothing."""
    ranked = Ranked.of(values)
    ranks = torch.empty(len(values), dtype=torch.float64)
    sums = (ranked.last + 1).double() if weights is None else ranked.up_to_each(weights)
    middle = sums - gained(sums) / 2
    if len(sums) == len(values):  # all differ
        ranks[ranked.order] = middle
        return ranks
    sizes = torch.diff(ranked.last, prepend=ranked.last.new_full((1,), -1))
    ranks[ranked.order] = middle.repeat_interleave(sizes)
    return ranks
