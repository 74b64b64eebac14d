"""Losses of how the rows of a batch lie to each other, for a student as for a teacher; widths may differ.

Each takes the rows that pass through the network together: of a batch in `accumulate` parts on several workers, the rows of
one part on one worker. Its value is the mean over parts; rows of different parts are not compared. Each gives one value a row,
whose mean is the paper's loss.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NEAR = 1e-12
"""A squared length below it, where the largest element of a batch is about 1, has no direction: what is divided by it would have
a gradient without bound."""


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared differences between the rows of F F^T, each brought to L2 length 1: their sum over B^2 is the mean over rows, per row
    `[rows]`, of `[rows, ...]` (Tung and Mori, 2019).

    torchdistill 1.1.5 divides by the L1 length instead, which is another loss.
    """
    return (_similarities(student) - _similarities(teacher)).square().mean(1)


def relation(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Huber distance between distances of rows over their mean, and between cosines of angles of three rows, per row `[rows]`, of
    `[rows, ...]` (RKD: Park et al., 2019).

    The angles take memory of rows^3 numbers, and of rows^2 times the width, several times; `angle_weight` 0 computes none.
    """
    student, teacher = _at_one_scale(student), _at_one_scale(teacher)
    value = student.new_zeros(len(student))
    if distance_weight:
        found = F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="none")
        value = value + distance_weight * found.mean(1)
    if angle_weight:
        found = F.smooth_l1_loss(_angles(student), _angles(teacher), reduction="none")
        value = value + angle_weight * found.mean((1, 2))
    return value


def correlation(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Mean square between kernels of pairs of rows, per row `[rows]`, of `[rows, ...]` (CC: Peng et al., 2019).

    The kernel is exp(-gamma |a - b|^2) of rows of length 1 by its Taylor series to `order`. torchdistill 1.1.5 has the length of
    the difference in place of its square.
    """
    return (_kernel(student, gamma, order) - _kernel(teacher, gamma, order)).square().mean(1)


def _similarities(rows: Tensor) -> Tensor:
    flat = _at_one_scale(rows)
    return _of_length_one(flat @ flat.T)


def _distances(rows: Tensor) -> Tensor:
    """`[rows, rows]`, over the mean of those that are above 0."""
    squares = rows.square().sum(1)
    between = (squares[:, None] + squares - 2 * rows @ rows.T).clamp_min(NEAR).sqrt()
    between = between.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0.0)
    mean = between.sum() / (between > 0).sum().clamp_min(1)
    return between / mean.clamp_min(NEAR)


def _angles(rows: Tensor) -> Tensor:
    """`[i, j, k]`: the cosine at row i of the angle to rows j and k; 0 where one of them is row i."""
    towards = _of_length_one(rows - rows[:, None])
    return towards @ towards.transpose(1, 2)


def _kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    unit = _of_length_one(_at_one_scale(rows))
    cosines = unit @ unit.T
    terms = [(2 * gamma) ** power / math.factorial(power) * cosines**power for power in range(1, order + 1)]
    return math.exp(-2 * gamma) * (1 + torch.stack(terms).sum(0))


def _at_one_scale(rows: Tensor) -> Tensor:
    """`[rows, width]` of `[rows, ...]`, the largest element 1 or -1; a divisor without a gradient, for the scale of all rows changes
    none of these losses."""
    flat = rows.flatten(1)
    return flat / flat.detach().abs().amax().clamp_min(NEAR)


def _of_length_one(vectors: Tensor) -> Tensor:
    """Over the last axis; 0, without a gradient, where there is no direction, as of two equal rows or of one that is all 0."""
    squares = vectors.square().sum(-1, keepdim=True)
    return torch.where(squares > NEAR, vectors, 0.0) / squares.clamp_min(NEAR).sqrt()
