"""From text to arrays of fixed width: what a `preprocess` derives of text columns, on the CPU, the same everywhere.

Knows nothing of networks, or of where rows come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..config.preprocess import Encoder, Ngrams, Preprocess, Tokenizer
from ..errors import RecipeError

PADDING = -1
"""In place of a token or a run, behind the last of a row."""
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Derived:
    """One array of fixed width: `[rows, *shape]` of `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class TextTransform(Protocol):
    """What is made of the text columns `names`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[Derived, ...]: ...
    @property
    def files(self) -> Mapping[str, Path]:
        """By their names in a model folder, the files that it needs."""

    def document(self) -> dict[str, Any]:
        """JSON for a model folder."""

    def derive(self, texts: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """By name its `outputs`, of `str` arrays `[rows]`, one for each of `names`."""


@dataclass(frozen=True)
class Tokenized:
    """Token ids i32 `[rows, max_length]`, -1 behind the last; of a pair beside them `segments` i8, which text each is of."""

    names: tuple[str, ...]
    path: Path
    max_length: int
    loaded: list[Any] = field(default_factory=list, compare=False, repr=False)
    """The tokenizer, once it is needed."""

    @classmethod
    def of(cls, config: Tokenizer, names: tuple[str, ...]) -> Self:
        """Raises RecipeError where there is no file, or there are more than two columns."""
        path = Path(config.path)
        path = path / TOKENIZER if path.is_dir() else path
        if not path.is_file():
            raise RecipeError(
                f"preprocess.tokenizer.path: there is no file {path}; give a tokenizer.json, or its folder"
            )
        if len(names) > 2:
            raise RecipeError(f"preprocess.tokenizer: takes one text column or a pair, here are {', '.join(names)}")
        return cls(names, path, config.max_length)

    @property
    def outputs(self) -> tuple[Derived, ...]:
        tokens = Derived("tokens", (self.max_length,), np.dtype(np.int32))
        segments = Derived("segments", (self.max_length,), np.dtype(np.int8))
        return (tokens, segments) if len(self.names) == 2 else (tokens,)

    @property
    def files(self) -> Mapping[str, Path]:
        return {TOKENIZER: self.path}

    def document(self) -> dict[str, Any]:
        return {"kind": "tokenizer", "names": list(self.names), "max_length": self.max_length}

    def derive(self, texts: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = texts[0].tolist() if len(texts) == 1 else list(zip(*(each.tolist() for each in texts), strict=True))
        encoded = self._tokenizer().encode_batch_fast(given)
        lengths = np.fromiter((len(each) for each in encoded), np.int64, len(encoded))
        there = np.arange(self.max_length) < lengths[:, None]
        found = {}
        for output, attribute in zip(self.outputs, ("ids", "type_ids"), strict=False):
            values = np.full((len(encoded), self.max_length), PADDING if attribute == "ids" else 0, output.dtype)
            flat = [getattr(each, attribute) for each in encoded]
            values[there] = np.concatenate([np.asarray(each, output.dtype) for each in flat]) if flat else []
            found[output.name] = values
        return found

    def _tokenizer(self) -> Any:
        if not self.loaded:
            import tokenizers

            made = tokenizers.Tokenizer.from_file(str(self.path))
            made.no_padding()
            made.enable_truncation(self.max_length)
            self.loaded.append(made)
        return self.loaded[0]


def text_transform(config: Preprocess, names: Sequence[str]) -> TextTransform | None:
    """What `config` makes of the text columns `names`; None where it makes nothing of text. Raises RecipeError."""
    match config.text:
        case None:
            return None
        case _ if not names:
            raise RecipeError(
                "preprocess: no input column is text; say `as: text` of one, or leave out what is made of it"
            )
        case Tokenizer():
            return Tokenized.of(config.text, tuple(names))
        case Ngrams() | Encoder():
            raise NotImplementedError


def files_beside(document: Mapping[str, Any], folder: Path) -> Mapping[str, Path]:
    """The files that the preprocessing of a model folder needs, `document`: `Preprocessor.resolved()`."""
    return of_document(document["text"], folder).files if "text" in document else {}


def of_document(document: Mapping[str, Any], folder: Path) -> TextTransform:
    """What `TextTransform.document` gave, in the model folder `folder`. Raises KeyError or TypeError for anything else."""
    names = tuple(document["names"])
    return {"tokenizer": lambda: Tokenized(names, folder / TOKENIZER, document["max_length"])}[document["kind"]]()
