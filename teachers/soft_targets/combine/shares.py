"""What each teacher counts where it knows something. Knows nothing of what is said."""

from collections.abc import Callable

import torch
from torch import Tensor

Combine = Callable[..., tuple[Tensor, Tensor]]
"""A rule, as `rules` has it."""


def equally(weighted: Combine) -> Combine:
    """The rule of a weighted mean in which every teacher counts alike."""

    def mean(said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return weighted(said, temperature=temperature, known=known, teacher_weights=said.new_ones(said.shape[0]))

    return mean


def row_weights(teacher_weights: Tensor, known: Tensor) -> Tensor:
    """`[K]` to `[K, B]`: normalised over the teachers that know anything of a row."""
    weights = teacher_weights[:, None] * known.any(-1)
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)


def share_of_name(weights: Tensor, known: Tensor) -> Tensor:
    """`[K, B]` to `[K, B, W]`: normalised over the teachers that know a class, or a number."""
    weights = weights[..., None] * known
    return weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
