"""What is wrong with whose weights a student begins with, whose network it is made of or whose last layer it reads. Knows nothing of
tensors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from students.config.hints import weighed_by_label
from students.config.student import StudentConfig
from teachers.config.teacher import ModuleTeacher

from .file import Loc, nearest

if TYPE_CHECKING:
    from .model import Recipe


def beginning_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """Of students: (path, message)."""
    for name, student in recipe.students.items():
        if not isinstance(student, StudentConfig):
            continue
        of = student.arguments.get("of")
        if student.is_pruned and isinstance(of, str):
            networks = [*recipe.teachers, *recipe.students]
            known = nearest(of, networks) if of not in networks else ": it is no network in a model folder"
            yield ("students", name, "arguments", "of"), f"nobody whose network could be pruned is called {of!r}{known}"
        elif student.is_pruned and "of" not in student.arguments:
            yield ("students", name, "arguments"), "say whose network is pruned: `of`, a teacher's name"
        if student.init is not None and (problem := _no_weights(recipe, student.init.from_)):
            yield ("students", name, "init", "from"), problem
        for number, hint in enumerate(student.hints):
            if weighed_by_label([hint]) and (problem := _no_weights(recipe, hint.teacher)):
                yield ("students", name, "hints", number, "combine"), f"reads a last layer, and {problem}"


def _no_weights(recipe: "Recipe", name: str) -> str | None:
    """Why nobody can begin with the weights of `name`; None: its model folder has them."""
    teacher = recipe.teachers.get(name)
    cure = "name a network that is trained here, a checkpoint, or another student"
    if teacher is None:
        student = recipe.students.get(name)
        if isinstance(student, StudentConfig) or (student is None and name in recipe.members()):
            return None
        return None if student is None else f"{name!r} is an estimator, whose weights no network can take; {cure}"
    if isinstance(teacher, ModuleTeacher):
        if teacher.train is None:
            return f"{name!r} has its weights from a file, not in a model folder; {cure}"
        if teacher.train.folds is not None and not teacher.train.refit:
            return f"{name!r} is several networks, one a fold; say `refit: true` in its `train`, or {cure}"
        return None
    return None if teacher.kind == "checkpoint" else f"{name!r} is a teacher of `kind: {teacher.kind}`; {cure}"
