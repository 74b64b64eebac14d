"""Networks for students: small enough to be worth distilling into. Knows nothing of teachers or training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from teachers.models.folder import make_module
from teachers.zoo import linear, mlp

__all__ = ["ensemble", "linear", "mlp", "small_conv_net"]


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
    members: Sequence[Mapping[str, Any]], *, num_classes: int, input_shape: Any, num_codes: Sequence[int] = ()
) -> nn.Module:
    """Several networks as one: the log of their mean probability. `members`: {model, arguments} of each."""
    given = {"num_classes": num_classes, "input_shape": input_shape, "num_codes": num_codes}
    made = [make_module(member["model"], member["arguments"], **given) for member in members]
    return Ensemble(made)


class Ensemble(nn.Module):
    """The log of the mean of its members' probabilities, `[rows, classes]`."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Any) -> Tensor:
        said = torch.stack([member(inputs).log_softmax(-1) for member in self.members])
        return said.logsumexp(0) - math.log(len(said))
