"""The layers of a recipe's networks, for who writes one: `collegium teachers ls RECIPE --layers`. Trains and loads nobody."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from students.config.student import StudentConfig
from teachers.config.outputs import NetworkTeacher
from teachers.config.published import OnnxTeacher
from teachers.config.teacher import TeacherConfig
from teachers.errors import RecipeError
from teachers.users_code.calls import within
from teachers.users_code.imports import use_user_path

from ..recipe.model import Recipe

if TYPE_CHECKING:
    from teachers.models.captured import Layer
    from teachers.tasks.space import Space
    from teachers.transfer_set.columns import Column


def layers_in(recipe: Recipe, kind: Literal["teachers", "students"]) -> Mapping[str, "list[Layer]"]:
    """By name of every network; of students the members of cohorts too. Raises RecipeError for what cannot be built."""
    from teachers.preparing.look import look
    from teachers.tasks.space import Space

    from .counting import known, with_counts

    use_user_path(Path.cwd())
    seen = look(recipe.transfer_set)
    seen = with_counts(seen, known(recipe.transfer_set, seen, None, thorough=True))
    if seen.classes is None:
        raise RecipeError(
            "transfer_set: its classes are known after `collegium label`, and the networks' heads depend on them"
        )
    space = Space(recipe.task, seen.classes, max_boxes=recipe.transfer_set.boxes)
    found = {}
    if kind == "teachers":
        for name, teacher in recipe.teachers.items():
            if isinstance(teacher, NetworkTeacher):
                with within(f"teachers.{name}"):
                    found[name] = _of_teacher(teacher, seen.columns, space, recipe.trusted())
        return found
    from teachers.models.skeleton import of_module

    members = {f"{name}.{own}": each for name, cohort in recipe.cohorts.items() for own, each in cohort.members.items()}
    for name, student in {**recipe.students, **members}.items():
        if isinstance(student, StudentConfig) or name in members:
            with within(f"students.{name}" if name in recipe.students else f"cohorts.{name.replace('.', '.members.')}"):
                about = student.model, student.arguments, student.preprocess
                found[name] = of_module(*about, seen.columns, space.names).layers()
    return found


def _of_teacher(
    teacher: TeacherConfig, columns: "Sequence[Column]", space: "Space", trust: Sequence[str]
) -> "list[Layer]":
    from teachers.models.skeleton import layers_of_graph, skeleton_of

    assert isinstance(teacher, NetworkTeacher)
    if isinstance(teacher, OnnxTeacher):
        return layers_of_graph(teacher, columns, space)
    return skeleton_of(teacher, columns, space, trust).layers()
