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
    """`auto`: mean and standard deviation of the training rows, the default of what is trained here; null: images as value / 255, numbers as they are. A network or an estimator with given `weights` must be told how it was fed; a scikit-learn pipeline is fed as it is."""
    function: ImportString | None = None
    """Instead of all that: a function from {column: array [rows, ...]} to the network's input."""
    files: list[str] = []
    """Files and folders that the function reads; they count by content."""

    @property
    def is_stated(self) -> bool:
        """Whether somebody says how the network was fed, rather than leaving it to the default."""
        return self.function is not None or "normalise" in self.model_fields_set

    def as_made(self) -> Self:
        """The same, unnormalised and still not stated: for what may scale its inputs itself."""
        made = self.model_copy(update={"normalise": None})
        made.model_fields_set.discard("normalise")
        return made


HOW_IT_WAS_FED = (
    "`preprocess: {normalise: null}` (images as value / 255, numbers as they are), "
    "`{normalise: {mean: [...], std: [...]}}` (those of its own training), "
    "or `{normalise: auto}` (mean and standard deviation of this transfer set's training rows)"
)
"""What to say of weights that are brought."""
