"""The stage that measures what a step of each variant costs beside cross-entropy's, all in one run on one machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from students.config.estimator import EstimatorStudent
from teachers.resources.bundles import num_threads

from ..recipe.model import Recipe
from ..stages.stages import Built, Stage
from ..stages.trainings import Kind
from .context import Context, segments_heard, sources
from .evaluate import evaluate_on_cluster
from .results import Results
from .train import training_of

if TYPE_CHECKING:
    from students.runs.run import Run

NAME = "cost_of_steps"
TITLE = f"evaluate/{NAME}"


def is_measured(recipe: Recipe, names: Sequence[str]) -> bool:
    """Whether the variants `names` take steps whose cost is their own."""
    fitted = any(isinstance(recipe.students[name], EstimatorStudent) for name in names)
    return not fitted and not any(recipe.live_teachers(name) for name in names)


def cost_of_steps(context: Context, results: Results, names: Sequence[str]) -> Built | None:
    """Of the students `names`, variants of one; None where a step costs what live teachers take, or where there are no steps.

    Trainings that are the same are measured once, and never again while their keys stay.
    """
    config = context.recipe.students[names[0]]
    if not is_measured(context.recipe, names) or isinstance(config, EstimatorStudent):
        return None
    keys = training_keys(context, results, names)
    stage = stage_of(context.recipe, keys)
    runs = {key: _training(context, results, name, "student") for name, key in keys.items()}
    as_all = next(iter(runs.values())).train  # a control may be trained otherwise
    alone = replace(_training(context, results, names[0], "control"), train=as_all)
    keywords = {
        "runs": runs,
        "beside": alone,
        "threads": num_threads(config.resources),
        "gpus": context.cluster.gpus(config.resources),
    }
    function = "students.fitting.cost:cost_of_steps"
    build = partial(evaluate_on_cluster, context, results.prepared, config.resources, function, keywords)
    return context.stages.build(stage, build)


def stage_of(recipe: Recipe, keys: Mapping[str, str]) -> Stage:
    """`keys`: as of `training_keys`."""
    config = recipe.students[next(iter(keys))]
    assert not isinstance(config, EstimatorStudent)
    measured = {"resources": config.resources.model_dump(mode="json"), "workers": config.train.workers}
    return Stage("evaluate", NAME, measured, {f"training {key[:12]}": key for key in sorted(set(keys.values()))})


def training_keys(context: Context, results: Results, names: Sequence[str]) -> dict[str, str]:
    """By student, the key of its first training, which says all that a step does."""
    seeds = {name: context.recipe.students[name].train.seeds[0] for name in names}
    return {name: results.students[name].trainings["student", seeds[name]].stage.key for name in names}


def _training(context: Context, results: Results, name: str, kind: Kind) -> "Run":
    """The first one of a student, or of its control."""
    config = context.recipe.students[name]
    segments = segments_heard(context.recipe, results.prepared, config)
    heard = sources(context.recipe, config, results.taught, segments)
    seed = config.train.seeds[0]
    folder = results.students[name].trainings["student", seed].folder
    return replace(training_of(context, name, kind, seed, results.prepared, folder, heard), follow=False)


def costs_by_student(document: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Mapping[str, float]]:
    """By student, its entry of the stage's `evaluation.json`."""
    return {name: document["by_training"][key] for name, key in keys.items()}
