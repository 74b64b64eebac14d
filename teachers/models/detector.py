"""A small detector without anchors: a box and a score a class at every cell of a grid of stride 8. Knows nothing of training."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import is_traced

PRIOR = 0.01
"""What every class is said with before anything is learnt."""
LARGEST = 6.0
"""Of the logarithm of a side, in cells."""
START = 2.0
"""Cells from a point to each side of its box, before anything is learnt."""


def block(inside: int, outside: int, stride: int = 1, kernel: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outside),
        nn.SiLU(inplace=True),
    )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = block(channels, channels), block(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = maps + self.second(self.first(maps))
        return out


class TinyDetector(nn.Module):
    """f32 `[rows, channels, H, W]` of any size to f32 `[rows, A, 6 + C]`, as `teachers.tasks.places` has it, A = H / 8 * W / 8.

    Strides 8, 16 and 32 see more and more of the image, and what they see is added up at stride 8.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        wide = 3 * width
        self.stem = nn.Sequential(block(channels, width, 2), block(width, 2 * width, 2))
        self.eight = nn.Sequential(block(2 * width, wide, 2), Residual(wide))
        self.sixteen = nn.Sequential(block(wide, wide, 2), Residual(wide))
        self.thirty_two = nn.Sequential(block(wide, wide, 2), block(wide, wide))
        self.across = nn.ModuleList([block(wide, wide, kernel=1) for _ in range(3)])
        self.head = block(wide, wide)
        self.boxes, self.scores = nn.Conv2d(wide, 4, 1), nn.Conv2d(wide, classes, 1)
        nn.init.normal_(self.boxes.weight, std=0.01)
        nn.init.constant_(self.boxes.bias, math.log(START))  # type: ignore[arg-type]
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.constant_(self.scores.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        if not is_traced():  # pixel by pixel: a step on a CPU takes three quarters of the time
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        eight = self.eight(self.stem(inputs))
        sixteen = self.sixteen(eight)
        seen = [eight, sixteen, self.thirty_two(sixteen)]
        size = eight.shape[-2:]
        maps = [F.interpolate(reduce(each), size) for reduce, each in zip(self.across, seen, strict=True)]
        found = self.head(maps[0] + maps[1] + maps[2])
        return torch.cat([self._boxes(found), self.scores(found)], 1).flatten(2).transpose(1, 2)

    def _boxes(self, found: Tensor) -> Tensor:
        """Corners and points, `[rows, 6, H / 8, W / 8]`."""
        height, width = found.shape[-2:]
        y = (torch.arange(height, device=found.device, dtype=found.dtype) + 0.5) / height
        x = (torch.arange(width, device=found.device, dtype=found.dtype) + 0.5) / width
        y, x = torch.meshgrid(y, x, indexing="ij")
        left, top, right, bottom = self.boxes(found).clamp(-LARGEST, LARGEST).exp().unbind(1)
        corners = [x - left / width, y - top / height, x + right / width, y + bottom / height]
        return torch.stack([*corners, x.expand_as(left), y.expand_as(left)], 1)
