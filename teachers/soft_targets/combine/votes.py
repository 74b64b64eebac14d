"""One teacher, one vote: what each says most, and how many say it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .class_scores import LOG_ZERO
from .shares import row_weights


def of_class_scores(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The share of the votes of those that know the row, who count alike: a distribution, softened by no temperature."""
    weights = row_weights(logits.new_ones(len(logits)), known)
    said = F.one_hot(logits.masked_fill(~known, -torch.inf).argmax(-1), logits.shape[-1]).to(logits.dtype)
    share = (said * weights[..., None]).sum(0)
    nobody = ~known.any(-1).any(0)[:, None]
    return share.log().clamp_min(LOG_ZERO).masked_fill(nobody, 0.0) * temperature, weights


def of_class_set(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Of each class the share of those that know it and say that it holds, as log-odds; of all or none +-1e4."""
    weights = row_weights(logits.new_ones(len(logits)), known)
    holds = (known & (logits > 0)).sum(0) / known.sum(0).clamp_min(1)
    odds = torch.logit(holds.to(logits.dtype)).clamp(LOG_ZERO, -LOG_ZERO) * temperature
    return odds.masked_fill(~known.any(0), torch.nan), weights
