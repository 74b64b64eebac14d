"""The term of experts that divide the classes, and how it is paced (LFME). Knows nothing of torch."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from .term_common import TeacherTermCommon, TermCommon

OF_OTHER_TERMS = ("combine", "teacher_weights", "drop")
"""Keys that say how several teachers become one: these do not."""


class LfmeTerm(TeacherTermCommon):
    """The sum over experts of w KL(expert || student over the expert's classes), both softened, without T^2 (LFME, Xiang et al., 2020).

    The teachers are experts that divide the classes; an expert counts w: 1 while the student is far behind it in its classes
    on labelled validation rows, and less the nearer the student comes.
    """

    loss: Literal["lfme"]
    pace: float = Field(0.3, ge=0, lt=1)
    """An expert counts in full until the student has this share of its accuracy in its classes, then less, and nothing once the student is as good."""
    curriculum: float | None = Field(0.5, gt=0, le=1)
    """Share of the steps over which every row comes to count in full in `hard`: at first rows that their expert finds hard count less, the more so the more rows the expert's classes have. Null: all count in full from the first step."""

    @model_validator(mode="after")
    def hears_each_expert_by_itself(self) -> Self:
        said = [key for key in OF_OTHER_TERMS if getattr(self, key) is not None]
        said += ["level"] if self.level == "losses" else []
        if said:
            raise ValueError(f"`lfme` hears each expert in its own classes, by its own weight; remove `{said[0]}`")
        return self

    @property
    def needs_labels(self) -> bool:
        return True


def check_lfme(objective: Sequence[TermCommon], teachers: Sequence[str], beside: Mapping[str, object]) -> None:
    """Raise ValueError for a term that stands there twice, for one of a single expert, for a curriculum without a term
    whose rows it weighs, and for what of the student says otherwise who is heard in which row (`beside`: by key)."""
    numbers = [number for number, term in enumerate(objective) if isinstance(term, LfmeTerm)]
    for key, value in beside.items():
        if numbers and value is not None:
            raise ValueError(
                f"{key}: `objective.{numbers[0]}` is `lfme`, which weighs experts and rows by itself; remove one of the two"
            )
    if len(numbers) > 1:
        raise ValueError(
            f"objective.{numbers[1]}: loss 'lfme' is there twice; name all experts in one, remove the other"
        )
    for number in numbers:
        term = objective[number]
        assert isinstance(term, LfmeTerm)
        heard = term.teachers or teachers
        if len(heard) < 2:
            raise ValueError(
                f"objective.{number}.teachers: `lfme` takes two experts or more, that divide the classes; found {list(heard)}; one "
                f"teacher alone is heard by `loss: soft`"
            )
        if term.curriculum is not None and not any(each.loss == "hard" for each in objective):
            raise ValueError(
                f"objective.{number}.curriculum weighs the rows of the term `hard`, and there is none; add `{{loss: hard}}`, or say "
                f"`curriculum: null`"
            )


def curriculum_of(objective: Sequence[TermCommon]) -> tuple[int, LfmeTerm] | None:
    """(number, term) of the one that has a curriculum."""
    for number, term in enumerate(objective):
        if isinstance(term, LfmeTerm) and term.curriculum is not None:
            return number, term
    return None
