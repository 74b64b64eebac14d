"""What terms of an objective have in common. Knows nothing of which terms there are, nor of torch or ray."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from teachers.config.strict import Config, ImportString
from teachers.config.teacher import CombineName

from .combining import OF_BOXES, Combining


class Ramp(Config):
    """The term's weight rises from 0 to its value over the first steps."""

    steps: int | None = Field(None, ge=1)
    """Optimiser steps."""
    share: float | None = Field(None, gt=0, le=1)
    """Instead: of all optimiser steps."""
    shape: Literal["linear", "sigmoid"] = "linear"
    """`sigmoid`: exp(-5 (1 - step / steps)^2)."""

    @model_validator(mode="after")
    def has_one_length(self) -> Self:
        if (self.steps is None) == (self.share is None):
            raise ValueError("give `steps` or `share`, one of them")
        return self


class TermCommon(Config):
    """What every term of an objective has."""

    loss: str
    weight: float = Field(1.0, ge=0)
    """Factor of this term in the objective."""
    ramp: Ramp | None = None
    """Null: the full weight from the first step."""

    @property
    def needs_labels(self) -> bool:
        """Whether it is refused where no row has a label; `hard` is not, of which a student may have none to learn from."""
        return False


class TeacherTermCommon(Combining, TermCommon):
    """What every term has that listens to teachers."""

    teachers: list[str] | None = Field(None, min_length=1)
    """Who is heard in this term; null: all of the student's teachers."""
    combine: CombineName | ImportString | None = None
    """How several teachers become one target; null: by the mean of their probabilities, or of their numbers, of boxes by `wbf`. `fitted`: a mean of log-probabilities with weights from labelled validation rows. What each rule does and needs: docs/guides/combining.md."""
    teacher_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Of `combine: weighted`, and of rules of boxes, by teacher; they are normalised to sum to 1."""
    temperature: float = Field(2.0, gt=0)
    """Softens teacher and student alike; 1 leaves the logits as they are."""
    files: list[str] = []
    """Files and folders that a loss or a combination rule of yours reads; they count by content."""

    @model_validator(mode="after")
    def weights_go_with_weighted(self) -> Self:
        if self.combine not in OF_BOXES and (self.combine == "weighted") != (self.teacher_weights is not None):
            raise ValueError("`combine: weighted` and `teacher_weights` go together")
        if self.teacher_weights is not None and not sum(self.teacher_weights.values()) > 0:
            raise ValueError("teacher_weights are all 0")
        return self
