"""The figures of merit of every task, by name: what gates, searches, curves, reports and metrics can ask for.

Knows nothing of torch: a recipe is checked by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from teachers.config.task import TaskName

Unit = Literal["share", "nats", "label", "number"]
"""`share`: a fraction, told in percent, its differences in points; `label`: in the units of the label."""


@dataclass(frozen=True)
class Figure:
    """One number. `better`: which end of it is."""

    key: str
    label: str
    better: Literal["max", "min"]
    unit: Unit

    @property
    def sign(self) -> int:
        """What makes more of it better."""
        return 1 if self.better == "max" else -1


FIGURES: dict[TaskName, tuple[Figure, ...]] = {
    "classification": (
        Figure("accuracy", "accuracy", "max", "share"),
        Figure("balanced_accuracy", "balanced accuracy", "max", "share"),
        Figure("macro_f1", "macro F1", "max", "share"),
        Figure("nll", "NLL", "min", "nats"),
        Figure("brier", "Brier score", "min", "number"),
        Figure("ece", "ECE", "min", "share"),
    ),
    "multilabel": (
        Figure("macro_average_precision", "macro AP", "max", "share"),
        Figure("micro_f1", "micro F1", "max", "share"),
        Figure("macro_f1", "macro F1", "max", "share"),
        Figure("nll", "NLL per class", "min", "nats"),
    ),
    "regression": (
        Figure("rmse", "RMSE", "min", "label"),
        Figure("mae", "MAE", "min", "label"),
        Figure("r2", "R\N{SUPERSCRIPT TWO}", "max", "number"),
        Figure("spearman", "Spearman", "max", "number"),
    ),
}
"""The first is the headline."""

LOOKS: dict[TaskName, tuple[str, ...]] = {
    "classification": ("accuracy", "nll"),
    "multilabel": ("macro_average_precision", "nll"),
    "regression": ("rmse", "mae"),
}
"""What a look at validation tells while a network trains; of two networks the better one is so in the first that differs."""


def headline(task: TaskName) -> Figure:
    return FIGURES[task][0]


def figure(task: TaskName, key: str) -> Figure:
    """KeyError for a key that is none of the task's."""
    return {each.key: each for each in FIGURES[task]}[key]


def rank(task: TaskName, found: Mapping[str, float | None]) -> tuple[float, ...]:
    """Of what a look found: the larger, the better. What is not defined, for no network is, decides nothing."""
    known = ((figure(task, key), found.get(key)) for key in LOOKS[task])
    return tuple(each.sign * value if value is not None else 0.0 for each, value in known)
