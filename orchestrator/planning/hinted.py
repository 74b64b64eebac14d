"""Hints and heads of several students, each tried on a few rows by one step, before anybody is trained and without asking a teacher."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from teachers.config.outputs import NetworkTeacher
from teachers.users_code.calls import within
from teachers.users_code.imports import UserPath, use_user_path

from ..recipe.model import Recipe
from ..stages import keys
from .learning import Learning
from .outputs import Shapes
from .rehearsal import ASKED_ROWS
from .rehearsed import Rehearsed
from .teaching import Teaching

if TYPE_CHECKING:
    from teachers.transfer_set.transfer_set import TransferSet


def hint_failures(
    recipe: Recipe, names: Sequence[str], transfer_set: "TransferSet", user_path: UserPath
) -> dict[str, str]:
    """By student among `names`, the first line of why it could not be trained. What teachers say is made up, in the shapes of
    their outputs. Raises CollegiumError for an output that a teacher cannot give."""
    from teachers.preparing.sample import as_transfer_set, sample_prepared

    use_user_path(user_path)
    shapes, failures = _shapes(recipe, transfer_set), dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="collegium-check-") as place:
        folder = Path(place)
        rows, found = sample_prepared(transfer_set, ASKED_ROWS), Rehearsed()
        few = as_transfer_set(rows, folder / "prepared" / "few")
        teaching = Teaching(recipe, few, rows, folder, user_path, found, shapes)
        asked = {name: config.model_copy(update={"class_map": None}) for name, config in recipe.teachers.items()}
        asked |= {name: keys.assistant_as_teacher(recipe, name, "") for name in recipe.assistants()}
        sources = {name: teaching.made_up(name, config, few.classes) for name, config in asked.items()}
        learning = Learning(recipe, few, folder, user_path, found, sources)
        for name in names:
            before = len(found.problems)
            learning.student(name, recipe.students[name])
            if len(found.problems) > before:
                failures[name] = found.problems[before].splitlines()[0]
    return failures


def _shapes(recipe: Recipe, transfer_set: "TransferSet") -> Shapes:
    from teachers.models.skeleton import output_shapes

    found = {}
    for name, teacher in recipe.teachers.items():
        if isinstance(teacher, NetworkTeacher) and teacher.outputs:
            with within(f"teachers.{name}"):
                found[name] = output_shapes(teacher, transfer_set.columns, transfer_set.space, recipe.trusted())
    return found
