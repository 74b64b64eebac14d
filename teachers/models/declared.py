"""Whether scores are what they are declared to be: one look at it, for whoever answers. No torch.

Knows nothing of who says them, or of what becomes of rows that are wrong.
"""

import numpy as np
from numpy.typing import NDArray

from ..config.any_teacher import OutputKind
from ..config.task import AnswerName

HAIR = 1e-6
"""What rounding may put a probability below 0 or above 1."""
SUM = 1e-2
"""And the sum of a row's probabilities away from 1."""


def undeclared(
    scores: NDArray[np.float32], output: OutputKind, answer: AnswerName, *, within: float = SUM
) -> NDArray[np.bool_]:
    """Which rows of `[rows, W]` are no `output`, bool [rows]; NaN says nothing of its row."""
    if output in ("logits", "values", "boxes") or (answer == "class_set" and output != "probabilities"):
        return np.zeros(len(scores), bool)
    p = scores.astype(np.float64)
    if answer == "class_set":
        return np.asarray(((p < -HAIR) | (p > 1 + HAIR)).any(1), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.exp(p) if output == "log_probabilities" else p
        wrong = (p < -HAIR).any(1) | (np.abs(p.sum(1) - 1) > within)
    return np.asarray(wrong, bool)
