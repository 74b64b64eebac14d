"""What a run is thought to take: told when it begins, held against what it took when it has ended.

Seconds are those that earlier runs in the same OUT took; who was never timed has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from students.config.estimator import EstimatorStudent
from teachers.config.task import ANSWER_OF
from teachers.soft_targets.encodings.table import bytes_per_row
from teachers.tasks.boxes import width_of
from teachers.transfer_set.own_rows import shared
from teachers.transfer_set.transfer_set import TransferSet

from ..recipe.model import Recipe, is_trained_here
from ..stages.keys import viewing_of
from ..stages.trainings import kinds_of
from .works import Lengths, length_of

Estimates = Mapping[str, Mapping[str, Any]]
"""By stage (`label/wide`): `rows`, `bytes`, `trainings`, `wall_s` (of a training the seconds of one); None: nobody knows."""


def bytes_of_an_answer(recipe: Recipe, name: str, names: Sequence[str], more: int = 0) -> int:
    """What a teacher says of one row, in its store. `names`: of the recipe's classes or numbers; `more`: bytes of named outputs."""
    teacher = recipe.teachers[name]
    width = width_of(teacher.classes or names, recipe.transfer_set.boxes)
    return bytes_per_row(teacher.encoding, width, ANSWER_OF[recipe.task]) + more


def estimates(recipe: Recipe, transfer_set: TransferSet, learners: Sequence[str], lengths: Lengths) -> Estimates:
    """Of everybody who teaches, and of `learners`."""
    asked = shared(transfer_set.viewing(viewing_of(recipe)))
    found: dict[str, dict[str, Any]] = {}
    for name, teacher in recipe.teachers.items():
        if is_trained_here(teacher):
            found[f"train_teacher/{name}"] = {"wall_s": length_of(recipe, f"train_teacher/{name}", lengths)}
        rows = sum(each.num_rows for each in asked if teacher.mode == "cached" or each.split != "train")
        has_more = bool(getattr(teacher, "outputs", None))
        a_row = bytes_of_an_answer(recipe, name, transfer_set.space.names)
        wall_s = lengths.timed.get(f"label/{name}")
        found[f"label/{name}"] = {"rows": rows, "bytes": None if has_more else rows * a_row, "wall_s": wall_s}
    for name in learners:
        learner = recipe.learners[name]
        trainings = len(learner.train.seeds) * len(kinds_of(learner))
        found[f"distill/{name}"] = {
            "trainings": trainings,
            "wall_s": length_of(recipe, f"distill/{name}", lengths),
            **({} if isinstance(learner, EstimatorStudent) else {"steps": lengths.steps(learner.train, lengths.rows)}),
        }
    return found
