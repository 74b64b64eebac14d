"""What a recipe says that its task has no room for. Knows nothing of files."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from students.config import task_terms
from students.config.estimator import EstimatorStudent
from students.config.student import Require
from students.tasks.figure import FIGURES, headline
from teachers.config.any_teacher import EncodingName, OutputKind, TeacherRequire
from teachers.config.predictions import PredictedKind
from teachers.config.task import ANSWER_OF, AnswerName
from teachers.config.teacher import TeacherConfig

from .boxes import box_problems
from .detecting import detection_problems
from .file import Loc, nearest
from .hints import hint_problems
from .seen_sizes import size_problems

if TYPE_CHECKING:
    from teachers.transfer_set.transfer_set import SplitName

    from .model import Recipe

OUTPUTS: dict[AnswerName, tuple[OutputKind, ...]] = {
    "class_axis": ("logits", "log_probabilities", "probabilities"),
    "class_set": ("logits", "probabilities"),
    "values": ("values",),
    "boxes": ("boxes",),
}
"""What a teacher's numbers may be, the first being what networks give."""
KEPT_AS: dict[AnswerName, tuple[EncodingName, ...]] = {
    "class_axis": ("dense", "label"),
    "class_set": ("dense", "label"),
    "values": ("dense",),
    "boxes": ("dense",),
}


def task_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    answer = ANSWER_OF[recipe.task]
    rows = recipe.transfer_set
    if rows.label_separator is not None and answer != "class_set":
        yield (
            ("transfer_set", "label_separator"),
            f"only `task: multilabel` has several classes in one text, this is {recipe.task}",
        )
    if rows.split.stratify and answer == "values":
        yield ("transfer_set", "split", "stratify"), "there are no classes to divide: the label is a number"
    yield from size_problems(recipe)
    if answer == "boxes":
        yield from detection_problems(recipe)
    elif rows.max_boxes != type(rows).model_fields["max_boxes"].default or rows.truncate:
        yield (
            ("transfer_set", "max_boxes" if not rows.truncate else "truncate"),
            "only `task: detection` has boxes; remove it",
        )
    yield from _bar_problems(recipe)
    yield from _calibration_problems(recipe)
    yield from _live_problems(recipe)
    yield from hint_problems(recipe)
    yield from box_problems(recipe)
    for name, teacher in recipe.teachers.items():
        for key, found, possible in _of_teacher(teacher, answer):
            wanted = " or ".join(f"`{each}`" for each in possible)
            yield ("teachers", name, key), f"`{found}` is nothing that `task: {recipe.task}` has; say {wanted}"
        for path, told in task_terms.train_problems(recipe.task, getattr(teacher, "train", None)):
            yield ("teachers", name, "train", *path), told
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            for path, told in task_terms.task_problems(recipe.task, learner):
                yield (kind, name, *path), told


def labels_out_of_fold(teacher: TeacherConfig) -> bool:
    """Whether no row is labelled by who has learnt it."""
    train = teacher.train if teacher.kind in ("module", "sklearn") else None
    return train is not None and train.folds is not None


def rows_to_calibrate_by(recipe: "Recipe", labelled: "Mapping[SplitName, int]") -> Iterator[str]:
    """Teachers that could not be calibrated with so many labelled rows of each split."""
    for name, teacher in recipe.teachers.items() if not labelled["validation"] else ():
        folded = labels_out_of_fold(teacher) and teacher.mode == "cached" and labelled["train"]
        if teacher.calibrate is not None and not folded:
            yield (
                f"teachers.{name}.calibrate: no labelled rows to calibrate by: no validation row has a label that may be used, "
                f"and it labels no training rows out of fold; give `split.validation` labelled rows, or `train.folds`, or "
                f"remove it"
            )


def _calibration_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    for name, teacher in recipe.teachers.items():
        if teacher.calibrate is None:
            continue
        path = ("teachers", name, "calibrate")
        if ANSWER_OF[recipe.task] == "values":
            yield path, "numbers have no probabilities to calibrate; remove it"
        elif recipe.transfer_set.label is None:
            yield path, "there are no labels to calibrate it by: `transfer_set.label` is null"
        elif teacher.encoding == "label":
            yield path, "its store keeps the class only, so there is nothing to calibrate; say `encoding: dense`"


def _live_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """Of those who need labels from teachers that leave none."""
    for name, student in recipe.students.items():
        for teacher in recipe.live_teachers(name) if isinstance(student, EstimatorStudent) else []:
            yield (
                ("students", name, "teachers"),
                f"teacher {teacher!r} is live, and an estimator learns stored labels, all at once; set "
                f"`teachers.{teacher}.mode: cached`",
            )
    if ANSWER_OF[recipe.task] != "values" or recipe.transfer_set.label is not None:
        return
    for name, learner in recipe.learners.items():
        live = recipe.live_teachers(name)
        if live and len(live) == len(learner.teachers):
            kind = "students" if name in recipe.students else "cohorts"
            yield (
                (kind, name, "teachers"),
                f"`transfer_set.label` is null, so the scale of the numbers is that of what teachers have said of the training rows, "
                f"and {' and '.join(map(repr, live))} keep{'s' * (len(live) == 1)} nothing, being live; set "
                f"`teachers.{live[0]}.mode: cached`, or let it hear one that is",
            )


def _of_teacher(teacher: TeacherConfig, answer: AnswerName) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if teacher.encoding not in KEPT_AS[answer]:
        yield "encoding", teacher.encoding, KEPT_AS[answer]
    if teacher.kind == "predictions":
        words: tuple[PredictedKind, ...] = () if answer in ("values", "boxes") else ("classes",)
        possible = (*OUTPUTS[answer], *words)
        if teacher.output not in possible:
            yield "output", teacher.output, possible
        return
    if teacher.kind == "endpoint":
        if teacher.api != "json" and answer != "class_axis":
            yield "api", teacher.api, ("json",)
        elif teacher.output not in OUTPUTS[answer]:
            yield "output", teacher.output, OUTPUTS[answer]
        return
    # a copy of a recipe states what its networks give anyway, and of numbers it is these
    stated = teacher.kind == "callable" or (
        teacher.kind in ("module", "onnx") and teacher.output != OUTPUTS["class_axis"][0]
    )
    if stated and teacher.output not in OUTPUTS[answer]:  # type: ignore[union-attr]
        yield "output", teacher.output, OUTPUTS[answer]  # type: ignore[union-attr]


def _bar_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """Of what gates ask: figures that the task has not, and shares that are none."""
    known = {figure.key: figure for figure in FIGURES[recipe.task]}
    for where, require in _gates(recipe):
        for key, bar in require.bars.items():
            if key not in known:
                told = nearest(key, [*known, *(["gain"] if isinstance(require, Require) else [])])
                yield (*where, key), f"no figure of `task: {recipe.task}` is called {key!r}{told}"
            elif known[key].unit == "share" and not 0 <= bar <= 1:
                yield (*where, key), f"is {bar:g}; {known[key].label} is a share, from 0 to 1"
        gain = require.gain if isinstance(require, Require) else None
        if gain is not None and headline(recipe.task).unit == "share" and not -1 <= gain <= 1:
            yield (*where, "gain"), f"is {gain:g}; {headline(recipe.task).label} is a share, so a gain is from -1 to 1"


def _gates(recipe: "Recipe") -> Iterator[tuple[Loc, Require | TeacherRequire]]:
    for name, teacher in recipe.teachers.items():
        if teacher.require is not None:
            yield ("teachers", name, "require"), teacher.require
    for name, learner in recipe.learners.items():
        if learner.require is not None:
            yield ("students" if name in recipe.students else "cohorts", name, "require"), learner.require
