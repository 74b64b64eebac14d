"""Targets that are made ready for their loss before the first step: what a loss makes of a target alone is the same in every step.

Knows nothing of how targets come to be.
"""

from collections.abc import Sequence

from teachers.config.task import TaskName

from ..config.cohort_terms import CohortTerm
from ..config.terms import Term
from .bound import keywords_of
from .combination import Combination
from .losses.table import READY
from .targets import Targets
from .voices import CHUNK


def make_ready(
    task: TaskName,
    terms: Sequence[Term | CohortTerm],
    combinations: Sequence[Combination | None],
    targets: Targets,
) -> list[bool]:
    """Of each term whether its target is ready: one that is held, without gaps, and that is heard by no loss which makes another thing
    of it."""
    own, ready = READY[task], [False] * len(terms)
    for combination, target in targets.whole.items():
        hear = [number for number, each in enumerate(combinations) if each == combination]
        if any(terms[number].loss not in own for number in hear):
            continue
        (loss, told), *others = [(terms[number].loss, keywords_of(task, terms[number])) for number in hear]
        if any(each != (loss, told) for each in others):
            continue
        for rows in target.split(CHUNK):
            rows.copy_(own[loss][0](rows, **told))  # type: ignore[index]
        for number in hear:
            ready[number] = True
    return ready
