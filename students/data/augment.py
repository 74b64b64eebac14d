"""Fresh random augmentation of training batches. Acts on canonical inputs, before a network's own preprocessing.

Nothing is stored, and every row is moved by a seed of its own: any batch can be drawn again, by whoever has its rows.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.config.training import AugmentName
from teachers.errors import RecipeError
from teachers.transfer_set.views import TRANSFORMS, Transform, draw
from teachers.users_code.calls import calling
from teachers.users_code.imports import load

from .draws import Views
from .mosaic import mosaic
from .zoom import colour, zoom

Inputs = Tensor | dict[str, Tensor]
Augment = Callable[[Inputs, Tensor], Inputs]
"""(inputs, seeds i64 `[rows]`) to inputs."""

ROTATION = math.radians(15)
TRANSLATION = 0.1
SCALE = 0.1
SHEAR = 0.1


def affine(inputs: Inputs, seeds: Tensor) -> Inputs:
    """A random rotation (15 degrees), shift (10%), scale (10%) and small shear of every image, zeros from outside.

    Images `[rows, height, width, channels]` of any dtype become float32 in the same range; of several columns only
    the images are moved, each by its own draw. Raises RecipeError when there is no image.
    """
    return _with_images("affine", _move, inputs, seeds)


def replayed(name: str, transform: Transform) -> Augment:
    """A transform of images that draws from a seed a row; their shape stays. A `mosaic` looks at groups of four rows."""
    return lambda inputs, seeds: _with_images(name, transform, inputs, seeds)


def _with_images(name: str, move: Transform, inputs: Inputs, seeds: Tensor) -> Inputs:
    columns = inputs if isinstance(inputs, Mapping) else {"": inputs}
    if not any(column.ndim == 4 for column in columns.values()):
        raise RecipeError(
            f"train.augment: `{name}` moves images, and this transfer set has none; remove it, or give a function of yours"
        )
    moved = {
        key: move(column, draw(seeds, number)) if column.ndim == 4 else column
        for number, (key, column) in enumerate(columns.items())
    }
    return moved if isinstance(inputs, Mapping) else moved[""]


def _move(images: Tensor, seeds: Tensor) -> Tensor:
    planes = images.permute(0, 3, 1, 2).float()
    height, width = planes.shape[2:]
    grid = F.affine_grid(_matrices(seeds, height / width), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False).permute(0, 2, 3, 1)


def _matrices(seeds: Tensor, aspect: float) -> Tensor:
    """`[rows, 2, 3]` maps from output to input positions, both from -1 to 1; `aspect` is height / width."""
    bits = draw(seeds[:, None], torch.arange(5, device=seeds.device))
    drawn = (bits >> 39).float() / (1 << 24)  # 25 bits with their sign: from -1 to 1, exact in float32
    angle, shear, scale = drawn[:, 0] * ROTATION, drawn[:, 1] * SHEAR, 1 + drawn[:, 2] * SCALE
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    across = torch.stack([cos, (cos * shear - sin) * aspect, drawn[:, 3] * 2 * TRANSLATION], 1)
    down = torch.stack([sin / aspect, sin * shear + cos, drawn[:, 4] * 2 * TRANSLATION], 1)
    return torch.stack([across, down], 1)


AUGMENTS: dict[AugmentName, Augment] = {
    "affine": affine,
    "zoom": replayed("zoom", zoom),
    "colour": replayed("colour", colour),
    "mosaic": replayed("mosaic", mosaic),
    "flip": replayed("flip", TRANSFORMS["flip"]),
    "pad_and_crop": replayed("pad_and_crop", TRANSFORMS["pad_and_crop"]),
    "random_resized_crop": replayed("random_resized_crop", TRANSFORMS["random_resized_crop"]),
    "colour_jitter": replayed("colour_jitter", TRANSFORMS["colour_jitter"]),
    "cutout": replayed("cutout", TRANSFORMS["cutout"]),
    "noise": replayed("noise", TRANSFORMS["noise"]),
}


def augmentation(names: Sequence[str]) -> Callable[[Inputs, Views], Inputs] | None:
    """Entries of AUGMENTS and functions that import strings name, one after the other; None for none.

    A function of the user's is called as `fn(inputs, seeds)` where that is the name of its second parameter, else as
    `fn(inputs, generator)` for each part of the rows.
    """
    steps = [(name, AUGMENTS[name] if name in AUGMENTS else load(name)) for name in names]

    def augment(inputs: Inputs, views: Views) -> Inputs:
        for number, (name, step) in enumerate(steps):
            with calling("train.augment", name):
                takes_seeds = name in AUGMENTS or _takes_seeds(step)
                inputs = step(inputs, views.seeds(number)) if takes_seeds else _by_part(step, inputs, views, number)
        return inputs

    return augment if steps else None


def _takes_seeds(step: Callable[..., Inputs]) -> bool:
    return "seeds" in [*inspect.signature(step).parameters][1:2]


def _by_part(step: Callable[..., Inputs], inputs: Inputs, views: Views, number: int) -> Inputs:
    moved = [step(_rows(inputs, rows), generator) for rows, generator in views.generators(number)]
    if len(moved) == 1:
        return moved[0]
    first = moved[0]
    if isinstance(first, Tensor):
        return torch.cat(moved)  # type: ignore[arg-type]
    return {name: torch.cat([part[name] for part in moved]) for name in first}  # type: ignore[index]


def _rows(inputs: Inputs, rows: slice) -> Inputs:
    return inputs[rows] if isinstance(inputs, Tensor) else {name: column[rows] for name, column in inputs.items()}
