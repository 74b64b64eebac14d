"""Augmentations of images in which objects lie: a window of the image at another scale, and other light.

What is drawn is drawn from a seed a row, so that boxes can follow. Knows nothing of boxes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.transfer_set.views import draw

NEAREST, FARTHEST = 0.6, 1.3
"""Edge of the window, of the image's own: below 1 objects grow, above it they shrink, and grey is around the image."""
STRETCH = 0.15
"""How much wider or higher it may be than that."""
GREY = 114.0
LIGHT = 0.25
"""Of 255, how much brighter or darker an image gets; contrast and saturation change by such a part of themselves."""


def uniform(seeds: Tensor, counter: int) -> Tensor:
    """From -1 to 1 for each seed, f32, exact."""
    return (draw(seeds, counter) >> 39).float() / (1 << 24)


def windows(seeds: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(left, top, width, height) of the window that becomes the whole image, f32 `[rows]`, in 0 to 1 of the image."""
    edge = NEAREST + (FARTHEST - NEAREST) * (uniform(seeds, 0) + 1) / 2
    stretch = 1 + STRETCH * uniform(seeds, 1)
    width, height = edge * stretch, edge / stretch
    left, top = ((1 - each) * (uniform(seeds, 2 + n) + 1) / 2 for n, each in enumerate((width, height)))
    return left, top, width, height


def zoom(images: Tensor, seeds: Tensor) -> Tensor:
    """The window of each image at the size of the image, f32 `[rows, H, W, C]` in the same range; grey from outside."""
    left, top, width, height = windows(seeds)
    nothing = torch.zeros_like(left)
    across = torch.stack([width, nothing, 2 * left + width - 1], 1)
    down = torch.stack([nothing, height, 2 * top + height - 1], 1)
    planes = images.permute(0, 3, 1, 2).float() - GREY
    grid = F.affine_grid(torch.stack([across, down], 1), list(planes.shape), align_corners=False)
    return (F.grid_sample(planes, grid, padding_mode="zeros", align_corners=False) + GREY).permute(0, 2, 3, 1)


def colour(images: Tensor, seeds: Tensor) -> Tensor:
    """Each image brighter or darker, with more or less contrast and saturation: f32 in 0 to 255."""
    light, contrast, saturation = (1 + LIGHT * uniform(seeds, n)[:, None, None, None] for n in range(3))
    values = images.float()
    values = (values - GREY) * contrast + GREY + 255 * (light - 1)
    grey = values.mean(-1, keepdim=True)
    return ((values - grey) * saturation + grey).clamp(0, 255)
