"""What terms hear in which a student learns from itself: columns that its training adds to each batch.

Knows nothing of the network, nor of how it is remembered.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.task import AnswerName

from .targets import Asked, Batch

ROW = "own.row"
"""Of a batch: the number of each row among the labelled ones, i64 `[rows]`, -1 of one without a label."""
LAST_SAID = "own.last_said"
"""f32 `[rows, width]`: labels mixed with what the student last said, as probabilities."""
AVERAGE = "own.average"
"""f32 `[rows, width]`: logits of the averaged weights, or standardised numbers."""


def row_numbers(labelled: NDArray[np.bool_]) -> Tensor:
    """Of all rows of a training, from bool `[num_rows]`."""
    return torch.from_numpy(np.where(labelled, labelled.cumsum() - 1, -1))


def last_places(numbers: Tensor, count: int) -> Tensor:
    """Of each of i64 `[n]` numbers below `count`, not below -1, the place of the last of its kind, i64 `[n]`."""
    places = torch.arange(len(numbers), device=numbers.device)
    last = numbers.new_full((count + 1,), -1).scatter_reduce_(0, numbers + 1, places, "amax")
    return last[numbers + 1]


def _last_said(batch: Batch) -> Asked:
    label = batch["label"]
    return Asked(batch[LAST_SAID], batch.get("has_label"), label if label.ndim == 1 else None)


def _average(batch: Batch) -> Asked:
    return Asked(batch[AVERAGE], None)


OWN_ASKS: Mapping[str, Callable[[Batch], Asked]] = {"ps_kd": _last_said, "mean_teacher": _average}
"""By loss: what a term compares the student with, from columns of the batch."""

PROBABILITIES: dict[AnswerName, Callable[[Tensor], Tensor]] = {
    "class_axis": lambda logits: logits.softmax(-1),
    "class_set": torch.sigmoid,
}


def mixed(label: Tensor, said: Tensor, share: float) -> Tensor:
    """(1 - share) of the label and `share` of what was said, f32 `[rows, width]`; where `said` is NaN the label alone.

    `label`: i64 `[rows]`, or f32 `[rows, width]`, NaN where it is unknown. Of a row without a label (-1) what comes of it
    does not count.
    """
    if not label.is_floating_point():
        label = torch.nn.functional.one_hot(label.clamp_min(0), said.shape[-1]).to(said.dtype)
    return torch.where(said.isnan(), label, (1 - share) * label + share * said)
