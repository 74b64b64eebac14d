"""Projectors: from the width of one network's layer to that of another's. They train with who follows, and are not delivered.

Shapes are of one row: maps `(C, H, W)`, positions `(L, D)`, vectors `(D,)`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.hints import ProjectorName

Shape = Sequence[int]


class Projector(nn.Module):
    """A 1x1 convolution of maps, else linear over the last axis, without a bias; `is_plain`: what has the width already is left alone.

    Maps that differ in height or width are compared at the smaller of the two, by adaptive mean pooling; a map that is to follow a
    vector is pooled to one position first. Raises ValueError with both shapes where nothing joins them.
    """

    def __init__(self, own: Shape, theirs: Shape, *, is_plain: bool = False) -> None:
        super().__init__()
        if not can_be_joined(own, theirs):
            raise ValueError(f"maps of {[*own]} and {[*theirs]} have no projector between them")
        self.size = (min(own[1], theirs[1]), min(own[2], theirs[2])) if len(own) == len(theirs) == 3 else None
        self.to_vector = len(own) == 3 and len(theirs) == 1
        self.map: nn.Module = nn.Identity()
        if not is_plain:
            last = width_of(own) if self.to_vector else own[-1]
            self.map = nn.Linear(last, theirs[-1], bias=False)
        if not is_plain and self.size is not None:  # what a cohort's seed draws is what it always drew
            self.map = nn.Conv2d(own[0], theirs[0], 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        projected: Tensor = self.map(maps.mean((2, 3)) if self.to_vector else self.pooled(maps))
        return projected

    def pooled(self, maps: Tensor) -> Tensor:
        return maps if self.size is None or maps.shape[2:] == self.size else F.adaptive_avg_pool2d(maps, self.size)


class ConvRegressor(nn.Module):
    """A convolution that brings a map to the height and width of another, batch normalisation and ReLU (FitNets; RepDistiller's sizes).

    Twice the size: 3x3, stride 2; half: 4x4, transposed, stride 2; else without padding, as much larger as the map is. What it gives
    is never below 0, as what a ReLU gives. Raises ValueError with both shapes for a map that is smaller in another way.
    """

    def __init__(self, own: Shape, theirs: Shape) -> None:
        super().__init__()
        if len(own) != 3 or len(theirs) != 3:
            raise ValueError(f"conv_regressor joins maps [C, H, W], here are {[*own]} and {[*theirs]}")
        (height, breadth), (to_height, to_breadth) = own[1:], theirs[1:]
        self.map: nn.Module
        if (height, breadth) == (2 * to_height, 2 * to_breadth):
            self.map = nn.Conv2d(own[0], theirs[0], 3, stride=2, padding=1)
        elif (2 * height, 2 * breadth) == (to_height, to_breadth):
            self.map = nn.ConvTranspose2d(own[0], theirs[0], 4, stride=2, padding=1)
        elif height >= to_height and breadth >= to_breadth:
            self.map = nn.Conv2d(own[0], theirs[0], (1 + height - to_height, 1 + breadth - to_breadth))
        else:
            raise ValueError(
                f"conv_regressor makes no map {[*theirs]} of {[*own]}: it halves or doubles one, or takes off an edge; say "
                f"`projector: conv1x1`, which compares at the smaller size"
            )
        self.norm = nn.BatchNorm2d(theirs[0])

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.norm(self.map(maps)))

    def pooled(self, maps: Tensor) -> Tensor:
        return maps


class Embedding(nn.Module):
    """A linear layer of all that a row has, brought to length 1, `[rows, dim]`."""

    def __init__(self, own: Shape, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(math.prod(own), dim)

    def forward(self, values: Tensor) -> Tensor:
        return F.normalize(self.map(values.flatten(1)), dim=1)


class ReviewFusion(nn.Module):
    """Stages of a student made comparable to the teacher's, each with what deeper ones tell (ABF of ReviewKD: Chen et al., 2021).

    From the deepest on: a 1x1 convolution to `width`; the deeper result, enlarged, is mixed in by two maps of weights that both
    decide; a 3x3 convolution to the teacher's channels, at the teacher's height and width. Batch normalisation behind both.
    """

    def __init__(self, own: Sequence[Shape], theirs: Sequence[Shape], width: int) -> None:
        super().__init__()
        for one, other in zip(own, theirs, strict=True):
            if len(one) != 3 or len(other) != 3:
                raise ValueError(f"review compares maps [C, H, W], here are {[*one]} and {[*other]}")
        self.sizes = [tuple(each[1:]) for each in theirs]
        self.inward = nn.ModuleList([_normalised(each[0], width, 1) for each in own])
        self.weigh = nn.ModuleList([nn.Conv2d(2 * width, 2, 1) for _ in own[1:]])
        self.outward = nn.ModuleList([_normalised(width, each[0], 3) for each in theirs])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of maps from shallow to deep, in that order."""
        found: list[Tensor] = []
        deeper: Tensor | None = None
        for stage in reversed(range(len(maps))):
            mixed = self.inward[stage](maps[stage])
            if deeper is not None:
                deeper = F.interpolate(deeper, mixed.shape[2:])
                weights = self.weigh[stage](torch.cat([mixed, deeper], 1)).sigmoid()
                mixed = mixed * weights[:, :1] + deeper * weights[:, 1:]
            deeper = mixed
            at_size = mixed if mixed.shape[2:] == self.sizes[stage] else F.interpolate(mixed, self.sizes[stage])
            found.insert(0, self.outward[stage](at_size))
        return found


def _normalised(width: int, to_width: int, kernel: int) -> nn.Module:
    convolution = nn.Conv2d(width, to_width, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(to_width))


def projector_of(own: Shape, theirs: Shape, kind: ProjectorName | None) -> Projector | ConvRegressor:
    """`kind` null: by the shapes, nothing where the widths agree. Raises ValueError with both shapes for what it does not join."""
    if kind == "conv_regressor":
        return ConvRegressor(own, theirs)
    of_maps = len(own) == len(theirs) == 3
    if kind is not None and kind != "none" and (kind == "conv1x1") != of_maps:
        raise ValueError(f"{kind} is not for {[*own]} and {[*theirs]}; say {'conv1x1' if of_maps else 'linear'}")
    if not can_be_joined(own, theirs):
        raise ValueError(no_joint(own, theirs))
    if kind == "none" and width_of(own) != width_of(theirs):
        raise ValueError(
            f"`projector: none` compares layers of one width, here are {[*own]} and {[*theirs]}; leave it out, and one is chosen"
        )
    return Projector(own, theirs, is_plain=kind == "none" or (kind is None and width_of(own) == width_of(theirs)))


def can_be_joined(own: Shape, theirs: Shape) -> bool:
    if len(own) == 2 and len(theirs) == 2:
        return own[0] == theirs[0]
    return (len(own) == len(theirs) and len(own) in (1, 3)) or (len(own) == 3 and len(theirs) == 1)


def no_joint(own: Shape, theirs: Shape) -> str:
    """What to tell of two shapes."""
    return (
        f"the student's layer gives {[*own]} of a row and the teacher's output {[*theirs]}, and no projector joins them; name "
        f"layers of one kind (maps [C, H, W], as many positions [L, D], vectors [D]), or `pool: mean` for the output"
    )


def width_of(shape: Shape) -> int:
    """Channels of a map, else the last axis."""
    return shape[0] if len(shape) == 3 else shape[-1]
