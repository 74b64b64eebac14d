"""A table of token embeddings from a frozen encoder (model2vec: Tulkens and van Dongen, 2024). Knows nothing of networks."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from ..config.preprocess import Encoder
from ..errors import RecipeError
from ..storage.seal import digest_of, local, publish
from .encoded import Encoded
from .text import PADDING, TextTransform, Tokenized

SIF = 1e-4
"""a of a / (a + p), by which a token of probability p is weighted (Arora et al., 2017)."""
VERSION = 1


def token_table(encoder: str, text: TextTransform, dim: int, cache: Path) -> Tensor:
    """f32 `[tokens, dim]`: each token of the preprocess alone through the folder `encoder`, PCA, then a weight by Zipf's law.

    Tokens are held to be the commoner the lower their id. Made once for each content and kept in `cache`. Raises
    RecipeError where the encoder reads other tokens, or is narrower.
    """
    key = "arguments.encoder"
    config = Encoder(path=encoder, max_length=16, normalise=False)
    found = Encoded.of(config, ("text",))
    if not isinstance(text, Tokenized) or text.tokenizer.get_vocab() != found.tokenized.tokenizer.get_vocab():
        raise RecipeError(
            f"{key}: {encoder} reads other tokens than the preprocess makes; say `tokenizer: {{path: {encoder}}}`"
        )
    if dim > found.width:
        raise RecipeError(f"arguments.dim is {dim}, and {encoder} gives {found.width} numbers: give that, or less")
    name = f"static-{digest_of([VERSION, found.content, dim])[:16]}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    if not local(cache, name).is_file():
        vectors = found.embed(_alone(found.tokenized)).astype(np.float64)
        made = torch.from_numpy(_weighted(_reduced(vectors, dim)).astype(np.float32))
        publish(cache / name, save({"table": made}))
    table: Tensor = load_file(cache / name)["table"]
    return table


def _alone(tokenized: Tokenized) -> NDArray[np.int32]:
    """Each token between the special ones that the tokenizer puts around a text, i32 [tokens, L]."""
    one = tokenized.tokenizer.encode("a")
    own = [at for at, is_special in enumerate(one.special_tokens_mask) if not is_special]
    before, after = one.ids[: own[0]], one.ids[own[-1] + 1 :]
    rows = np.full((tokenized.vocabulary_size, len(before) + 1 + len(after)), PADDING, np.int32)
    rows[:, : len(before)], rows[:, len(before) + 1 :] = before, after
    rows[:, len(before)] = np.arange(len(rows))
    return rows


def _reduced(vectors: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """The `dim` directions of most variance; the largest number of each is above 0, so that a table is one table."""
    centred = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, :dim]
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(dim)])
    reduced: NDArray[np.float64] = centred @ (directions * signs)
    return reduced


def _weighted(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = 1 / np.arange(2, len(vectors) + 2)
    shares /= shares.sum()
    return vectors * (SIF / (SIF + shares))[:, None]
