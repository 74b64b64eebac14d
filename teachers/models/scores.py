"""What somebody says of a row as what is stored and compared. Knows nothing of who says it."""

import torch
from torch import Tensor

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName


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
