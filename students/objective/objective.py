"""An objective at work: a weighted sum of terms, each (global sum) / (global count) over its rows.

Knows nothing of stores, optimisers or ranks beyond a sum over them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from teachers.config.task import TaskName
from teachers.errors import RecipeError
from teachers.users_code.calls import calling

from ..config.cohort_terms import ChannelTerm, CohortTerm, FeatureTerm, PeerTerm
from ..config.terms import Ramp, Term
from ..runs.session import Session
from .bound import WeightedHard, bound_loss
from .curve_names import curve_names
from .late import Late, Moment, shares_of
from .layers import Pairs, sum_of_hint, sum_of_maps
from .losses.loss import Loss
from .losses.table import COMPARE_ROWS
from .mixed import sum_of_pairs
from .targets import Ask, Asked, Batch


@dataclass(frozen=True)
class Heard:
    """What a member of a cohort hears from its peers about some rows."""

    peer: Tensor | None = None
    """What they say `[rows, peers, width]`; None: nobody speaks yet."""
    maps: Sequence[tuple[Tensor, Tensor]] = ()
    """Its own projected stage maps, each with a peer's, `[rows, ...]`."""
    hints: Mapping[str, Pairs] = field(default_factory=dict)
    """Of a student, by the term's name: what its projections make of its layers, each with a teacher's."""
    hint_weights: Mapping[str, Tensor] = field(default_factory=dict)
    """By the same, what each row counts `[rows]`, of hints that are weighed against each other; of others all count alike."""
    heads: Tensor | None = None
    """Of a student with a head for each teacher, what each says `[heads, rows, width]`; None: it has one."""


NOTHING = Heard()
WHOLE = (0.0, 1.0)
"""Of all steps."""


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
    ask: Ask
    hears: Literal["targets", "peer", "maps", "hint"]
    late: Late | None = None
    """Then `ask` gives what each teacher says, and what they come to is decided when the student has spoken."""
    during: tuple[float, float] = WHOLE
    """Between which shares of all steps it weighs anything."""

    def weight_at(self, step: int, steps: int) -> float:
        """At step `step`, counted from 0, of `steps`."""
        if self.ramp is None and self.during == WHOLE:
            return self.weight
        start, end = (round(share * steps) for share in self.during)
        if not start <= step < end:
            return 0.0
        if self.ramp is None:
            return self.weight
        risen = (step - start) / (self.ramp.steps or max(1, round((self.ramp.share or 0) * steps)))
        if risen >= 1:
            return self.weight
        return self.weight * (risen if self.ramp.shape == "linear" else math.exp(-5 * (1 - risen) ** 2))

    def values(self, student: Tensor, target: Tensor, weight: Tensor | None, labels: Tensor | None) -> Tensor:
        """Of each row `[rows]`, unweighted. The loss is told what it takes beside the two sides. Raises RecipeError for another shape."""
        told = {} if labels is None else {"labels": labels}
        if weight is not None and self.loss_name in COMPARE_ROWS:
            told["weight"] = weight
        with calling(self.key, self.loss_name):
            value = self.loss(student, target, **told)
        if value.shape != student.shape[:1]:
            raise RecipeError(
                f"loss {self.name!r} returned {list(value.shape)} for {len(student)} rows, expected one value per row; "
                f"leave the mean to the engine"
            )
        return value


class Objective:
    """The terms of one run. `names` are those of its curves; `class_weights` f32 `[classes]`: of its `hard` and `ps_kd` terms;
    `over_known`: of which terms the target may have gaps, by default none; `counts`: by term, what rules found that each teacher
    counts; `scales`: by term, what it divides differences by, where it does."""

    def __init__(
        self,
        task: TaskName,
        terms: Sequence[Term | CohortTerm],
        asks: Sequence[Ask],
        class_weights: Tensor | None = None,
        over_known: Sequence[bool] | None = None,
        counts: Sequence[Mapping[str, float]] = (),
        scales: Sequence[Tensor | None] = (),
        late: Sequence[Late | None] = (),
        ready: Sequence[bool] = (),
    ) -> None:
        no, none = [False] * len(terms), [None] * len(terms)
        gaps, prepared, spreads, later = over_known or no, ready or no, scales or none, late or none
        names = curve_names([term.loss for term in terms])
        self.terms: list[TermAtWork] = []
        for number, (term, ask, name, at_last) in enumerate(zip(terms, asks, names, later, strict=True)):
            key = f"objective.{number}.loss"
            known, scale = gaps[number], spreads[number]
            loss = bound_loss(task, term, class_weights, over_known=known, scale=scale, ready=prepared[number])
            about = name, key, term.loss, loss, term.weight, term.ramp, ask, hears_what(term)
            self.terms.append(TermAtWork(*about, at_last))
        self.names = tuple(term.name for term in self.terms)
        self.by_class = [term.loss if isinstance(term.loss, WeightedHard) else None for term in self.terms]
        """Of each term what weighs classes, where something does."""
        self.trusted = {
            f"weight.{name}.{teacher}": share
            for name, of_term in zip(self.names, counts, strict=False)
            for teacher, share in of_term.items()
        }
        """For the curves: what teachers count, where a rule found it before the first step."""
        self.taught_late = {term.name: term.late.combination for term in self.terms if term.late is not None}
        self.constants: dict[tuple[float, ...], Tensor] = {}
        self.pairs: Sequence[bool] = ()
        """Where rows are mixed two by two: of each term, whether its targets are of whole rows."""
        self.seen: frozenset[str] = frozenset()
        """Terms whose targets do not move as rows are augmented: they are of the augmented rows, or are none."""

    def add_hints(self, hints: Sequence[TermAtWork], first_stage: float) -> None:
        """Further terms, of a student; all others weigh nothing in the `first_stage`, a share of the steps."""
        own = [replace(term, during=(first_stage, 1.0)) for term in self.terms] if first_stage else self.terms
        self.terms, self.by_class = [*own, *hints], self.by_class + [None] * len(hints)
        self.names = tuple(term.name for term in self.terms)
        self.seen |= {term.name for term in hints}

    def ask(self, batch: Batch, moment: Moment | None = None) -> list[Asked]:
        """What each term compares the student with, for this rank's rows of a step; `moment`: of terms that are decided late."""
        asked = [term.ask(batch) for term in self.terms]
        if moment is None or not self.taught_late:
            return asked
        return [
            each if term.late is None else term.late.without_dropped(each, moment)
            for term, each in zip(self.terms, asked, strict=True)
        ]

    def counts(self, asked: Sequence[Asked], batch_size: int, session: Session) -> Tensor:
        """Rows of the global batch that take part in each term, with the weights of their classes where it has some;
        f32 `[terms]`, 1 where there are none."""
        if not any(self.by_class) and all(each.weight is None for each in asked):
            return self._constant((float(batch_size),) * len(asked), session.device)
        rows = torch.tensor(batch_size / session.world, device=session.device)
        here = [
            loss.count(each) if loss is not None else rows if each.weight is None else (each.weight > 0).sum()
            for loss, each in zip(self.by_class, asked, strict=True)
        ]
        counts = session.all_reduce_sum(torch.stack([count.float() for count in here]))
        return counts.where(counts > 0, 1.0)

    def sums(
        self, student: Tensor, asked: Sequence[Asked], heard: Heard = NOTHING, moment: Moment | None = None
    ) -> Tensor:
        """The sum of each term, unweighted, over the given rows: `[terms]`."""
        values = []
        for term, each in zip(self.terms, asked, strict=True):
            if term.late is not None:
                if moment is None:  # of who asks for other terms
                    values.append((student * 0).sum())
                    continue
                each = term.late.decided(each, student, term.name, moment)
            values.append(row_sum(term, student, each, heard))
        return torch.stack(values)

    def shares(self, moment: Moment) -> dict[str, float]:
        """For the curves: what teachers have counted since the last point. Every rank calls it alike."""
        return self.trusted | shares_of(moment, self.taught_late)

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


def row_sum(term: TermAtWork, student: Tensor, asked: Asked, heard: Heard = NOTHING) -> Tensor:
    """The weighted sum of a term's values over the given rows."""
    if term.hears == "hint":
        return sum_of_hint(term.loss, heard.hints[term.name], heard.hint_weights.get(term.name))
    if term.hears == "maps" or (term.hears == "peer" and heard.peer is None):
        is_mean = term.loss_name == "feature"
        return sum_of_maps(term.loss, heard.maps, is_mean=is_mean) if heard.maps else (student * 0).sum()
    if term.late is not None and (term.late.per_teacher or heard.heads is not None):
        return sum_beside_each(term, student if heard.heads is None else heard.heads, asked)
    if asked.own is not None:
        return sum_of_pairs(partial(term.values, student), asked, asked.own)
    target, weight, labels = asked[:3]
    if term.hears == "peer" and heard.peer is not None:
        target = heard.peer
    value = term.values(student, target, weight, labels)
    return value.sum() if weight is None else torch.where(weight > 0, value * weight, 0.0).sum()


def sum_beside_each(term: TermAtWork, student: Tensor, asked: Asked) -> Tensor:
    """The same of a loss beside each teacher: targets `[rows, K, width]`, weights `[rows, K]`; `student`: `[rows, width]`, or what
    each of its heads says `[K, rows, width]`, a head beside its own teacher."""
    assert asked.weight is not None
    alone = replace(term, late=None)
    each = [Asked(asked.target[:, k], asked.weight[:, k], asked.labels) for k in range(asked.target.shape[1])]
    heads = student if student.ndim > 2 else [student] * len(each)
    return torch.stack([row_sum(alone, own, one) for own, one in zip(heads, each, strict=True)]).sum()
