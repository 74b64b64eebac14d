"""What teachers say of labelled rows, each alone and all together, from their label stores.

Knows nothing of students; the pipeline says whose stores, and which combination.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from teachers.soft_targets.combine.class_scores import LOG_ZERO
from teachers.soft_targets.combine.context import takes_context
from teachers.soft_targets.combine.rules import COMBINE
from teachers.soft_targets.reader import SoftTargets
from teachers.tasks.space import Space
from teachers.users_code import imports

from ..config.combining import NO_OPTIONS, OF_BOXES, Options
from ..config.task_terms import OF_LABELLED_ROWS
from ..objective.calibration import calibration_of
from ..objective.combination import Combination
from ..objective.judging import JUDGED_BY
from ..objective.routes import heard_in
from ..objective.stores import classes_asked, open_store, said_in
from ..runs.run import Source
from .judged import Thresholds, Voice
from .labelled import ROWS_AT_ONCE, Labelled


@dataclass(frozen=True)
class Heard:
    """What the teachers of somebody say, f32[N, width] in the transfer set's classes or numbers; NaN in rows of which one
    knows nothing."""

    alone: Mapping[str, Tensor]
    together: Tensor
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """By teacher: the same before any rule, NaN in all that it does not know."""
    class_only: frozenset[str] = frozenset()
    """Whose store keeps the class only: what else their scores hold is `probability_floor`, no word of theirs."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """What each has counted in what they say together, the mean over rows that one of them knows."""

    @property
    def sure(self) -> bool:
        """Whether the probabilities of all together are theirs."""
        return not self.class_only

    def voice(self, name: str, thresholds: Thresholds = None) -> Voice:
        """A teacher's; of all together where `name` is `ensemble`."""
        if name == "ensemble":
            return Voice(self.together, self.sure, thresholds)
        return Voice(self.alone[name], name not in self.class_only, thresholds)

    @property
    def everyone(self) -> dict[str, Tensor]:
        return {**self.alone, "ensemble": self.together}


def hear(
    rows: Labelled,
    sources: Sequence[Source],
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    options: Options = NO_OPTIONS,
) -> Heard:
    """What each teacher says of `rows`, and what they say together; `order`: in which a rule is given them.

    `combine`: None is the first rule of the answer; one that `replayed` has no other word for is heard as it is.
    """
    kept = {source.name: _said(rows, source) for source in sources}
    mean = default_rule(rows.space)
    alone = {name: _combined(_combination(rows.space, [name], mean), [said])[0] for name, said in kept.items()}
    class_only = frozenset(source.name for source in sources if _keeps_class_only(source))
    names = order or list(kept)
    together, counts = together_by(rows, sources, kept, combine, teacher_weights, names, options)
    return Heard(alone, together, kept, class_only, counts)


def together_by(
    rows: Labelled,
    sources: Sequence[Source],
    kept: Mapping[str, Tensor],
    combine: str | None,
    teacher_weights: Mapping[str, float] | None,
    names: Sequence[str],
    options: Options = NO_OPTIONS,
) -> tuple[Tensor, dict[str, float]]:
    """What those of `names` say together by a rule, of what each says; and what each counts, the mean over rows."""
    return rule_at_work(rows, sources, combine, teacher_weights, names, options).of(kept)


@dataclass(frozen=True)
class RuleAtWork:
    """A rule with what it found of the teachers, and of `route` who is heard in each row."""

    combination: Combination
    named: Tensor | None

    def of(self, kept: Mapping[str, Tensor], mine: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """What teachers say together, of what each says, and what each counts; `mine`: of these rows alone, bool `[N]`."""
        named, names = self.named, self.combination.teachers
        said = [kept[name] for name in names]
        if mine is not None:
            said, named = [each[mine] for each in said], None if named is None else named[mine]
        together, counts = _combined(self.combination, said, named)
        return together, dict(zip(names, counts.tolist(), strict=True))


def rule_at_work(
    rows: Labelled,
    sources: Sequence[Source],
    combine: str | None,
    teacher_weights: Mapping[str, float] | None,
    names: Sequence[str],
    options: Options = NO_OPTIONS,
) -> RuleAtWork:
    rule = replayed(combine, rows.space)
    takes = rule == "weighted" or rule in OF_BOXES
    weights = None if teacher_weights is None or not takes else tuple(teacher_weights[name] for name in names)
    combination = _combination(rows.space, names, rule, weights, options)
    by_name = {source.name: source for source in sources}
    if asked := classes_asked([by_name[name] for name in names], rows.space):
        combination = replace(combination, found=asked)
    if rule in JUDGED_BY:
        found = {**JUDGED_BY[rule]([by_name[name] for name in names], rows.transfer_set, options)}
        found.pop("told", None)  # what is too unsure to be taught is still the teachers' best guess
        combination = replace(combination, found={**combination.found, **found})
    heard = None
    if options.column is not None:
        called = [options.name_of(name) for name in names]
        parts = [
            heard_in(rows.transfer_set, segment, options.column, called)[mask]
            for segment, mask in zip(rows.segments, rows.masks, strict=True)
        ]
        heard = torch.from_numpy(np.concatenate(parts))
    return RuleAtWork(combination, heard)


def replayed(combine: str | None, space: Space) -> str:
    """The rule by which teachers are together where no student is asked and no label may be: of one that needs these it is the mean,
    whose losses it weighs."""
    if combine is None or combine in OF_LABELLED_ROWS:
        return default_rule(space)
    rules = {str(name): rule for name, rule in COMBINE[space.answer].items()}
    rule = rules[combine] if combine in rules else imports.load(combine)
    return default_rule(space) if takes_context(rule) else combine


def _combination(
    space: Space,
    names: Sequence[str],
    rule: str,
    weights: tuple[float, ...] | None = None,
    options: Options = NO_OPTIONS,
) -> Combination:
    return Combination(tuple(names), rule, weights, 1.0, "objective.combine", space.answer, options.together)


def default_rule(space: Space) -> str:
    """By which teachers are combined where nobody says otherwise."""
    return next(iter(COMBINE[space.answer]))


def _keeps_class_only(source: Source) -> bool:
    return any(SoftTargets.open(store).spec.encoding == "label" for store in source.stores.values())


def _said(rows: Labelled, source: Source) -> Tensor:
    """f32[N, width] in the transfer set's classes or numbers, calibrated; NaN in what the teacher does not know."""
    parts = [
        said_in(open_store(source, rows.transfer_set, segment), source, rows.space)[torch.from_numpy(mask)]
        for segment, mask in zip(rows.segments, rows.masks, strict=True)
    ]
    said, calibrated = torch.cat(parts), calibration_of(source, rows.transfer_set)
    return said if calibrated is None else calibrated(said)


def _combined(combination: Combination, heard: Sequence[Tensor], named: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What is said together f32[N, width], and what each counts f32[K]. A class of many that nobody knows has probability 0.

    `named`: of `route`, who is heard in each row.
    """
    parts, weights = [], []
    for first in range(0, len(heard[0]), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        said = torch.stack([each[rows] for each in heard])
        known = ~said.isnan()
        route = None if named is None else named[rows]
        target, counted = combination.target(
            said.masked_fill(~known, 0.0), known, heard=route, check=not combination.is_ours
        )
        nobody = counted.sum(0) == 0
        unknown = nobody if combination.options.silence else nobody | ~known.any(0).any(-1)
        if combination.answer == "class_axis":
            target = target.nan_to_num(nan=LOG_ZERO)
        parts.append(target.masked_fill(unknown[:, None], torch.nan))
        weights.append(counted)
    counts = torch.cat(weights, 1)
    return torch.cat(parts), counts.sum(1) / (counts.sum(0) > 0).sum().clamp_min(1)
