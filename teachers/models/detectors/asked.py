"""Detectors that are told what to look for: OWL-ViT, OWLv2 and Grounding DINO, with words or example crops prepared once.

Knows nothing of how images are made ready, or of what becomes of the places.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ...config.published import HuggingFaceTeacher
from ...errors import RecipeError
from .families import corners_of
from .said import Places

Given = Mapping[str, Tensor]
"""`pixel_values` [rows, 3, H, W], and `pixel_mask` where the image processor makes one."""
Answering = Callable[[Given], Places]
ENDS_A_PHRASE = "."


class Owl:
    """OWL-ViT and OWLv2: a place is of the class of the query that it is most like. A query is an embedding, of words or of a
    crop; all of them are made here, so that no image waits for them."""

    def __init__(
        self, config: HuggingFaceTeacher, network: Any, tokenizer: Any, crops: Callable[[NDArray[Any]], Tensor]
    ) -> None:
        """`crops`: an image uint8 [H, W, 3] as the network takes it, [1, 3, H', W']. Raises RecipeError for words that are too
        long, or a crop in which the network sees nothing."""
        self.network, classes = network, config.asked_for
        found: list[Tensor] = []
        label: list[int] = []
        if config.prompts:
            found.append(self._of_words(config, tokenizer))
            label += [classes.index(name) for name in config.prompts.values()]
        for name, files in (config.examples or {}).items():
            found += [self._of_crop(f"examples.{name}: {file}", crops(opened(file))) for file in files]
            label += [classes.index(name)] * len(files)
        self.queries = torch.cat(found)[None]
        self.label = torch.tensor(label, device=network.device)

    def _of_words(self, config: HuggingFaceTeacher, tokenizer: Any) -> Tensor:
        """[prompts, D], as the network's own forward has them, beside an image of nothing."""
        words, text = list(config.prompts or {}), self.network.config.text_config
        longest = min(tokenizer.model_max_length, text.max_position_embeddings)
        lengths = [len(ids) for ids in tokenizer(words)["input_ids"]]
        if too_long := [word for word, length in zip(words, lengths, strict=True) if length > longest]:
            raise RecipeError(
                f"prompts: {too_long[0]!r} has {max(lengths)} tokens, {config.path} takes {longest}; say it shorter"
            )
        given = tokenizer(words, padding="max_length", max_length=longest, return_tensors="pt")
        _check_ids(config.path, given["input_ids"], text.vocab_size)
        size = self.network.config.vision_config.image_size
        nothing = torch.zeros(1, 3, size, size, dtype=self.network.dtype, device=self.network.device)
        ids = {name: given[name].to(self.network.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            embeddings: Tensor = self.network(**ids, pixel_values=nothing).text_embeds
        return embeddings[0]

    def _of_crop(self, where: str, pixels: Tensor) -> Tensor:
        """[1, D] of what one crop shows."""
        with torch.inference_mode():
            features, places = self._seen(pixels)
            embedding: Tensor | None = self.network.embed_image_query(places, features)[0]
        if embedding is None:
            raise RecipeError(f"{where} shows nothing that the network sees; crop it closer to one thing")
        return embedding.reshape(1, -1)

    def _seen(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a grid, [rows, h, w, D], and one place after the other, [rows, h * w, D]."""
        features: Tensor = self.network.image_embedder(pixel_values=pixels)[0]
        return features, features.flatten(1, 2)

    def __call__(self, given: Given) -> Places:
        features, places = self._seen(given["pixel_values"])
        logits = self.network.class_predictor(places, self.queries.expand(len(places), -1, -1))[0].float()
        boxes = self.network.box_predictor(places, features).float()
        best, query = logits.max(-1)
        return Places(corners_of(boxes), best.sigmoid(), self.label[query])


class Grounded:
    """Grounding DINO: all prompts are one text; a place's score is that of its best token, its class that of the prompt with
    the best one."""

    def __init__(self, config: HuggingFaceTeacher, network: Any, tokenizer: Any) -> None:
        """Raises RecipeError for words that cannot be told apart in the text, or are too many."""
        prompts = [word.strip().lower() for word in config.prompts or {}]
        if dotted := [word for word in prompts if ENDS_A_PHRASE in word or not word]:
            raise RecipeError(
                f"prompts: {dotted[0]!r} is no phrase for {config.path}, in which {ENDS_A_PHRASE!r} ends one; leave it out"
            )
        text = f"{ENDS_A_PHRASE} ".join(prompts) + ENDS_A_PHRASE
        told = tokenizer(text, return_offsets_mapping=True, return_token_type_ids=True, return_tensors="pt")
        longest, about = network.config.max_text_len, network.config.text_config
        ids = told["input_ids"]
        if ids.shape[1] > longest:
            raise RecipeError(
                f"prompts: are {ids.shape[1]} tokens together, {config.path} takes {longest}; ask for fewer"
            )
        _check_ids(config.path, ids, about.vocab_size)
        own = _tokens_of(prompts, told["offset_mapping"][0].tolist())
        if lost := [prompt for prompt, tokens in zip(prompts, own, strict=True) if not any(tokens)]:
            raise RecipeError(f"prompts: {lost[0]!r} has no token for {config.path}; use other words")
        names = ("input_ids", "attention_mask", "token_type_ids")
        self.network = network
        self.told = {name: told[name].to(network.device) for name in names}
        self.own = torch.tensor(own, device=network.device)
        classes = config.asked_for
        self.label = torch.tensor(
            [classes.index(name) for name in (config.prompts or {}).values()], device=network.device
        )

    def __call__(self, given: Given) -> Places:
        rows = len(given["pixel_values"])
        said = self.network(**given, **{name: ids.expand(rows, -1) for name, ids in self.told.items()})
        each = said.logits.float()
        own = each[..., None, : self.own.shape[1]].masked_fill(~self.own, -torch.inf)
        prompt = own.amax(-1).argmax(-1)
        return Places(corners_of(said.pred_boxes.float()), each.amax(-1).sigmoid(), self.label[prompt])


def _tokens_of(prompts: Sequence[str], places: Sequence[tuple[int, int]]) -> list[list[bool]]:
    """Of each prompt, which tokens of the joint text are of it. `places`: where in the text each token stands; of special ones
    nowhere."""
    found, first = [], 0
    for prompt in prompts:
        stop = first + len(prompt)
        found.append([low < high and low >= first and high <= stop for low, high in places])
        first = stop + len(f"{ENDS_A_PHRASE} ")
    return found


def _check_ids(path: str, ids: Tensor, known: int) -> None:
    if int(ids.max()) >= known:
        raise RecipeError(
            f"path: the tokenizer in {path} gives the token {int(ids.max())}, and its network has an embedding of {known}; it is "
            f"the tokenizer of another network"
        )


def opened(file: str | Path) -> NDArray[np.uint8]:
    """The image in a file, turned upright, uint8 [H, W, 3]."""
    with Image.open(file) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
