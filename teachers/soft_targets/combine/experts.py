"""Each teacher in the classes that it is an expert of."""

from collections.abc import Callable

import torch
from torch import Tensor

from .shares import Combine, row_weights, share_of_name

Pool = Callable[[Tensor, float, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(scores, T, known, share `[K, B, W]`) to (target, what each counted `[K, B]`)."""


def experts(pool: Pool) -> Combine:
    def rule(
        said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, experts: object
    ) -> tuple[Tensor, Tensor]:
        """In each class the mean of its experts, of what each says among all that it knows; `experts` `[K, W]`: 1 where a teacher is
        one. A class without one is as one that nobody knows."""
        mask = known & (torch.as_tensor(experts, device=said.device) > 0)[:, None]
        share = share_of_name(row_weights(said.new_ones(len(said)), mask), mask)
        return pool(said, temperature, known, share)

    return rule
