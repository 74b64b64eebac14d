"""Losses of how the rows of a batch lie to each other, for a student as for a teacher; widths may differ.

Each takes the rows that pass through the network together: of a batch in `accumulate` parts on several workers, the rows of
one part on one worker. Its value is the mean over parts; rows of different parts are not compared. Each gives one value a row,
whose mean is the paper's loss.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

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

    The angles take time of rows^3; `angle_weight` 0 computes none.
    """
    own, theirs = _squares(_at_one_scale(student)), _squares(_at_one_scale(teacher.detach()))
    value = student.new_zeros(len(student))
    if distance_weight:
        found = F.smooth_l1_loss(_distances(own), _distances(theirs), reduction="none").mean(1)
        value = value + distance_weight * found
    if angle_weight:
        found = AngleDistance.apply(own, _scales(own), theirs, _scales(theirs))  # type: ignore[no-untyped-call]
        value = value + angle_weight * found
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


def _squares(rows: Tensor) -> Tensor:
    """Squared distances `[rows, rows]`; 0 of rows that are as good as equal. In float64 on the way: a difference of large numbers is
    small for rows that are near."""
    precise = rows.double()
    centred = precise - precise.detach().mean(0)
    inner = centred @ centred.T
    squares = inner.diagonal()
    between = squares[:, None] + squares - 2 * inner
    return torch.where(between > NEAR, between, 0.0).to(rows.dtype)


def _distances(squares: Tensor) -> Tensor:
    """`[rows, rows]`, over the mean of those that are above 0."""
    between = torch.where(squares > 0, squares.clamp_min(NEAR).sqrt(), 0.0)
    mean = between.sum() / (squares > 0).sum().clamp_min(1)
    return between / mean.clamp_min(NEAR)


def _scales(squares: Tensor) -> Tensor:
    """1 over the root of twice each; 0 where there is no distance."""
    return torch.where(squares > 0, (2 * squares).clamp_min(NEAR).rsqrt(), 0.0)


class AngleDistance(Function):
    """Per row i `[rows]`, the mean over rows j and k of the Huber distance between two cosines, a student's and a teacher's, of the
    angle at i to j and k; a cosine is 0 where one of them is row i, or as good as.

    Of squared distances q and scales 1 / sqrt(2 q), `[rows, rows]` each, by the law of cosines:
    cos = (q_ij + q_ik - q_jk) / (2 sqrt(q_ij q_ik)). Neither vectors nor all rows^3 numbers are ever there at once; the second pass
    makes them again, a few rows i at a time.
    """

    @staticmethod
    def forward(ctx: Any, squares: Tensor, scales: Tensor, others: Tensor, their: Tensor) -> Tensor:
        ctx.save_for_backward(squares, scales, others, their)
        found = []
        for rows in _in_parts(squares):
            apart, _, _ = _apart(squares, scales, others, their, rows)
            slope = apart.clamp(-1, 1)
            found.append(torch.linalg.vecdot(slope.flatten(1), apart.sub_(slope, alpha=0.5).flatten(1)))
        return torch.cat(found) / len(squares) ** 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        squares, scales, others, their = ctx.saved_tensors
        by_square, by_scale = torch.zeros_like(squares), torch.empty_like(scales)
        for rows in _in_parts(squares):
            apart, sides, both = _apart(squares, scales, others, their, rows)
            slope = apart.clamp_(-1, 1).mul_(outer[rows, None, None] / len(squares) ** 2)
            by_scale[rows] = 2 * (sides.mul_(slope) @ scales[rows, :, None])[:, :, 0]
            slope.mul_(both)
            by_square -= slope.sum(0)
            by_square[rows] += 2 * slope.sum(2)
        return by_square, by_scale, None, None


def _apart(
    squares: Tensor, scales: Tensor, others: Tensor, their: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`[those rows, rows, rows]`: how far the cosines lie apart; q_ij + q_ik - q_jk of the student; what that is multiplied by."""
    sides, both = _sides(squares, scales, rows)
    theirs, scale = _sides(others, their, rows)
    return torch.mul(sides, both).sub_(theirs.mul_(scale)), sides, both


def _sides(squares: Tensor, scales: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    own, scale = squares[rows], scales[rows]
    return (own[:, :, None] - squares).add_(own[:, None, :]), scale[:, :, None] * scale[:, None, :]


def _in_parts(squares: Tensor) -> Sequence[Tensor]:
    """Numbers of rows, so many at once that a core's cache holds their cosines, or that a GPU is busy."""
    each = (2**16 if squares.device.type == "cpu" else 2**24) // squares.numel()
    parts: Sequence[Tensor] = torch.arange(len(squares), device=squares.device).split(max(1, each))
    return parts


def _kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    cosines = _cosines(_at_one_scale(rows))
    terms = [(2 * gamma) ** power / math.factorial(power) * cosines**power for power in range(1, order + 1)]
    return math.exp(-2 * gamma) * (1 + torch.stack(terms).sum(0))


def _at_one_scale(rows: Tensor) -> Tensor:
    """`[rows, width]` of `[rows, ...]`, the largest element 1 or -1; a divisor without a gradient, for the scale of all rows changes
    none of these losses."""
    flat = rows.flatten(1)
    least, most = flat.detach().aminmax()
    return flat / torch.maximum(-least, most).clamp_min(NEAR)


def _cosines(rows: Tensor) -> Tensor:
    """`[rows, rows]`: products of the rows first, then over their lengths, for a row is much longer than the batch; 0, without a
    gradient, of a row without a direction."""
    inner = rows @ rows.T
    squares = inner.diagonal()
    scales = torch.where(squares > NEAR, squares.clamp_min(NEAR).rsqrt(), 0.0)
    return scales[:, None] * inner * scales


def _of_length_one(vectors: Tensor) -> Tensor:
    """Over the last axis; 0, without a gradient, where there is no direction, as of two equal rows or of one that is all 0."""
    squares = vectors.square().sum(-1, keepdim=True)
    return torch.where(squares > NEAR, vectors, 0.0) / squares.clamp_min(NEAR).sqrt()
