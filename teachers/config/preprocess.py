"""What a recipe can say of the way from canonical inputs to what one network takes."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from .strict import Config, ImportString

CategoriesName = Literal["one_hot", "ordinal", "native", "codes"]
MissingName = Literal["mean", "zero", "keep"]


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
    categories: CategoriesName = "one_hot"
    """What is made of categories: `one_hot`, a feature of 0 and 1 for each value that training rows have; `ordinal`, the place among the sorted values as one feature (-1 unknown, -2 missing); `native`, as ordinal with NaN for both, for estimators that are told which features are categories; `codes`, integers of their own beside the features, for a network that embeds them (0 missing, 1 unknown)."""
    missing: MissingName = "mean"
    """What a number becomes that is missing: the `mean` of the training rows, `zero`, or `keep`: NaN, for estimators that take it."""
    missing_indicator: bool = False
    """One more feature of 0 and 1 for each number that training rows lack: whether it is missing."""
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


def of_a_network(given: Preprocess) -> Preprocess:
    """Raises ValueError for what would feed NaN to a network."""
    keeps = "missing: keep" if given.missing == "keep" else "categories: native" if given.categories == "native" else ""
    if keeps and given.function is None:
        cure = "`mean` or `zero`" if given.missing == "keep" else "`one_hot`, `ordinal` or `codes`"
        raise ValueError(f"`{keeps}` gives NaN, which a network does not take; say {cure}")
    return given


def of_an_estimator(given: Preprocess) -> Preprocess:
    """Raises ValueError for what only a network can be fed with."""
    if given.categories == "codes" and given.function is None:
        raise ValueError("`categories: codes` is for networks that embed them; say `one_hot`, `ordinal` or `native`")
    return given


NetworkPreprocess = Annotated[Preprocess, AfterValidator(of_a_network)]


HOW_IT_WAS_FED = (
    "`preprocess: {normalise: null}` (images as value / 255, numbers as they are), "
    "`{normalise: {mean: [...], std: [...]}}` (those of its own training), "
    "or `{normalise: auto}` (mean and standard deviation of this transfer set's training rows)"
)
"""What to say of weights that are brought."""
