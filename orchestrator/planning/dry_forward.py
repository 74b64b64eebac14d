"""One batch of zeros through every network of a recipe: finds shapes that do not fit before anything is trained."""

from dataclasses import replace
from typing import Any

from students.config.cohort import CohortConfig, SharedTrunkCohort
from teachers.errors import CollegiumError, RecipeError, UsersCodeError

from ..recipe.model import Recipe

ROWS = 2


def dry_forward(recipe: Recipe, columns: Any, classes: list[str]) -> None:
    """Raise RecipeError for a network that cannot be made or gives anything but [rows, classes]."""
    problems = []
    # nothing is prepared yet, so nobody knows the mean and the spread of the training rows; shapes do not depend on them
    columns = [replace(c, mean=(0.0,) * c.shape[-1], std=(1.0,) * c.shape[-1]) for c in columns]
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "module":
            own = teacher.classes or classes
            here = f"teachers.{name}", teacher.model, teacher.arguments, teacher.preprocess
            problems += _problem(*here, columns, len(own), is_trained=teacher.train is not None)
    for name, student in recipe.students.items():
        problems += _problem(
            f"students.{name}", student.model, student.arguments, student.preprocess, columns, len(classes)
        )
    for name, cohort in recipe.cohorts.items():
        for member, network in cohort.members.items():
            where = f"cohorts.{name}.members.{member}"
            problems += _problem(where, network.model, network.arguments, network.preprocess, columns, len(classes))
        if not problems:
            problems += _problems_between(name, cohort, columns, len(classes))
    if problems:
        raise RecipeError("\n".join(problems))


def _problems_between(name: str, cohort: CohortConfig, columns: Any, num_classes: int) -> list[str]:
    """Of members that share a trunk, or swap stage maps."""
    from students.cohorts.features import maps_of
    from students.cohorts.trunk import share_trunk
    from teachers.models.folder import build_module
    from teachers.models.preprocess import Preprocessor

    keys = [f"cohorts.{name}.members.{member}" for member in cohort.members]
    try:
        preprocessors = [Preprocessor(member.preprocess, columns) for member in cohort.members.values()]
        modules = [
            build_module(member.model, member.arguments, num_classes=num_classes, input_shape=each.input_shape)
            for member, each in zip(cohort.members.values(), preprocessors, strict=True)
        ]
        if isinstance(cohort, SharedTrunkCohort):
            share_trunk(modules, cohort.trunk, keys)
        for member, module, each, key in zip(cohort.members.values(), modules, preprocessors, keys, strict=True):
            maps_of(module, member.layers, each.of_zeros(1), f"{key}.layers: {member.model}")
    except CollegiumError as error:
        return [str(error)]
    return []


def _problem(
    where: str,
    model: str,
    arguments: dict[str, Any],
    config: Any,
    columns: Any,
    num_classes: int,
    *,
    is_trained: bool = True,
) -> list[str]:
    import torch

    from teachers.models.folder import build_module
    from teachers.models.preprocess import Preprocessor
    from teachers.users_code.calls import calling

    try:
        preprocessor = Preprocessor(config, columns)
        inputs = preprocessor.of_zeros(ROWS)
        module = build_module(model, arguments, num_classes=num_classes, input_shape=preprocessor.input_shape)
        with torch.no_grad(), calling("model", model):
            # as the engine calls it: with one tensor or one dictionary, while it trains and at a look at validation
            both = [module.train(trains)(inputs) for trains in ((True, False) if is_trained else (False,))]
    except UsersCodeError as error:
        return [f"{where}: {model} does not take this transfer set: {error.what.removeprefix(model).strip()}"]
    except CollegiumError as error:
        return [f"{where}: {model} does not take this transfer set: {str(error).strip().splitlines()[0]}"]
    for scores in both:
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (ROWS, num_classes):
            found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            return [f"{where}: {model} gives {found} for {ROWS} rows, expected ({ROWS}, {num_classes})"]
    return []
