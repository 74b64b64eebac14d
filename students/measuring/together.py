"""Several teachers as one: what the best of them comes to alone, and all by rules; the classes that few of them know."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.rules import COMBINE
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

from ..objective.judging import JUDGED_BY
from ..runs.run import Source
from ..tasks.figure import FIGURES, LOOKS, headline
from ..tasks.standing import interval
from .gain import Gain
from .hearing import Heard, default_rule, hear, replayed, together_by
from .judged import Voice, metered
from .labelled import Labelled
from .thresholds import covers

Document = dict[str, Any]
NOT_BY_ITSELF = ("weighted", "best", "correctness", "gradient", "route")
"""Rules that need what a recipe says of them, a label or the student; the best teacher is told anyway."""
FEW = 1
"""Teachers that know a class, or fewer."""


def by_every_rule(rows: Labelled, sources: Sequence[Source], heard: Heard) -> list[Document]:
    """The best teacher, chosen on validation, and what all say by each rule that a recipe could name without weights of its own;
    nothing of a single one."""
    if len(sources) < 2:
        return []
    found = _best(rows, sources, heard)
    for rule in COMBINE[rows.space.answer]:
        if rule not in NOT_BY_ITSELF and (rule not in JUDGED_BY or _can_judge(rows, sources)):
            with suppress(RecipeError):  # a rule that these rows cannot serve, which nobody asked for
                said, counts = together_by(rows, sources, heard.kept, rule, None, list(heard.kept))
                found.append(figures_as_one(rows, said, heard.sure, combine=rule, counts=counts))
    return found


def by_own_rule(rows: Labelled, sources: Sequence[Source], heard: Heard, combine: str | None) -> list[Document]:
    """The best teacher, chosen on validation, the plain mean of all, and what `heard` are together by a rule of the recipe.

    Of a rule that asks the student or a label the mean is all that there is to show, which says `instead_of` what.
    """
    if len(sources) < 2:
        return []
    mean = default_rule(rows.space)
    found = _best(rows, sources, heard)
    rule = replayed(combine, rows.space)
    if rule != mean:
        said, counts = together_by(rows, sources, heard.kept, mean, None, list(heard.kept))
        found.append(figures_as_one(rows, said, heard.sure, combine=mean, counts=counts))
    instead = {} if combine in (None, rule) else {"instead_of": combine}
    return [
        *found,
        figures_as_one(rows, heard.together, heard.sure, combine=rule, counts=dict(heard.counts), **instead),
    ]


def _can_judge(rows: Labelled, sources: Sequence[Source]) -> bool:
    validation = Labelled.of(rows.transfer_set, "validation")
    return covers(sources, validation) and len(validation.labels) > 0


def _best(rows: Labelled, sources: Sequence[Source], heard: Heard) -> list[Document]:
    if not _can_judge(rows, sources):
        return []
    validation, figure = Labelled.of(rows.transfer_set, "validation"), headline(rows.task.name)
    found = {
        name: metered(validation, Voice(said)).figures(keys=(figure.key,))[figure.key]
        for name, said in hear(validation, sources).alone.items()
    }
    known = {name: figure.sign * value for name, value in found.items() if value is not None}
    if not known:
        return []
    best = max(known, key=lambda name: known[name])
    return [figures_as_one(rows, heard.alone[best], best not in heard.class_only, teacher=best, validation=found[best])]


def figures_as_one(rows: Labelled, said: Tensor, sure: bool, **about: Any) -> Document:
    """Every figure on these rows, and `low` and `high` (95 %, of the headline)."""
    voice = Voice(said, sure)
    meter = metered(rows, voice)
    unsure = _unsure(rows, sure)
    key, low, high = headline(rows.task.name).key, None, None
    if key not in unsure:
        all_judged = len(next(iter(meter.parts().values()))) == len(rows.groups)
        low, high = interval(meter, key, rows.groups if all_judged else None)
    return {**about, "figures": meter.figures() | dict.fromkeys(unsure), "low": low, "high": high}


def look_at(rows: Labelled, said: Tensor, sure: bool) -> dict[str, float | None]:
    """The figures of a look, None of what asks for probabilities where nobody gave any."""
    keys = LOOKS[rows.task.name]
    return {**metered(rows, Voice(said, sure)).figures(keys=keys), **dict.fromkeys({*keys} & {*_unsure(rows, sure)})}


def _unsure(rows: Labelled, sure: bool) -> list[str]:
    return [each.key for each in FIGURES[rows.task.name] if each.of_probabilities and not sure]


def known_by_few(
    by_class: Mapping[str, Any] | None,
    kept: Mapping[str, Tensor],
    gain_of: Callable[[int], Gain | None] = lambda number: None,
) -> list[Document]:
    """Of each class that at most one of several teachers, or none, knows: its test `rows`, who knows it, the `recall` of
    everybody, and the student's `gain` over its control, as `gain_of` a class's number tells it. `by_class`: the task's table, if
    it has one; `kept`: what each teacher says, NaN in what it does not know."""
    if by_class is None or not kept or len(by_class["classes"]) != next(iter(kept.values())).shape[1]:
        return []  # of boxes, too, which have no column a class
    knows = {name: (~said.isnan()).any(0).tolist() for name, said in kept.items()}
    few = min(FEW, len(kept) - 1)
    return [
        {
            "class": each,
            "rows": by_class["support"][number],
            "known_by": known,
            "recall": {name: shares[number] for name, shares in by_class["recall"].items() if name not in kept},
            "gain": gain.to_json() if (gain := gain_of(number)) else None,
        }
        for number, each in enumerate(by_class["classes"])
        if len(known := [name for name in knows if knows[name][number]]) <= few
    ]


def unknown_rows(transfer_set: TransferSet, source: Source) -> dict[str, list[int]]:
    """By split, (rows of which the teacher knows nothing, all that it was asked about), where there are some."""
    found: dict[str, list[int]] = {}
    for segment in transfer_set.segments:
        if segment.name in source.stores:
            unknown, of = found.setdefault(segment.split, [0, 0])
            store = SoftTargetStore.open(source.stores[segment.name])
            found[segment.split] = [unknown + store.unknown()[0], of + segment.num_rows]
    return {split: counts for split, counts in found.items() if counts[0]}
