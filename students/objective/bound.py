"""The loss of a term as a function of (student, target): which one it is, and what it is told. Knows nothing of batches."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from teachers.config.task import ANSWER_OF, TaskName
from teachers.process.variables import resolved
from teachers.users_code.imports import load

from ..config.cohort_terms import CohortTerm
from ..config.own_terms import PsKdTerm
from ..config.task_terms import KEYWORDS
from ..config.terms import HardTerm, ImportedTerm, Term
from .losses.known import compared_over_known
from .losses.loss import Loss
from .losses.table import LOSSES, READY
from .targets import Asked


def bound_loss(
    task: TaskName,
    term: Term | CohortTerm,
    class_weights: Tensor | None = None,
    *,
    over_known: bool = False,
    scale: Tensor | None = None,
    ready: bool = False,
) -> Loss:
    """The term's function of (student, target). `over_known`: there may be classes that nobody knows, NaN in the target.
    `scale` f32 `[width]`: what a difference in each class is divided by. `ready`: of targets that `READY` has prepared."""
    if isinstance(term, ImportedTerm):
        return partial(load(term.loss), temperature=term.temperature, **resolved(term.arguments))
    function = READY[task][term.loss][1] if ready else LOSSES[task][term.loss]
    loss: Loss = partial(function, **keywords_of(task, term))
    loss = loss if scale is None else Scaled(loss, scale)
    if over_known and ANSWER_OF[task] == "class_axis":
        return partial(compared_over_known, loss)
    if class_weights is None or not isinstance(term, HardTerm | PsKdTerm):
        return loss
    return WeightedHard(loss, class_weights)


def keywords_of(task: TaskName, term: Term | CohortTerm) -> dict[str, Any]:
    """What a loss of ours is told of its term."""
    given = {name: getattr(term, name) for name in KEYWORDS[task][term.loss]}  # type: ignore[index]
    return {name: value for name, value in given.items() if value is not None}


class Scaled:
    """A loss that divides by the spread of each class, which is brought once to where the logits are."""

    def __init__(self, loss: Loss, scale: Tensor) -> None:
        self.loss, self.scale = loss, scale

    def __call__(self, student: Tensor, target: Tensor, **told: Tensor) -> Tensor:
        self.scale = self.scale.to(student)
        return self.loss(student, target, scale=self.scale, **told)


class WeightedHard:
    """`hard`, or `ps_kd` in its place, with class weights, which are brought once to where the logits are."""

    def __init__(self, loss: Loss, class_weights: Tensor) -> None:
        self.loss, self.class_weights = loss, class_weights

    def __call__(self, student: Tensor, target: Tensor, **told: Tensor) -> Tensor:
        self.class_weights = self.class_weights.to(student)
        return self.loss(student, target, class_weights=self.class_weights, **told)

    def count(self, asked: Asked) -> Tensor:
        """The sum of the weights of the labels' classes, over the rows that take part.

        Of several classes a row, `[rows, classes]`, rows count alike.
        """
        of_rows = self._of(asked.target if asked.labels is None else asked.labels)
        if asked.own is not None and asked.other is not None:
            of_rows = asked.own * of_rows + (1 - asked.own) * self._of(asked.other)
        return of_rows.sum() if asked.weight is None else torch.where(asked.weight > 0, of_rows, 0.0).sum()

    def _of(self, labels: Tensor) -> Tensor:
        self.class_weights = self.class_weights.to(labels.device)
        return self.class_weights[labels] if labels.ndim == 1 else self.class_weights.new_ones(len(labels))
