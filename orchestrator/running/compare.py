"""`collegium compare`: one student in several variants on the same stores, trained alike, and which of them pays."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from students.config.methods import Setting, method_of
from students.runs.best import rank_of_run
from teachers.config.task import ANSWER_OF
from teachers.errors import RecipeError
from teachers.storage.disk import told_if_unfit
from teachers.storage.place import place
from teachers.storage.seal import publish
from teachers.transfer_set.transfer_set import TransferSet

from ..building import costs, pipeline, prepare, weights
from ..building.context import Context
from ..building.results import Results
from ..planning.comparison import measured_beside
from ..recipe.load import Given, file_of, recipe_of
from ..recipe.model import Recipe, public
from ..recipe.tries import Tries, tries_of
from ..recipe.variants import (
    ALL,
    Variants,
    by_method,
    by_teachers,
    chosen_student,
    with_objective_of,
    without,
)
from ..stages.outline import planned
from .run import Finished, Opening, opened

log = logging.getLogger("collegium")


def variants(
    recipe: Given,
    *,
    methods: str | Sequence[str] | None = None,
    teachers: bool = False,
    student: str | None = None,
    seeds: int | None = None,
) -> Variants:
    """What `compare` trains. Raises RecipeError for what cannot be compared."""
    loaded = recipe_of(recipe)
    if teachers and methods is not None:
        raise RecipeError("--methods and --teachers are two comparisons; give one of them, then the other")
    if seeds is not None and seeds < 1:
        raise RecipeError(f"--seeds {seeds}: at least one; two give an interval, five a better one")
    name = chosen_student(loaded, student)
    return by_teachers(loaded, name, seeds) if teachers else by_method(loaded, name, methods or ALL, seeds)


def compare(
    recipe: Given,
    out: str | Path,
    *,
    methods: str | Sequence[str] | None = None,
    teachers: bool = False,
    student: str | None = None,
    seeds: int | None = None,
    tune: bool = False,
    address: str | None = None,
    user_path: Path | None = None,
    quiet: bool = True,
    source: str | None = None,
) -> Finished:
    """Train the recipe's student by each of `methods` (names of `students.config.methods`, or `all` that its teachers can
    serve), or with `teachers` by all of them, all but each and each alone; measure, compare, report.

    `student`: which, where the recipe has several. `seeds`: how many, by default the recipe's. `tune`: try a few settings of
    each method first, on validation rows, with a seed that is used for nothing else. Nothing is exported. Safe to interrupt and
    to call again. `recipe` and `source` as in `run`. Raises CollegiumError (see teachers.errors) for whatever a user can mend.
    """
    loaded = recipe_of(recipe)
    made = variants(loaded, methods=methods, teachers=teachers, student=student, seeds=seeds)
    tries = tries_of(loaded, made) if tune else None
    with told_if_unfit():
        how = Opening(place(out), (user_path or Path.cwd()).resolve(), address, quiet, source or file_of(recipe))
        return _compare(loaded, made, tries, how)


def _compare(recipe: Recipe, made: Variants, tries: Tries | None, how: Opening) -> Finished:
    log.info("%s", made.cost())
    if tries is not None:
        log.info("%s", tries.cost())
    if len(made.seeds) < 2:
        log.warning("one seed gives no verdict: it does not show what another seed would change; --seeds 5 does")
    stages = [*planned(made.recipe, "evaluate"), *measured_beside(made)]
    if tries is not None:
        stages = [*planned(tries.recipe, "distill"), *stages]
    tried = hinted(made) if made.kind == "methods" else []
    undecided = [*made.of] if tries is not None or tried else []
    with opened(made.recipe, how, command="compare", planned=[*dict.fromkeys(stages)], undecided=undecided) as begun:
        with begun.on_cluster() as context:
            found: dict[str, Any] = {}
            if tried:
                made = _rehearsed(context, recipe, made)
                tries = None if tries is None else tries_of(recipe, made)
            if tries is not None:
                made, found = _tuned(context, recipe, made, tries)
            if undecided:
                begun.decide(made.recipe, [*made.of])
                context = replace(context, recipe=made.recipe)
            results = pipeline.build(context, "evaluate")
            measured, trusted = _costs(context, results, made), _weights(context, results, made)
        report = begun.report(context, results, compared=_section(made, measured, found) | {"weights": trusted})
        if (best := report["compared"].get("best")) is not None:
            taken = with_objective_of(recipe, made, best)
            publish(begun.folder / "found.yaml", yaml.safe_dump(public(taken), sort_keys=False).encode())
        begun.finish(report, results)
    return Finished(begun.folder, report, [])


def hinted(made: Variants) -> list[str]:
    """Variants whose layers have to fit: those of teachers, or a last one that becomes several heads."""
    students = made.recipe.students
    return [name for name in made.of if getattr(students[name], "hints", ()) or getattr(students[name], "hydra", None)]


def _rehearsed(context: Context, recipe: Recipe, made: Variants) -> Variants:
    """The variants whose hints and heads take a step of a few rows, before anybody is trained or labels. Raises as `without`."""
    from ..planning.hinted import hint_failures

    prepared = prepare.prepare(context)
    pipeline.check_prepared(context.recipe, prepared)
    found = hint_failures(made.recipe, hinted(made), TransferSet.open(prepared.folder), context.user_path)
    failures = {
        made.of[name]: why.replace(f"students.{name}", f"students.{made.student}", 1) for name, why in found.items()
    }
    for method, why in failures.items() if made.takes_all else ():
        log.warning("%s is left out: %s", method, why)
    return without(recipe, made, failures)


def _tuned(
    context: Context, recipe: Recipe, made: Variants, tries: Tries
) -> tuple[Variants, dict[str, dict[str, Any]]]:
    """The variants by the setting of each method that is best on validation rows; and by method, which and of how many."""
    context = replace(context, recipe=tries.recipe)
    _check_validation(pipeline.train_in_order(context, []).prepared.folder)
    results = pipeline.build(context, "distill")
    ranks = {name: rank_of_run(next(iter(results.students[name].folders("student").values()))) for name in tries.of}
    best, told = dict[str, Setting](), dict[str, dict[str, Any]]()
    for method in made.of.values():
        mine = [name for name, (of, _) in tries.of.items() if of == method]
        best[method] = tries.of[max(mine, key=lambda name: ranks[name])][1]  # of equal ones the first
        told[method] = {"setting": dict(best[method]), "tried": len(mine)}
    again = by_method(recipe, made.student, [*made.of.values()], len(made.seeds), best)
    return replace(again, left_out=made.left_out), told


def _check_validation(prepared: Path) -> None:
    """Raise RecipeError, before anything is trained, where no row could choose a setting."""
    if not TransferSet.open(prepared).report["labelled"]["validation"]:
        raise RecipeError(
            "--tune chooses by labelled validation rows, and no row of that split has a label; give `transfer_set.split.validation` "
            "rows with labels, or leave --tune out"
        )


def _costs(context: Context, results: Results, made: Variants) -> Mapping[str, Any] | None:
    built = costs.cost_of_steps(context, results, [*made.of])
    if built is None:
        return None
    results.judged[costs.NAME] = built
    document = json.loads((built.folder / "evaluation.json").read_bytes())
    keys = costs.training_keys(context, results, [*made.of])
    return {"cross_entropy_ms": document["cross_entropy_ms"], "by_student": costs.costs_by_student(document, keys)}


def _weights(context: Context, results: Results, made: Variants) -> Mapping[str, Any] | None:
    """How much each teacher counts in each class, where all are heard; of teachers only."""
    if made.kind != "teachers":
        return None
    if (found := weights.weights_by_class(context, results, made.whole)) is None:
        return None
    results.judged[weights.NAME] = found[0]
    return found[1]


def _section(made: Variants, measured: Mapping[str, Any] | None, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the report needs to know of the variants."""
    answer, methods = ANSWER_OF[made.recipe.task], made.of.items() if made.kind == "methods" else ()
    says = {name: method_of(of, answer).says for name, of in methods}  # type: ignore[arg-type]
    return {
        "kind": made.kind,
        "student": made.student,
        "of": dict(made.of),
        "says": says,
        "left_out": dict(made.left_out),
        "costs": measured,
        "tuned": dict(found),
    }
