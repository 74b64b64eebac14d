"""What a comparison would do besides a run of its variants: settings that are tried first, what a step costs, who counts where."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from teachers.storage.place import place

from ..building import costs, weights
from ..recipe.tries import Tries
from ..recipe.variants import Variants, by_reason
from ..stages.stages import Stages
from .planning import Plan, plan
from .walk import Planned


def measured_beside(made: Variants) -> list[str]:
    """Titles of the stages that a comparison has besides those of its recipe."""
    titles = [costs.TITLE] if costs.is_measured(made.recipe, [*made.of]) else []
    weighed = made.kind == "teachers" and weights.is_measured(made.recipe, made.whole)
    return titles + ([weights.TITLE] if weighed else [])


def plan_of(made: Variants, tries: Tries | None, out: str | Path, address: str | None = None) -> Plan:
    """As `plan`, of all that `compare` does. Nothing is delivered."""
    found = plan(made.recipe, out, address=address)
    stages = [stage for stage in found.stages if stage.stage != "export"]
    if tries is not None:
        tried = [stage for stage in plan(tries.recipe, out, address=address).stages if _is_of(stage, tries.of)]
        first = next((n for n, stage in enumerate(stages) if _is_of(stage, made.of)), len(stages))
        stages = [*stages[:first], *tried, *(_of_tuned(stage, made) for stage in stages[first:])]
    beside = {costs.TITLE: _cost_of_steps, weights.TITLE: _weights_by_class}
    stages += [beside[title](made, stages, Stages(place(out))) for title in measured_beside(made)]
    notes = [made.cost(), *([tries.cost()] if tries is not None else [])]
    notes += [f"left out: {', '.join(names)} ({why})" for why, names in by_reason(made.left_out).items()]
    return replace(found, stages=stages, notes=[*notes, *found.notes])


def _is_of(stage: Planned, names: Collection[str]) -> bool:
    """Whether it is a training of one of these students."""
    return stage.stage == "distill" and stage.name in names


def _of_tuned(stage: Planned, made: Variants) -> Planned:
    """A training, or a look, of a variant whose setting is chosen first; a control has its own."""
    if stage.name not in made.of or stage.part.startswith("control"):
        return stage
    return replace(stage, key=None, action="unknown", reason="unknown until its settings have been tried")


def _cost_of_steps(made: Variants, stages: Sequence[Planned], sealed: Stages) -> Planned:
    first = f"student/seed-{made.seeds[0]}"
    found = {stage.name: stage.key for stage in stages if _is_of(stage, made.of) and stage.part == first}
    keys = {name: key for name, key in found.items() if key is not None}
    if len(keys) < len(made.of):
        missing = next(name for name in made.of if name not in keys)
        return Planned("evaluate", costs.NAME, "", None, "unknown", f"unknown until distill/{missing} is sealed")
    stage = costs.stage_of(made.recipe, keys)
    is_there = sealed.sealed(stage, hashes=False) is not None
    told = ("reuse", "unchanged") if is_there else ("build", sealed.reason(stage))
    return Planned("evaluate", costs.NAME, "", stage.key, *told)


def _weights_by_class(made: Variants, stages: Sequence[Planned], sealed: Stages) -> Planned:
    return Planned("evaluate", weights.NAME, "", None, "unknown", f"looked for behind evaluate/{made.whole}")
