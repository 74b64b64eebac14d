"""What several networks say as one: by what is said, functions of `[networks, rows, width]` to `[rows, width]`."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.soft_targets.combine.rules import COMBINE


def log_mean_probability(said: Tensor) -> Tensor:
    """The log of their mean probability."""
    return said.log_softmax(-1).logsumexp(0) - math.log(len(said))


def log_odds_of_mean_probability(said: Tensor) -> Tensor:
    """Of each class: the logit of their mean probability."""
    return F.logsigmoid(said).logsumexp(0) - F.logsigmoid(-said).logsumexp(0)


def mean(said: Tensor) -> Tensor:
    """Of each number, standardised or not."""
    return said.mean(0)


def boxes(said: Tensor) -> Tensor:
    """The weighted fusion of the boxes of each row."""
    known = ~said.isnan()
    target, weights = COMBINE["boxes"]["wbf"](said.masked_fill(~known, 0.0), temperature=1.0, known=known)
    return target.masked_fill((weights.sum(0) == 0)[:, None], math.nan)


TOGETHER: dict[AnswerName, Callable[[Tensor], Tensor]] = {
    "class_axis": log_mean_probability,
    "class_set": log_odds_of_mean_probability,
    "values": mean,
    "boxes": boxes,
}
