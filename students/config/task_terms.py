"""What of an objective, a budget and a cohort makes sense of each task, and what is refused. Knows nothing of torch."""

from collections.abc import Iterator, Sequence
from typing import get_args

from teachers.config.folds import EstimatorTrain
from teachers.config.task import ANSWER_OF, AnswerName, TaskName
from teachers.config.teacher import CombineName
from teachers.config.training import TrainConfig

from .cohort import CohortCommon, KdclCohort, KdclTarget
from .cohort_terms import PEER_TEMPERATURE, PeerTerm
from .estimator import AT_ONCE, EstimatorStudent
from .student import StudentConfig
from .terms import HardTerm, ImportedTerm, LossName, SoftTerm, StudentLossName, TeacherTermCommon, TermCommon

Problem = tuple[tuple[str | int, ...], str]
"""A path below the student or cohort, and what is wrong there."""

OF_CLASSES: dict[LossName, tuple[str, ...]] = {
    "hard": ("label_smoothing",),
    "soft": ("temperature", "standardise"),
    "teacher_label": (),
    "reverse_kl": ("temperature", "standardise"),
    "jensen_shannon": ("temperature", "beta", "standardise"),
    "logit_mse": ("centre",),
    "dkd": ("temperature", "alpha", "beta", "standardise"),
    "dist": ("temperature", "beta", "gamma"),
    "logit_standardized": ("temperature",),
    "label_smoothing_teacher": ("temperature", "correct"),
    "lfme": ("temperature",),
    "ps_kd": (),
    "mean_teacher": ("temperature",),
    "peer": ("temperature", "reduce"),
    "feature": (),
    "channel": (),
}
OF_SETS: dict[LossName, tuple[str, ...]] = {
    "hard": ("label_smoothing",),
    "soft": ("temperature",),
    "teacher_label": (),
    "reverse_kl": ("temperature",),
    "jensen_shannon": ("temperature", "beta"),
    "logit_mse": (),
    "label_smoothing_teacher": ("temperature", "correct"),
    "peer": ("temperature", "reduce"),
    "ps_kd": (),
    "mean_teacher": ("temperature",),
    "feature": (),
    "channel": (),
}
OF_NUMBERS: dict[LossName, tuple[str, ...]] = {
    "hard": ("distance", "delta", "quantile"),
    "soft": ("distance", "delta", "quantile"),
    "peer": ("distance", "delta", "quantile", "reduce"),
    "mean_teacher": ("distance", "delta", "quantile"),
    "feature": (),
    "channel": (),
}
OF_BOXES: dict[LossName, tuple[str, ...]] = {"hard": (), "pseudo": ("keep_above", "ignore_above", "soft")}
KEYWORDS: dict[TaskName, dict[LossName, tuple[str, ...]]] = {
    "classification": OF_CLASSES,
    "multilabel": OF_SETS,
    "regression": OF_NUMBERS,
    "detection": OF_BOXES,
}
"""The losses that each task has, and what of a term each is told; what other terms have is the engine's."""

COMBINES: dict[AnswerName, tuple[CombineName, ...]] = {
    "class_axis": (
        "mean_probability",
        "mean_logits",
        "weighted",
        "fitted",
        "vote",
        "confidence",
        "entropy",
        "correctness",
        "best",
        "experts",
        "learned",
        "confusion",
        "gradient",
        "route",
    ),
    "class_set": (
        "mean_probability",
        "mean_logits",
        "weighted",
        "vote",
        "confidence",
        "entropy",
        "correctness",
        "best",
        "experts",
        "gradient",
        "route",
    ),
    "values": ("mean", "median", "weighted", "inverse_variance", "best", "route"),
    "boxes": ("wbf", "nms", "soft_nms", "nmw", "best"),
}
"""How several teachers become one target; the first is what `combine: null` means."""

JUDGING: tuple[CombineName, ...] = ("inverse_variance", "fitted", "best", "experts", "learned", "confusion")
"""Rules that weigh teachers by what they say of labelled validation rows."""
ASK_THE_STUDENT: tuple[CombineName, ...] = ("gradient",)
"""Rules that are told what the student says, in every step."""
OF_LABELLED_ROWS: tuple[CombineName, ...] = ("correctness",)
"""Rules that ask for the labels of the rows that they weigh teachers in."""

KDCL_TARGETS: dict[AnswerName, tuple[KdclTarget, ...]] = {
    "class_axis": get_args(KdclTarget),
    "class_set": ("general",),
    "values": ("general",),
    "boxes": (),
}
"""The others compare logits with that of the one class that a row is of."""


def combine_of(term: TeacherTermCommon, task: TaskName) -> str:
    """The rule by which a term combines teachers: one of COMBINES, or an import string."""
    return term.combine or COMBINES[ANSWER_OF[task]][0]


def rule_in_keys(rule: str | None, task: TaskName) -> str | None:
    """Null for the rule that null means, too: it is one combination, whether it is written out or not."""
    return None if rule == COMBINES[ANSWER_OF[task]][0] else rule


def task_problems(task: TaskName, learner: StudentConfig | EstimatorStudent | CohortCommon) -> Iterator[Problem]:
    """What a student or cohort asks for that `task` does not have."""
    if isinstance(learner, EstimatorStudent):
        yield from _estimator_problems(task, learner)
        return
    method = learner.name_of_method if isinstance(learner, CohortCommon) else None
    temperature = None if method is None else PEER_TEMPERATURE[method]
    for number, term in enumerate(learner.objective):
        for path, told in _term_problems(task, term, temperature):
            yield ("objective", number, *path), told
    for path, told in train_problems(task, learner.train):
        yield ("train", *path), told
    if isinstance(learner, CohortCommon) and learner.train.ema is not None:
        yield (
            ("train", "ema"),
            "of the members of a cohort, who step together, no average of weights is kept; remove it",
        )
    targets = KDCL_TARGETS[ANSWER_OF[task]]
    if isinstance(learner, KdclCohort) and learner.target not in targets:
        yield (
            ("target",),
            f"{learner.target!r} compares members by the one class that a row is of, and rows of the task {task} have "
            f"none; give {' or '.join(targets)}",
        )


def _estimator_problems(task: TaskName, learner: EstimatorStudent) -> Iterator[Problem]:
    """Of an estimator, which learns the mean of what its terms say of a class or a number."""
    answer = ANSWER_OF[task]
    for number, term in enumerate(learner.objective):
        for path, told in _term_problems(task, term, None, also=(AT_ONCE,)):
            yield ("objective", number, *path), told
        if isinstance(term, TeacherTermCommon):
            for name in _asked_in_steps(term):
                yield (
                    ("objective", number, name),
                    f"{getattr(term, name)!r} is decided in the steps of a training, and an estimator is fitted at once; remove it",
                )
        if answer == "values" and isinstance(term, HardTerm | SoftTerm) and term.distance not in (None, "mse"):
            yield (
                ("objective", number, "distance"),
                f"an estimator learns the mean of what the terms say, which is the least of squares; remove "
                f"{term.distance!r}: the distance that it minimises is among its own `arguments`",
            )
    for name in ("learns", "least_weight", "probability_floor") if answer == "values" else ():
        if getattr(learner, name) != EstimatorStudent.model_fields[name].default:
            yield (name,), f"is of classes, and labels of the task {task} are numbers; remove it"
    if learner.train.class_weights is not None and answer != "class_axis":
        yield (
            ("train", "class_weights"),
            f"an estimator weighs rows, and in the task {task} a row is of no one class; remove it",
        )


def _asked_in_steps(term: TeacherTermCommon) -> Iterator[str]:
    if term.combine in ASK_THE_STUDENT:
        yield "combine"
    if term.level == "losses":
        yield "level"
    if term.drop is not None:
        yield "drop"


def train_problems(task: TaskName, train: TrainConfig | EstimatorTrain | None) -> Iterator[Problem]:
    """What a budget says of classes where a task has none, or several a row."""
    if isinstance(train, TrainConfig) and train.balanced is not None and ANSWER_OF[task] != "class_axis":
        yield ("balanced",), f"in the task {task} a row is of no one class to be drawn by; remove it"
    if isinstance(train, TrainConfig) and train.class_weights is not None and ANSWER_OF[task] == "values":
        yield ("class_weights",), f"labels of the task {task} are numbers, of no class; remove it"


def _term_problems(
    task: TaskName, term: TermCommon, temperature: float | None, also: Sequence[float] = ()
) -> Iterator[Problem]:
    """`also`: what changes nothing beside a default."""
    loss: LossName = term.loss  # type: ignore[assignment]
    if not isinstance(term, ImportedTerm) and loss not in KEYWORDS[task]:
        losses = [name for name in KEYWORDS[task] if name in get_args(StudentLossName)]
        yield ("loss",), _expected(task, f"is {loss!r}", losses)
        return
    if isinstance(term, TeacherTermCommon) and term.combine is not None and ":" not in term.combine:
        rules: Sequence[str] = COMBINES[ANSWER_OF[task]]
        if term.combine not in rules:
            yield ("combine",), _expected(task, f"is {term.combine!r}", rules)
    if isinstance(term, ImportedTerm):
        return
    takes = KEYWORDS[task][loss]
    for name in sorted({each for losses in KEYWORDS.values() for each in losses.get(loss, ())} - {*takes}):
        default = type(term).model_fields[name].default
        if isinstance(term, PeerTerm) and name == "temperature":
            default = temperature  # the method's own, which the cohort has filled in
        if getattr(term, name) not in (default, None, *also):
            told = f"; there it takes {', '.join(takes)}"
            yield (name,), f"is not of the loss {loss!r} in the task {task}{told if takes else ''}; remove it"


def _expected(task: TaskName, found: str, known: Sequence[str]) -> str:
    return f"{found}; the task {task} has {', '.join(known)}, or a function of yours (`module:name`)"
