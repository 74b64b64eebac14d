"""What each teacher counts where it knows something. Knows nothing of what is said."""

import torch
from torch import Tensor


def row_weights(teacher_weights: Tensor, known: Tensor) -> Tensor:
    """`[K]` to `[K, B]`: normalised over the teachers that know anything of a row."""
    weights = teacher_weights[:, None] * known.any(-1)
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def share_of_name(weights: Tensor, known: Tensor) -> Tensor:
    """`[K, B]` to `[K, B, W]`: normalised over the teachers that know a class, or a number."""
    weights = weights[..., None] * known
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
