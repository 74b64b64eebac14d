"""What a recipe can say of the way from canonical inputs to what one network takes."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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


class Tokenizer(Config):
    """Token ids by a `tokenizer.json`, as the library `tokenizers` reads it; two text columns become a pair."""

    path: str
    """The file, or the folder that it lies in; `package:FOLDER` is in an installed package. Its content counts, not where it lies."""
    max_length: int = Field(128, ge=1, le=65_536)
    """Tokens of a row, special ones too; of longer text the rest is cut off, which is counted and told."""


class Ngrams(Config):
    """Hashed n-grams: each run of words or characters is one of `buckets` numbers. Needs no file and no vocabulary."""

    words: list[Annotated[int, Field(ge=1, le=5)]] = [1, 2]
    """Lengths of runs of words; empty: none."""
    characters: list[Annotated[int, Field(ge=1, le=8)]] = [3, 4]
    """Lengths of runs of characters within a word, its ends marked; empty: none."""
    buckets: int = Field(16_384, ge=2, le=2**24)
    """How many numbers there are; runs that meet in one count as the same."""
    max_length: int = Field(256, ge=1, le=65_536)
    """Runs of a row; of longer text the rest is cut off, which is counted and told."""
    lowercase: bool = True
    """Whether `A` and `a` are the same."""

    @model_validator(mode="after")
    def has_runs(self) -> Self:
        if not self.words and not self.characters:
            raise ValueError("`words` and `characters` are both empty: name the length of a run, `words: [1]`")
        return self


class Encoder(Config):
    """Embeddings of a frozen encoder from a Hugging Face folder: f16 `[rows, D]`, made once and kept."""

    path: str
    """The folder: `config.json`, `tokenizer.json`, `model.safetensors`; `package:FOLDER` is in an installed package. Their content counts, not where they lie."""
    pooling: Literal["mean", "cls"] = "mean"
    """Of the last layer's states: their mean over the text's tokens, or the first token's."""
    prompt: str | None = None
    """Put before every text, as some encoders want it (`query: `)."""
    max_length: int = Field(256, ge=1, le=65_536)
    """Tokens of a row; of longer text the rest is cut off, which is counted and told."""
    normalise: bool = True
    """Whether each embedding is scaled to length 1."""


OF_TEXT = ("tokenizer", "ngrams", "encoder")
UNSAID = (*OF_TEXT, "image_size", "fit")
"""What is left out where nothing is said: keys of stages stay what they were."""
FitName = Literal["squash", "crop", "pad"]


class Preprocess(Config):
    """From canonical inputs to what one network takes; each teacher and each student has its own."""

    resize: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels, bilinear with antialiasing; null: as stored."""
    image_size: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels at which images are read for this network, where they stay encoded (`transfer_set.decode: on_read`); null: `transfer_set.image_size`."""
    fit: FitName | None = None
    """Of `image_size`: `squash`, `crop` or `pad`; null: as `transfer_set.fit`."""
    normalise: Literal["auto"] | Normalise | None = "auto"
    """`auto`: mean and standard deviation of the training rows, the default of what is trained here; null: images as value / 255, numbers as they are. A network or an estimator with given `weights` must be told how it was fed; a scikit-learn pipeline is fed as it is."""
    categories: CategoriesName = "one_hot"
    """What is made of categories: `one_hot`, a feature of 0 and 1 for each value that training rows have; `ordinal`, the place among the sorted values as one feature (-1 unknown, -2 missing); `native`, as ordinal with NaN for both, for estimators that are told which features are categories; `codes`, integers of their own beside the features, for a network that embeds them (0 missing, 1 unknown)."""
    missing: MissingName = "mean"
    """What a number becomes that is missing: the `mean` of the training rows, `zero`, or `keep`: NaN, for estimators that take it."""
    missing_indicator: bool = False
    """One more feature of 0 and 1 for each number that training rows lack: whether it is missing."""
    tokenizer: Tokenizer | None = None
    """What is made of text: token ids."""
    ngrams: Ngrams | None = None
    """What is made of text: hashed n-grams."""
    encoder: Encoder | None = None
    """What is made of text: the embeddings of a frozen encoder."""
    function: ImportString | None = None
    """Instead of all that: a function from {column: array [rows, ...]} to the network's input."""
    files: list[str] = []
    """Files and folders that the function reads; they count by content."""

    @model_serializer(mode="wrap")
    def without_text(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where nothing is made of text, that is not said, nor that images are read as they are for all."""
        return {name: value for name, value in write(self).items() if value is not None or name not in UNSAID}

    @model_validator(mode="after")
    def fits_something(self) -> Self:
        if self.fit is not None and self.image_size is None:
            raise ValueError("`fit` is of `image_size`: say that, too")
        return self

    @model_validator(mode="after")
    def makes_one_thing_of_text(self) -> Self:
        named = [name for name in OF_TEXT if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"`{named[0]}` and `{named[1]}` both say what is made of text: leave one of them out")
        if named and self.function is not None:
            raise ValueError(f"`function` does all of it, and gets text as it is: leave `{named[0]}` out")
        return self

    @property
    def text(self) -> Tokenizer | Ngrams | Encoder | None:
        """What is made of text."""
        return self.tokenizer or self.ngrams or self.encoder

    def absolute(self) -> Self:
        """The same for a process with another working directory."""
        part = self.tokenizer or self.encoder
        if part is None or not os.path.exists(part.path):  # `package:FOLDER` is found anywhere
            return self
        return self.model_copy(
            update={
                "tokenizer" if part is self.tokenizer else "encoder": part.model_copy(
                    update={"path": os.path.realpath(part.path)}
                )
            }
        )

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
