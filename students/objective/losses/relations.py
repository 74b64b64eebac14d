"""Losses of how the rows of a batch lie to each other, for a student as for a teacher; widths may differ.

Each takes the rows that pass through the network together: of a batch in `accumulate` parts on several workers, the rows of
one part on one worker. Its value is the mean over parts; rows of different parts are not compared. Each gives one value a row,
whose mean is the paper's loss.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NEAR = 1e-12
"""A squared length below it, where the largest element of a batch is about 1, has no direction: what is divided by it would have
a gradient without bound."""


PARTS = 4
"""Stretches of rows whose products are made at once: so many that 5/8 of them are made, and few enough to be large."""


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
    own, theirs = (SquaredDistances.apply(each) for each in (student, teacher.detach()))  # type: ignore[no-untyped-call]
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
    return _of_length_one(Products.apply(flat))  # type: ignore[no-untyped-call]


class SquaredDistances(Function):
    """Of `[rows, ...]`, the largest element 1 or -1: `[rows, rows]`; 0 of rows that are as good as equal. In float64 on the way: a
    difference of large numbers is small for rows that are near."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        scale = _largest(rows)
        precise = rows.flatten(1).to(torch.float64, copy=True).div_(scale)
        precise.sub_(precise.mean(0))
        inner = _products(precise)
        squares = inner.diagonal()
        between = squares[:, None] + squares - 2 * inner
        is_near = ~(between > NEAR)
        ctx.save_for_backward(precise, is_near, scale)
        ctx.dtype, ctx.shape = rows.dtype, rows.shape
        return between.masked_fill_(is_near, 0.0).to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        precise, is_near, scale = ctx.saved_tensors
        both = outer.masked_fill(is_near, 0.0).to(precise.dtype)
        both = both + both.T
        found = (both.sum(1)[:, None] * precise).sub_(both @ precise).mul_(2 / scale)
        return found.to(ctx.dtype).reshape(ctx.shape)  # type: ignore[no-any-return]


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

    Of squared distances and their scales 1 / sqrt(2 q), `[rows, rows]` each. Neither vectors nor all rows^3 numbers are ever there
    at once. On a CPU the first pass over them finds the gradient, too, for rows that count alike, as they do in a mean; where they
    do not, or on a GPU, which a look at their weights would hold up, a second one does.
    """

    @staticmethod
    def forward(ctx: Any, squares: Tensor, scales: Tensor, others: Tensor, their: Tensor) -> Tensor:
        at_once = ctx.needs_input_grad[0] and squares.device.type == "cpu"
        found, *by = _angles(squares, scales, others, their, torch.ones_like(squares[0]) if at_once else None)
        ctx.save_for_backward(squares, scales, others, their, *by)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        squares, scales, others, their, *found = ctx.saved_tensors
        if found and bool((outer == outer[0]).all()):
            return found[0] * outer[0], found[1] * outer[0], None, None
        _, by_square, by_scale = _angles(squares, scales, others, their, outer)
        return by_square, by_scale, None, None


def _angles(squares: Tensor, scales: Tensor, others: Tensor, their: Tensor, weights: Tensor | None) -> list[Tensor]:
    """The values of `AngleDistance`; with `weights` of rows `[rows]` the gradients of their sum by `squares` and `scales`, too.

    By the law of cosines cos = (q_ij + q_ik - q_jk) s_ij s_ik; with p = q s this is s_ij p_ik + p_ij s_ik - s_ij q_jk s_ik, of
    which the first two are a product of narrow matrices.
    """
    number, total = len(squares), len(squares) ** 2
    own, other, none = squares * scales, others * their, squares.new_zeros(())
    left, right = torch.stack([scales, own, -their, -other], 2), torch.stack([own, scales, other, their], 1)
    weighted = None if weights is None else scales[:, None] * (weights / total)[:, None, None]
    values, by_square = torch.empty_like(squares[0]), torch.zeros_like(squares)
    of_scales, of_squares, of_others = (torch.empty_like(squares) for _ in range(3))
    each = max(
        1, (2**16 if squares.device.type == "cpu" else 2**24) // total
    )  # a core's cache holds so many, or a GPU is busy
    for first in range(0, number, each):
        rows = slice(first, first + each)
        along, across, theirs = scales[rows, :, None], scales[rows, None], their[rows]
        apart = (others * theirs[:, None]).mul_(theirs[:, :, None])
        apart.addcmul_(squares * across, along, value=-1).baddbmm_(left[rows], right[rows])
        values[rows] = F.smooth_l1_loss(apart, none.expand_as(apart), reduction="none").sum((1, 2))
        if weighted is None:
            continue
        slope = apart.clamp_(-1, 1).mul_(weighted[rows])
        of_scales[rows], of_others[rows] = slope.sum(2), (slope * squares).sum(2)
        of_squares[rows] = (slope @ squares[rows, :, None])[:, :, 0]
        if each == 1:
            by_square.addcmul_(slope[0], along[0], value=-1)
        else:
            by_square -= slope.mul_(along).sum(0)
    if weighted is None:
        return [values / total]
    return [values / total, by_square + 2 * scales * of_scales, 2 * (squares * of_scales + of_squares - of_others)]


def _kernel(rows: Tensor, gamma: float, order: int) -> Tensor:
    cosines = _cosines(_at_one_scale(rows))
    terms = [(2 * gamma) ** power / math.factorial(power) * cosines**power for power in range(1, order + 1)]
    return math.exp(-2 * gamma) * (1 + torch.stack(terms).sum(0))


def _at_one_scale(rows: Tensor) -> Tensor:
    """`[rows, width]` of `[rows, ...]`, the largest element 1 or -1; a divisor without a gradient, for the scale of all rows changes
    none of these losses."""
    flat = rows.flatten(1)
    return flat / _largest(flat.detach())


def _largest(rows: Tensor) -> Tensor:
    """By size, f `[]`, at least NEAR."""
    least, most = rows.aminmax()
    return torch.maximum(-least, most).clamp_min(NEAR)


def _cosines(rows: Tensor) -> Tensor:
    """`[rows, rows]`: products of the rows first, then over their lengths, for a row is much longer than the batch; 0, without a
    gradient, of a row without a direction."""
    inner: Tensor = Products.apply(rows)  # type: ignore[no-untyped-call]
    squares = inner.diagonal()
    scales = torch.where(squares > NEAR, squares.clamp_min(NEAR).rsqrt(), 0.0)
    return scales[:, None] * inner * scales


def _products(rows: Tensor) -> Tensor:
    """X X^T, `[rows, rows]`; on a CPU the half below the diagonal, and what that says of the other."""
    if rows.device.type != "cpu":
        return rows @ rows.T
    found, each = rows.new_empty(len(rows), len(rows)), max(1, -(-len(rows) // PARTS))
    for first in range(0, len(rows), each):
        here, behind = slice(first, first + each), min(first + each, len(rows))
        found[here, :behind] = rows[here] @ rows[:behind].T
        found[:first, here] = found[here, :first].T
    return found


class Products(Function):
    """The same with a gradient, which takes one product of matrices where autograd takes two."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return _products(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        found: Tensor = (outer + outer.T) @ rows
        return found


def _of_length_one(vectors: Tensor) -> Tensor:
    """Over the last axis; 0, without a gradient, where there is no direction, as of two equal rows or of one that is all 0."""
    squares = vectors.square().sum(-1, keepdim=True)
    return torch.where(squares > NEAR, vectors, 0.0) / squares.clamp_min(NEAR).sqrt()
