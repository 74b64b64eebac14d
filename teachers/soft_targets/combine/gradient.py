"""AE-KD (Du et al., NeurIPS 2020): weights by which the teachers' gradients agree, min || sum_k a_k g_k ||^2 over a simplex with a box.

g_k is the gradient of T^2 KL(teacher k || student) by the student's logits, the mean over the rows of all ranks that teacher k
knows: T (p_student - p_k), so no backward pass is needed. The rows are those that pass through the network together: with
`accumulate` each part of a batch has weights of its own, the same in every row of it and on every rank.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .class_scores import log_probabilities
from .context import Context
from .shares import Combine, row_weights

BOX = 0.6
"""The largest weight, as the paper's code has it."""
STEPS = 10_000
CLOSE_ENOUGH = 1e-12
"""Of the largest entry of the Gram matrix."""
Mixture = Callable[[Tensor, float, Tensor, Tensor], Tensor]
Gradients = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(scores `[K, B, W]`, known, the student's `[B, W]`, T) to g of each row `[K, B, W]`."""


def class_gradients(logits: Tensor, known: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Both distributions over the classes that the teacher knows; 0 in the others."""
    own = log_probabilities(student.expand_as(logits), temperature, known).exp()
    return temperature * torch.where(known, own - log_probabilities(logits, temperature, known).exp(), 0.0)


def set_gradients(logits: Tensor, known: Tensor, student: Tensor, temperature: float) -> Tensor:
    apart = torch.sigmoid(student / temperature) - torch.sigmoid(logits / temperature)
    return temperature * torch.where(known, apart, 0.0)


def gradient(gradients: Gradients, mixture: Mixture) -> Combine:
    def rule(
        said: Tensor,
        *,
        temperature: float,
        known: Tensor,
        labels: Tensor | None = None,
        box: float | None = None,
        context: Context,
    ) -> tuple[Tensor, Tensor]:
        """The weighted mean of softened distributions, which is the weighted sum of the losses up to a constant."""
        assert context.student is not None
        of_rows = gradients(said, known, context.student.to(said.dtype), temperature)
        knows = known.any(-1)
        sums = torch.cat([(of_rows * knows[..., None]).sum(1), knows.sum(1, keepdim=True).to(said.dtype)], 1)
        sums = context.all_reduce(sums).double().cpu()  # the part of the batch, of all ranks
        mean = (sums[:, :-1] / sums[:, -1:].clamp_min(1)).numpy()
        found = least_norm(mean @ mean.T, BOX if box is None else box, (sums[:, -1] > 0).numpy())
        weights = row_weights(torch.from_numpy(found).to(said), known)
        return mixture(said, temperature, known, weights), weights

    return rule


def least_norm(gram: NDArray[np.float64], box: float, heard: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """The weights f64 `[K]` of least a' G a with 0 <= a <= box and sum 1, of those that are `heard`; 0 of others.

    Pairs of weights are moved, the pair that gains most first (sequential minimal optimisation; Platt, 1998): a few microseconds
    for a few teachers. A box below an equal share is one.
    """
    place = np.arange(len(gram)) if heard is None else np.flatnonzero(heard)
    weights = np.zeros(len(gram))
    if not len(place):
        return weights
    box = max(box, 1 / len(place))
    found = [1 / len(place)] * len(place)
    matrix = gram[np.ix_(place, place)].tolist()
    slope = [sum(row) / len(place) for row in matrix]
    tolerance = CLOSE_ENOUGH * max(matrix[i][i] for i in range(len(place)))
    for _ in range(STEPS):
        up = min((i for i in range(len(place)) if found[i] < box), key=slope.__getitem__, default=None)
        down = max((i for i in range(len(place)) if found[i] > 0), key=slope.__getitem__)
        if up is None or slope[down] - slope[up] <= tolerance:
            break
        bend = matrix[up][up] + matrix[down][down] - 2 * matrix[up][down]
        move = min(box - found[up], found[down])
        if bend > 0:
            move = min(move, (slope[down] - slope[up]) / bend)
        found[up], found[down] = found[up] + move, found[down] - move
        slope = [each + move * (row[up] - row[down]) for each, row in zip(slope, matrix, strict=True)]
    weights[place] = found
    whole: NDArray[np.float64] = weights / weights.sum()
    return whole
