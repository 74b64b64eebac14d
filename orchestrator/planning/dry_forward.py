"""One batch of zeros through every network of a recipe: finds shapes that do not fit before anything is trained."""

from dataclasses import replace
from typing import Any

from students.config.cohort import CohortConfig, SharedTrunkCohort
from teachers.errors import CollegiumError, RecipeError

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
            problems += _problem(
                f"teachers.{name}", teacher.model, teacher.arguments, teacher.preprocess, columns, len(own)
            )
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
    from students.cohorts.features import maps_of_zeros
    from students.cohorts.trunk import share_trunk
    from teachers.models.folder import build_module
    from teachers.models.preprocess import Preprocessor

    keys = [f"cohorts.{name}.members.{member}" for member in cohort.members]
    try:
        shapes = [Preprocessor(member.preprocess, columns).input_shape for member in cohort.members.values()]
        modules = [
            build_module(member.model, member.arguments, num_classes=num_classes, input_shape=shape)
            for member, shape in zip(cohort.members.values(), shapes, strict=True)
        ]
        if isinstance(cohort, SharedTrunkCohort):
            share_trunk(modules, cohort.trunk, keys)
        for member, module, shape, key in zip(cohort.members.values(), modules, shapes, keys, strict=True):
            maps_of_zeros(module, member.layers, shape, f"{key}.layers: {member.model}")
    except CollegiumError as error:
        return [str(error)]
    return []


def _problem(
    where: str, model: str, arguments: dict[str, Any], config: Any, columns: Any, num_classes: int
) -> list[str]:
    import numpy as np
    import torch

    from teachers.models.folder import build_module
    from teachers.models.preprocess import Preprocessor

    try:
        preprocessor = Preprocessor(config, columns)
        zeros = {c.name: np.zeros((ROWS, *c.shape), np.uint8 if c.kind == "image" else np.float32) for c in columns}
        module = build_module(model, arguments, num_classes=num_classes, input_shape=preprocessor.input_shape).eval()
        with torch.no_grad():
            inputs = preprocessor(zeros)
            scores = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    except (CollegiumError, RuntimeError, TypeError, ValueError) as error:
        return [f"{where}: {model} does not take this transfer set: {str(error).strip().splitlines()[0]}"]
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (ROWS, num_classes):
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        return [f"{where}: {model} gives {found} for {ROWS} rows, expected ({ROWS}, {num_classes})"]
    return []
