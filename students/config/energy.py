"""What a student does with transfer rows that are not like those that its teachers know. Knows nothing of torch."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from teachers.config.strict import Config


class Energy(Config):
    """Unlabelled training rows by the energy of a teacher's logits, -log sum exp, which is higher of rows unlike those that it knows (Liu et al., 2020; a classifier as an energy-based model: JEM, Grathwohl et al., 2020)."""

    teacher: str | None = None
    """Whose logits; null: those of its only teacher."""
    quantile: float = Field(0.95, gt=0, lt=1)
    """Of the validation rows' energy, which is the threshold."""
    rows: Literal["drop", "weigh"] = "drop"
    """What becomes of rows above it: `drop`: the student never sees them; `weigh`: they count in what it hears from teachers as their share of the validation rows above the threshold that are as high."""
    of: Literal["beside", "all"] = "beside"
    """Which unlabelled training rows: those of `transfer_set.extra` and `munge`, or the source's own, too."""

    def judges(self, kind: str) -> bool:
        """Whether unlabelled rows of a segment of this kind may be left out."""
        return self.of == "all" or kind != "train"


def check_energy(energy: Energy | None, teachers: Sequence[str]) -> None:
    """Raise ValueError for a teacher that is none of the student's, or where it is not clear which."""
    if energy is None:
        return
    if energy.teacher is not None and energy.teacher not in teachers:
        raise ValueError(
            f"energy.teacher is {energy.teacher!r}, which is not among the teachers {[*teachers]}; name one of them"
        )
    if energy.teacher is None and len(teachers) != 1:
        raise ValueError(f"energy.teacher: there are {len(teachers)} teachers; name the one whose logits count")


def judge_of(energy: Energy, teachers: Sequence[str]) -> str:
    """Whose logits count."""
    return energy.teacher if energy.teacher is not None else teachers[0]
