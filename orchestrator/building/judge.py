"""Whether what teaches is worth learning from: judged when it has labelled, before students are trained. Needs no trainer."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from students.tasks.figure import figure, headline
from teachers.config.any_teacher import TeacherRequire
from teachers.errors import GateMissed
from teachers.storage.seal import Seal
from teachers.transfer_set.transfer_set import TransferSet

from ..recipe.model import Recipe, is_trained_here, learner_of, name_in_recipe
from ..recipe.tasks import labels_out_of_fold
from ..reporting.standing import no_better, summary, told, what_was_found, why_open
from ..stages import keys
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught, segments_of, sources_of
from .evaluate import by_place, evaluate_on_cluster, read_evaluation
from .turns import Turns, build_in_turn
from .works import JUDGED_BY

Standings = dict[str, dict[str, Any]]
"""By teacher; see `orchestrator.reporting.standing`."""

log = logging.getLogger(__name__)


def judge(
    context: Context, turns: Turns, name: str, prepared: Built, taught: Mapping[str, Taught]
) -> tuple[Built | None, Standings]:
    """How all of `taught` stand, under the stage `judge/<name>`; None where nobody can be judged.

    Raises GateMissed for who is not what the recipe requires.
    """
    recipe = context.recipe
    split, heard, standings = to_judge(recipe, prepared, taught)
    built = None
    if heard:
        stage = stage_of(recipe, name, prepared, taught, split, heard)
        keywords = {
            "transfer_set": prepared.folder,
            "sources": by_place(sources_of(recipe, heard, taught, segments_of(prepared, split))),
            "split": split,
        }
        function = "students.measuring.standing:judge"

        def build(folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Facts]]:
            return {stage: evaluate_on_cluster(context, prepared, resources, function, keywords, folders[stage])}

        ((_, _, resources),) = JUDGED_BY
        built = build_in_turn(turns, f"judge/{name}", lambda: JUDGED_BY, context.stages, [stage], build)[stage]
        standings |= standings_of(read_evaluation(built, heard))
    if problems := [*missed(recipe, standings)]:
        raise GateMissed("\n".join(problems))
    if line := summary(headline(recipe.task), standings):
        log.info("%s", line)
    for line in told(headline(recipe.task), standings):
        log.warning("%s", line)
    return built, standings


def to_judge(
    recipe: Recipe, prepared: Built, taught: Mapping[str, Taught]
) -> tuple[Literal["train", "validation"], list[str], Standings]:
    """(the split; who is judged on it; why others are not): validation, else training rows, of a teacher that did not see them or labels them out of fold."""
    labelled = TransferSet.open(prepared.folder).report["labelled"]
    if labelled["validation"]:
        return "validation", [*taught], {}
    why = {name: _why_not(recipe, each) if labelled["train"] else "no row has a label" for name, each in taught.items()}
    return "train", [name for name in why if not why[name]], {name: {"why": told} for name, told in why.items() if told}


def _why_not(recipe: Recipe, taught: Taught) -> str:
    """Why a teacher cannot be judged on training rows; empty where it can."""
    config = recipe.teachers.get(taught.name)
    if config is None or (is_trained_here(config) and not labels_out_of_fold(config)):
        return "no validation row has a label, and the labelled training rows are those that it learnt from"
    if taught.live:
        return "no validation row has a label, and what a live teacher says of training rows is not kept"
    return ""


def stage_of(
    recipe: Recipe, name: str, prepared: Built, taught: Mapping[str, Taught], split: str, heard: Sequence[str]
) -> Stage:
    labels = {teacher: taught[teacher].digests(segments_of(prepared, split)) for teacher in heard}
    return keys.judge_stage(recipe, name, prepared.digest, split, labels)


def standings_of(document: Mapping[str, Any]) -> Standings:
    """By teacher, from the stage's `evaluation.json`."""
    far = {name: {**found, "together": document["together"]} for name, found in document["far_below"].items()}
    return {
        name: {"split": document["split"], **found, "far_below": far.get(name)}
        for name, found in document["teachers"].items()
    }


def missed(recipe: Recipe, standings: Standings) -> Iterator[str]:
    """Quality gates that teachers and assistants miss: what was found, what is required, what to do."""
    for name, found in standings.items():
        where, required = required_of(recipe, name)
        if required is None:
            continue
        cure = (
            f"train it longer or otherwise (`collegium plan` counts its steps), see whether its weights, `classes` and "
            f"`preprocess` are right, or leave it out; `{where}.require: null` says that it is meant"
        )
        if found.get("stands") == "no better":
            yield f"{where} is {no_better(found)}, so students would learn nothing from it: {cure}"
            continue
        for key, bar in required.bars.items():
            value, sign = found.get("figures", {}).get(key), figure(recipe.task, key).sign
            if value is None:
                yield f"{where}.require.{key} is {bar:g} and cannot be judged: {why_open(found) or 'it is not defined'}"
            elif sign * value < sign * bar:
                yield f"{where}: {what_was_found(found)}, {key} {value:.4f}; its require.{key} is {bar:g}: {cure}"


def required_of(recipe: Recipe, name: str) -> tuple[str, TeacherRequire | None]:
    """(place in the recipe, what is required); what a student requires is of test, as an assistant it must be alive."""
    if name in recipe.teachers:
        return f"teachers.{name}", recipe.teachers[name].require
    learner = learner_of(name)
    required = None if recipe.learners[learner].require is None else TeacherRequire()
    return name_in_recipe(recipe, learner), required
