"""How far numbers are apart, in terms that compare them. Knows nothing of torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from teachers.config.strict import Config

DistanceName = Literal["mse", "huber", "quantile"]


class Distance(Config):
    """What terms have that compare labels, teachers or peers with a student, where these are numbers."""

    distance: DistanceName | None = None
    """Of the task `regression`, between standardised numbers: `mse` (null), `huber` or `quantile` (the pinball loss)."""
    delta: float | None = Field(None, gt=0)
    """Of `huber`: from where on it is linear, in standard deviations of the label; null: 1."""
    quantile: float | None = Field(None, gt=0, lt=1)
    """Of `quantile`: the share of labels that should lie below what the student says; null: 0.5, the median."""

    @model_validator(mode="after")
    def goes_with_its_distance(self) -> Self:
        for name, of in (("delta", "huber"), ("quantile", "quantile")):
            if getattr(self, name) is not None and self.distance != of:
                raise ValueError(f"`{name}` is of `distance: {of}`, this term has {self.distance or 'mse'}")
        return self
