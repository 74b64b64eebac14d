"""What a recipe can say of rows that a teacher learns and then labels: out of fold, and of early stopping of estimators."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from .strict import Config


class Folded(Config):
    """A teacher trained here that labels the rows it learnt."""

    folds: Annotated[int, Field(ge=2)] | None = None
    """Train it so many times, each time without one fold of the labelled rows; a row that was learnt is labelled by the one that has not seen it, every other row by the mean of them all. The fold of a row follows from the key of its group, and the seed. Null: trained once, it labels its own training rows, which it may know by heart."""
    refit: bool = False
    """With `folds`: train once more, on all labelled rows, and let that one label the rows that nobody has learnt."""

    @model_validator(mode="after")
    def refits_what_has_folds(self) -> Self:
        if self.refit and self.folds is None:
            raise ValueError("`refit` trains once more beside `folds`: say how many, or leave it out")
        return self


class HeldOut(Config):
    """Stop growing trees when those rows no longer gain by them."""

    rounds: int = Field(50, ge=1)
    """Trees (of each class) without a better one."""
    share: float = Field(0.1, gt=0, lt=1)
    """Of the labelled training rows, stratified by label: they are looked at and not learnt. Validation stays unseen."""


class EstimatorTrain(Folded):
    """How an estimator is fitted; everything else is among its `arguments`."""

    early_stopping: HeldOut | None = None
    """Of boosted trees; null: as many as the arguments say."""
