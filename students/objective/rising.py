"""Curves that say how often somebody is right who is so sure. Knows nothing of what is said."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

LARGEST = 20.0
"""A temperature, or one over it, is not beyond."""


def best_temperature(loss: Callable[[float], float]) -> float:
    """That with the least loss."""
    from scipy.optimize import minimize_scalar  # takes a fifth of a second

    bound = float(np.log(LARGEST))
    found = minimize_scalar(lambda logarithm: loss(float(np.exp(logarithm))), bounds=(-bound, bound), method="bounded")
    return float(np.exp(found.x))


def rising(probability: Tensor, holds: Tensor) -> tuple[Tensor, Tensor]:
    """The steps (from, to) of the rising function of least squares: between them it is linear, beyond them constant."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(probability.numpy(), holds.float().numpy())
    return torch.from_numpy(fitted.X_thresholds_).float(), torch.from_numpy(fitted.y_thresholds_).float()


def through(probability: Tensor, steps: tuple[Tensor, Tensor]) -> Tensor:
    xs, ys = (each.to(probability.device) for each in steps)
    if len(xs) == 1:
        return ys.expand_as(probability)
    at = torch.searchsorted(xs, probability.contiguous()).clamp(1, len(xs) - 1)
    share = ((probability - xs[at - 1]) / (xs[at] - xs[at - 1])).clamp(0, 1)
    return ys[at - 1] + share * (ys[at] - ys[at - 1])
