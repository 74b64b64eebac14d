"""Losses of numbers: a distance between standardised ones, the mean over those of a row whose target is known (not NaN)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...config.distance import DistanceName
from ...config.terms import LossName
from .loss import Loss
from .peers import over_peers


def mse(student: Tensor, target: Tensor, delta: float, quantile: float) -> Tensor:
    return F.mse_loss(student, target, reduction="none")


def huber(student: Tensor, target: Tensor, delta: float, quantile: float) -> Tensor:
    """Half the square up to `delta`, linear beyond (Huber, 1964)."""
    return F.huber_loss(student, target, reduction="none", delta=delta)


def pinball(student: Tensor, target: Tensor, delta: float, quantile: float) -> Tensor:
    """Least where a share `quantile` of targets lies below what the student says (Koenker and Bassett, 1978)."""
    short = target - student
    return torch.maximum(quantile * short, (quantile - 1) * short)


DISTANCES: dict[DistanceName, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "mse": mse,
    "huber": huber,
    "quantile": pinball,
}
"""Of each number, as the target has it."""


def hard(
    student: Tensor, target: Tensor, *, distance: DistanceName = "mse", delta: float = 1.0, quantile: float = 0.5
) -> Tensor:
    """The distance from what `target` `[rows, numbers]` says, labels or NaN, per row `[rows]`; 0 where all is unknown."""
    known = ~target.isnan()
    each = DISTANCES[distance](student, torch.where(known, target, 0.0), delta, quantile)
    return torch.where(known, each, 0.0).sum(-1) / known.sum(-1).clamp_min(1)


soft = hard
"""From what teachers say of the same numbers."""


def peer(
    student: Tensor,
    target: Tensor,
    *,
    reduce: Literal["mean", "sum"],
    distance: DistanceName = "mse",
    delta: float = 1.0,
    quantile: float = 0.5,
) -> Tensor:
    """`soft` with each of `target` `[rows, peers, numbers]`, the mean over peers or their sum, per row `[rows]`."""
    return over_peers(soft, student, target, reduce=reduce, distance=distance, delta=delta, quantile=quantile)


LOSSES: dict[LossName, Loss] = {"hard": hard, "soft": soft, "mean_teacher": soft, "peer": peer}
