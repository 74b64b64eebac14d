"""Which rule to take for several teachers: that with the best headline on labelled validation rows, where it is shown to be better.

A rule that weighs teachers by such rows is judged on those that it has not seen: they lie in PARTS parts, and what is said of
one is by what the others tell (cross-validation; Stone, 1974). The best of ten on a few hundred rows is best by chance often
enough, so an exact sign test of rows decides whether it takes the place of the recipe's own, corrected for how many rules there
are (Bonferroni). Test rows choose nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.rules import COMBINE

from ..config.combining import NO_OPTIONS, Options
from ..objective.judging import JUDGED_BY
from ..runs.run import Source
from ..tasks.figure import rank
from .hearing import Heard, hear, replayed, rule_at_work
from .labelled import Labelled
from .thresholds import covers
from .together import by_own_rule, figures_as_one, look_at

PARTS = 5
LEVEL = 0.05
NEED_MORE = ("weighted", "correctness", "gradient", "route")
"""Rules that are told what a recipe says of teachers, a label or the student."""


def recommended(
    rows: Labelled,
    sources: Sequence[Source],
    heard: Heard,
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    options: Options = NO_OPTIONS,
) -> dict[str, Any] | None:
    """`own`, the rule by which `heard` are together, `validation`: by rule, the figures of a look at so many `rows`, and `leader`,
    the best of these; of it where it is shown to be better than `own`, else of that, on the rows that `heard` is of, what
    `combinations` have of a rule: `combine`, `figures`, `low`, `high`, `counts`.

    None of a single teacher, or where validation rows cannot tell. Of rules with the same headline `own` is kept.
    """
    validation = Labelled.of(rows.transfer_set, "validation")
    if len(sources) < 2 or not covers(sources, validation) or not len(validation.labels):
        return None
    names, kept = order or [*heard.kept], hear(validation, sources).kept
    own, found = replayed(combine, rows.space), dict[str, dict[str, float | None]]()
    answers = dict[str, Tensor]()
    for rule in dict.fromkeys([own, *COMBINE[rows.space.answer]]):
        if rule == own or rule not in NEED_MORE:
            told = (teacher_weights, names, options) if rule == own else (None, names, NO_OPTIONS)
            with suppress(RecipeError):  # a rule that these rows cannot serve, which nobody asked for
                answers[rule] = said_unseen(validation, sources, kept, rule, *told)
                found[rule] = look_at(validation, answers[rule], heard.sure)
    ranks = {rule: rank(rows.task.name, look) for rule, look in found.items()}
    leader = max(ranks, key=lambda rule: (ranks[rule][0], rule == own, ranks[rule]))
    kept_own = own in answers and not is_better(validation, answers[leader], answers[own], max(1, len(found) - 1))
    best = own if kept_own else leader
    together, counts = heard.together, dict(heard.counts)
    if best != own:
        together, counts = rule_at_work(rows, sources, best, None, names).of(heard.kept)
    document: dict[str, Any] = {} if combine in (None, own) else {"instead_of": combine}
    document |= {"own": own, "leader": leader, "validation": found, "rows": len(validation.labels)}
    return document | figures_as_one(rows, together, heard.sure, combine=best, counts=counts)


def is_better(rows: Labelled, said: Tensor, other: Tensor, tries: int) -> bool:
    """Whether of the rows that one of two answers better, f32 `[N, width]` each, `said` has more than chance gives it: an exact
    one-sided sign test at 5 % by the number of `tries`."""
    from scipy.special import betainc

    difference = rows.task.merits(said, rows.labels, rows.space) - rows.task.merits(other, rows.labels, rows.space)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return wins > losses and float(betainc(wins, losses + 1, 0.5)) < LEVEL / tries


def of_several(
    rows: Labelled,
    sources: Sequence[Source],
    heard: Heard,
    combine: str | None,
    teacher_weights: Mapping[str, float] | None,
    order: Sequence[str] | None,
    options: Options,
) -> dict[str, Any]:
    """What an evaluation of somebody with teachers of its own says of them as one."""
    return {
        "combinations": by_own_rule(rows, sources, heard, combine),
        "recommended": recommended(rows, sources, heard, combine, teacher_weights, order, options),
    }


def said_unseen(
    validation: Labelled,
    sources: Sequence[Source],
    kept: Mapping[str, Tensor],
    rule: str,
    teacher_weights: Mapping[str, float] | None,
    names: Sequence[str],
    options: Options,
) -> Tensor:
    """What teachers say together of validation rows, f32 `[N, width]`, by a rule that has not seen their labels."""
    if rule not in JUDGED_BY:
        return rule_at_work(validation, sources, rule, teacher_weights, names, options).of(kept)[0]
    together = torch.full_like(kept[names[0]], torch.nan)
    for part in range(PARTS):
        mine = torch.from_numpy(validation.groups % PARTS == part)
        if mine.any():
            others = Labelled.of(validation.transfer_set.without_part(part, PARTS), "validation")
            together[mine] = rule_at_work(others, sources, rule, None, names, options).of(kept, mine)[0]
    return together
