"""Networks for students: small enough to be worth distilling into. Knows nothing of teachers or training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachers.config.task import AnswerName
from teachers.models.folder import make_module
from teachers.models.transformers_network import make_network
from teachers.zoo import linear, mlp

from .tasks.ensemble import TOGETHER

__all__ = ["ensemble", "huggingface", "linear", "mlp", "small_conv_net"]


def huggingface(
    path: str | None = None,
    config: Mapping[str, Any] | str | None = None,
    init: Mapping[str, Any] | None = None,
    *,
    num_classes: int,
    input_shape: Any,
    classes: Sequence[str] = (),
    vocabulary_size: int | None = None,
) -> nn.Module:
    """A network of transformers (extra `huggingface`) for token ids i32 `[rows, L]` or images f32 `[rows, C, H, W]`.

    `path`: a folder whose weights it begins with; `init: {layers: [0, 3, 6, 9]}` takes these of its layers. Its head is taken
    where it knows the same classes in the same order. `config`: instead, a configuration, or the file of one; weights are
    of chance.
    """
    given: dict[str, Any] = {"num_classes": num_classes, "classes": classes, "input_shape": input_shape}
    return make_network(path, config, init, vocabulary_size=vocabulary_size, **given)


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
) -> nn.Module:
    """Several networks as one: what they say together. `members`: {model, arguments} of each; `answer`: what they say."""
    given = {"num_classes": num_classes, "input_shape": input_shape, "num_codes": num_codes}
    return Ensemble([make_module(member["model"], member["arguments"], **given) for member in members], answer)


class Ensemble(nn.Module):
    """`[rows, width]`: the log of the mean of its members' probabilities, of each class its logit, or the mean of numbers."""

    def __init__(self, members: Sequence[nn.Module], answer: AnswerName) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.together = TOGETHER[answer]

    def forward(self, inputs: Any) -> Tensor:
        return self.together(torch.stack([member(inputs) for member in self.members]))
