"""How the numbers of several teachers become one target: number by number, as `rules` has it; a temperature changes nothing.

values   f32 [K, B, D]   in one unit
target   f32 [B, D]      in the same; NaN: nobody knows the number
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .shares import equally, row_weights, share_of_name


def weighted(
    values: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    teacher_weights: Tensor | Sequence[float],
) -> tuple[Tensor, Tensor]:
    """A weighted mean; `teacher_weights` `[K]` >= 0 need not sum to 1."""
    weights = row_weights(torch.as_tensor(teacher_weights, dtype=values.dtype, device=values.device), known)
    return mixture(values, temperature, known, weights), weights


def mixture(values: Tensor, temperature: float, known: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean `[B, D]`; `weights` `[K, B]`: of each number over those that know it."""
    share = share_of_name(weights, known)
    target = torch.where(known, values, 0.0).mul_(share).sum(0)
    return target.masked_fill(share.sum(0) == 0, torch.nan)


mean = equally(weighted)
"""The mean of the teachers' numbers."""


def median(values: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The median of those who know the number, of an even number of them the mean of the two in the middle.

    Every teacher counts alike in it, so that a single one that is far off moves little.
    """
    target = torch.nanquantile(values.masked_fill(~known, torch.nan), 0.5, dim=0)
    return target, row_weights(values.new_ones(values.shape[0]), known)


def inverse_variance(
    values: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    variances: Tensor | Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Each teacher by 1 / its mean squared error `variances` `[K]` on labelled validation rows: of unbiased teachers that
    err independently no other weights have a smaller error (Aitken, 1935)."""
    found = torch.as_tensor(variances, dtype=values.dtype, device=values.device)
    return weighted(
        values, temperature=temperature, known=known, teacher_weights=1 / found.clamp_min(torch.finfo(found.dtype).tiny)
    )
