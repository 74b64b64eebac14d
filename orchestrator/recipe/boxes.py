"""What a recipe says of teachers of boxes that they have no room for, or lacks. Knows nothing of files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from teachers.config.detecting import OF_BOXES
from teachers.config.task import ANSWER_OF

from .file import Loc

if TYPE_CHECKING:
    from .model import Recipe

SAY_BOXES = ("module", "checkpoint", "huggingface", "onnx", "callable", "predictions")
"""Kinds of teachers that may."""


def box_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    says_boxes = ANSWER_OF[recipe.task] == "boxes"
    for name, teacher in recipe.teachers.items():
        told = [key for key in OF_BOXES if getattr(teacher, key, None)]
        if not says_boxes and told:
            yield ("teachers", name, told[0]), "is of boxes, which only `task: detection` has; leave it out"
        if not says_boxes:
            continue
        if teacher.kind not in SAY_BOXES:
            yield (
                ("teachers", name, "kind"),
                f"`{teacher.kind}` says no boxes; `task: detection` has {', '.join(SAY_BOXES)}",
            )
        elif teacher.kind == "onnx" and teacher.decode is None:
            yield (
                ("teachers", name, "decode"),
                "nothing says how the graph's numbers are boxes; say `yolo`, `detr` or `raw`",
            )
        elif teacher.kind == "huggingface" and teacher.outputs and teacher.asked_for:
            yield (
                ("teachers", name, "outputs"),
                "of a detector that is told what to look for no layers are named; leave it out",
            )
