"""Decoupled distillation: what a teacher says of the label, and what it says of all other classes, with a weight each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .known import RULED_OUT, standardised


def dkd(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    standardise: bool = False,
) -> Tensor:
    """alpha TCKD + beta NCKD of softened `[rows, classes]` logits and `labels`, int64 `[rows]`, per row `[rows]` (Zhao et al., 2022).

    TCKD is T^2 KL of the label against all other classes, NCKD is T^2 KL among the others; T^2 KL, which is `soft`, is
    TCKD + (1 - p) NCKD, p the target's probability of the label. Of a label that the target rules out NCKD alone is left, over
    all classes that it does not. Rows without a label are the caller's to leave out.
    """
    if standardise:
        student, target = standardised(student), standardised(target)
    label = labels.clamp_min(0)[:, None]
    own, own_others = _decoupled(student / temperature, label)
    theirs, their_others = _decoupled(target / temperature, label)
    of_label = theirs.sigmoid() * (F.logsigmoid(theirs) - F.logsigmoid(own))
    of_rest = (-theirs).sigmoid() * (F.logsigmoid(-theirs) - F.logsigmoid(-own))
    of_others = F.kl_div(own_others, their_others, reduction="none", log_target=True).sum(-1)
    return temperature**2 * (alpha * (of_label + of_rest) + beta * of_others)


def _decoupled(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The log-odds of the label against all other classes `[rows]`, and the others' log-probabilities among themselves
    `[rows, classes]`: finite, however sure the logits are."""
    logits = logits.clamp_min(RULED_OUT)
    others = logits.scatter(1, label, RULED_OUT)
    log_rest = torch.logsumexp(others, -1, keepdim=True)
    return (logits.gather(1, label) - log_rest).squeeze(1), others - log_rest
