"""What somebody says of a row as what is stored and compared. Knows nothing of who says it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName


def tensor_of(said: Any) -> Tensor:
    """What somebody's code has returned. A read-only array, a slice of what it keeps perhaps, is copied: torch has no such tensors."""
    if isinstance(said, np.ndarray) and not said.flags.writeable:
        said = said.copy()
    return torch.as_tensor(said)


def to_logits(
    scores: Tensor, output: OutputKind, probability_floor: float, answer: AnswerName = "class_axis"
) -> Tensor:
    """Scores `[rows, W]` as f32 logits: probabilities become log((1 - E) p + E / C), E = `probability_floor`; of classes that
    each hold or not the log-odds of (1 - E) p + E / 2. Numbers are what they are.

    What rounding has put a hair below 0 or above 1 counts as 0 or 1, so that the floor is one.
    """
    if output != "probabilities":
        return scores.float()
    p = scores.float().clamp(0, 1)
    if answer == "class_set":
        return torch.logit((1 - probability_floor) * p + probability_floor / 2)
    return torch.log((1 - probability_floor) * p + probability_floor / scores.shape[1])
