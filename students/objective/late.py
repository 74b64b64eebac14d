"""Combinations of which something is known in the step only: what the student says, who is left out, a loss beside each teacher.

Knows nothing of how batches come, nor of losses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import xxhash
from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.context import Context, initial_state

from .combination import Combination
from .targets import Asked
from .units import Units

Figures = Mapping[str, float | None]


@dataclass
class Moment:
    """Where a run is, for the rules that ask; its own, while an objective is shared by the seeds of a stage."""

    seed: int
    all_reduce: Callable[[Tensor], Tensor]
    step: int = 0
    has_heads: bool = False
    """Of a student with a head for each teacher: whether it is in its second phase."""
    student_figures: Figures = field(default_factory=dict)
    """Of its last look at validation."""
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By term: what a rule keeps."""
    shares: dict[str, Tensor] = field(default_factory=dict)
    """By term: the sum over rows of what each teacher counted since the last point of the curves, `[K]`, on this rank."""
    pointed: set[str] = field(default_factory=set)
    """Terms that have had a point of the curves."""

    def document(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {
            "student_figures": dict(self.student_figures),
            "states": self.states,
            "shares": self.shares,
            "pointed": sorted(self.pointed),
        }

    def go_to(self, document: Mapping[str, object]) -> None:
        self.student_figures = dict(document["student_figures"])  # type: ignore[call-overload]
        self.states = dict(document["states"])  # type: ignore[call-overload]
        self.shares = dict(document["shares"])  # type: ignore[call-overload]
        self.pointed = set(document["pointed"])  # type: ignore[call-overload]


def left_out(seed: int, step: int, key: str, teachers: int, number: int) -> list[int]:
    """Who is not heard in a step: `number` of so many, drawn without replacement, the same on every rank and in a resumed run."""
    draw = xxhash.xxh3_64_intdigest(f"{seed} {step} {key}".encode()) >> 1
    return torch.randperm(teachers, generator=torch.Generator().manual_seed(draw))[:number].tolist()


class Late:
    """One combination, decided when the student has spoken."""

    def __init__(
        self, combination: Combination, units: Units, gapless: bool, teacher_figures: tuple[Figures, ...] = ()
    ) -> None:
        self.combination, self.units, self.gapless, self.teacher_figures = combination, units, gapless, teacher_figures
        self.per_teacher = combination.options.level == "losses"
        self.unseen = True

    def without_dropped(self, asked: Asked, moment: Moment) -> Asked:
        """`asked` with NaN in all that those say who are left out of this step."""
        options, key = self.combination.options, self.combination.key
        if not options.drop:
            return asked
        silent = left_out(moment.seed, moment.step, key, len(self.combination.teachers), options.drop)
        said = asked.target.clone()
        said[:, silent] = torch.nan
        if self.gapless and not self.combination.may_pass_over:
            return asked._replace(target=said)
        known = ~said.isnan().transpose(0, 1)
        weight = self.combination.hears(known, asked.of_rule, asked.heard).to(said.dtype)
        return asked._replace(target=said, weight=weight if asked.weight is None else weight * asked.weight)

    def decided(self, asked: Asked, student: Tensor, term: str, moment: Moment) -> Asked:
        """What the student is compared with, of what each teacher says: a target and the weight of each row, or beside each teacher."""
        said = asked.target.transpose(0, 1)
        unknown = said.isnan()
        known, spoken = ~unknown, said.masked_fill(unknown, 0.0)
        target, weights = self.combination.target(
            spoken,
            known,
            asked.of_rule,
            heard=asked.heard,
            context=self._context(asked, student, term, moment),
            check=self.unseen and not self.combination.is_ours,
        )
        self.unseen = False
        self._count(term, weights, moment)
        if asked.weight is not None:  # of a loss that takes labels those rows alone; by energy as they count
            weights = weights * asked.weight
        labels = asked.labels
        if labels is not None and not labels.is_floating_point():
            labels = torch.where(labels < 0, target.nan_to_num(nan=-torch.inf).argmax(-1), labels)
        if not self.per_teacher:
            return Asked(self.units.standardised(target), weights.sum(0), labels)
        beside = said.masked_fill(unknown.all(-1, keepdim=True), 0.0).transpose(0, 1)
        return Asked(self.units.standardised(beside), weights.T, labels)

    def _context(self, asked: Asked, student: Tensor, term: str, moment: Moment) -> Context | None:
        if not self.combination.needs_context:
            return None
        if term not in moment.states:
            width = asked.target.shape[-1]
            state = initial_state(self.combination.function, len(self.combination.teachers), width)
            moment.states[term] = {name: tensor.to(student.device) for name, tensor in state.items()}
        return Context(
            step=moment.step,
            sample_key=asked.sample_key,
            student=self.units.of_label(student.detach()),
            teacher_figures=self.teacher_figures,
            student_figures=moment.student_figures,
            state=moment.states[term],
            all_reduce=moment.all_reduce,
        )

    def _count(self, term: str, weights: Tensor, moment: Moment) -> None:
        counted = weights.detach().sum(1)
        moment.shares[term] = moment.shares[term] + counted if term in moment.shares else counted


def shares_of(moment: Moment, combinations: Mapping[str, Combination]) -> dict[str, float]:
    """`weight.<term>.<teacher>`: the mean since the last point, over the rows of all ranks; every rank calls it alike. Starts anew.

    Raises RecipeError on every rank for a rule of the user's by which nobody is heard until the first point: in a batch, or later,
    it may hear nobody.
    """
    found: dict[str, float] = {}
    for term, combination in combinations.items():
        if term in moment.shares:
            names, sums = combination.teachers, moment.all_reduce(moment.shares[term].double()).cpu()
            if not combination.is_ours and term not in moment.pointed and not bool(sums.any()):
                raise RecipeError(
                    f"{combination.key}: {combination.rule} gives every teacher the weight 0 in every row of the first "
                    f"{moment.step + 1} steps, so nobody is heard"
                )
            moment.pointed.add(term)
            whole = sums / sums.sum().clamp_min(1e-12)
            found |= {f"weight.{term}.{name}": share for name, share in zip(names, whole.tolist(), strict=True)}
    moment.shares.clear()
    return found
