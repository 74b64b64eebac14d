"""Students that follow their teachers: what of a recipe cannot be learnt while labels still come."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from students.config.lfme_term import LfmeTerm
from students.config.student import StudentConfig
from students.config.terms import LogitMseTerm, TeacherTermCommon
from teachers.config.task import ANSWER_OF

from .file import Loc

if TYPE_CHECKING:
    from .model import Learner, Recipe

OVER_ALL = "is made of what teachers say of all training rows, before the first step; remove it, or `follow`"


def follows(learner: "Learner") -> bool:
    """Whether it learns while its teachers label."""
    return isinstance(learner, StudentConfig) and learner.follow


def waiting(recipe: "Recipe", name: str) -> "Recipe":
    """The same recipe whose student `name` waits until all labels are there."""
    if not follows(recipe.learners[name]):
        return recipe
    student = recipe.students[name].model_copy(update={"follow": False})
    return recipe.model_copy(update={"students": {**recipe.students, name: student}})


def following_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    for name, student in recipe.students.items():
        if not isinstance(student, StudentConfig) or not student.follow:
            continue
        path: Loc = ("students", name)
        if live := recipe.live_teachers(name):
            told = f"teacher {live[0]!r} is live: it answers each batch as it comes and labels nothing that could be followed"
            yield (*path, "follow"), f"{told}; remove `follow`, or say `teachers.{live[0]}.mode: cached`"
        if not any(isinstance(term, TeacherTermCommon) for term in student.objective):
            yield (*path, "follow"), "no term of the objective listens to a teacher, so nobody is followed; remove it"
        if student.hints:
            yield (*path, "hints"), f"follow: what layers give {OVER_ALL}"
        if student.energy is not None:
            yield (*path, "energy"), f"follow: which rows count {OVER_ALL}"
        for number, term in enumerate(student.objective):
            yield from (((*path, "objective", number, key), f"follow: {told}") for key, told in _of_term(term))


def _of_term(term: Any) -> Iterator[tuple[str, str]]:
    if isinstance(term, LogitMseTerm) and term.standardise:
        yield "standardise", f"the spread of targets {OVER_ALL}"
    if isinstance(term, LfmeTerm) and term.curriculum is not None:
        yield "curriculum", f"what rows count {OVER_ALL}"


def unlabelled_followed(recipe: "Recipe", labelled: Mapping[str, int]) -> list[str]:
    """What then takes what teachers say of training rows for labels, once rows are counted. `labelled`: rows, by split."""
    numbers = ANSWER_OF[recipe.task] == "values" and not labelled["train"]
    scale = f"no training row has a label, and the scale of the numbers {OVER_ALL}"
    found = [f"students.{name}.follow: {scale}" for name, each in recipe.students.items() if follows(each) and numbers]
    return found + [
        f"students.{name}.follow: teacher {teacher!r} is calibrated by training rows, for no validation row has a label, and these are "
        f"labelled while {name} trains; give `split.validation` labelled rows, or remove `follow`"
        for name, student in recipe.students.items()
        if follows(student) and not labelled["validation"]
        for teacher in student.teachers
        if teacher in recipe.teachers and recipe.teachers[teacher].calibrate
    ]
