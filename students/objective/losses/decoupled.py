"""Decoupled distillation: what a teacher says of the label, and what it says of all other classes, with a weight each."""

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

    TCKD is T^2 KL of the label against all other classes, NCKD is T^2 KL among the others. As `soft` is TCKD + (1 - p) NCKD, p
    the target's probability of the label, this is alpha `soft` + (beta - alpha (1 - p)) NCKD: two divergences, finite however
    sure the logits are. Of a label that the target rules out NCKD alone is left, over all classes that it does not. Rows
    without a label are the caller's to leave out.
    """
    if standardise:
        student, target = standardised(student), standardised(target)
    label = labels.clamp_min(0)[:, None]
    own, theirs = (student / temperature).clamp_min(RULED_OUT), (target / temperature).clamp_min(RULED_OUT)
    their_log_p = F.log_softmax(theirs, dim=-1)
    of_all = _divergence(F.log_softmax(own, dim=-1), their_log_p)
    of_others = _divergence(*(F.log_softmax(side.scatter(1, label, RULED_OUT), dim=-1) for side in (own, theirs)))
    rest = 1 - their_log_p.gather(1, label).squeeze(1).exp()
    return temperature**2 * (alpha * of_all + (beta - alpha * rest) * of_others)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p || q) of each row."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
