"""Labels as batches bring them, from those of a transfer set."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.tasks.labels import is_known
from teachers.tasks.space import Space

from ..objective.units import Units


def batch_labels(labels: NDArray[Any], space: Space) -> Tensor:
    """Of one class of many i64 `[rows]`, where `has_label` tells whether there is one; else f32 `[rows, width]`, NaN for
    what nobody knows: 1 or 0 of a class, of a number how many standard deviations it is above the mean."""
    if labels.ndim == 1:
        return torch.from_numpy(labels.astype(np.int64).clip(min=0))
    told = space.standardised(labels.astype(np.float64))
    return torch.from_numpy(np.where(is_known(labels), told, np.nan).astype(np.float32))


def rule_labels(labels: NDArray[Any], space: Space) -> Tensor:
    """As a combination rule is told of them, in the units of the label: of one class of many i64 `[rows]`, -1 where there is
    none; else f32 `[rows, width]`, NaN for what nobody knows."""
    if labels.ndim == 1:
        return torch.from_numpy(labels.astype(np.int64))
    return Units(space).of_label(batch_labels(labels, space))
