"""Students that go by the energy of a teacher that has none. Knows nothing of files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from students.config.energy import judge_of
from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig
from teachers.config.task import ANSWER_OF

from .file import Loc

if TYPE_CHECKING:
    from .model import Recipe


def energy_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    for name, student in recipe.students.items():
        if not isinstance(student, StudentConfig) or student.energy is None:
            continue
        path = ("students", name, "energy")
        if ANSWER_OF[recipe.task] != "class_axis":
            yield path, f"is of one class of many a row, and `task: {recipe.task}` has no such logits; remove it"
        elif told := _has_none(recipe, judge_of(student.energy, student.teachers)):
            yield (*path, "teacher"), f"{told}; name one that gives logits, or remove `energy`"
        elif student.energy.of == "beside" and recipe.transfer_set.extra is None and recipe.transfer_set.munge is None:
            told = "judges rows of `transfer_set.extra` and `munge`, and there are none; say `of: all` for the source's own, or remove it"
            yield path, told


def _has_none(recipe: "Recipe", name: str) -> str:
    """Why a teacher has no energy; empty where it has, as far as the recipe tells."""
    teacher = recipe.teachers.get(name)
    if teacher is None:
        of_trees = isinstance(recipe.students.get(name), EstimatorStudent)
        return f"{name!r} is an estimator, which says probabilities only, and these have no energy" if of_trees else ""
    if teacher.mode == "live":
        return f"{name!r} is live, so nobody knows its logits before the first step (`mode: cached`)"
    if teacher.encoding == "label":
        return f"the store of {name!r} keeps the class only (`encoding: dense` keeps logits)"
    if teacher.kind == "sklearn" or getattr(teacher, "output", "logits") != "logits":
        return f"{name!r} says probabilities only, and these have no energy"
    return ""
