"""Losses of classes that each hold or not: sums over the classes of a row whose target is known (not NaN).

A loss gets raw student logits `[rows, classes]` and divides by its temperature itself, once.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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


def soft(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
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


def peer(student: Tensor, target: Tensor, *, temperature: float, reduce: Literal["mean", "sum"]) -> Tensor:
    """`soft` with each of `target` `[rows, peers, classes]`, the mean over peers or their sum, per row `[rows]`."""
    return over_peers(soft, student, target, reduce=reduce, temperature=temperature)
