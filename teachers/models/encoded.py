"""Embeddings of text by a frozen encoder from a Hugging Face folder. transformers (extra `huggingface`) and torch are
imported where one is asked: whoever only names an encoder needs neither.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.preprocess import Encoder
from ..errors import EnvironmentUnfit, RecipeError, StoreError
from ..storage.seal import local
from ..transfer_set.derived import Derived
from ..users_code.installed import placed
from .text import TOKENIZER, TextTransform, Tokenized, tokenizer_file

if TYPE_CHECKING:
    from torch import Tensor

BESIDE = "encoder"
"""Its folder in a model folder."""
CONFIG = "config.json"
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""What the config of a transformer calls the width of its states."""
POSITIONS = ("max_position_embeddings", "n_positions")
TOKENS_AT_ONCE, ROWS_AT_ONCE = 8192, 64
"""Of one forward, padded; an embedding depends on neither by more than rounding."""


@dataclass(frozen=True)
class Encoded(TextTransform):
    """Embeddings f16 `[rows, D]`; of several text columns each by itself, side by side. Of a text without a token: zeros."""

    names: tuple[str, ...]
    folder: Path
    pooling: str
    prompt: str | None
    max_length: int
    normalise: bool
    width: int
    weights: tuple[str, ...]
    """Its files of weights, by name."""

    kind = "encoder"

    @classmethod
    def of(cls, config: Encoder, names: tuple[str, ...]) -> Self:
        """Raises RecipeError for a folder that holds no such encoder."""
        key, folder = "preprocess.encoder.path", placed(config.path)
        about = encoder_config(folder, key)
        width = next((about[name] for name in WIDTHS if isinstance(about.get(name), int)), None)
        if width is None:
            raise RecipeError(f"{key}: {folder / CONFIG} names no width ({', '.join(WIDTHS)}); give an encoder of text")
        positions = next((about[name] for name in POSITIONS if isinstance(about.get(name), int)), config.max_length)
        if config.max_length > positions:
            raise RecipeError(
                f"preprocess.encoder.max_length is {config.max_length}, and {folder} has {positions} positions: give less"
            )
        how = config.model_dump(exclude={"path"})
        weights = tuple(sorted(path.name for path in folder.glob("*.safetensors*")))
        found = cls(names=names, folder=folder, width=width, weights=weights, **how)
        size, known = found.tokenized.vocabulary_size, about.get("vocab_size")
        if isinstance(known, int) and size > known:
            raise RecipeError(
                f"{key}: the tokenizer of {folder} has {size:,} tokens, its model knows {known:,}; they belong to two models"
            )
        return found

    @classmethod
    def of_document(cls, document: Mapping[str, Any], folder: Path) -> Self:
        """What `document` gave, without `kind`, in the model folder `folder`."""
        weights = tuple(document["weights"])
        if any(Path(name).name != name for name in weights):
            raise KeyError("text.weights")
        for name in (CONFIG, TOKENIZER, *weights):
            local(folder, f"{BESIDE}/{name}")
        return cls(folder=folder / BESIDE, **{**document, "weights": weights})

    @property
    def outputs(self) -> tuple[Derived, ...]:
        return (Derived("embedding", (self.width * len(self.names),), np.dtype(np.float16)),)

    @property
    def files(self) -> Mapping[str, Path]:
        return {f"{BESIDE}/{name}": self.folder / name for name in (CONFIG, TOKENIZER, *self.weights)}

    def document(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "names": list(self.names),
            "pooling": self.pooling,
            "prompt": self.prompt,
            "max_length": self.max_length,
            "normalise": self.normalise,
            "width": self.width,
            "weights": list(self.weights),
        }

    @cached_property
    def tokenized(self) -> Tokenized:
        return Tokenized(("text",), self.folder / TOKENIZER, self.max_length)

    def counted(self, texts: Sequence[NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], int]:
        embedded, num_cut = [], 0
        for column in texts:
            asked = column if self.prompt is None else np.array([self.prompt + text for text in column], object)
            made, cut = self.tokenized.counted([asked])
            embedded.append(self.embed(made["tokens"]))
            num_cut += cut
        return {"embedding": np.concatenate(embedded, 1)}, num_cut

    def embed(self, tokens: NDArray[np.int32]) -> NDArray[np.float16]:
        """f16 `[rows, D]` of token ids `[rows, L]`, -1 behind the last; rows of like length are asked together."""
        import torch

        encoder, device = loaded_encoder(self.folder), "cuda" if torch.cuda.is_available() else "cpu"
        out = np.zeros((len(tokens), self.width), np.float16)
        for rows, longest in batches_by_length((tokens >= 0).sum(1)):
            ids = torch.from_numpy(tokens[rows, :longest]).to(device, torch.int64)
            there = (ids >= 0).long()
            with torch.inference_mode():
                states = encoder(input_ids=ids.clamp_min(0), attention_mask=there).last_hidden_state
                pooled = POOL[self.pooling](states.float(), there[..., None])
                pooled = torch.nn.functional.normalize(pooled, dim=1) if self.normalise else pooled
            out[rows] = pooled.cpu().numpy()
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def batches_by_length(lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
    """(rows, tokens of the longest of them), the longest first; rows without a token are in none."""
    order = np.argsort(-lengths, kind="stable")
    order = order[: int((lengths > 0).sum())]
    while len(order):
        longest = int(lengths[order[0]])
        num_rows = max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // longest))
        yield order[:num_rows], longest
        order = order[num_rows:]


def _mean(states: "Tensor", there: "Tensor") -> "Tensor":
    return (states * there).sum(1) / there.sum(1)


def _first(states: "Tensor", there: "Tensor") -> "Tensor":
    return states[:, 0]


POOL: dict[str, Callable[["Tensor", "Tensor"], "Tensor"]] = {"mean": _mean, "cls": _first}


def encoder_config(folder: Path, key: str) -> dict[str, Any]:
    """The `config.json` of a Hugging Face folder whose weights can be opened. Raises RecipeError, which begins with `key`."""
    tokenizer_file(str(folder), key)
    try:
        about: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        raise RecipeError(
            f"{key}: there is no {CONFIG} in {folder}; give a folder that `save_pretrained` wrote"
        ) from None
    except ValueError as error:
        raise RecipeError(f"{key}: {folder / CONFIG} is not readable as JSON ({error})") from error
    if not [*folder.glob("*.safetensors")]:
        raise RecipeError(
            f"{key}: there is no .safetensors file in {folder}; pickled weights can run code and are not opened: load them "
            f"where you trust them, and `save_pretrained(..., safe_serialization=True)`"
        )
    if about.get("is_encoder_decoder"):
        raise RecipeError(f"{key}: {folder} holds an encoder with a decoder; give one that is an encoder alone")
    return about


@lru_cache(maxsize=1)
def loaded_encoder(folder: Path) -> Any:
    """The encoder in evaluation mode, on a GPU where this process has one; the last one stays.

    Raises EnvironmentUnfit without transformers, StoreError for weights that it cannot open.
    """
    import torch

    try:
        from .torchvision_build import make_importable

        make_importable()
        import transformers
    except ModuleNotFoundError:
        raise EnvironmentUnfit(
            "transformers is not installed, which asks an encoder: pip install collegium[huggingface]"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        found = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise StoreError(f"{folder}: transformers cannot open this encoder ({str(error).splitlines()[0]})") from error
    return found.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
