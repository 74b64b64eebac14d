"""How the boxes of several detectors become one set, class by class, as `rules` has it; a temperature changes nothing.

said     f32 [K, B, M * 6]   boxes as `tasks.boxes` has them, in any order; of a row that a teacher does not know whatever
target   f32 [B, M * 6]      the M best boxes, the best first; NaN: nobody who counts knows the row
weights  f32 [K, B]          what each teacher counts in a row

Keywords of all rules:

teacher_weights   `[K]` >= 0; alike where None
asked             bool `[K, C]`: classes that a teacher was asked for; all where None. It says no other, and is not missed there
iou               two boxes whose intersection over union is above it are of one thing
skip_below        boxes with a lower score are not looked at, nor those without an area

Nothing depends on the order of teachers or of boxes: of equal scores their corners decide who comes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...tasks.boxes import BOX, CLASS, NO_CLASS, SCORE
from ...tasks.overlap import overlap
from .grouped_boxes import Groups, grouped, in_order
from .shares import Combine, row_weights

Decay = Literal["linear", "gaussian"]
IOU = 0.55
ROWS_AT_ONCE = 512
"""No target depends on it."""
NOTHING = 1e-150
"""What a box counts at least in the corners of what it is part of, where its score is 0."""


@dataclass(frozen=True)
class Fused:
    """What several detectors say together."""

    boxes: Tensor
    """f32 `[B, M, 6]`, as the target."""
    of: Tensor
    """bool `[K, B, M]`: whether a teacher says something there; summed over teachers, how many agree."""
    weights: Tensor
    """f32 `[K, B]`."""


@dataclass(frozen=True)
class Clusters:
    """Of every group at most L, which begin with the best of their boxes; in f64."""

    corners: Tensor
    """`[G, L, 4]`."""
    score: Tensor
    """`[G, L]`."""
    there: Tensor
    """bool `[G, L]`."""
    of: Tensor
    """bool `[G, L, K]`: whether a teacher has a box in it."""


Cluster = Callable[..., Clusters]
Share = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(score by weight, overlap, whether it is the first of its cluster, the first of its teacher there), `[G]` each, to what a
box counts in the corners of its cluster."""


def _cluster(groups: Groups, iou: float, share: Share, moves: bool) -> tuple[Clusters, Tensor]:
    """Box by box, the best first: it joins the cluster that it overlaps most, or begins one. `moves`: overlaps are with the mean
    of a cluster as it is by then, not with its first box. Besides, what the boxes of each count together, `[G, L]`."""
    sums, first = torch.zeros_like(groups.corners), torch.zeros_like(groups.corners)
    total, score = torch.zeros_like(groups.value), torch.zeros_like(groups.value)
    of = torch.zeros(*groups.value.shape, groups.teachers, dtype=torch.bool, device=sums.device)
    count = torch.zeros_like(groups.length)
    for step in range(groups.value.shape[1]):
        active = groups.active(step)
        rows, most = torch.arange(active, device=sums.device), int(count[:active].max())
        box, value, teacher = (each[:active, step] for each in (groups.corners, groups.value, groups.teacher))
        at, near = count[:active], torch.ones_like(value)
        begins = torch.ones(active, dtype=torch.bool, device=sums.device)
        if most:
            best, nearest = overlap(box[:, None], first[:active, :most]).max(1)
            begins = best <= iou
            at, near = torch.where(begins, at, nearest), torch.where(begins, 1.0, best)
        counts = share(value, near, begins, ~of[rows, at, teacher])
        sums[rows, at] += counts[:, None] * box
        total[rows, at] += counts
        of[rows, at, teacher] = True
        score[rows, at] = torch.where(begins, value, score[rows, at])
        here = sums[rows, at] / total[rows, at][:, None]
        first[rows, at] = here if moves else torch.where(begins[:, None], box, first[rows, at])
        count[:active] += begins
    there = torch.arange(groups.value.shape[1], device=sums.device) < count[:, None]
    corners = torch.where(there[..., None], sums / total.where(there, 1.0)[..., None], 0.0)
    return Clusters(corners, score, there, of), total


def _wbf(groups: Groups, iou: float) -> Clusters:
    """Weighted boxes fusion (Solovyev, Wang and Gabruseva, 2021): corners are means by score and weight, the score is its sum over
    teachers by what all count together that were asked: who saw nothing lowers it.

    Of several boxes of one teacher in a cluster the best alone counts, where the authors' code counts each and cuts the sum.
    """
    found, total = _cluster(groups, iou, lambda value, near, begins, new: value.clamp_min(NOTHING) * new, moves=True)
    return Clusters(found.corners, (total / groups.whole[:, None]).clamp_max(1.0), found.there, found.of)


def _nms(groups: Groups, iou: float) -> Clusters:
    """The best box of those that overlap, as it is."""
    found, _ = _cluster(groups, iou, lambda value, near, begins, new: value.clamp_min(NOTHING) * begins, moves=False)
    return Clusters(found.corners, found.score / groups.largest, found.there, found.of)


def _nmw(groups: Groups, iou: float) -> Clusters:
    """Non-maximum weighted (Zhou et al., 2017): the score of the best of those that overlap, corners by score and overlap with it."""
    found, _ = _cluster(groups, iou, lambda value, near, begins, new: value.clamp_min(NOTHING) * near, moves=False)
    return Clusters(found.corners, found.score / groups.largest, found.there, found.of)


LEAST = 0.001
"""A score that is lowered to less is none."""


def _soft_nms(groups: Groups, iou: float, decay: Decay = "linear", sigma: float = 0.5) -> Clusters:
    """Soft suppression (Bodla et al., 2017): the best box lowers the scores of those that overlap with it: `linear` by the overlap
    where it is above `iou`, `gaussian` by exp(-overlap^2 / sigma) whatever it is."""
    left = torch.where(groups.there, groups.value / groups.largest, -1.0)
    score, of = torch.zeros_like(left), torch.zeros(*left.shape, groups.teachers, dtype=torch.bool, device=left.device)
    for step in range(left.shape[1]):
        active = groups.active(step)
        rows = torch.arange(active, device=left.device)
        best, at = left[:active].max(1)
        near = overlap(groups.corners[rows, at][:, None], groups.corners[:active])
        lowered = torch.where(near > iou, 1 - near, 1.0) if decay == "linear" else torch.exp(-(near**2) / sigma)
        score[rows, at] = best.clamp_min(0.0)
        near[rows, at] = torch.inf  # a box is of what it says, whatever its area
        for teacher in range(groups.teachers):
            of[rows, at, teacher] = ((near > iou) & groups.there[:active] & (groups.teacher[:active] == teacher)).any(1)
        left[:active] = torch.where(left[:active] < 0, left[:active], left[:active] * lowered)
        left[rows, at] = -1.0
    return Clusters(groups.corners, score, groups.there & (score >= LEAST), of)


BoxesRule = Literal["wbf", "nms", "soft_nms", "nmw"]
CLUSTERS: dict[BoxesRule, Cluster] = {"wbf": _wbf, "nms": _nms, "soft_nms": _soft_nms, "nmw": _nmw}


def fuse(
    said: Tensor,
    known: Tensor,
    rule: BoxesRule = "wbf",
    *,
    teacher_weights: object = None,
    asked: Tensor | None = None,
    iou: float = IOU,
    skip_below: float = 0.0,
    **keywords: Any,
) -> Fused:
    """What teachers say together, and who says it, of `said` f32 and `known` bool `[K, B, M * 6]`; by one of the rules."""
    given = said.new_ones(len(said)) if teacher_weights is None else teacher_weights
    each = torch.as_tensor(given, dtype=torch.float64, device=said.device)
    weights = row_weights(each.to(said.dtype), known)
    boxes = said.new_zeros(said.shape[1], said.shape[2] // len(BOX), len(BOX))
    boxes[..., CLASS] = NO_CLASS
    of = torch.zeros(len(said), *boxes.shape[:2], dtype=torch.bool, device=said.device)
    for first in range(0, len(boxes), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        groups = grouped(said[:, some], known[:, some].any(-1), each, asked, skip_below)
        if groups is not None:
            _write(groups, CLUSTERS[rule](groups, iou, **keywords), boxes[some], of[:, some])
    boxes[weights.sum(0) == 0] = torch.nan
    return Fused(boxes, of, weights)


def _write(groups: Groups, found: Clusters, boxes: Tensor, of: Tensor) -> None:
    """The best of each row into `boxes` `[B, M, 6]` and `of` `[K, B, M]`."""
    group, place = found.there.nonzero(as_tuple=True)
    score, number = found.score[group, place], groups.number[group]
    each = torch.cat([found.corners[group, place], score[:, None], number[:, None]], 1)
    order, row, rank = _best_of_rows(groups.row[group], each, boxes.shape[1])
    boxes[row, rank] = each[order].to(boxes.dtype)
    of[:, row, rank] = found.of[group[order], place[order]].T


def _best_of_rows(row: Tensor, each: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of boxes `each` f64 `[n, 6]` in rows i64 `[n]` the `most` best of each row: (which, their rows, their places there)."""
    order = in_order(row, each[:, SCORE], torch.cat([each[:, :SCORE], each[:, CLASS:]], 1))
    row = row[order]
    rank = torch.arange(len(order), device=row.device) - torch.searchsorted(row, row)
    kept = rank < most
    return order[kept], row[kept], rank[kept]


def _rule(name: BoxesRule) -> Combine:
    def rule(
        said: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        found = fuse(said, known, name, **keywords)
        return found.boxes.flatten(1), found.weights

    rule.__doc__ = CLUSTERS[name].__doc__
    return rule


wbf, nms, nmw, soft_nms = _rule("wbf"), _rule("nms"), _rule("nmw"), _rule("soft_nms")


def best(
    said: Tensor,
    *,
    temperature: float,
    known: Tensor,
    labels: Tensor | None = None,
    merits: object,
    asked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Of each row and class the boxes of one teacher, as they are: of those that know the row and were asked for the class the best;
    `merits` `[K]`: the larger, the better; of equal ones the first."""
    worth = torch.as_tensor(merits, dtype=torch.float64, device=said.device)
    could = known.any(-1)[..., None]
    if asked is not None:
        could = could & asked.to(said.device)[:, None]
    of_each = worth[:, None, None].masked_fill(~could, -torch.inf)
    first = could & (of_each == of_each.amax(0))
    first = first & (first.cumsum(0) == 1)
    each = said.reshape(*said.shape[:2], -1, len(BOX))
    there, number = each[..., CLASS] >= 0, each[..., CLASS].clamp(0, first.shape[-1] - 1).long()
    teacher, row, place = (there & first.gather(2, number)).nonzero(as_tuple=True)
    mine = each[teacher, row, place].double()
    order, row, rank = _best_of_rows(row, mine, each.shape[2])
    out = torch.zeros_like(each[0])
    out[..., CLASS] = NO_CLASS
    out[row, rank] = mine[order].to(out.dtype)
    weights = first.to(said.dtype).sum(-1)
    weights = weights / weights.sum(0).clamp_min(1)
    return torch.where(weights.sum(0)[:, None] > 0, out.flatten(1), torch.nan), weights
