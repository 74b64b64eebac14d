"""One class of many over the classes that somebody knows. Knows nothing of which loss compares."""

import torch
from torch import Tensor

from .loss import Loss

RULED_OUT = -1e30
"""A logit, of either side, in a class that is not compared: its exponential is 0 at any temperature, and it is finite."""
LEFT_OUT = -1e27
"""Where logits lie below it their class takes no part in a mean, a spread or a correlation."""


def compared_over_known(loss: Loss, student: Tensor, target: Tensor, **told: Tensor) -> Tensor:
    """`loss` of one class of many over the classes that somebody knows in the row: both sides' softmax is of those alone, and
    the gradient of the student's other logits is 0. What nobody teaches is not unlearned. `told`: what else it takes of the rows.
    """
    unknown = target.isnan()
    return loss(student.masked_fill(unknown, RULED_OUT), target.masked_fill(unknown, RULED_OUT), **told)


def deviations(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[rows, classes]` less their mean over the row's classes, 0 in those that are left out, and which are."""
    out = logits < LEFT_OUT
    kept = logits.masked_fill(out, 0.0)
    count = (logits.shape[-1] - out.sum(-1, keepdim=True)).clamp_min(1)
    return (kept - kept.sum(-1, keepdim=True) / count).masked_fill(out, 0.0), out


def centred(logits: Tensor) -> Tensor:
    """Logits `[rows, classes]` less their mean over the classes that are known, NaN where not."""
    unknown = logits.isnan()
    return deviations(logits.masked_fill(unknown, RULED_OUT))[0].masked_fill(unknown, torch.nan)


def standardised(logits: Tensor) -> Tensor:
    """(z - mean) / (1e-7 + sd) over the classes of each row, sd as of a sample (Sun et al., 2024): `[rows, classes]`.

    A row whose logits are all the same has no sd, and is centred only.
    """
    deviation, out = deviations(logits)
    length = torch.linalg.vector_norm(deviation, dim=-1, keepdim=True)
    freedom = (logits.shape[-1] - 1 - out.sum(-1, keepdim=True)).clamp_min(1)
    spread: Tensor = length.masked_fill(length == 0, 1.0) / freedom.sqrt()
    return (deviation / (1e-7 + spread)).masked_fill(out, RULED_OUT)
