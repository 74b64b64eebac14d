"""Networks for students: small enough to be worth distilling into. Knows nothing of teachers or training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.attention import Layer, is_traced, mean_of_known
from teachers.models.heads import Known, with_heads
from teachers.models.modules import make_module
from teachers.models.pruned import make_pruned
from teachers.models.static import token_table
from teachers.models.text import TextTransform
from teachers.models.transformers_network import make_network
from teachers.zoo import linear, mlp, tiny_detector

from .tasks.ensemble import Ensemble

__all__ = ["bag", "ensemble", "huggingface", "hydra", "linear", "mlp", "pruned", "small_conv_net", "static", "tiny_detector", "tiny_transformer"]  # fmt: skip


def small_conv_net(width: int = 8, *, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Two convolutions of stride 2 and one linear layer: f32 `[rows, C, H, W]` to logits `[rows, num_classes]`.

    Without batch statistics, so any number of workers trains the same network.
    """
    channels, height, breadth = input_shape
    positions = math.ceil(height / 4) * math.ceil(breadth / 4)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * positions, num_classes),
    )


def ensemble(
    members: Sequence[Mapping[str, Any]],
    answer: AnswerName = "class_axis",
    *,
    num_classes: int,
    input_shape: Any,
    num_codes: Sequence[int] = (),
    vocabulary_size: int | None = None,
) -> nn.Module:
    """Several networks as one: what they say together. `members`: {model, arguments} of each; `answer`: what they say."""
    given: dict[str, Any] = {"num_classes": num_classes, "input_shape": input_shape}
    given |= {"num_codes": num_codes, "vocabulary_size": vocabulary_size}
    return Ensemble([make_module(member["model"], member["arguments"], **given) for member in members], answer)


def hydra(
    of: Mapping[str, Any],
    layer: str,
    heads: int,
    answer: AnswerName = "class_axis",
    known: Known | None = None,
    *,
    num_classes: int,
    input_shape: Any,
    num_codes: Sequence[int] = (),
    vocabulary_size: int | None = None,
    classes: Sequence[str] = (),
) -> nn.Module:
    """The network `of`, {model, arguments}, with its last `layer` as often as `heads` says, and what they say as one: what a student
    with `hydra` trains (Tran et al., 2020). `answer`: what they say; `known`: of which names, by head, where not of all."""
    told: dict[str, Any] = {"num_classes": num_classes, "input_shape": input_shape, "num_codes": num_codes}
    told |= {"vocabulary_size": vocabulary_size, "classes": classes}
    return with_heads(make_module(of["model"], of["arguments"], **told), layer, heads, answer, num_classes, known)


def huggingface(
    path: str | None = None,
    config: Mapping[str, Any] | str | None = None,
    init: Mapping[str, Any] | None = None,
    *,
    num_classes: int,
    input_shape: Any,
    vocabulary_size: int | None = None,
    classes: Sequence[str] = (),
) -> nn.Module:
    """A network of transformers for token ids i32 `[rows, L]`, -1 behind the last, or for images f32 `[rows, C, H, W]`; also one
    that finds boxes in them (RT-DETR, D-FINE, Deformable and Conditional DETR), whose queries learn a box each, the last layer's alone.

    `path`: a folder whose weights it begins with, `init: {layers: [0, 3]}`: with these of its layers, and its head where it
    knows the same `classes` in the same order. `config`: instead, a configuration, or its file, and weights of chance.
    """
    return make_network(path, config, init, classes or [*map(str, range(num_classes))], input_shape, vocabulary_size)


def pruned(
    of: Mapping[str, Any],
    ratio: float | None = None,
    keep: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    num_classes: int,
    input_shape: Any,
    num_codes: Sequence[int] = (),
    vocabulary_size: int | None = None,
    classes: Sequence[str] = (),
) -> nn.Module:
    """The network of a teacher, `of`, without the `ratio` of each layer's filters that have the least L1 norm (Li et al., 2017).

    In a recipe `of` names the teacher, whose weights it begins with. `keep`: layers that stay whole, beside the last. Of a
    network without convolutions hidden units go. In a model folder `of` is `{model, arguments}`, and `shapes` says what is
    left of its tensors. Needs collegium[pruning] to be made, not to be loaded.
    """
    told: dict[str, Any] = {"num_classes": num_classes, "input_shape": input_shape, "num_codes": num_codes}
    told |= {"vocabulary_size": vocabulary_size, "classes": classes}
    return make_pruned(of, ratio, keep, shapes, **told)


def bag(
    dim: int = 64,
    hidden: int | None = None,
    pooling: Literal["mean", "sum"] = "mean",
    *,
    num_classes: int,
    input_shape: Any,
    vocabulary_size: int | None,
) -> nn.Module:
    """Embeddings of `tokens` or `ngrams`, their mean or sum, and a linear layer, or two with ReLU between them (`hidden` wide).

    Ids `[rows, L]`, -1 behind the last; of several inputs all others stand beside what is pooled, as floats. To logits
    `[rows, num_classes]` (fastText: Joulin et al., 2016).
    """
    return Bag(Text.of(input_shape, vocabulary_size, "bag"), dim, hidden, pooling, num_classes)


def static(
    encoder: str,
    dim: int = 256,
    hidden: int | None = None,
    *,
    num_classes: int,
    input_shape: Any,
    vocabulary_size: int | None,
) -> nn.Module:
    """A `bag` with a mean, whose table starts as what an encoder makes of each token alone (model2vec: Tulkens and van Dongen, 2024).

    `encoder`: a Hugging Face folder, or `package:FOLDER`, with the tokenizer of the `preprocess`. Its embeddings are brought
    to `dim` numbers by PCA, and weighted down the more, the commoner the token is. A delivered folder needs no encoder.
    """
    return Static(encoder, Text.of(input_shape, vocabulary_size, "static"), dim, hidden, num_classes)


def tiny_transformer(
    dim: int = 128,
    layers: int = 2,
    heads: int = 4,
    hidden: int | None = None,
    positions: Literal["learned", "rotary"] = "learned",
    dropout: float = 0.0,
    *,
    num_classes: int,
    input_shape: Any,
    vocabulary_size: int | None,
) -> nn.Module:
    """A few layers of attention over `tokens` or `ngrams` (normalised first; `hidden`: of a feed-forward layer, 4 `dim` by default),
    the mean of what they make of each, and a linear layer.

    Ids `[rows, L]`, -1 behind the last; `segments` of a pair are embedded too, other inputs stand beside the mean. To logits
    `[rows, num_classes]`. `rotary`: positions by turning queries and keys (Su et al., 2021).
    """
    if dim % (2 * heads):
        raise RecipeError(f"tiny_transformer: dim {dim} is no multiple of twice its {heads} heads")
    text = Text.of(input_shape, vocabulary_size, "tiny_transformer")
    return TinyTransformer(text, dim, layers, heads, hidden or 4 * dim, positions == "rotary", dropout, num_classes)


@dataclass(frozen=True)
class Text:
    """Which of a network's inputs holds ids of text, and how much stands beside it."""

    name: str | None
    """None: it is the only input."""
    length: int
    size: int
    """How many ids there are."""
    beside: tuple[str, ...] = ()
    width: int = 0
    """Of all that stands beside it."""
    has_segments: bool = False

    @classmethod
    def of(cls, input_shape: Any, vocabulary_size: int | None, model: str) -> Self:
        """Raises RecipeError where the preprocess makes no ids."""
        if vocabulary_size is None:
            raise RecipeError(
                f"{model} reads ids of text: say `preprocess: {{ngrams: {{}}}}`, or `{{tokenizer: {{path: FOLDER}}}}`"
            )
        if not isinstance(input_shape, Mapping):
            return cls(None, input_shape[0], vocabulary_size)
        name = next(name for name in ("tokens", "ngrams") if name in input_shape)
        beside = tuple(other for other in input_shape if other not in (name, "segments"))
        width = sum(math.prod(input_shape[other]) for other in beside)
        return cls(name, input_shape[name][0], vocabulary_size, beside, width, "segments" in input_shape)

    def ids(self, inputs: Any) -> Tensor:
        """`[rows, L]`; outside of graphs, L is that of the longest row."""
        ids: Tensor = inputs if self.name is None else inputs[self.name]
        if is_traced():
            return ids
        return ids[:, : max(1, int((ids >= 0).any(0).sum()))]

    def joined(self, pooled: Tensor, inputs: Any) -> Tensor:
        """What was made of the ids, and all that stands beside them, `[rows, dim + width]`."""
        return torch.cat([pooled, *(inputs[name].flatten(1).to(pooled.dtype) for name in self.beside)], 1)


class Bag(nn.Module):
    def __init__(self, text: Text, dim: int, hidden: int | None, pooling: str, num_classes: int) -> None:
        super().__init__()
        self.text, self.pooling = text, pooling
        self.table = nn.Parameter(torch.randn(text.size, dim) * dim**-0.5)
        width = dim + text.width
        layers = [] if hidden is None else [nn.Linear(width, hidden), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(hidden or width, num_classes))

    def forward(self, inputs: Any) -> Tensor:
        logits: Tensor = self.head(self.text.joined(self.pooled(self.text.ids(inputs)), inputs))
        return logits

    def pooled(self, ids: Tensor) -> Tensor:
        there = ids >= 0
        if is_traced():
            states = F.embedding(ids.clamp_min(0), self.table)
            return mean_of_known(states, there) if self.pooling == "mean" else (states * there[..., None]).sum(1)
        lengths = there.sum(1)
        starts = (lengths.cumsum(0) - lengths).to(ids.dtype)
        return F.embedding_bag(ids[there], self.table, starts, mode=self.pooling)


class Static(Bag):
    def __init__(self, encoder: str, text: Text, dim: int, hidden: int | None, num_classes: int) -> None:
        super().__init__(text, dim, hidden, "mean", num_classes)
        self.encoder = encoder

    def initialise_for_text(self, text: TextTransform, cache: Path) -> None:
        """Of a training, before its first step: bring the table. `cache`: where one is kept that was made before."""
        with torch.no_grad():
            self.table.copy_(token_table(self.encoder, text, self.table.shape[1], cache))


class TinyTransformer(nn.Module):
    def __init__(
        self,
        text: Text,
        dim: int,
        layers: int,
        heads: int,
        hidden: int,
        rotary: bool,
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.text = text
        self.embedding = nn.Embedding(text.size, dim)
        self.positions = None if rotary else nn.Embedding(text.length, dim)
        self.segments = nn.Embedding(2, dim) if text.has_segments else None
        for each in (self.embedding, self.positions, self.segments):
            if each is not None:
                nn.init.normal_(each.weight, std=0.02)
        self.layers = nn.ModuleList([Layer(dim, heads, hidden, dropout, rotary) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim + text.width, num_classes)

    def forward(self, inputs: Any) -> Tensor:
        ids = self.text.ids(inputs)
        there, place = ids >= 0, torch.arange(ids.shape[1], device=ids.device)
        states = self.embedding(ids.clamp_min(0))
        if self.positions is not None:
            states = states + self.positions(place)
        if self.segments is not None:
            states = states + self.segments(inputs["segments"][:, : ids.shape[1]].to(torch.int32))
        heard = (there | (place == 0))[:, None, None, :]  # a row without an id hears something, too
        for layer in self.layers:
            states = layer(states, heard)
        logits: Tensor = self.head(self.text.joined(mean_of_known(self.norm(states), there), inputs))
        return logits
