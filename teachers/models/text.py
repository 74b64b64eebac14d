"""From text to arrays of fixed width: what a `preprocess` derives of text columns, on the CPU, the same everywhere.

Knows nothing of networks, or of where rows come from.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.preprocess import Encoder, Ngrams, Preprocess, Tokenizer
from ..errors import EnvironmentUnfit, RecipeError
from ..storage.seal import digest_of, local
from ..transfer_set.derived import Derived
from ..users_code.digest import file_digest
from ..users_code.installed import placed

PADDING = -1
"""In place of a token or a run, behind the last of a row."""
TOKENIZER = "tokenizer.json"
VERSIONS = {"tokenizer": 1, "ngrams": 1, "encoder": 1}
"""Of the code of each kind: raised when the same text would give another array."""


class TextTransform(ABC):
    """What is made of the text columns `names`: its `outputs`. Picklable; safe to use from several threads."""

    names: tuple[str, ...]
    max_length: int

    @property
    @abstractmethod
    def kind(self) -> str:
        """The recipe's word."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Derived, ...]: ...

    @property
    def bytes_per_row(self) -> int:
        """Of its outputs."""
        return sum(int(np.prod(each.shape)) * each.dtype.itemsize for each in self.outputs)

    @property
    def files(self) -> Mapping[str, Path]:
        """By their names in a model folder, the files that it needs."""
        return {}

    @property
    def vocabulary_size(self) -> int | None:
        """How many ids its arrays may hold, from 0 on; None where they hold no ids."""
        return None

    @property
    def content(self) -> dict[str, str]:
        """By their names in a model folder, digests of the files that it needs."""
        return {name: file_digest(path) for name, path in self.files.items()}

    @property
    def version(self) -> int:
        return VERSIONS[self.kind]

    @cached_property
    def digest(self) -> str:
        """Of all that decides its outputs, as its files are when they are first looked at."""
        return digest_of([self.version, self.document(), self.content])

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """JSON for a model folder."""

    @abstractmethod
    def counted(self, texts: Sequence[NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], int]:
        """(by name its `outputs`, of `str` arrays `[rows]`, one for each of `names`; of how many texts the end was cut off)."""

    def derive(self, texts: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The arrays alone."""
        return self.counted(texts)[0]


@dataclass(frozen=True)
class Tokenized(TextTransform):
    """Token ids i32 `[rows, max_length]`, -1 behind the last; of a pair beside them `segments` i8, which text each is of.

    What the file says of truncation and padding does not count: the end of a longer text is cut off, of a pair that of the
    longer one, and special tokens stay.
    """

    names: tuple[str, ...]
    path: Path
    max_length: int

    kind = "tokenizer"

    @classmethod
    def of(cls, config: Tokenizer, names: tuple[str, ...]) -> Self:
        """Raises RecipeError where the file is none, has no room for text, or there are more than two columns."""
        if len(names) > 2:
            raise RecipeError(f"preprocess.tokenizer: takes one text column or a pair, here are {', '.join(names)}")
        found = cls(names, tokenizer_file(config.path, "preprocess.tokenizer.path"), config.max_length)
        specials = found.tokenizer.num_special_tokens_to_add(len(names) == 2)
        if config.max_length <= specials:
            raise RecipeError(
                f"preprocess.tokenizer.max_length is {config.max_length}, and {found.path} adds {specials} special tokens "
                f"to every row: give more"
            )
        return found

    @property
    def outputs(self) -> tuple[Derived, ...]:
        tokens = Derived("tokens", (self.max_length,), np.dtype(np.int32))
        segments = Derived("segments", (self.max_length,), np.dtype(np.int8))
        return (tokens, segments) if len(self.names) == 2 else (tokens,)

    @property
    def files(self) -> Mapping[str, Path]:
        return {TOKENIZER: self.path}

    @cached_property
    def vocabulary_size(self) -> int:
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def document(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names), "max_length": self.max_length}

    def counted(self, texts: Sequence[NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], int]:
        given = texts[0].tolist() if len(texts) == 1 else list(zip(*(each.tolist() for each in texts), strict=True))
        encoded = self.tokenizer.encode_batch_fast(given)
        ids = [each.ids for each in encoded]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        full = np.flatnonzero(lengths == self.max_length)
        num_cut = sum(bool(encoded[row].overflowing) for row in full.tolist())
        there = np.arange(self.max_length) < lengths[:, None]
        found = {}
        for output in self.outputs:
            flat = ids if output.name == "tokens" else [each.type_ids for each in encoded]
            found[output.name] = np.full(there.shape, PADDING if output.name == "tokens" else 0, output.dtype)
            found[output.name][there] = np.fromiter(chain.from_iterable(flat), output.dtype, int(lengths.sum()))
        return found, num_cut

    @cached_property
    def tokenizer(self) -> Any:
        """As the library `tokenizers` has it. Raises RecipeError for a file that is none, EnvironmentUnfit without it."""
        try:
            import tokenizers
        except ModuleNotFoundError:
            raise EnvironmentUnfit(
                "tokenizers is not installed, which reads a tokenizer.json: pip install collegium[text]"
            ) from None
        try:
            made = tokenizers.Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library has no other class for what it cannot read
            raise RecipeError(f"{self.path}: not readable as a tokenizer ({error})") from error
        made.no_padding()
        made.enable_truncation(self.max_length)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def tokenizer_file(path: str, key: str) -> Path:
    """The `tokenizer.json` that `path` is, or that lies there. Raises RecipeError, which begins with `key`."""
    found = placed(path)
    found = found / TOKENIZER if found.is_dir() else found
    if not found.is_file():
        raise RecipeError(
            f"{key}: there is no file {found}; give a tokenizer.json, or the folder of one (a name at a hub is not fetched)"
        )
    return found


def text_transform(config: Preprocess, names: Sequence[str]) -> TextTransform | None:
    """What `config` makes of the text columns `names`; None where it makes nothing of text. Raises RecipeError."""
    from .encoded import Encoded
    from .ngrams import HashedNgrams

    match config.text:
        case None:
            return None
        case _ if not names:
            raise RecipeError(
                "preprocess: no input column is text; say `as: text` of one, or leave out what is made of it"
            )
        case Tokenizer():
            return Tokenized.of(config.text, tuple(names))
        case Ngrams():
            return HashedNgrams.of(config.text, tuple(names))
        case Encoder():
            return Encoded.of(config.text, tuple(names))


def files_beside(document: Mapping[str, Any], folder: Path) -> Mapping[str, Path]:
    """The files that the preprocessing of a model folder needs, `document`: `Preprocessor.resolved()`."""
    return of_document(document["text"], folder).files if "text" in document else {}


def of_document(document: Mapping[str, Any], folder: Path) -> TextTransform:
    """What `TextTransform.document` gave, in the model folder `folder`. Raises KeyError or TypeError for anything else."""
    from .encoded import Encoded
    from .ngrams import HashedNgrams

    given = {**document, "names": tuple(document["names"])}
    match given.pop("kind"):
        case "tokenizer":
            return Tokenized(path=local(folder, TOKENIZER), **given)
        case "ngrams":
            return HashedNgrams.of_document(given)
        case "encoder":
            return Encoded.of_document(given, folder)
        case kind:
            raise KeyError(f"text.kind {kind!r}")
