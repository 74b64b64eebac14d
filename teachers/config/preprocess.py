"""What a recipe can say of the way from canonical inputs to what one network takes."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .strict import Config, ImportString


class Normalise(Config):
    """(value / 255 for images) - mean, over std, per channel or feature."""

    mean: list[float]
    """One a channel or feature."""
    std: list[Annotated[float, Field(gt=0)]]
    """One a channel or feature."""

    @model_validator(mode="after")
    def as_long_as_each_other(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, std has {len(self.std)}")
        return self


class Preprocess(Config):
    """From canonical inputs to what one network takes; each teacher and each student has its own."""

    resize: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels, bilinear with antialiasing; null: as stored."""
    normalise: Literal["auto"] | Normalise | None = "auto"
    """`auto`: mean and standard deviation of the training rows; null: images as value / 255, numbers as they are."""
    function: ImportString | None = None
    """Instead of all that: a function from {column: array [rows, ...]} to the network's input."""
    files: list[str] = []
    """Files and folders that the function reads; they count by content."""
