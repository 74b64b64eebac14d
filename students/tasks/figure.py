"""The figures of merit of every task, by name: what gates, searches, curves, reports and metrics can ask for.

Knows nothing of torch: a recipe is checked by it, and pages are written with it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from teachers.config.task import TaskName

Unit = Literal["share", "nats", "label", "number"]
"""`share`: a fraction, told in percent, its differences in points; `label`: in the units of the label."""
RIGHT = "accuracy"
"""Of the bins of a reliability diagram: how much of what was said with a confidence is right."""
NOTHING = "\N{EN DASH}"
"""Stands for a figure that nobody has."""
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Figure:
    """One number. `better`: which end of it is."""

    key: str
    label: str
    better: Literal["max", "min"]
    unit: Unit
    of_probabilities: bool = False
    """Whether it asks how sure somebody is: who only says classes has none."""

    @property
    def sign(self) -> int:
        """What makes more of it better."""
        return 1 if self.better == "max" else -1

    def shown(self, value: float | None) -> str:
        """`93.1 %`, `0.214`, `12.35`."""
        if value is None:
            return NOTHING
        if self.unit == "share":
            return f"{100 * value:.1f} %"
        return f"{value:.3f}" if self.unit != "label" else significant(value)

    def gained(self, difference: float) -> str:
        """A difference with its sign, which is + for the better one: `+6.0` points, `+0.31`."""
        if self.unit == "share":
            return _signed(f"{100 * difference:+.1f}")
        return _signed(f"{difference:+.3f}" if self.unit != "label" else significant(difference, 3, sign="+"))

    def half_width(self, difference: float) -> str:
        """Half an interval of differences, without a sign."""
        return self.gained(abs(difference)).removeprefix("+")

    @property
    def units_gained(self) -> str:
        """What a difference is of: `points of test accuracy`, `in test RMSE (+ is less)`."""
        if self.unit == "share":
            return f"points of test {self.label}"
        return f"in test {self.label}" + (" (+ is less)" if self.better == "min" else "")


def significant(value: float, digits: int = 4, sign: Literal["", "+"] = "") -> str:
    """`12.35`, `0.0400`, `1,234,000`."""
    if abs(value) >= 10**digits:
        return f"{float(f'{value:.{digits}g}'):{sign},.0f}"
    return f"{value:{sign}#.{digits}g}".removesuffix(".") if value else "0"


def _signed(text: str) -> str:
    is_nothing = not any(digit in text for digit in "123456789")
    return text.lstrip("+-") if is_nothing else text.replace("-", MINUS)


FIGURES: dict[TaskName, tuple[Figure, ...]] = {
    "classification": (
        Figure("accuracy", "accuracy", "max", "share"),
        Figure("balanced_accuracy", "balanced accuracy", "max", "share"),
        Figure("macro_f1", "macro F1", "max", "number"),
        Figure("nll", "NLL", "min", "nats", of_probabilities=True),
        Figure("brier", "Brier score", "min", "number", of_probabilities=True),
        Figure("ece", "ECE", "min", "share", of_probabilities=True),
    ),
    "multilabel": (
        Figure("macro_average_precision", "macro AP", "max", "share", of_probabilities=True),
        Figure("micro_f1", "micro F1", "max", "number"),
        Figure("macro_f1", "macro F1", "max", "number"),
        Figure("nll", "NLL per class", "min", "nats", of_probabilities=True),
    ),
    "regression": (
        Figure("rmse", "RMSE", "min", "label"),
        Figure("mae", "MAE", "min", "label"),
        Figure("r2", "R\N{SUPERSCRIPT TWO}", "max", "number"),
        Figure("spearman", "Spearman", "max", "number"),
    ),
    "detection": (
        Figure("ap", "AP", "max", "share"),
        Figure("ap50", "AP50", "max", "share"),
        Figure("ap75", "AP75", "max", "share"),
        Figure("ar100", "AR100", "max", "share"),
        Figure("false_positives", "false positives an image", "min", "number"),
    ),
}
"""The first is the headline."""

BESIDE: dict[TaskName, tuple[Figure, Figure]] = {
    "classification": (
        Figure("agreement", "agrees with teachers", "max", "share"),
        Figure("kl", "KL from teachers", "min", "nats", of_probabilities=True),
    ),
    "multilabel": (
        Figure("agreement", "agrees with teachers", "max", "share"),
        Figure("kl", "KL from teachers, per class", "min", "nats", of_probabilities=True),
    ),
    "regression": (
        Figure("agreement", "correlates with teachers", "max", "number"),
        Figure("distance", "root mean square from teachers", "min", "label"),
    ),
    "detection": (
        Figure("agreement", "says the boxes of teachers (F1)", "max", "share"),
        Figure("found", "of teachers' boxes it says", "max", "share"),
    ),
}
"""Of somebody beside its teachers together; needs no label. The first is the one that a matrix of everybody holds."""

UNJUDGED: dict[TaskName, tuple[Figure, ...]] = {
    "classification": (
        Figure("entropy", "mean entropy, nats", "min", "nats", of_probabilities=True),
        Figure("coverage", "classes that are said", "max", "share"),
    ),
    "multilabel": (
        Figure("entropy", "mean entropy per class, nats", "min", "nats", of_probabilities=True),
        Figure("coverage", "classes that are said", "max", "share"),
    ),
    "regression": (Figure("spread", "standard deviation of its answers", "max", "label"),),
    "detection": (
        Figure("boxes", "boxes of an image", "max", "number"),
        Figure("coverage", "classes that are said", "max", "share"),
    ),
}
"""Of what somebody says of rows without a label."""

TABLES: dict[TaskName, tuple[str, ...]] = {
    "classification": ("by_class", "confusion"),
    "multilabel": ("by_class",),
    "regression": ("by_value", "scatter"),
    "detection": ("by_class", "precision_at_recall", "taken", "sheet"),
}
"""What an evaluation has besides figures, by their keys."""

SAID_AS: dict[TaskName, Figure] = {
    "classification": Figure("said", "said most", "max", "share"),
    "multilabel": Figure("said", "said most", "max", "share"),
    "regression": Figure("said", "said on average", "max", "label"),
    "detection": Figure("said", "said most", "max", "share"),
}
"""What is told of answers to rows without a label, by class or number."""

ALIKE: dict[TaskName, str] = {
    "classification": "How often {} say the same class, % of test rows.",
    "multilabel": "How often {} say the same of a class, % of test rows and classes.",
    "regression": "How the answers of {} correlate over test rows.",
    "detection": "How many boxes of {} are the same (F1 at an overlap of 0.5, of boxes with a score of 0.3 and more), % over test images.",
}
"""Over a matrix of everybody."""

AGREES: dict[TaskName, str] = {
    "classification": "says the same class as its teachers together in {} of the rows",
    "multilabel": "says the same of a class as its teachers together in {} of rows and classes",
    "regression": "has a correlation of {} with its teachers together",
    "detection": "says the same boxes as its teachers together with an F1 of {}",
}
"""Of somebody, a part of a sentence."""

TOGETHER_BY: dict[TaskName, str] = {
    "classification": "the mean of their probabilities",
    "multilabel": "the mean of their probabilities",
    "regression": "the mean of their numbers",
    "detection": "the weighted fusion of their boxes",
}
"""How several are asked as one."""

EXPLAINED: dict[TaskName, str] = {
    "classification": "Balanced accuracy is the mean over classes.",
    "multilabel": "Macro AP is the mean over classes of average precision, F1 is at thresholds that each network has from validation.",
    "detection": "AP is COCO's, the mean over classes and overlaps from 0.50 to 0.95; AP50 and AP75 are at one overlap, AR100 is the recall of at most 100 boxes a class and image. A false positive is a box with its class's threshold or more that takes no true box at an overlap of 0.50.",
    "regression": "R\N{SUPERSCRIPT TWO} is the share of the labels' variance that is explained, Spearman the correlation of ranks.",
}
"""Under a table of figures."""

NEVER_SAID: dict[TaskName, str] = {
    "classification": "Accuracy hardly tells, balanced accuracy and macro F1 count each as 0",
    "multilabel": "Micro F1 hardly tells, macro F1 counts each as 0",
    "detection": "AP counts each as 0",
}
"""What it means for figures that a class with rows is never said."""

ON_THE_RUN: dict[TaskName, tuple[str, ...]] = {
    "classification": ("balanced_accuracy", "ece"),
    "multilabel": ("micro_f1", "nll"),
    "regression": ("mae", "r2"),
    "detection": ("ap50", "ar100"),
}
"""Besides the headline, what a list of runs has of each student."""

TOLD: dict[TaskName, tuple[str, ...]] = {
    "classification": (),
    "multilabel": (),
    "regression": (),
    "detection": ("false_positives",),
}
"""Of each student, what a terminal tells besides its verdict."""

LOOKS: dict[TaskName, tuple[str, ...]] = {
    "classification": ("accuracy", "nll"),
    "multilabel": ("macro_average_precision", "nll"),
    "regression": ("rmse", "mae"),
    "detection": ("ap", "ap50"),
}
"""What a look at validation tells while a network trains; of two networks the better one is so in the first that differs."""


def headline(task: TaskName) -> Figure:
    return FIGURES[task][0]


def figure(task: TaskName, key: str) -> Figure:
    """KeyError for a key that is none of the task's."""
    return {each.key: each for each in FIGURES[task]}[key]


def rank(task: TaskName, found: Mapping[str, float | None]) -> tuple[float, ...]:
    """Of what a look found: the larger, the better; one that is no number is the worst.

    What is not defined decides nothing: it is so of no network.
    """
    ranks = [figure(task, key).sign * (found.get(key) or 0.0) for key in LOOKS[task]]
    return tuple(-math.inf if math.isnan(each) else each for each in ranks)
