"""Losses of classes that each hold or not: sums over the classes of a row whose target is known (not NaN).

A loss gets raw student logits `[rows, classes]` and divides by its temperature itself, once.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config.terms import LossName
from .loss import Loss
from .peers import over_peers


def hard(
    student: Tensor, target: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy with the labels `target`, 0, 1 or NaN `[rows, classes]`, per row `[rows]`.

    Of each class the two outcomes share `label_smoothing`, as torch has it of two classes; `class_weights` `[classes]`:
    of those that hold (torch's `pos_weight`).
    """
    known = ~target.isnan()
    labels = torch.where(known, target * (1 - label_smoothing) + label_smoothing / 2, 0.0)
    each = F.binary_cross_entropy_with_logits(student, labels, pos_weight=class_weights, reduction="none")
    return torch.where(known, each, 0.0).sum(-1)


def soft(student: Tensor, target: Tensor, *, temperature: float, labels: Tensor | None = None) -> Tensor:
    """T^2 sum over classes of KL(Bernoulli(sigmoid(target / T)) || Bernoulli(sigmoid(student / T))), per row `[rows]`.

    Logarithms of sigmoids, of which none overflows: a class that both sides are sure of adds 0, however sure they are.
    """
    known = ~target.isnan()
    own, theirs = student / temperature, torch.where(known, target, 0.0) / temperature
    holds = torch.sigmoid(theirs) * (F.logsigmoid(theirs) - F.logsigmoid(own))
    fails = torch.sigmoid(-theirs) * (F.logsigmoid(-theirs) - F.logsigmoid(-own))
    return temperature**2 * torch.where(known, holds + fails, 0.0).sum(-1)


def teacher_label(student: Tensor, target: Tensor) -> Tensor:
    """Hard distillation: binary cross-entropy with what `target` `[rows, classes]` says of each class, per row `[rows]`."""
    return hard(student, torch.where(target.isnan(), target, (target > 0).to(target)))


def reverse_kl(student: Tensor, target: Tensor, *, temperature: float, labels: Tensor | None = None) -> Tensor:
    """T^2 sum over classes of KL(Bernoulli(sigmoid(student / T)) || Bernoulli(sigmoid(target / T))), per row `[rows]`."""
    known = ~target.isnan()
    own, theirs = student / temperature, torch.where(known, target, 0.0) / temperature
    holds = torch.sigmoid(own) * (F.logsigmoid(own) - F.logsigmoid(theirs))
    fails = torch.sigmoid(-own) * (F.logsigmoid(-own) - F.logsigmoid(-theirs))
    return temperature**2 * torch.where(known, holds + fails, 0.0).sum(-1)


def jensen_shannon(
    student: Tensor, target: Tensor, *, temperature: float, beta: float = 0.5, labels: Tensor | None = None
) -> Tensor:
    """T^2 sum over classes of beta KL(target || m) + (1 - beta) KL(student || m) of two outcomes each, m = beta target +
    (1 - beta) student, per row `[rows]`."""
    known = ~target.isnan()
    own, theirs = student / temperature, torch.where(known, target, 0.0) / temperature
    holds = _mixed(F.logsigmoid(own), F.logsigmoid(theirs), beta)
    fails = _mixed(F.logsigmoid(-own), F.logsigmoid(-theirs), beta)
    return temperature**2 * torch.where(known, holds + fails, 0.0).sum(-1)


def _mixed(own_log_p: Tensor, their_log_p: Tensor, beta: float) -> Tensor:
    """What one outcome adds to `jensen_shannon`."""
    log_m = torch.logaddexp(their_log_p + math.log(beta), own_log_p + math.log1p(-beta))
    return beta * their_log_p.exp() * (their_log_p - log_m) + (1 - beta) * own_log_p.exp() * (own_log_p - log_m)


def logit_mse(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    scale: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Half the squared distance of logits `[rows, classes]`, over `scale` `[classes]`, summed over the classes, per row `[rows]`.

    Four times the gradient of `soft` at high temperature; a temperature changes nothing. Of a class that holds or not the
    logit has a zero of its own, so nothing is centred.
    """
    known = ~target.isnan()
    difference = torch.where(known, student - torch.where(known, target, 0.0), 0.0)
    return 0.5 * (difference if scale is None else difference / scale).square().sum(-1)


def label_smoothing_teacher(
    student: Tensor, target: Tensor, *, temperature: float, correct: float = 0.99, labels: Tensor | None = None
) -> Tensor:
    """`soft` from a virtual teacher that gives what the labels `target`, 0, 1 or NaN `[rows, classes]`, say of each class the
    probability `correct`, per row `[rows]`; at temperature 1 it is `hard` with label smoothing 2 (1 - correct), less its own entropy."""
    odds = math.log(correct / (1 - correct))
    return soft(student, (target * 2 - 1) * odds, temperature=temperature)


def peer(student: Tensor, target: Tensor, *, temperature: float, reduce: Literal["mean", "sum"]) -> Tensor:
    """`soft` with each of `target` `[rows, peers, classes]`, the mean over peers or their sum, per row `[rows]`."""
    return over_peers(soft, student, target, reduce=reduce, temperature=temperature)


LOSSES: dict[LossName, Loss] = {
    "hard": hard,
    "soft": soft,
    "teacher_label": teacher_label,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "logit_mse": logit_mse,
    "label_smoothing_teacher": label_smoothing_teacher,
    "ps_kd": hard,
    "mean_teacher": soft,
    "peer": peer,
}
