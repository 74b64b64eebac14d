"""How several teachers become one target: a rule with all that it is told.

Knows nothing of where teachers' answers come from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from teachers.config.task import ANSWER_OF, AnswerName, TaskName
from teachers.errors import RecipeError
from teachers.soft_targets.combine.by_row import can_say, has_label
from teachers.soft_targets.combine.context import Context, takes_context
from teachers.soft_targets.combine.rules import COMBINE, COVERS_ALL, check_combined, with_gaps
from teachers.users_code.calls import calling
from teachers.users_code.imports import load

from ..config.cohort_terms import CohortTerm
from ..config.combining import NO_OPTIONS, Options, options_of
from ..config.task_terms import combine_of
from ..config.terms import TeacherTermCommon, Term
from ..runs.run import Source

WEIGHED: frozenset[str] = frozenset(
    {"confidence", "entropy", "correctness", "best", "experts", "learned", "confusion", "route"}
)
"""Rules whose weights of a row are told as the mean over rows."""


@dataclass(frozen=True)
class Combination:
    """How several teachers become one target; terms that agree on it share the column."""

    teachers: tuple[str, ...]
    rule: str
    teacher_weights: tuple[float, ...] | None
    temperature: float
    key: str = field(default="combine", compare=False)
    """Of the recipe."""
    answer: AnswerName = "class_axis"
    options: Options = NO_OPTIONS
    found: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What labelled validation rows told of the teachers, as the rule takes it."""
    of_heads: bool = False
    """Of a student with a head for each of them: they are one target in its first phase only."""

    @property
    def is_ours(self) -> bool:
        return self.rule in COMBINE[self.answer]

    @property
    def function(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return COMBINE[self.answer][self.rule] if self.is_ours else load(self.rule)  # type: ignore[index]

    @property
    def needs_context(self) -> bool:
        """Then it is asked in every step, of what the student says."""
        return takes_context(self.function)

    @property
    def is_late(self) -> bool:
        """Whether something of it is known only in the step."""
        options = self.options
        return (
            self.needs_context
            or options.level == "losses"
            or options.drop > 0
            or options.pace is not None
            or self.of_heads
        )

    @property
    def counts(self) -> dict[str, float]:
        """What each teacher counts, they sum to 1, where a rule found it on labelled validation rows."""
        given = self.found.get("teacher_weights", ()) if self.rule == "fitted" else ()
        weights = tuple(sum(each) / len(each) if self.options.by_class else each for each in given)
        variances = self.found.get("variances", ())
        weights = tuple(1 / each for each in variances) if variances and all(variances) else weights
        return {name: each / sum(weights) for name, each in zip(self.teachers, weights, strict=True)} if weights else {}

    def target(
        self,
        said: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        heard: Tensor | None = None,
        context: Context | None = None,
        check: bool = False,
        complete: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Target `[B, W]`, NaN where nobody knows anything who counts there, and weights `[K, B]`, of what is said, 0 where
        unknown, and known `[K, B, W]`.

        `heard`: of `route`, which teacher a row names. `check`: raise RecipeError for a rule that does not give what a rule gives.
        """
        keywords: dict[str, Any] = {**self.found}
        told = keywords.pop("told", None)
        if self.teacher_weights is not None:
            keywords["teacher_weights"] = self.teacher_weights
        keywords |= self.options.of_boxes
        if self.rule == "gradient":
            keywords["box"] = self.options.box
        if heard is not None:
            keywords["heard"] = heard
        if context is not None and self.needs_context:
            keywords["context"] = context
        with calling(self.key, self.rule):
            found = self.function(said, temperature=self.temperature, known=known, labels=labels, **keywords)
            if check:
                found = check_combined(found, said, f"{self.key}: {self.rule}", known)
        if told is not None:
            target, weights = found
            untold = ~told.to(target.device) & (weights > 0).any(0)[:, None]
            return target.masked_fill(untold, torch.nan), weights
        if self.answer != "class_axis" or self.covers_all or (complete and not self.narrows):
            return found
        narrowed = self.narrowed(known)
        heard = narrowed.any(-1).to(said.dtype) if self.by_class else found[1]
        return with_gaps(found[0], narrowed, heard), found[1]

    @property
    def covers_all(self) -> bool:
        """Whether the rule says something of what no teacher knows."""
        return self.rule in COVERS_ALL

    @property
    def by_class(self) -> bool:
        """Whether what teachers count differs by class."""
        return self.narrows or self.options.by_class

    @property
    def narrows(self) -> bool:
        return "experts" in self.found

    def narrowed(self, known: Tensor) -> Tensor:
        """Known `[K, B, W]` to those who are heard: of experts in their classes."""
        if not self.narrows:
            return known
        experts = torch.as_tensor(self.found["experts"], device=known.device) > 0
        return known & experts[:, None]

    @property
    def may_pass_over(self) -> bool:
        """Whether a rule of ours may hear nobody in a row that every teacher knows, or but for some that are left out."""
        return (
            self.rule == "route" or self.narrows or (self.teacher_weights is not None and not all(self.teacher_weights))
        )

    def hears(self, known: Tensor, labels: Tensor | None, heard: Tensor | None) -> Tensor:
        """Whether somebody counts in each row, bool `[B]`, as far as it is known before the student has spoken.

        `known` `[K, B, W]`; `labels` and `heard` as `target` takes them. A rule of the user's may leave out more.
        """
        if self.options.silence:
            return known.new_ones(known.shape[1])
        known = self.narrowed(known)
        if self.teacher_weights is not None and not all(self.teacher_weights):
            known = known & (torch.tensor(self.teacher_weights, device=known.device) > 0)[:, None, None]
        knows = known.any(-1)
        if heard is not None:
            knows = knows & (torch.arange(len(known), device=known.device)[:, None] == heard)
        if self.rule == "correctness" and labels is not None:
            knows = torch.where(has_label(labels), can_say(known, labels), knows)
        return knows.any(0)

    def is_made_once(self, voices: Mapping[str, Any]) -> bool:
        """Whether its target can be, and not of a live teacher, who speaks of a batch only."""
        live = any(getattr(voices[name], "is_live", False) for name in self.teachers)
        return self.is_ours and not self.is_late and not live

    def refuse_estimator(self) -> None:
        """Raise RecipeError for what needs steps."""
        if self.is_late:
            raise RecipeError(
                f"{self.key}: an estimator is fitted at once, and {self.rule!r} with these options is asked in steps; take "
                f"another rule, without `level` and `drop`"
            )


def teachers_of(term: Term | CohortTerm, sources: Sequence[Source]) -> tuple[str, ...]:
    """Whom a term listens to."""
    if not isinstance(term, TeacherTermCommon):
        return ()
    return tuple(term.teachers or (source.name for source in sources))


def combination_of(
    term: Term | CohortTerm, sources: Sequence[Source], number: int, task: TaskName
) -> Combination | None:
    """What term number `number` asks of the teachers; None for one that does not listen to any."""
    if not isinstance(term, TeacherTermCommon):
        return None
    heard = teachers_of(term, sources)
    given = term.teacher_weights
    weights = None if given is None else tuple(given[name] for name in heard)
    key, rule = f"objective.{number}.combine", combine_of(term, task)
    return Combination(heard, rule, weights, term.temperature, key, ANSWER_OF[task], options_of(term))


@dataclass(frozen=True)
class OfRows:
    """What rules are told of all rows, in the order of keys, besides what teachers say."""

    labels: Tensor | None = None
    """In the units of the label, none where it may not be used."""
    heard: Mapping[Combination, Tensor] = field(default_factory=dict)
    """Of `route`: i64 `[N]`, which of the combination's teachers each row names, -1: nobody."""
    sample_key: Tensor | None = None
    """i64 `[N]`, the bits of a u64."""

    def of(self, combination: Combination, rows: slice | Tensor) -> dict[str, Any]:
        heard = self.heard.get(combination)
        return {
            "labels": None if self.labels is None else self.labels[rows],
            "heard": None if heard is None else heard[rows],
        }
