"""Students that teach each other in a circle: nobody of them could be the first. Knows nothing of what a recipe is else."""

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from .file import Loc


class Taught(Protocol):
    """A student or a cohort."""

    @property
    def teachers(self) -> list[str]: ...


def circle_problems(learners: Mapping[str, Taught], students: Collection[str]) -> Iterator[tuple[Loc, str]]:
    """(path, message), each circle once. `students`: those of `learners` that are no cohort."""
    for name in learners:
        path = _circle_from(learners, name)
        if path is not None and name == min(path):  # told once, not once a member
            kind = "students" if name in students else "cohorts"
            yield (kind, name, "teachers"), f"students teach each other in a circle: {' -> '.join(path)}"


def _circle_from(learners: Mapping[str, Taught], start: str) -> list[str] | None:
    waiting = [[start]]
    seen = set()
    while waiting:
        path = waiting.pop()
        for teacher in learners[path[-1]].teachers:
            learner = learner_of(teacher)
            if learner == start:
                return [*path, start]
            if learner in learners and learner not in seen:
                seen.add(learner)
                waiting.append([*path, learner])
    return None


def learner_of(teacher: str) -> str:
    """The student or cohort that a name in a `teachers` list stands for: `trio` of `trio.a`."""
    return teacher.partition(".")[0]
