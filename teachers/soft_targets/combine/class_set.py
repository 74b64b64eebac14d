"""How several teachers' scores of classes that each hold or not become one target: class by class, as `rules` has it.

logits   f32 [K, B, C]   raw; sigmoid(logit / T) is what a teacher gives the class
target   f32 [B, C]      T logit(p), so that sigmoid(target / T) is the combined p; NaN: nobody knows the class
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .shares import equally, row_weights, share_of_name


def weighted(
    logits: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    teacher_weights: Tensor | Sequence[float],
) -> tuple[Tensor, Tensor]:
    """A weighted mean of the teachers' softened probabilities; `teacher_weights` `[K]` >= 0 need not sum to 1."""
    weights = row_weights(torch.as_tensor(teacher_weights, dtype=logits.dtype, device=logits.device), known)
    return mixture(logits, temperature, known, weights), weights


mean_probability = equally(weighted)
"""The mean of the teachers' softened probabilities of each class."""


def mean_logits(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the teachers' logits of each class."""
    weights = row_weights(logits.new_ones(logits.shape[0]), known)
    share = share_of_name(weights, known)
    return _where_known(torch.where(known, logits, 0.0).mul_(share).sum(0), known), weights


def mixture(logits: Tensor, temperature: float, known: Tensor, weights: Tensor) -> Tensor:
    """The target `[B, C]` of the weighted mean of softened probabilities; `weights` `[K, B]`: in each class over those that know it."""
    log_share = share_of_name(weights, known).log()
    log_p = torch.logsumexp(F.logsigmoid(logits / temperature) + log_share, dim=0)
    log_not = torch.logsumexp(F.logsigmoid(-logits / temperature) + log_share, dim=0)
    return _where_known(temperature * (log_p - log_not), known)


def pool_by_class(logits: Tensor, temperature: float, known: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The target of the mean of logits by `share` `[K, B, C]`, and what each counted `[K, B]`: the mean of it over classes."""
    weights = share.sum(-1)
    target = torch.where(known, logits, 0.0).mul(share).sum(0).masked_fill(share.sum(0) == 0, torch.nan)
    return target, weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def _where_known(target: Tensor, known: Tensor) -> Tensor:
    return target.masked_fill(~known.any(0), torch.nan)
