"""Losses of one class of many. A loss gets raw student logits `[rows, classes]` and divides by its temperature itself, once."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config.terms import LossName
from .correlations import dist
from .decoupled import dkd
from .known import LEFT_OUT, RULED_OUT, deviations, standardised
from .loss import Loss
from .own import ps_kd
from .peers import over_peers


def hard(
    student: Tensor, target: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with the labels `target`, int64 `[rows]`, of logits `[rows, classes]`; per row `[rows]`.

    `class_weights` `[classes]`: of each class; a mean of such rows is over the sum of their weights, as torch has it.
    """
    return F.cross_entropy(student, target, class_weights, reduction="none", label_smoothing=label_smoothing)


def soft(
    student: Tensor, target: Tensor, *, temperature: float, standardise: bool = False, labels: Tensor | None = None
) -> Tensor:
    """T^2 KL(target || student) of softened `[rows, classes]` logits, per row `[rows]` (Hinton et al., 2015).

    T^2 keeps the size of the gradient independent of T; at high T it tends to (student - target) / classes, both
    centred. A class that the target rules out (logit -inf) adds nothing. `standardise`: see `logit_standardized`.
    """
    target_log_p = softened(target, temperature=temperature, standardise=standardise)
    return soft_of_softened(student, target_log_p, temperature=temperature, standardise=standardise)


def softened(target: Tensor, *, temperature: float, standardise: bool = False) -> Tensor:
    """What `soft` makes of a target alone: the logarithms of its probabilities `[rows, classes]`, finite."""
    target = standardised(target) if standardise else target
    return F.log_softmax(target / temperature, dim=-1).clamp_min(torch.finfo(target.dtype).min)


def soft_of_softened(
    student: Tensor, target: Tensor, *, temperature: float, standardise: bool = False, labels: Tensor | None = None
) -> Tensor:
    """`soft` of a target that is `softened`."""
    student = standardised(student) if standardise else student
    student_log_p = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * F.kl_div(student_log_p, target, reduction="none", log_target=True).sum(-1)


def teacher_label(student: Tensor, target: Tensor) -> Tensor:
    """Hard distillation: cross-entropy with the class that `target` `[rows, classes]` says, per row `[rows]`.

    The limit of `soft` without its T^2 as the target's temperature goes to 0 (Hinton et al., 2015; DeiT, 2021).
    """
    return F.cross_entropy(student, target.argmax(-1), reduction="none")


def logit_standardized(student: Tensor, target: Tensor, *, temperature: float, labels: Tensor | None = None) -> Tensor:
    """`soft` of logits `[rows, classes]` less their mean over their standard deviation in each row (Sun et al., 2024).

    a z + b, a > 0, is the same as z on either side: the student copies the shape of the logits, and is as sure as labels make it.
    """
    return soft(student, target, temperature=temperature, standardise=True)


def reverse_kl(
    student: Tensor, target: Tensor, *, temperature: float, standardise: bool = False, labels: Tensor | None = None
) -> Tensor:
    """T^2 KL(student || target) of softened `[rows, classes]` logits, per row `[rows]` (MiniLLM, Gu et al., 2024).

    It has the high-temperature limit of `soft`. A class that the target rules out (logit -inf) costs 1e30 times what the
    student gives it.
    """
    student_log_p, target_log_p = _log_p(student, target, temperature, standardise)
    return temperature**2 * F.kl_div(target_log_p, student_log_p, reduction="none", log_target=True).sum(-1)


def jensen_shannon(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float,
    beta: float = 0.5,
    standardise: bool = False,
    labels: Tensor | None = None,
) -> Tensor:
    """T^2 (beta KL(target || m) + (1 - beta) KL(student || m)), m = beta target + (1 - beta) student, of softened
    `[rows, classes]` logits, per row `[rows]` (generalised Jensen-Shannon; GKD, Agarwal et al., 2024).

    Over beta it tends to `soft` as beta goes to 0, over 1 - beta to `reverse_kl` as beta goes to 1; at high temperature it is
    beta (1 - beta) of either.
    """
    student_log_p, target_log_p = _log_p(student, target, temperature, standardise)
    log_m = torch.logaddexp(target_log_p + math.log(beta), student_log_p + math.log1p(-beta))
    of_target = F.kl_div(log_m, target_log_p, reduction="none", log_target=True).sum(-1)
    of_student = F.kl_div(log_m, student_log_p, reduction="none", log_target=True).sum(-1)
    return temperature**2 * (beta * of_target + (1 - beta) * of_student)


def _log_p(student: Tensor, target: Tensor, temperature: float, standardise: bool) -> tuple[Tensor, Tensor]:
    """Both sides' log-probabilities `[rows, classes]`, softened and finite."""
    sides = (standardised(student), standardised(target)) if standardise else (student, target)
    own, theirs = (F.log_softmax(side / temperature, dim=-1) for side in sides)
    return own, theirs.clamp_min(RULED_OUT)


def logit_mse(
    student: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    centre: bool = False,
    scale: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Half the squared distance of logits `[rows, classes]`, summed over the classes, per row `[rows]` (Ba and Caruana, 2014).

    The gradient is student - target in every class: `classes` times that of `soft` at high temperature where both are
    centred, which `centre` does. `scale` `[classes]` divides the difference. A temperature changes nothing: what divides
    both sides cancels with the T^2 that `soft` has. A class whose target is ruled out adds nothing.
    """
    difference = deviations(student)[0] - deviations(target)[0] if centre else student - target
    difference = difference.masked_fill(target < LEFT_OUT, 0.0)
    return 0.5 * (difference if scale is None else difference / scale).square().sum(-1)


def label_smoothing_teacher(
    student: Tensor, target: Tensor, *, temperature: float, correct: float = 0.99, labels: Tensor | None = None
) -> Tensor:
    """`soft` from a virtual teacher that gives the labels `target`, int64 `[rows]`, the probability `correct` and the other
    classes equal shares of the rest; per row `[rows]` (Tf-KD, Yuan et al., 2020).

    At temperature 1 it is cross-entropy with label smoothing (1 - correct) classes / (classes - 1), less its own entropy.
    """
    share = math.log((1 - correct) / (student.shape[-1] - 1))
    virtual = torch.full_like(student, share).scatter(1, target.clamp_min(0)[:, None], math.log(correct))
    return soft(student, virtual, temperature=temperature)


def lfme(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """KL(target || student) of softened `[rows, classes]` logits, without T^2, per row `[rows]` (LFME, Xiang et al., 2020)."""
    return soft(student, target, temperature=temperature) / temperature**2


def peer(student: Tensor, target: Tensor, *, temperature: float, reduce: Literal["mean", "sum"]) -> Tensor:
    """T^2 KL(peer || student) with each of `target` `[rows, peers, classes]`, per row `[rows]`.

    The mean over peers is the 1 / (K - 1) of deep mutual learning (Zhang et al., 2018); the authors' code has the
    sum. With one target it is the distillation loss of KDCL (Guo et al., 2020) and ONE (Lan et al., 2018).
    """
    return over_peers(soft, student, target, reduce=reduce, temperature=temperature)


READY: dict[LossName, tuple[Callable[..., Tensor], Loss]] = {"soft": (softened, soft_of_softened)}
LOSSES: dict[LossName, Loss] = {
    "hard": hard,
    "soft": soft,
    "teacher_label": teacher_label,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "logit_mse": logit_mse,
    "dkd": dkd,
    "dist": dist,
    "logit_standardized": logit_standardized,
    "label_smoothing_teacher": label_smoothing_teacher,
    "lfme": lfme,
    "ps_kd": ps_kd,
    "mean_teacher": soft,
    "peer": peer,
}
