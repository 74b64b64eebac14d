"""Which stages a recipe has, in words: what a run or a search is going to do."""

import logging
from collections.abc import Sequence

from students.config.cohort import CohortCommon

from ..recipe.model import Recipe, is_trained_here, learner_of
from .texts import texts_of

log = logging.getLogger(__name__)


def planned(recipe: Recipe, until: str) -> list[str]:
    """Titles of the stages of a run without their parts, in the order of the recipe's paragraph."""
    learners = [] if until == "label" else [name for names in recipe.learners_in_order() for name in names]
    return [*_taught(recipe, learners), *_measured(recipe, learners, until)]


def planned_study(recipe: Recipe) -> list[str]:
    """The same of a search: what teaches, the trials, and the best trained again."""
    assert recipe.search is not None
    student = recipe.search.student
    before = [name for names in recipe.before(student) for name in names]
    measured = _measured(recipe, [*before, student], "export")
    return [*_taught(recipe, before), f"tune/{student}", f"distill/{student}", *measured]


def _taught(recipe: Recipe, learners: Sequence[str]) -> list[str]:
    titles = ["prepare/transfer_set", *(f"derive/{name}" for name in texts_of(recipe))]
    titles += [f"train_teacher/{name}" for name, teacher in recipe.teachers.items() if is_trained_here(teacher)]
    titles += [f"label/{name}" for name in recipe.teachers]
    judges = recipe.transfer_set.label is not None
    titles += ["judge/teachers"] * (judges and bool(recipe.teachers))
    for learner in learners:
        titles.append(f"distill/{learner}")
        mine = [name for name in recipe.assistants() if learner_of(name) == learner]
        titles += [f"{verb}/{name}" for verb in ("label", "judge") if verb == "label" or judges for name in mine]
    return titles


def _measured(recipe: Recipe, learners: Sequence[str], until: str) -> list[str]:
    titles = []
    if until in ("evaluate", "export"):
        titles += ["evaluate/teachers"] * bool(recipe.teachers) + [f"evaluate/{name}" for name in learners]
    if until == "export":
        titles += [f"export/{title}" for name in learners for title in _delivered(recipe, name)]
    return titles


def _delivered(recipe: Recipe, learner: str) -> list[str]:
    config = recipe.learners[learner]
    if isinstance(config, CohortCommon) and config.deliver == "all":
        return [f"{learner}.{member}" for member in config.members]
    return [learner]
