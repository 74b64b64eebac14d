"""How much detectors differ over what is in an image. Knows nothing of who is right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...tasks.boxes import SCORE
from .boxes import Fused, fuse


def in_dispute(said: Sequence[Tensor], asked: Tensor | None = None) -> Tensor:
    """How many boxes of each row several voices differ over, f64 `[rows]`, of what each says f32 `[rows, M * 6]`, NaN what it does not
    know: of every place where somebody says a box, the highest score there less the mean over all who know the row and were `asked`
    for the class (bool `[K, C]`; None: all).

    0 where all say the same, or one alone knows the row; a box that one of three is sure of and nobody else sees makes 2/3.
    """
    stacked = torch.stack([*said])
    known = ~stacked.isnan()
    highest, mean = (_summed(fuse(stacked.nan_to_num(), known, rule, asked=asked)) for rule in ("nms", "wbf"))
    return (highest - mean).clamp_min(0.0)


def _summed(found: Fused) -> Tensor:
    return found.boxes[..., SCORE].double().nan_to_num().sum(1)
