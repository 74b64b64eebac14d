"""Four images as one (YOLOv4, Bochkovskiy et al., 2020): rows that stand next to each other in the global batch, around a point.

Where the point is, and how large the images are, is drawn from a seed a row; the four are of one part of the batch, so every rank
has them. Every other row stays as it is. Knows nothing of what lies in images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.transfer_set.views import below

from .zoom import GREY, uniform

ROWS = 4
"""Of one group."""
SMALLEST = 0.5
"""Edge of each of the four, of its own; at most it is 1, and a quarter of the image shows a part of each."""
MIDDLE = 0.25
"""How far the point may be from the middle."""
POINT_X, POINT_Y, EDGE, WHETHER = range(4)
"""What is drawn for a row."""


def drawn(seeds: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(is it of four, x and y of the point in 0 to 1, edge of each image), `[rows]` bool and f32."""
    x, y = (0.5 + MIDDLE * uniform(seeds, counter) for counter in (POINT_X, POINT_Y))
    edge = SMALLEST + (1 - SMALLEST) * (uniform(seeds, EDGE) + 1) / 2
    return below(2, seeds, WHETHER).bool(), x, y, edge


def fours(values: Tensor) -> Tensor:
    """Of rows `[rows, ...]` the four of each row's group, `[rows, 4, ...]`: itself, those after it, and those before these."""
    rows, four = torch.arange(len(values), device=values.device)[:, None], torch.arange(ROWS, device=values.device)
    return values[rows - rows % ROWS + (rows + four) % ROWS]


def mosaic(images: Tensor, seeds: Tensor) -> Tensor:
    """Images f32 `[rows, H, W, C]` in the same range: left above, right above, left below and right below of the point; grey around."""
    is_there, x, y, edge = drawn(seeds)
    planes = images.permute(0, 3, 1, 2).float()
    if not bool(is_there.any()):  # torch makes no grid of no rows
        return planes.permute(0, 2, 3, 1)
    above_left, above_right, below_left, below_right = fours(planes - GREY)[is_there].unbind(1)
    above, beneath = torch.cat([above_left, above_right], -1), torch.cat([below_left, below_right], -1)
    x, y, edge = x[is_there], y[is_there], edge[is_there]
    nothing = torch.zeros_like(x)
    across = torch.stack([1 / (2 * edge), nothing, (0.5 - x) / edge], 1)
    down = torch.stack([nothing, 1 / (2 * edge), (0.5 - y) / edge], 1)
    shape = [len(x), *planes.shape[1:]]
    grid = F.affine_grid(torch.stack([across, down], 1), shape, align_corners=False)
    out = planes.clone()
    out[is_there] = F.grid_sample(torch.cat([above, beneath], -2), grid, align_corners=False) + GREY
    return out.permute(0, 2, 3, 1)


def placed(corners: Tensor, seeds: Tensor) -> Tensor:
    """Where boxes of the four images come to, by their `corners` f32 `[rows, 4, ..., 4]` in 0 to 1 of each; those of a row that stays
    as it is do not move."""
    is_there, x, y, edge = (each.reshape(-1, *[1] * (corners.ndim - 2)) for each in drawn(seeds))
    place = torch.arange(ROWS, device=corners.device).reshape(1, ROWS, *[1] * (corners.ndim - 3))
    left, top = x - (1 - place % 2) * edge, y - (1 - place // 2) * edge
    x1, y1, x2, y2 = corners.unbind(-1)
    moved = torch.stack([left + x1 * edge, top + y1 * edge, left + x2 * edge, top + y2 * edge], -1)
    return torch.where(is_there[..., None], moved, corners)
