"""Losses of one class of many. A loss gets raw student logits `[rows, classes]` and divides by its temperature itself, once."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .peers import over_peers


def hard(
    student: Tensor, target: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with the labels `target`, int64 `[rows]`, of logits `[rows, classes]`; per row `[rows]`.

    `class_weights` `[classes]`: of each class; a mean of such rows is over the sum of their weights, as torch has it.
    """
    return F.cross_entropy(student, target, class_weights, reduction="none", label_smoothing=label_smoothing)


def soft(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(target || student) of softened `[rows, classes]` logits, per row `[rows]` (Hinton et al., 2015).

    T^2 keeps the size of the gradient independent of T; at high T it tends to (student - target) / classes, both
    centred. A class that the target rules out (logit -inf) adds nothing.
    """
    student_log_p = F.log_softmax(student / temperature, dim=-1)
    target_log_p = F.log_softmax(target / temperature, dim=-1).clamp_min(torch.finfo(target.dtype).min)
    return temperature**2 * F.kl_div(student_log_p, target_log_p, reduction="none", log_target=True).sum(-1)


def teacher_label(student: Tensor, target: Tensor) -> Tensor:
    """Hard distillation: cross-entropy with the class that `target` `[rows, classes]` says, per row `[rows]`.

    The limit of `soft` without its T^2 as the target's temperature goes to 0 (Hinton et al., 2015; DeiT, 2021).
    """
    return F.cross_entropy(student, target.argmax(-1), reduction="none")


def peer(student: Tensor, target: Tensor, *, temperature: float, reduce: Literal["mean", "sum"]) -> Tensor:
    """T^2 KL(peer || student) with each of `target` `[rows, peers, classes]`, per row `[rows]`.

    The mean over peers is the 1 / (K - 1) of deep mutual learning (Zhang et al., 2018); the authors' code has the
    sum. With one target it is the distillation loss of KDCL (Guo et al., 2020) and ONE (Lan et al., 2018).
    """
    return over_peers(soft, student, target, reduce=reduce, temperature=temperature)
