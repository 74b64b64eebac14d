"""What each teacher says of rows of which class, on labelled validation rows: what `combine: confusion` is told."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.confusion import confusion
from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from .merits import heard_alone

ROWS = 3.0
"""Of each class, that speak for what is expected before any is looked at; of 3, 10 and 30 that with the least negative log-likelihood
of the labelled validation rows of `recipes/languages.yaml`, each left out in turn (0.396, 0.410, 0.443)."""


PARTS = 5
"""In which labelled rows are left out in turn."""


def confusions(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    """`says` f32 `[K, C, C]` and `frequency` f32 `[C]`; with `silence` also `silent` f32 `[K, C]`; and `told`, as `which_are_told` says.

    Raises RecipeError without a labelled validation row.
    """
    heard = [heard_alone(source, transfer_set) for source in sources]
    said, labels = torch.stack([each for each, _ in heard]), heard[0][1].long()
    if not len(labels):
        raise RecipeError(
            "confusion counts on labelled validation rows what a teacher says of rows of which class, and there are none; take "
            "`mean_logits`, or give `split.validation` labelled rows"
        )
    return counted(said, labels, options.silence) | {"told": which_are_told(said, labels, options.silence)}


def counted(said: Tensor, labels: Tensor, silence: bool) -> dict[str, Tensor]:
    """What the rule is told by the rows of which teachers say f32 `[K, N, C]`, NaN where they do not know."""
    classes = said.shape[-1]
    silent = {"silent": torch.stack([how_silent(each, labels) for each in said])} if silence else {}
    return {
        "says": torch.stack([what_it_says(each, labels) for each in said]),
        "frequency": (torch.bincount(labels, minlength=classes) + 1.0) / (len(labels) + classes),
        **silent,
    }


def which_are_told(said: Tensor, labels: Tensor, silence: bool) -> Tensor:
    """bool `[C]`: classes that some teacher knows, and others of whose labelled rows at least half are called so by what the other
    rows tell. Of the rest the teachers' answers tell too little to be taught: a student would unlearn what labels say of it."""
    known, classes = ~said.isnan(), said.shape[-1]
    if bool((somebody := known.any(0).any(0)).all()):
        return somebody
    part = torch.arange(len(labels)) % PARTS
    right = torch.zeros(classes)
    for left_out in range(PARTS):
        mine = part == left_out
        given = counted(said[:, ~mine], labels[~mine], silence)
        target, weights = confusion(said[:, mine].nan_to_num(), temperature=1.0, known=known[:, mine], **given)
        named = (target.argmax(-1) == labels[mine]) & (weights > 0).any(0)
        right.index_add_(0, labels[mine], named.float())
    rows = torch.bincount(labels, minlength=classes)
    return somebody | ((rows > 0) & (2 * right >= rows))


def how_silent(said: Tensor, labels: Tensor) -> Tensor:
    """p(nothing is said | class) f32 `[C]` of scores `[N, C]`, NaN in what a teacher does not know: ROWS rows of each class are as
    expected over all classes."""
    silent = said.isnan().all(1).double()
    counts = torch.bincount(labels, minlength=said.shape[1]).double()
    overall = (silent.sum() + 1) / (len(labels) + 2)
    found = torch.zeros(said.shape[1], dtype=torch.float64).index_add_(0, labels, silent)
    return ((found + ROWS * overall) / (counts + ROWS)).float()


def what_it_says(said: Tensor, labels: Tensor) -> Tensor:
    """p(said | class) f32 `[C, C]`, rows by the class, of scores `[N, C]` with NaN in what a teacher does not know and labels i64 `[N]`.

    ROWS rows of each class are expected to be said so: one that it knows as often rightly as all that it knows, of one that it does
    not know anything that it may say.
    """
    classes, known = said.shape[1], ~said.isnan()
    heard, knows = known.any(1), known.any(0).double()
    p = said.masked_fill(~known, -torch.inf).double().softmax(-1).masked_fill(~heard[:, None], 0.0)
    can_say = known.gather(1, labels[:, None])[:, 0]
    right = p.gather(1, labels[:, None])[can_say, 0].sum()
    how_right = (right + 1) / (can_say.sum() + 2)
    itself = torch.eye(classes, dtype=torch.float64)
    others = (knows - itself).clamp_min(0.0) * knows
    rightly = how_right * itself + (1 - how_right) * others / others.sum(1, keepdim=True).clamp_min(1)
    expected = torch.where(knows[:, None] > 0, rightly, knows / knows.sum().clamp_min(1))
    counts = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, labels, p)
    return ((counts + ROWS * expected) / (counts.sum(1, keepdim=True) + ROWS)).float()
