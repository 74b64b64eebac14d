"""Networks for students: small enough to be worth distilling into. Knows nothing of teachers or training."""

import math
from collections.abc import Sequence

from torch import nn

from teachers.zoo import mlp

__all__ = ["mlp", "small_conv_net"]


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
