"""Fresh random augmentation of training batches. Acts on canonical inputs, before a network's own preprocessing.

Nothing is stored and nothing is drawn but from the given generator, so a seeded batch can be drawn again.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from teachers.config.training import AugmentName
from teachers.errors import RecipeError
from teachers.transfer_set.views import TRANSFORMS, Transform
from teachers.users_code.calls import calling
from teachers.users_code.imports import load

Inputs = Tensor | dict[str, Tensor]
Augment = Callable[[Inputs, Generator], Inputs]

ROTATION = math.radians(15)
TRANSLATION = 0.1
SCALE = 0.1
SHEAR = 0.1


def affine(inputs: Inputs, generator: Generator) -> Inputs:
    """A random rotation (15 degrees), shift (10%), scale (10%) and small shear of every image, zeros from outside.

    Images `[rows, height, width, channels]` of any dtype become float32 in the same range; of several columns only
    the images are moved, each by its own draw. Raises RecipeError when there is no image.
    """
    return _with_images("affine", _move, inputs, generator)


def by_seeds(name: str, transform: Transform) -> Augment:
    """A replayable transform of images, each by a seed of its own from the generator; shape and dtype stay."""

    def moved(images: Tensor, generator: Generator) -> Tensor:
        seeds = torch.empty(len(images), dtype=torch.int64, device=generator.device).random_(generator=generator)
        return transform(images, seeds)

    return lambda inputs, generator: _with_images(name, moved, inputs, generator)


def _with_images(
    name: str, move: Callable[[Tensor, Generator], Tensor], inputs: Inputs, generator: Generator
) -> Inputs:
    columns = inputs if isinstance(inputs, Mapping) else {"": inputs}
    if not any(column.ndim == 4 for column in columns.values()):
        raise RecipeError(
            f"train.augment: `{name}` moves images, and this transfer set has none; remove it, or give a function of yours"
        )
    moved = {key: move(c, generator) if c.ndim == 4 else c for key, c in columns.items()}
    return moved if isinstance(inputs, Mapping) else moved[""]


def _move(images: Tensor, generator: Generator) -> Tensor:
    planes = images.permute(0, 3, 1, 2).float()
    rows, _, height, width = planes.shape
    grid = F.affine_grid(_matrices(rows, height / width, generator), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False).permute(0, 2, 3, 1)


def _matrices(rows: int, aspect: float, generator: Generator) -> Tensor:
    """`[rows, 2, 3]` maps from output to input positions, both from -1 to 1; `aspect` is height / width."""
    draw = torch.rand(rows, 5, generator=generator, device=generator.device) * 2 - 1
    angle, shear, scale = draw[:, 0] * ROTATION, draw[:, 1] * SHEAR, 1 + draw[:, 2] * SCALE
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    across = torch.stack([cos, (cos * shear - sin) * aspect, draw[:, 3] * 2 * TRANSLATION], 1)
    down = torch.stack([sin / aspect, sin * shear + cos, draw[:, 4] * 2 * TRANSLATION], 1)
    return torch.stack([across, down], 1)


AUGMENTS: dict[AugmentName, Augment] = {
    "affine": affine,
    "flip": by_seeds("flip", TRANSFORMS["flip"]),
    "pad_and_crop": by_seeds("pad_and_crop", TRANSFORMS["pad_and_crop"]),
    "cutout": by_seeds("cutout", TRANSFORMS["cutout"]),
    "noise": by_seeds("noise", TRANSFORMS["noise"]),
}


def augmentation(names: Sequence[str]) -> Augment | None:
    """Entries of AUGMENTS and functions that import strings name, one after the other; None for none."""
    steps: list[tuple[str, Augment]] = [(name, AUGMENTS[name] if name in AUGMENTS else load(name)) for name in names]

    def augment(inputs: Inputs, generator: Generator) -> Inputs:
        for name, step in steps:
            with calling("train.augment", name):
                inputs = step(inputs, generator)
        return inputs

    return augment if steps else None
