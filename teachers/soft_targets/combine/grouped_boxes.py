"""Boxes of several teachers by row and class, so that many rows are worked on at once. Knows nothing of how they are combined."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...tasks.boxes import BOX, CLASS, SCORE


@dataclass(frozen=True)
class Groups:
    """G groups of at most L boxes, each of a row and a class, the longest first; boxes by score and weight, the best first. In f64."""

    teachers: int
    row: Tensor
    """i64 `[G]`."""
    number: Tensor
    """`[G]`: of the class."""
    length: Tensor
    """i64 `[G]`."""
    corners: Tensor
    """`[G, L, 4]`."""
    value: Tensor
    """`[G, L]`: score by what its teacher counts."""
    teacher: Tensor
    """i64 `[G, L]`."""
    whole: Tensor
    """`[G]`: what all those count who know the row and were asked for the class."""
    largest: float
    """What the teacher counts that counts most."""

    @property
    def there(self) -> Tensor:
        return torch.arange(self.value.shape[1], device=self.value.device) < self.length[:, None]

    def active(self, step: int) -> int:
        """How many groups have a box number `step`: the first ones."""
        return int((self.length > step).sum())


def in_order(group: Tensor, score: Tensor, decides: Tensor) -> Tensor:
    """i64 `[n]`: by `group` i64, then by `score` in 0 to 1, the best first, then by the columns of `decides`."""
    parts = torch.sqrt(torch.arange(2, 2 + decides.shape[1], dtype=torch.float64, device=decides.device))
    order = torch.argsort(decides @ parts, stable=True)
    return order[torch.argsort((2.0 * group - score)[order], stable=True)]


def grouped(said: Tensor, knows: Tensor, weights: Tensor, asked: Tensor | None, skip_below: float) -> Groups | None:
    """Of `said` `[K, B, M * 6]`, `knows` bool `[K, B]`, `weights` f64 `[K]` and `asked` bool `[K, C]`; None without a box."""
    boxes = said.reshape(*said.shape[:2], -1, len(BOX)).double()
    there = knows[..., None] & (boxes[..., CLASS] >= 0) & (boxes[..., SCORE] >= skip_below)
    there &= (weights > 0)[:, None, None] & (boxes[..., 2:4] > boxes[..., :2]).all(-1)
    teacher, row, place = there.nonzero(as_tuple=True)
    each = boxes[teacher, row, place]
    if asked is not None:
        could = asked.to(said.device)[teacher, each[:, CLASS].long()]
        teacher, row, each = teacher[could], row[could], each[could]
    if not len(each):
        return None
    largest = float(weights.max())
    value = each[:, SCORE] * weights[teacher]
    classes = int(each[:, CLASS].max()) + 1
    order = in_order(row * classes + each[:, CLASS].long(), value / largest, each[:, :SCORE])
    teacher, row, each, value = teacher[order], row[order], each[order], value[order]
    key, of_box, count = torch.unique_consecutive(
        row * classes + each[:, CLASS].long(), return_inverse=True, return_counts=True
    )
    place = torch.arange(len(each), device=said.device) - (count.cumsum(0) - count)[of_box]
    by_length = torch.argsort(count, descending=True, stable=True)
    group, shape = torch.argsort(by_length)[of_box], (len(key), int(count.max()))
    row_of, number = (key // classes)[by_length], (key % classes)[by_length]
    heard = knows if asked is None else knows[:, row_of] & asked.to(said.device)[:, number]
    counted = weights[:, None] * (heard[:, row_of] if asked is None else heard)

    def padded(values: Tensor) -> Tensor:
        out = values.new_zeros(*shape, *values.shape[1:])
        out[group, place] = values
        return out

    return Groups(
        len(said), row_of, number.double(), count[by_length], padded(each[:, :SCORE]), padded(value), padded(teacher),
        counted.sum(0), largest,
    )  # fmt: skip
