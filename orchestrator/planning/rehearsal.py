"""One batch of real rows through everybody who teaches or learns, by the engine's own code: what `plan --check` does.

Who is brought is loaded and asked; an estimator is fitted on some rows; a network takes a step's forward, objective and
backward. What teachers that are trained here would say is made up. Everything lies in a folder that is gone afterwards.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from teachers.config.resources import Resources
from teachers.users_code.imports import UserPath

from ..recipe.model import Recipe
from ..stages import keys
from .learning import Learning
from .outputs import NONE, Shapes
from .rehearsed import Rehearsed
from .teaching import Teaching

if TYPE_CHECKING:
    from teachers.preparing.sample import Sample

ASKED_ROWS = 16
FITTED_ROWS = 512
"""On which an estimator is tried."""


def rehearse(recipe: Recipe, rows: "Sample", user_path: UserPath, outputs: Shapes = NONE) -> Rehearsed:
    """Try everybody on `rows`. Raises EnvironmentUnfit for what this machine lacks. `outputs`: as of `Teaching`."""
    from teachers.preparing.sample import as_transfer_set

    found = Rehearsed()
    with tempfile.TemporaryDirectory(prefix="collegium-check-") as folder:
        some = recipe.transfer_set.labelled is not None
        few = as_transfer_set(rows.take(ASKED_ROWS), Path(folder) / "prepared" / "few", some_unlabelled=some)
        few = few.viewing(keys.viewing_of(recipe))
        if few.viewed is not None:
            with found.told("transfer_set", Resources()):
                few.inputs(few.in_views()[1])
        teaching = Teaching(recipe, few, rows, Path(folder), user_path, found, outputs)
        sources = {name: teaching.source(name, config) for name, config in recipe.teachers.items()}
        for name in recipe.assistants():
            sources[name] = teaching.made_up(name, keys.assistant_as_teacher(recipe, name, ""), few.classes)
        learning = Learning(recipe, few, Path(folder), user_path, found, sources)
        for name, student in recipe.students.items():
            learning.student(name, student)
        for name, cohort in recipe.cohorts.items():
            learning.cohort(name, cohort)
        if recipe.search is not None and recipe.search.student in recipe.students and not found.problems:
            learning.trials(recipe.search.student, recipe.students[recipe.search.student])
    return found
