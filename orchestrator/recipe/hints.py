"""What is wrong between a student's hints and what its teachers give. Knows nothing of networks or files."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from students.config.hints import OF_MAPS, ContrastiveHint, Hint, weighed_by_label
from students.config.student import StudentConfig
from teachers.config.task import ANSWER_OF

from .file import Loc, nearest

if TYPE_CHECKING:
    from .model import Recipe


def hint_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each: outputs that a teacher does not give, and what the task has no room for."""
    for name, student in recipe.students.items():
        for number, hint in enumerate(student.hints if isinstance(student, StudentConfig) else ()):
            where = ("students", name, "hints", number)
            for output in hint.outputs:
                if told := _not_given(recipe, hint.teacher, output) or _is_no_map(recipe, hint, output):
                    yield (*where, "output"), told
            if hint.standardise and getattr(recipe.teachers.get(hint.teacher), "mode", None) == "live":
                yield (
                    (*where, "standardise"),
                    f"goes by all training rows, and what the live teacher {hint.teacher!r} gives is known batch by batch; set "
                    f"`teachers.{hint.teacher}.mode: cached`, or remove it",
                )
            if weighed_by_label([hint]) and ANSWER_OF[recipe.task] not in ("class_axis", "class_set"):
                yield (
                    (*where, "combine"),
                    f"`correctness` goes by how likely a teacher finds the label, and rows of the task {recipe.task} are of no class; remove it",
                )
            relaxed = isinstance(hint, ContrastiveHint) and hint.positive == "relax"
            if relaxed and ANSWER_OF[recipe.task] != "class_axis":
                yield (
                    (*where, "positive"),
                    f"`relax` goes by the one class that a row is of, and rows of the task {recipe.task} have none; say `exact`",
                )
            elif relaxed and recipe.transfer_set.label is None:
                yield (*where, "positive"), "`relax` goes by labels, and `transfer_set.label` is null; say `exact`"


def _not_given(recipe: "Recipe", teacher: str, output: str) -> str:
    """Why a hint cannot be of this output; empty where it can be."""
    if teacher not in recipe.teachers:
        if teacher not in recipe.who_teaches():
            return ""  # told where it stands among the student's teachers
        return f"{teacher!r} is trained here as a student, and only `teachers` give outputs; name one of them"
    given = getattr(recipe.teachers[teacher], "outputs", None)
    if given is None:
        return f"teacher {teacher!r} is of kind {recipe.teachers[teacher].kind}, which has no layers to name; take a network"
    if output in given:
        return ""
    there = f"it gives {', '.join(given)}{nearest(output, given)}" if given else "it gives none"
    return f"teacher {teacher!r} gives no output {output!r}; {there}: name it under `teachers.{teacher}.outputs`"


def _is_no_map(recipe: "Recipe", hint: Hint, output: str) -> str:
    """Why a loss or a projector of maps cannot be of this output; empty where it may be, which `plan --check` tries."""
    outputs = getattr(recipe.teachers.get(hint.teacher), "outputs", {})
    if output not in outputs or outputs[output].pool is None:
        return ""
    if hint.loss in OF_MAPS:
        return f"the loss {hint.loss!r} compares maps, and {output!r} is one vector (`pool`); name an output without `pool`"
    if hint.projector in ("conv1x1", "conv_regressor"):
        return f"{hint.projector} makes maps, and {output!r} is one vector (`pool`); say `projector: linear`"
    return ""
