"""Who starts together or not at all: workers, replicas, a student's workers beside the replicas of its live teachers."""

from collections.abc import Callable, Mapping, Sequence

from teachers.config.resources import Resources

from ..recipe.model import Recipe, learner_of
from ..scheduling.room import Part
from .capacity import Node, request_of, workers_of

Gang = list[tuple[str, int, Resources]]
"""(who, how many of them, what each asks for)."""


def _training_teacher(recipe: Recipe, name: str) -> Gang:
    teacher = recipe.teachers[name]
    return [("workers", workers_of(teacher), teacher.resources)]


def _labelling(recipe: Recipe, name: str) -> Gang:
    if name not in recipe.teachers:
        return [("replicas", 1, recipe.learners[learner_of(name)].resources)]
    return [("replicas", recipe.teachers[name].labelled_by.min, recipe.teachers[name].resources)]


def _training_student(recipe: Recipe, name: str) -> Gang:
    learner = recipe.learners[name]
    live = [(teacher, recipe.teachers[teacher]) for teacher in recipe.live_teachers(name)]
    return [
        ("workers", workers_of(learner), learner.resources),
        *((f"replicas of {teacher}", config.answered_by, config.resources) for teacher, config in live),
    ]


GANGS: Mapping[str, Callable[[Recipe, str], Gang]] = {
    "train_teacher": _training_teacher,
    "label": _labelling,
    "distill": _training_student,
}
"""By kind of stage."""


def most_of(recipe: Recipe, kind: str, name: str, num: int) -> int:
    """How many there may be, as room comes, of who begins `num` together: of replicas that label more than that."""
    return recipe.teachers[name].labelled_by.max if kind == "label" and name in recipe.teachers else num


def parts_of(gang: Gang, nodes: Sequence[Node]) -> tuple[Part, ...]:
    """The same as a planner has it; `nodes`: what is in reach, which says what `gpus: auto` comes to."""
    return tuple(Part(num, request_of(nodes, resources)) for _, num, resources in gang)
