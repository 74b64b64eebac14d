"""An objective at work: a weighted sum of terms, each (global sum) / (global count) over its rows.

Knows nothing of stores, optimisers or ranks beyond a sum over them.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from teachers.config.task import ANSWER_OF, TaskName
from teachers.errors import RecipeError
from teachers.process.variables import resolved
from teachers.users_code.calls import calling
from teachers.users_code.imports import load

from ..config.cohort_terms import ChannelTerm, CohortTerm, FeatureTerm, PeerTerm
from ..config.task_terms import KEYWORDS
from ..config.terms import HardTerm, ImportedTerm, Ramp, Term
from ..runs.session import Session
from .losses.table import LOSSES, Loss
from .targets import Asked, Batch


@dataclass(frozen=True)
class Heard:
    """What a member of a cohort hears from its peers about some rows."""

    peer: Tensor | None = None
    """What they say `[rows, peers, width]`; None: nobody speaks yet."""
    maps: Sequence[tuple[Tensor, Tensor]] = ()
    """Its own projected stage maps, each with a peer's, `[rows, ...]`."""
    hints: Mapping[str, "Pairs"] = field(default_factory=dict)
    """Of a student, by the term's name: what its projections make of its layers, each with a teacher's."""


Pairs = Sequence[tuple[Tensor, Tensor]]
"""What a hint's loss compares, `[rows, ...]`, for each of its outputs."""


NOTHING = Heard()


@dataclass(frozen=True)
class TermAtWork:
    """One term; `ask` gives what the student is compared with and the weight of each row."""

    name: str
    key: str
    """Of the recipe."""
    loss_name: str
    loss: Loss
    weight: float
    ramp: Ramp | None
    ask: Callable[[Batch], Asked]
    hears: Literal["targets", "peer", "maps", "hint"]
    during: tuple[float, float] = (0.0, 1.0)
    """Between which shares of all steps it weighs anything."""

    def weight_at(self, step: int, steps: int) -> float:
        """At step `step`, counted from 0, of `steps`."""
        if not round(self.during[0] * steps) <= step < round(self.during[1] * steps):
            return 0.0
        if self.ramp is None:
            return self.weight
        risen = step / (self.ramp.steps or max(1, round((self.ramp.share or 0) * steps)))
        if risen >= 1:
            return self.weight
        return self.weight * (risen if self.ramp.shape == "linear" else math.exp(-5 * (1 - risen) ** 2))


def curve_names(losses: Sequence[str]) -> list[str]:
    """Of terms, by their losses: the second `soft` is `soft_2`; of a function of the user's its name."""
    seen: Counter[str] = Counter()
    names = []
    for loss in losses:
        name = loss.rpartition(":")[2]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def labels_of(batch: Batch) -> Asked:
    return batch["label"], batch.get("has_label")


def every_row(batch: Batch) -> Asked:
    """Of a term that hears no stored targets and takes all rows."""
    return batch["label"], None


def bound_loss(
    task: TaskName, term: Term | CohortTerm, class_weights: Tensor | None = None, *, over_known: bool = False
) -> Loss:
    """The term's function of (student, target). `over_known`: there may be classes that nobody knows, NaN in the target."""
    if isinstance(term, ImportedTerm):
        return partial(load(term.loss), temperature=term.temperature, **resolved(term.arguments))
    given: dict[str, Any] = {name: getattr(term, name) for name in KEYWORDS[task][term.loss]}
    loss = partial(LOSSES[task][term.loss], **{name: value for name, value in given.items() if value is not None})
    if over_known and ANSWER_OF[task] == "class_axis":
        return partial(compared_over_known, loss)
    return loss if class_weights is None or not isinstance(term, HardTerm) else WeightedHard(loss, class_weights)


RULED_OUT = -1e30
"""A logit, of either side, in a class that is not compared: its exponential is 0 at any temperature, and it is finite."""


def compared_over_known(loss: Loss, student: Tensor, target: Tensor) -> Tensor:
    """`loss` of one class of many over the classes that somebody knows in the row: both sides' softmax is of those alone, and
    the gradient of the student's other logits is 0. What nobody teaches is not unlearned.
    """
    unknown = target.isnan()
    return loss(student.masked_fill(unknown, RULED_OUT), target.masked_fill(unknown, RULED_OUT))


class WeightedHard:
    """`hard` with class weights, which are brought once to where the logits are."""

    def __init__(self, loss: Loss, class_weights: Tensor) -> None:
        self.loss, self.class_weights = loss, class_weights

    def __call__(self, student: Tensor, target: Tensor) -> Tensor:
        self.class_weights = self.class_weights.to(student)
        return self.loss(student, target, class_weights=self.class_weights)

    def count(self, labels: Tensor, weight: Tensor | None) -> Tensor:
        """The sum of the weights of the labels' classes, over the rows that take part.

        Of several classes a row, `[rows, classes]`, rows count alike.
        """
        self.class_weights = self.class_weights.to(labels.device)
        of_rows = self.class_weights[labels] if labels.ndim == 1 else self.class_weights.new_ones(len(labels))
        return of_rows.sum() if weight is None else torch.where(weight > 0, of_rows, 0.0).sum()


class Objective:
    """The terms of one run. `names` are those of its curves; `class_weights` f32 `[classes]`: of its `hard` terms;
    `over_known`: of which terms the target may have gaps, by default none; `counts`: by term, what rules found that each teacher counts."""

    def __init__(
        self,
        task: TaskName,
        terms: Sequence[Term | CohortTerm],
        asks: Sequence[Callable[[Batch], Asked]],
        class_weights: Tensor | None = None,
        over_known: Sequence[bool] | None = None,
        counts: Sequence[Mapping[str, float]] = (),
    ) -> None:
        gaps = over_known or [False] * len(terms)
        names = curve_names([term.loss for term in terms])
        self.terms: list[TermAtWork] = []
        for number, (term, ask, name) in enumerate(zip(terms, asks, names, strict=True)):
            key = f"objective.{number}.loss"
            loss, hears = bound_loss(task, term, class_weights, over_known=gaps[number]), hears_what(term)
            self.terms.append(TermAtWork(name, key, term.loss, loss, term.weight, term.ramp, ask, hears))
        self.names = tuple(term.name for term in self.terms)
        self.trusted = {
            f"weight.{name}.{teacher}": share
            for name, of_term in zip(self.names, counts, strict=False)
            for teacher, share in of_term.items()
        }
        """For the curves: what teachers count, where labelled validation rows decided it."""
        self.constants: dict[tuple[float, ...], Tensor] = {}

    def add_hints(self, hints: Sequence[TermAtWork], first_stage: float) -> None:
        """Further terms, of a student; all others weigh nothing in the `first_stage`, a share of the steps."""
        own = [replace(term, during=(first_stage, 1.0)) for term in self.terms] if first_stage else self.terms
        self.terms = [*own, *hints]
        self.names = tuple(term.name for term in self.terms)

    def ask(self, batch: Batch) -> list[Asked]:
        """What each term compares the student with, for this rank's rows of a step."""
        return [term.ask(batch) for term in self.terms]

    def counts(self, asked: Sequence[Asked], batch_size: int, session: Session) -> Tensor:
        """Rows of the global batch that take part in each term, with the weights of their classes where it has some;
        f32 `[terms]`, 1 where there are none."""
        weighted = [term.loss if isinstance(term.loss, WeightedHard) else None for term in self.terms]
        if not any(weighted) and all(weight is None for _, weight in asked):
            return self._constant((float(batch_size),) * len(asked), session.device)
        rows = torch.tensor(batch_size / session.world, device=session.device)
        here = [
            loss.count(target, weight) if loss is not None else rows if weight is None else (weight > 0).sum()
            for loss, (target, weight) in zip(weighted, asked, strict=True)
        ]
        counts = session.all_reduce_sum(torch.stack([count.float() for count in here]))
        return counts.where(counts > 0, 1.0)

    def sums(self, student: Tensor, asked: Sequence[Asked], heard: Heard = NOTHING) -> Tensor:
        """The sum of each term, unweighted, over the given rows: `[terms]`."""
        values = [
            row_sum(term, student, target, weight, heard)
            for term, (target, weight) in zip(self.terms, asked, strict=True)
        ]
        return torch.stack(values)

    def weights(self, step: int, steps: int) -> tuple[float, ...]:
        return tuple(term.weight_at(step, steps) for term in self.terms)

    def weights_on(self, device: torch.device, step: int, steps: int) -> Tensor:
        return self._constant(self.weights(step, steps), device)

    def _constant(self, values: tuple[float, ...], device: torch.device) -> Tensor:
        """`values` on the device, from the last time where they are the same: a tiny network feels every copy."""
        if values not in self.constants:
            self.constants = dict(list(self.constants.items())[-1:]) | {values: torch.tensor(values, device=device)}
        return self.constants[values]


def hears_what(term: Term | CohortTerm) -> Literal["targets", "peer", "maps"]:
    if isinstance(term, PeerTerm):
        return "peer"
    return "maps" if isinstance(term, FeatureTerm | ChannelTerm) else "targets"


def row_sum(term: TermAtWork, student: Tensor, target: Tensor, weight: Tensor | None, heard: Heard = NOTHING) -> Tensor:
    """The weighted sum of a term's values over the given rows."""
    if term.hears == "hint":
        return sum_of_hint(term, heard.hints[term.name])
    if term.hears == "maps" or (term.hears == "peer" and heard.peer is None):
        return sum_of_maps(term, heard.maps) if heard.maps else (student * 0).sum()
    with calling(term.key, term.loss_name):
        value = term.loss(student, heard.peer if term.hears == "peer" else target)
    if value.shape != student.shape[:1]:
        raise RecipeError(
            f"loss {term.name!r} returned {list(value.shape)} for {len(student)} rows, expected one value per row; "
            f"leave the mean to the engine"
        )
    return value.sum() if weight is None else torch.where(weight > 0, value * weight, 0.0).sum()


def sum_of_maps(term: TermAtWork, maps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """`feature` is the mean over layers and peers, `channel` the sum over layers, as their papers have it."""
    total = torch.stack([term.loss(own, theirs).sum() for own, theirs in maps]).sum()
    return total / len(maps) if term.loss_name == "feature" else total


def sum_of_hint(term: TermAtWork, pairs: Pairs) -> Tensor:
    """The sum over its outputs, in float32 or more."""
    values = []
    for own, theirs in pairs:
        precise = own.to(torch.promote_types(own.dtype, torch.float32))
        values.append(term.loss(precise, theirs.to(precise.dtype)).sum())
    return torch.stack(values).sum()


def slices(asked: Sequence[Asked], part: slice) -> list[Asked]:
    """`asked` of some rows of the batch."""
    return [(target[part], None if weight is None else weight[part]) for target, weight in asked]
