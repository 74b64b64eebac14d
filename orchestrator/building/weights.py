"""The stage that finds how much each teacher of a student counts in each class, where its rule weighs them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from students.config.task_terms import rule_in_keys
from teachers.config.resources import Resources
from teachers.config.task import ANSWER_OF

from ..recipe.model import Recipe
from ..stages import keys
from ..stages.stages import Built, Stage
from .context import Context, segments_judged, sources
from .evaluate import by_place, combination_heard, evaluate_on_cluster, read_evaluation
from .results import Results

NAME = "weights_by_class"
TITLE = f"evaluate/{NAME}"
BY_THE_ROW = ("route",)
"""Rules that are told of each row who counts in it: by class there is nothing to find."""


def is_measured(recipe: Recipe, name: str) -> bool:
    """Whether the rule of the student `name` gives its teachers weights, and rows are of one class."""
    rule = rule_in_keys(keys.own_combination(recipe.students[name]).get("combine"), recipe.task)
    return ANSWER_OF[recipe.task] == "class_axis" and rule not in (None, "mean_logits", *BY_THE_ROW)


def weights_by_class(context: Context, results: Results, name: str) -> tuple[Built, Mapping[str, Any]] | None:
    """Of the student `name`: the stage, and its `classes` and `counts`. None where all teachers count alike, or rows are of no one class."""
    recipe, config = context.recipe, context.recipe.students[name]
    if not is_measured(recipe, name):
        return None
    segments = segments_judged(recipe, results.prepared, config)
    labels = {teacher: results.taught[teacher].digests(segments) for teacher in config.teachers}
    base = keys.evaluate_stage(recipe, name, results.prepared.digest, "", labels)
    inputs = {what: digest for what, digest in base.inputs.items() if what != "student"}
    stage = Stage("evaluate", NAME, {"weights of": dict(base.config)}, inputs, called=base.called)
    keywords = {
        "transfer_set": results.prepared.folder,
        "sources": by_place(sources(recipe, config, results.taught, segments)),
        **combination_heard(config),
    }
    function = "students.measuring.weights:weights_by_class"
    build = partial(evaluate_on_cluster, context, results.prepared, Resources(), function, keywords)
    built = context.stages.build(stage, build)
    found = read_evaluation(built, config.teachers)
    return built, {"classes": found["classes"], "counts": found["counts"]}
