"""What several networks say as one: by what is said, functions of `[networks, rows, width]` to `[rows, width]`."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from teachers.config.task import AnswerName
from teachers.models.heads import MEANS
from teachers.soft_targets.combine.rules import COMBINE


def boxes(said: Tensor) -> Tensor:
    """The weighted fusion of the boxes of each row."""
    known = ~said.isnan()
    target, weights = COMBINE["boxes"]["wbf"](said.masked_fill(~known, 0.0), temperature=1.0, known=known)
    return target.masked_fill((weights.sum(0) == 0)[:, None], math.nan)


def _alike(mean: Callable[[Tensor, Tensor | None], Tensor], said: Tensor) -> Tensor:
    return mean(said, None)


TOGETHER: dict[AnswerName, Callable[[Tensor], Tensor]] = {
    **{answer: partial(_alike, mean) for answer, mean in MEANS.items()},
    "boxes": boxes,
}
"""The log of their mean probability, of each class its logit, the mean of numbers, or boxes fused; every network counts alike."""


class Ensemble(nn.Module):
    """Several networks as one, which says what they say together."""

    def __init__(self, members: Sequence[nn.Module], answer: AnswerName) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.together = TOGETHER[answer]

    def forward(self, inputs: Any) -> Tensor:
        return self.together(torch.stack([member(inputs) for member in self.members]))
