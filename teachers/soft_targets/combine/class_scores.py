"""How several teachers' scores of one class of many become one target, by rules as `rules` has them.

Here a rule is `fn(logits, *, temperature, known, labels=None, **keywords) -> (target, weights)`:

    logits   f32 [K, B, C]   what K teachers say of B rows, in the classes of the transfer set
    known    bool [K, B, C]  False: that teacher takes no part in that class of that row
    target   f32 [B, C]      T log p, finite; softmax(target / T) is the combined distribution p, so a loss divides by T once
    weights  f32 [K, B]      what each teacher counted in each row; they sum to 1, or are all 0 where nobody knows the row

A teacher that knows some classes only has a distribution over those. In each class the teachers that know it are
combined, and the result is normalised once more; a class that nobody knows gets probability 0. Who compares a student with a
target leaves such a class out: see `rules.with_gaps`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .shares import equally, row_weights, share_of_name

LOG_ZERO = -1e4
"""Stands for log 0: its exponential is 0, and it is finite."""


def weighted(
    logits: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    teacher_weights: Tensor | Sequence[float],
) -> tuple[Tensor, Tensor]:
    """A weighted mean of the teachers' softened distributions; `teacher_weights` `[K]` >= 0 need not sum to 1."""
    weights = row_weights(torch.as_tensor(teacher_weights, dtype=logits.dtype, device=logits.device), known)
    return mixture(logits, temperature, known, weights), weights


mean_probability = equally(weighted)
"""The mean of the teachers' softened distributions (Hinton et al., 2015; AVER-MKD)."""


def fitted(
    logits: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    teacher_weights: Tensor | Sequence[float] | Sequence[Sequence[float]],
) -> tuple[Tensor, Tensor]:
    """A weighted mean of the teachers' log-probabilities (logarithmic opinion pool; Genest and Zidek, 1986), in each class over
    those that know it; `teacher_weights` `[K]` >= 0 are what labelled validation rows make of them, `[K, C]`: in each class.

    What a teacher counted in a row is then the mean of what it counts in each class by the row's target.
    """
    given = torch.as_tensor(teacher_weights, dtype=logits.dtype, device=logits.device)
    if given.ndim == 1:
        weights = row_weights(given, known)
        return pool(logits, temperature, known, share_of_name(weights, known)), weights
    share = given[:, None] * known
    share = share / share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)
    return pool_by_class(logits, temperature, known, share)


mean_logits = equally(fitted)
"""The mean of the teachers' logits, each normalised over the classes that it knows: the normalised geometric mean of their
distributions."""


def mixture(logits: Tensor, temperature: float, known: Tensor, weights: Tensor) -> Tensor:
    """The target `[B, C]` of the weighted mean of softened distributions; `weights` `[K, B]`: in each class over those that know it."""
    share = share_of_name(weights, known)
    return _target(torch.logsumexp(log_probabilities(logits, temperature, known) + share.log(), dim=0), temperature)


def pool(logits: Tensor, temperature: float, known: Tensor, share: Tensor) -> Tensor:
    """The target `[B, C]` of the mean of log-probabilities by `share` `[K, B, C]`."""
    log_p = torch.where(known, log_probabilities(logits, temperature, known), 0.0).mul_(share).sum(0)
    return _target(log_p.masked_fill_(share.sum(0) == 0, -torch.inf), temperature)


def pool_by_class(logits: Tensor, temperature: float, known: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and what each counted `[K, B]`: the mean of `share` over classes by the target's probabilities."""
    target = pool(logits, temperature, known, share)
    weights = (share * (target / temperature).softmax(-1)).sum(-1)
    return target, weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def log_probabilities(logits: Tensor, temperature: float, known: Tensor) -> Tensor:
    """log p_T over the known classes `[K, B, C]`; -inf where unknown, in teachers that know nothing of the row too."""
    softened = (logits / temperature).masked_fill_(~known, -torch.inf)
    return torch.log_softmax(softened, dim=-1).masked_fill_(~known, -torch.inf)


def _target(log_p: Tensor, temperature: float) -> Tensor:
    """T log p `[B, C]`, normalised and finite; 0 in rows that nobody knows."""
    nobody = torch.isneginf(log_p).all(-1, keepdim=True)
    normalised = torch.log_softmax(log_p.masked_fill(nobody, 0.0), dim=-1)
    return normalised.clamp_(min=LOG_ZERO).masked_fill_(nobody, 0.0) * temperature
