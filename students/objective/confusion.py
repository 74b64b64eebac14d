"""How often each teacher's answer was which class, on labelled validation rows: what `combine: confusion` is told."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from .merits import heard_alone

ROWS = 10.0
"""Of each class, that speak for what is expected before any is looked at."""


def posteriors(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    """`posteriors` f32 `[K, C, C]`. Raises RecipeError without a labelled validation row."""
    found = []
    for source in sources:
        said, labels = heard_alone(source, transfer_set)
        if not len(labels):
            raise RecipeError(
                "confusion counts on labelled validation rows which class it was when a teacher said which, and there are none; "
                "take `mean_logits`, or give `split.validation` labelled rows"
            )
        found.append(of_teacher(said, labels.long()))
    return {"posteriors": torch.stack(found)}


def of_teacher(said: Tensor, labels: Tensor) -> Tensor:
    """p(class | said) f32 `[C, C]`, rows by what is said, of scores `[N, C]` with NaN in what it does not know, and labels i64 `[N]`.

    What it says where the class is y has the prior Dirichlet(ROWS * e_y): e_y is, of a class that it knows, what it says when it is as
    often right as over all that it knows, of another one that it may say anything. The classes themselves are as frequent as the
    rows, with a row of each more.
    """
    known = ~said.isnan()
    heard = known.any(1)
    p = said.masked_fill(~known, -torch.inf)[heard].double().softmax(-1)
    own, classes = torch.nn.functional.one_hot(labels, said.shape[1]).double(), said.shape[1]
    knows = known.any(0).double()
    can_say = heard & known.gather(1, labels[:, None])[:, 0]
    right = p[can_say[heard]].gather(1, labels[can_say, None]).sum() if can_say.any() else torch.zeros(())
    accuracy = float((right + 1) / (int(can_say.sum()) + 2))
    anything = knows / knows.sum().clamp_min(1)
    expected = anything.expand(classes, -1).clone()
    others = (knows[None] - torch.eye(classes).double()).clamp_min(0) * knows
    others = others / others.sum(1, keepdim=True).clamp_min(1)
    mine = accuracy * torch.eye(classes).double() + (1 - accuracy) * others
    expected[knows > 0] = mine[knows > 0]
    counts = own[heard].T @ p
    says = (counts + ROWS * expected) / (counts.sum(1, keepdim=True) + ROWS)
    frequency = (own.sum(0) + 1) / (len(labels) + classes)
    joint = frequency[:, None] * says
    found = (joint / joint.sum(0).clamp_min(1e-12)).T
    return torch.where((joint.sum(0) > 0)[:, None], found, frequency[None]).float()
