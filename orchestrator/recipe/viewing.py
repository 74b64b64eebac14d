"""What does not go with views of the training rows. Knows nothing of files."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from students.config.cohort import CohortCommon
from students.config.estimator import EstimatorStudent

from .file import Loc
from .mixing import mixed_view_problems

if TYPE_CHECKING:
    from teachers.transfer_set.columns import Column

    from .model import Recipe

OF_LABELS = ("hard", "label_smoothing_teacher")
"""Losses that compare with labels, and of a row of two with both."""


def viewing_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each: whoever would see other pixels than those that teachers spoke of."""
    if not recipe.transfer_set.views:
        return
    heard = {teacher for learner in recipe.learners.values() for teacher in learner.teachers}
    for name, teacher in recipe.teachers.items():
        if teacher.kind == "predictions" and name in heard:
            yield (
                ("teachers", name),
                "says what stands in a file, of rows as they are, and no view of them; remove `transfer_set.views`",
            )
        if teacher.mode == "live" and name in heard:
            yield (
                ("teachers", name, "mode"),
                "a live teacher is asked about whatever the student sees, so nothing has to be the same again; set `cached`, or "
                "remove `transfer_set.views` and say `train.augment`",
            )
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            if not isinstance(learner, EstimatorStudent):
                yield from (((kind, name, *where), told) for where, told in _of_learner(learner))
    if "mixup" in recipe.transfer_set.transforms:
        yield from mixed_view_problems(recipe)


def _of_learner(learner: Any) -> Iterator[tuple[Loc, str]]:
    trains: list[tuple[Loc, Any]] = [(("train",), learner.train)]
    if isinstance(learner, CohortCommon):
        trains += [(("members", name, "train"), learner.member_train(name)) for name in learner.members]
    for where, train in trains:
        if train.augment is not None or train.mix is not None:
            key = "augment" if train.augment is not None else "mix"
            yield (
                (*where, key),
                "the student would see other pixels than those that teachers spoke of; remove it, or `transfer_set.views`",
            )
            return
    if getattr(learner.control, "augment", None) is not None:
        yield (
            ("control", "augment"),
            "the control sees the views that the student sees; remove it, or `transfer_set.views`",
        )


def views_of_columns(recipe: "Recipe", columns: "Sequence[Column]") -> Iterator[str]:
    """What is wrong with inputs of which there are to be views."""
    if not recipe.transfer_set.views:
        return
    if text := [column.name for column in columns if column.kind == "text"]:
        yield f"transfer_set.views: {text[0]!r} is text, of which there are no views; remove it from `inputs`, or `views`"
    elif not any(column.kind == "image" for column in columns):
        yield "transfer_set.views: `transform` moves images, and the inputs have none; remove it"
    elif "mixup" in recipe.transfer_set.transforms and (odd := [c.name for c in columns if c.kind != "image"]):
        yield (
            f"transfer_set.transform: `mixup` mixes images, and column {odd[0]!r} is none, so the row would be of two and of one; "
            f"remove one of them from `inputs` and `transform`"
        )


def mixed_view_notes(recipe: "Recipe", labelled: int, rows: int) -> Iterator[str]:
    """Terms that compare with labels, where rows are mixed with others that have none."""
    if "mixup" not in recipe.transfer_set.transforms or labelled >= rows:
        return
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            if isinstance(learner, EstimatorStudent) or not any(term.loss in OF_LABELS for term in learner.objective):
                continue
            yield (
                f"{kind}.{name}.objective: in views that are mixed a term that compares with labels takes the rows of which both have "
                f"one, of {labelled:,} labelled rows about {labelled / rows:.0%}; of all of them it takes view 0"
            )
