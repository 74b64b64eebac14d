"""Experts that are each heard by a weight that follows the student (LFME): measured again at every look at validation.

Knows nothing of how a network is looked at, nor of losses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .combination import Combination
from .late import Late, Moment
from .merits import as_answer, heard_alone
from .targets import Asked
from .units import Units

WEIGHT = "weight"
"""Of a term's state: f32 `[K]`, what each expert counts until the next look."""
Recalls = Sequence[float | None]
"""Of each class, the share of its labelled validation rows that are said to be of it; None: it has no such row."""


class CountsByClass(Protocol):
    """What a look has counted."""

    def recalls(self) -> Recalls: ...


def over_classes(recalls: Recalls, mine: Sequence[bool]) -> float | None:
    """Accuracy in some classes: the mean of their recalls, so that a rare class counts as much as a frequent one."""
    found = [recall for recall, is_mine in zip(recalls, mine, strict=True) if is_mine and recall is not None]
    return sum(found) / len(found) if found else None


def pace_weight(student: float, expert: float, pace: float) -> float:
    """1 while the student's accuracy is at most `pace` of its expert's, else the share of what it still lacks from there, 0 where
    it lacks nothing: (expert - student) / (expert (1 - pace)) in [0, 1] (Xiang et al., 2020)."""
    if student >= expert:
        return 0.0
    return min(1.0, (expert - student) / (expert * (1 - pace)))


@dataclass(frozen=True)
class Pacing:
    """What experts are worth in their classes, and when the student has caught up with them."""

    names: tuple[str, ...]
    classes: tuple[tuple[bool, ...], ...]
    """By expert, which classes are its own."""
    skills: tuple[float, ...]
    """Of each in its classes."""
    pace: float

    def weights(self, recalls: Recalls) -> list[float]:
        """Of each expert, from the student's recalls; in the same classes of the same rows, among all that it tells apart."""
        found = []
        for mine, expert in zip(self.classes, self.skills, strict=True):
            student = over_classes(recalls, mine)
            assert student is not None  # the expert's accuracy is of the same rows
            found.append(pace_weight(student, expert, self.pace))
        return found


def pacing_of(sources: Sequence[Source], transfer_set: TransferSet, pace: float) -> Pacing:
    """Raises RecipeError for experts that share a class, for a class that none knows, and where one has no labelled validation row
    of its classes to be judged by."""
    task, names = transfer_set.space, transfer_set.space.names
    classes, skills = [], []
    for source in sources:
        said, labels = heard_alone(source, transfer_set)
        if not len(labels):
            raise RecipeError(
                "lfme paces experts by labelled validation rows, and there are none; give `split.validation` labelled rows, or let "
                "the experts be heard by `loss: soft`"
            )
        mine = (~said.isnan()).any(0).tolist()
        counts = _recalls(as_answer(said, task), labels.long(), len(names))
        skill = over_classes(counts, mine)
        if skill is None:
            own = [name for name, is_mine in zip(names, mine, strict=True) if is_mine]
            raise RecipeError(
                f"lfme paces expert {source.name!r} by labelled validation rows of {', '.join(own[:10]) or 'its classes'}, and there "
                f"are none; give some (`split.stratify: true`), or leave the expert out"
            )
        classes.append(tuple(mine))
        skills.append(skill)
    check_divided([source.name for source in sources], classes, names)
    return Pacing(tuple(source.name for source in sources), tuple(classes), tuple(skills), pace)


def check_divided(experts: Sequence[str], classes: Sequence[Sequence[bool]], names: Sequence[str]) -> None:
    """Raise RecipeError unless each of the classes `names` is exactly one expert's; `classes`: by expert, which are its own."""
    for place, name in enumerate(names):
        knowing = [expert for expert, mine in zip(experts, classes, strict=True) if mine[place]]
        if len(knowing) > 1:
            raise RecipeError(
                f"lfme hears each expert in its own classes, and {' and '.join(knowing)} share {name!r}; give it to one of them "
                f"(`classes`, or null in `class_map`)"
            )
        if not knowing:
            raise RecipeError(
                f"lfme: no expert among {', '.join(experts)} knows the class {name!r}; add it to the `classes` of one of them"
            )


def _recalls(answers: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    right = (answers.nan_to_num(nan=-torch.inf).argmax(-1) == labels) & ~answers.isnan().all(-1)
    hits = torch.bincount(labels[right], minlength=classes).tolist()
    return [
        hit / rows if rows else None
        for hit, rows in zip(hits, torch.bincount(labels, minlength=classes).tolist(), strict=True)
    ]


class SelfPaced(Late):
    """Each expert beside the student in its own classes, by its weight: 1 until the first look at validation.

    The weights are in the state of the term, so that a resumed run goes on with those of its last look.
    """

    def __init__(self, combination: Combination, units: Units, gapless: bool, pacing: Pacing) -> None:
        super().__init__(combination, units, gapless)
        self.pacing, self.per_teacher = pacing, True

    def decided(self, asked: Asked, student: Tensor, term: str, moment: Moment) -> Asked:
        said = asked.target
        state = moment.states.setdefault(term, {WEIGHT: torch.ones(said.shape[1], device=said.device)})
        weights = state[WEIGHT].to(said.dtype) * (~said.isnan()).any(-1)
        self._count(term, weights.T, moment)
        return Asked(said.masked_fill(said.isnan().all(-1, keepdim=True), 0.0), weights)

    def saw(self, counts: CountsByClass, term: str, moment: Moment, device: torch.device) -> dict[str, float]:
        """Pace the experts by a look at validation; every rank calls it alike. Returns what each counts from now on."""
        found = self.pacing.weights(counts.recalls())
        moment.states[term] = {WEIGHT: torch.tensor(found, device=device)}
        return {f"pace.{name}": weight for name, weight in zip(self.pacing.names, found, strict=True)}


class HasLate(Protocol):
    """A term of an objective."""

    @property
    def name(self) -> str: ...
    @property
    def late(self) -> Late | None: ...


def paced(terms: Iterable[HasLate], counts: Any, moment: Moment, device: torch.device) -> dict[str, float]:
    """Tell terms whose experts follow the student what a look at validation has counted; for the curves, what each counts now."""
    found: dict[str, float] = {}
    for term in terms:
        if isinstance(term.late, SelfPaced):
            found |= term.late.saw(counts, term.name, moment, device)
    return found
