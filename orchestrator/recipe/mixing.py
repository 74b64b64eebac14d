"""What is wrong with rows that are mixed two by two (`train.mix`) or four by four (`mosaic`), and with synthetic rows. Knows nothing of files."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from students.config.cohort import KdclCohort
from students.config.estimator import EstimatorStudent
from students.config.hints import ContrastiveHint, weighed_by_label
from students.config.own_terms import MeanTeacherTerm
from students.config.student import StudentConfig
from students.config.task_terms import ASK_THE_STUDENT, OF_LABELLED_ROWS
from students.config.terms import HardTerm, LossName, SoftTerm, TeacherTermCommon, TermCommon
from teachers.config.predictions import PredictionsTeacher
from teachers.config.task import ANSWER_OF
from teachers.config.training import TrainConfig

from .file import Loc

if TYPE_CHECKING:
    from teachers.transfer_set.columns import Column

    from .model import Recipe

LINEAR: tuple[LossName, ...] = (
    "hard",
    "soft",
    "teacher_label",
    "logit_mse",
    "logit_standardized",
    "label_smoothing_teacher",
)
"""Losses whose gradient is linear in what they compare with: beside two targets, weighted, as beside the mixed one."""
MOSAIC = "mosaic"
OF_ONE_LABEL: tuple[LossName, ...] = ("dkd", "ps_kd")


def mix_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    yield from _mosaics(recipe)
    for name, cohort in recipe.cohorts.items():
        if cohort.train.mix is not None:
            yield (
                ("cohorts", name, "train", "mix"),
                "is of students and teachers; a cohort's members see rows as they are",
            )
    for name, student in recipe.students.items():
        if isinstance(student, StudentConfig) and student.train.mix is not None:
            for path, told in _of_student(recipe, name, student):
                yield ("students", name, *path), told
    for name, teacher in recipe.teachers.items():
        if (
            recipe.transfer_set.munge is not None
            and isinstance(teacher, PredictionsTeacher)
            and not teacher.max_missing
        ):
            yield (
                ("teachers", name, "max_missing"),
                "a file of predictions says nothing of synthetic rows (`transfer_set.munge`); raise it, or take `munge` out",
            )


def _mosaics(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """Those of rows that nobody could say the label of, or whose layers nobody keeps, and of batches that a control cannot divide."""
    for name, student in recipe.students.items():
        if isinstance(student, StudentConfig) and MOSAIC in student.train.augments:
            for path, told in _hints_of_several(
                student, recipe.live_teachers(name), "`mosaic` shows four images as one"
            ):
                yield ("students", name, *path), told
    for kind, named in (("teachers", recipe.teachers), ("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, config in named.items():
            train = getattr(config, "train", None)
            for key, each in (("train", train), ("control", getattr(config, "control", None))):
                if MOSAIC not in getattr(each, "augments", ()):
                    continue
                where: Loc = (kind, name, key, "augment")
                if ANSWER_OF[recipe.task] != "boxes":
                    yield where, "`mosaic` shows four images as one, which only boxes can follow; remove it"
                elif isinstance(train, TrainConfig) and train.batch_size % (4 * train.workers * train.accumulate):
                    yield (
                        where,
                        f"a `mosaic` is of four rows, and batch_size {train.batch_size} is no multiple of 4 * workers * accumulate",
                    )


def mixed_view_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each who would take a row of two, which `transform: mixup` makes and teachers speak of, for one row."""
    made = "`transfer_set.transform: mixup` makes rows of two"
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            if isinstance(learner, EstimatorStudent):
                continue
            for number, term in enumerate(learner.objective):
                if term.loss in OF_ONE_LABEL:
                    told = f"{term.loss!r} compares with the one label of a row, and {made}; take `soft` and `hard`"
                    yield (kind, name, "objective", number, "loss"), told
                elif getattr(term, "curriculum", None) is not None:
                    told = f"weighs a row by its one label, and {made}; say `curriculum: null`"
                    yield (kind, name, "objective", number, "curriculum"), told
                elif told := _by_one_row(term, made):
                    yield (kind, name, "objective", number, "combine"), told
            for number, hint in enumerate(getattr(learner, "hints", ())):
                if isinstance(hint, ContrastiveHint):
                    yield (kind, name, "hints", number, "loss"), f"tells rows apart, and {made}; remove one"
                elif weighed_by_label([hint]):
                    yield (
                        (kind, name, "hints", number, "combine"),
                        f"goes by the one label of a row, and {made}; remove one",
                    )
            if isinstance(learner, KdclCohort) and learner.target != "general":
                told = f"{learner.target!r} goes by the one label of a row, and {made}; take `general`"
                yield (kind, name, "target"), told


def unmixable_problems(recipe: "Recipe", columns: Sequence["Column"]) -> Iterator[str]:
    """Who would mix rows that are no images."""
    odd = [column.name for column in columns if column.kind != "image"]
    trained: list[tuple[str, Any]] = [(f"teachers.{name}", each) for name, each in recipe.teachers.items()]
    trained += [(f"students.{name}", each) for name, each in recipe.students.items()]
    for where, each in trained if odd else ():
        if (mix := getattr(getattr(each, "train", None), "mix", None)) is not None:
            yield (
                f"{where}.train.mix: `{mix.kind}` mixes images, and column {odd[0]!r} is none; remove it, or see "
                f"`transfer_set.munge` for tables"
            )


def _of_student(recipe: "Recipe", name: str, student: StudentConfig) -> Iterator[tuple[Loc, str]]:
    live = recipe.live_teachers(name)
    if student.hydra is not None:
        yield (
            ("hydra",),
            "has a head for each teacher, each beside whole rows, and `train.mix` makes rows of two; remove one",
        )
    for number, term in enumerate(student.objective):
        heard = list(getattr(term, "teachers", None) or student.teachers) if isinstance(term, TeacherTermCommon) else []
        if told := _of_term(recipe, term, heard, live):
            yield ("objective", number, "loss"), told
    yield from _hints_of_several(student, live, "`train.mix` makes rows of two")


def _hints_of_several(student: StudentConfig, live: Sequence[str], made: str) -> Iterator[tuple[Loc, str]]:
    """Hints that know single rows only, of a student who sees several as one, as `made` says."""
    for number, hint in enumerate(student.hints):
        if isinstance(hint, ContrastiveHint):
            yield ("hints", number, "loss"), f"tells rows apart, and {made}; remove one"
        elif weighed_by_label([hint]):
            yield ("hints", number, "combine"), f"goes by the one label of a row, and {made}; remove one"
        elif hint.teacher not in live:
            yield (
                ("hints", number, "teacher"),
                f"the store of {hint.teacher!r} keeps layers of single images, and {made}; set "
                f"`teachers.{hint.teacher}.mode: live`, or remove one",
            )


def _of_term(recipe: "Recipe", term: TermCommon, heard: Sequence[str], live: Sequence[str]) -> str:
    """Why a term has no loss for a mixed row; empty where it has."""
    if isinstance(term, MeanTeacherTerm):
        return ""
    if term.loss in OF_ONE_LABEL:
        return f"{term.loss!r} compares with the one label of a row, and `train.mix` makes rows of two; take `soft` and `hard`"
    stored = [name for name in heard if name not in live]
    if heard and not stored:
        return _by_one_row(term, "`train.mix` makes rows of two")
    if len(stored) < len(heard):
        return (
            f"{stored[0]!r} is cached, so it speaks of whole rows, and {next(n for n in heard if n in live)!r} is live and speaks of "
            f"the mixed ones; give each a term of its own, or one `mode`"
        )
    if (why := _not_linear(recipe, term)) or (why := _in_step(term)):
        cure = (
            "; take `soft`, `logit_mse` or `teacher_label`, or set the teachers' `mode: live`"
            if heard
            else "; say `mse`"
        )
        return f"{why}, so nothing is exact for a row that `train.mix` makes of two{cure}"
    return ""


def _by_one_row(term: TermCommon, made: str) -> str:
    rule = getattr(term, "combine", None)
    if rule in (*OF_LABELLED_ROWS, "route"):
        return f"`combine: {rule}` goes by one row, and {made}; take another rule"
    return ""


def _not_linear(recipe: "Recipe", term: TermCommon) -> str:
    if term.loss not in LINEAR:
        return f"{term.loss!r} beside two targets is not what it is beside their mean"
    if (
        ANSWER_OF[recipe.task] == "values"
        and isinstance(term, HardTerm | SoftTerm)
        and term.distance not in (None, "mse")
    ):
        return f"`distance: {term.distance}` beside two targets is not what it is beside their mean"
    return ""


def _in_step(term: TermCommon) -> str:
    rule = getattr(term, "combine", None) or ""
    if (
        rule in ASK_THE_STUDENT
        or ":" in rule
        or getattr(term, "level", None) == "losses"
        or getattr(term, "drop", None)
    ):
        return "its teachers are combined by what the student says, or anew in every step"
    return ""
