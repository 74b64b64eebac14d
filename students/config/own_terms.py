"""Terms in which a student learns from itself: from its last epoch, or from the average of its weights. Knows nothing of torch."""

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field

from .distance import Distance
from .term_common import TermCommon

OwnLossName = Literal["ps_kd", "mean_teacher"]


class PsKdTerm(TermCommon):
    """Cross-entropy with (1 - a) of the label and a of what the student itself said of the row when it last saw it (PS-KD, Kim et al., 2021).

    Over the labelled rows, in place of `hard`. a rises by epochs, from `alpha / epochs` to `alpha`; a row that it has not
    seen yet has its label alone.
    """

    loss: Literal["ps_kd"]
    alpha: float = Field(0.8, ge=0, le=1)
    """Share of the target that is the student's own, in the last epoch."""

    @property
    def needs_labels(self) -> bool:
        return True


class MeanTeacherTerm(Distance, TermCommon):
    """T^2 KL from a copy of the student with averaged weights to the student (mean teacher, Tarvainen and Valpola, 2017); of numbers: a distance.

    The copy is asked about the same batch, at rest, without gradients; it needs no labels, so every row counts.
    """

    loss: Literal["mean_teacher"]
    decay: float = Field(0.999, ge=0, lt=1)
    """Of the average: after step n it is min(decay, 1 - 1 / (n + 1)) of itself and the rest of the student."""
    temperature: float = Field(1.0, gt=0)
    """Softens copy and student alike."""
    deliver: Literal["student", "average"] = "student"
    """Whose weights are looked at on validation, kept and delivered."""


OwnTerm = PsKdTerm | MeanTeacherTerm


def check_own_terms(objective: Sequence[TermCommon]) -> None:
    """Raise ValueError for two terms of one kind: a student has one memory of itself, and one average."""
    for name in get_args(OwnLossName):
        numbers = [number for number, term in enumerate(objective) if term.loss == name]
        if len(numbers) > 1:
            raise ValueError(
                f"objective.{numbers[1]}: loss {name!r} is there twice; a student has one such term, remove one"
            )
