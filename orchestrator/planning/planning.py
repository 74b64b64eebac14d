"""What a run would do, found out without doing any of it: nothing is written, no teacher is asked."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.errors import DataError, RecipeError
from teachers.resources.pools import in_reach
from teachers.storage import anew, mirror
from teachers.storage.place import place
from teachers.users_code.imports import UserPath, use_user_path

from ..building.works import timed_in
from ..cluster.capacity import check_capacity, check_room_for_trials, this_machine
from ..recipe.checks import (
    check_variables,
    class_problems,
    file_problems,
    fold_problems,
    folder_problems,
    import_problems,
    judging_problems,
    questions,
    text_problems,
)
from ..recipe.combining import expert_problems, route_problems
from ..recipe.detecting import rows_to_choose_by
from ..recipe.dividing import division_problems
from ..recipe.load import Given, recipe_of
from ..recipe.load import check as check_recipe
from ..recipe.losses import labelled_notes, unlabelled_problems
from ..recipe.mixing import unmixable_problems
from ..recipe.model import Recipe, public
from ..recipe.seen_rows import seen_problems
from ..recipe.space import search_warnings
from ..recipe.tasks import rows_to_calibrate_by
from ..recipe.viewing import mixed_view_notes, views_of_columns
from ..reporting.fairness import missing_augmentation
from ..stages.code import code_problems, users_code
from ..stages.stages import Built, Stages
from .answers import PRICED_ROWS, endpoint_notes, prediction_problems
from .beside import beside_notes
from .brought import fed_notes
from .budgets import Rows, budget_notes, budget_problems, floor_notes, row_notes, seed_notes, weight_notes
from .memory import Holding, holdings
from .outputs import Shapes, output_notes, shapes_of
from .placement import Ask, Places, cluster_notes, places_at
from .placement import place as placed_on
from .prices import Prices, Pricing
from .rehearsed import Rehearsed
from .room import Storage, check_room, storage_of
from .schedule import Schedule, scheduled
from .walk import Planned, Walk

if TYPE_CHECKING:
    from teachers.preparing.look import Look


@dataclass
class Plan:
    """Stages in order, what they need, and what speaks against running them."""

    stages: list[Planned] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    storage: Storage = field(default_factory=Storage)
    """Bytes of all that would lie in OUT, and of what does not yet."""
    bytes_free: int = 0
    placement: list[Ask] | None = None
    """Where what is not reused would run; of a cluster only."""
    memory: list[Holding] = field(default_factory=list)
    """What each training holds of its rows; empty where only reading them tells."""
    schedule: Schedule = field(default_factory=Schedule)
    """When trainings, labels and judgements would begin and end."""
    prices: Prices = field(default_factory=Prices)
    """What each teacher and learner would take."""

    @property
    def bytes_needed(self) -> int:
        """Under OUT, in all."""
        return self.storage.bytes

    def record(self) -> dict[str, Any]:
        return {
            "format": 1,
            "stages": [stage.record() for stage in self.stages],
            "notes": self.notes,
            "storage": self.storage.record(),
            "bytes_needed": self.bytes_needed,
            "bytes_free": self.bytes_free,
            "placement": None if self.placement is None else [ask.record() for ask in self.placement],
            "memory": [holding.record() for holding in self.memory],
            "schedule": self.schedule.record(),
            "prices": self.prices.record(),
        }


def plan(
    recipe: Given,
    out: str | Path,
    *,
    check: bool = False,
    user_path: Path | None = None,
    address: str | None = None,
) -> Plan:
    """Validate everything that can be known without running. Raises RecipeError, DataError or EnvironmentUnfit.

    `recipe` as in `run`. Requests are compared with this machine, or with the nodes of the cluster at `address` (or RAY_ADDRESS).
    `check` counts the classes of every row, and tries everybody who teaches or learns on some rows, as the engine does it.
    """
    check_recipe(recipe := recipe_of(recipe))
    use_user_path(user_path or Path.cwd())
    if problems := [*code_problems(recipe)]:
        raise RecipeError("\n".join(dict.fromkeys([*import_problems(recipe), *problems, *folder_problems(recipe)])))
    out = place(out)
    anew.check(out, writes=False)
    mirror.pull(out)
    with users_code(recipe, (user_path or Path.cwd()).resolve(), out.absolute()) as code:
        return _plan(recipe, out, address, code, check=check)


def _plan(recipe: Recipe, out: Path, address: str | None, code: UserPath, *, check: bool) -> Plan:
    from teachers.preparing.look import digests_beside, look, source_digest
    from teachers.transfer_set.transfer_set import TransferSet

    from .counting import count_notes, known, with_counts

    alone = (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    made = Plan(bytes_free=_free(out), notes=check_variables(recipe, alone=alone))
    seen = look(recipe.transfer_set)
    digest = source_digest(recipe.transfer_set)
    if problems := [*_problems_seen(recipe, seen, digest)]:
        raise RecipeError("\n".join(problems))
    walk = Walk(recipe, Stages(out))
    prepared = walk.all(digest, digests_beside(recipe.transfer_set))
    made.stages = walk.planned
    counted = known(recipe.transfer_set, seen, prepared.folder if prepared else None, thorough=check)
    seen = with_counts(seen, counted)
    if counted is not None and (
        problems := [
            *class_problems(recipe, counted.classes, counted.of_class("train")),
            *division_problems(recipe, counted.classes, counted.of_class("validation")),
            *rows_to_calibrate_by(recipe, counted.num_labelled),
            *rows_to_choose_by(recipe, counted.num_labelled),
            *budget_problems(recipe, counted),
        ]
    ):
        raise RecipeError("\n".join(problems))
    if prepared is not None and (problems := [*fold_problems(recipe, TransferSet.open(prepared.folder))]):
        raise DataError("\n".join(problems))
    outputs = shapes_of(recipe, seen)
    places = _on_nodes(made, recipe, seen, address, outputs)
    made.storage = storage_of(recipe, seen, outputs, made.stages, prepared)
    rows = Rows.of(recipe, seen, counted)
    if rows is not None and (
        problems := [
            *judging_problems(recipe, rows.labelled["validation"], rows.labelled["train"]),
            *unlabelled_problems(recipe, rows.labelled["train"]),
        ]
    ):
        raise RecipeError("\n".join(problems))
    if rows is not None:
        made.notes += labelled_notes(recipe, rows.labelled["train"], rows.by_split["train"])
        made.notes += mixed_view_notes(recipe, rows.labelled["train"], rows.by_split["train"])
    made.notes += walk.notes
    made.notes += count_notes(recipe.transfer_set, counted, thorough=check)
    made.notes += [*row_notes(recipe, seen, rows), *budget_notes(recipe, rows), *weight_notes(recipe, rows)]
    made.notes += seed_notes(recipe)
    made.notes += [*beside_notes(seen), *fed_notes(recipe)]
    made.notes += output_notes(recipe, outputs, made.stages, rows)
    made.notes += [*missing_augmentation(public(recipe)), *floor_notes(recipe), *search_warnings(recipe)]
    _on_answers(made, recipe, seen, prepared, rows, check=check)
    found = _rehearse(made, recipe, seen, prepared, code, outputs) if check else Rehearsed()
    timed = timed_in(out)
    pricing = Pricing(recipe, places, rows, seen.classes, outputs, timed, found.timed, found.parameters)
    made.prices = pricing.all()
    made.storage = made.storage.with_networks(made.prices.learners, made.stages)
    made.notes += check_room(made.storage, made.bytes_free, out)
    tried = pricing.lengths.timed.keys() - timed.keys()
    made.schedule = scheduled(recipe, made.stages, places, pricing.lengths, tried)
    return made


def _problems_seen(recipe: Recipe, seen: "Look", digest: str) -> Iterator[str]:
    """What the first rows tell, and files that the recipe names."""
    yield from (*import_problems(recipe), *folder_problems(recipe), *file_problems(recipe))
    yield from seen_problems(recipe, digest)
    yield from class_problems(recipe, seen.classes)
    yield from text_problems(recipe, seen.columns)
    yield from unmixable_problems(recipe, seen.columns)
    yield from views_of_columns(recipe, seen.columns)
    yield from route_problems(recipe, seen.columns)
    yield from expert_problems(recipe, seen.classes or ())
    yield from division_problems(recipe, seen.classes)


def _on_answers(
    made: Plan, recipe: Recipe, seen: "Look", prepared: Built | None, rows: Rows | None, *, check: bool
) -> None:
    """Predictions and endpoints. Raises RecipeError for what does not fit, or cannot be asked."""
    from teachers.preparing.sample import sample, sample_prepared
    from teachers.tasks.space import Space
    from teachers.transfer_set.transfer_set import TransferSet

    if seen.classes is None or not {teacher.kind for teacher in recipe.teachers.values()} & {"predictions", "endpoint"}:
        return
    space, data = (
        Space(recipe.task, seen.classes, max_boxes=recipe.transfer_set.boxes),
        TransferSet.open(prepared.folder) if prepared is not None else None,
    )
    if check and (problems := [*prediction_problems(recipe, space, data)]):
        raise RecipeError("\n".join(problems))
    plans = [plan.document() for plan in seen.plans]
    if asked := questions(recipe, seen.columns, plans, space):
        some = (
            sample_prepared(data, PRICED_ROWS) if data else sample(recipe.transfer_set, seen, seen.classes, PRICED_ROWS)
        )
        to_do = {stage.name for stage in made.stages if stage.stage == "label" and stage.action != "reuse"}
        made.notes += endpoint_notes(asked, plans, some, rows, set(asked) - to_do)


def _on_nodes(made: Plan, recipe: Recipe, seen: "Look", address: str | None, outputs: Shapes) -> Places:
    """Where everything would run, and what each training holds. Raises EnvironmentUnfit for what finds no room."""
    places = places_at(address)
    if places is None:
        nodes = this_machine(recipe)
        check_room_for_trials(recipe, nodes)
        made.notes += check_capacity(
            recipe, nodes, "That is this machine; a cluster is named by --address or RAY_ADDRESS"
        )
    else:
        made.notes += cluster_notes(recipe, in_reach([*places.values()]))
        to_do = [(stage.stage, stage.name) for stage in made.stages if stage.action != "reuse"]
        made.placement = placed_on(recipe, to_do, places)
    found = {"this machine": nodes[0]} if places is None else places
    made.memory = holdings(recipe, seen, [*found.values()], outputs)
    return found


def _rehearse(
    made: Plan, recipe: Recipe, seen: "Look", prepared: Built | None, code: UserPath, outputs: Shapes
) -> Rehearsed:
    """Try everybody on a few rows. Raises RecipeError with all that would end the run."""
    from teachers.preparing.sample import sample, sample_prepared
    from teachers.transfer_set.transfer_set import TransferSet

    from .rehearsal import FITTED_ROWS, rehearse

    if seen.classes is None:
        made.notes.append("networks and estimators were not tried: their classes are known after `prepare`")
        return Rehearsed()
    if prepared is not None:
        rows = sample_prepared(TransferSet.open(prepared.folder), FITTED_ROWS)
    else:
        rows = sample(recipe.transfer_set, seen, seen.classes, FITTED_ROWS)
    found = rehearse(recipe, rows, code, outputs)
    if found.problems:
        raise RecipeError("\n".join(dict.fromkeys(found.problems)))
    made.notes += found.notes
    return found


def _free(out: Path) -> int:
    at = out.resolve()
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free
