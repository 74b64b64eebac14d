"""Votes of several teachers with noise, and what that promises: GNMax (Papernot et al., 2018), accounted by Rényi divergence.

One answer is argmax over classes of n_c + N(0, sigma^2), n_c the teachers that say class c. Another training set of one teacher
moves at most one vote from a class to another, which changes the counts by sqrt(2) in Euclidean norm, so one answer is
(alpha, alpha / sigma^2)-RDP, and n answers together (alpha, n alpha / sigma^2). That is

    epsilon = min over alpha > 1 of  n alpha / sigma^2 + log(1 / delta) / (alpha - 1)
            = n / sigma^2 + 2 sqrt(n log(1 / delta)) / sigma

(Mironov, 2017, proposition 3). It does not look at the answers, so it may itself be told. The paper's tighter bound does, and may
not.
"""

import math
import os

import numpy as np
from numpy.typing import NDArray


def sigma_for(epsilon: float, delta: float, answers: int) -> float:
    """The least noise with which `answers` answers are together (epsilon, delta)-private: the formula above, solved for sigma."""
    log_term = math.log(1 / delta)
    return math.sqrt(max(answers, 1)) * (math.sqrt(log_term + epsilon) + math.sqrt(log_term)) / epsilon


def noisy_labels(votes: NDArray[np.int64], sigma: float) -> NDArray[np.int64]:
    """i64 [N]: the class with the most votes [N, C] after noise, which is drawn from the system's own randomness and never kept."""
    found: NDArray[np.int64] = (votes + sigma * _normal(votes.shape)).argmax(1)
    return found


def _normal(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal numbers by inversion of 52 random bits each; none is farther out than 8.3."""
    from scipy.special import ndtri

    bits = np.frombuffer(os.urandom(8 * math.prod(shape)), np.uint64) >> np.uint64(12)
    found: NDArray[np.float64] = ndtri((bits.astype(np.float64) + 0.5) / 2.0**52).reshape(shape)
    return found
