"""Boxes: what a network gives, f32 `[rows, A, 6 + C]` (see `teachers.tasks.places`), beside true boxes, or those of teachers.

Each place is compared with the box that `assignment` gives it. Scores by quality focal loss (Li et al., 2020): a logit of a class
is taught how well its box lies, times how sure the teachers are; corners by generalised IoU (Rezatofighi et al., 2019). One
value a row: its sums over places, divided by how many of them learn a box (each by the score of that box), at least 1, so that
an image with many boxes weighs no more than one with few. Where `ignored` boxes lie nobody is told that nothing is there.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tasks.boxes import BOX, CLASS, LABEL, SCORE
from teachers.tasks.overlap import areas, shared
from teachers.tasks.places import CORNERS, LOGITS, POINT

from ...config.terms import LossName
from .assignment import assignment, is_inside
from .loss import Loss

BOX_WEIGHT = 2.0
"""Of corners beside scores."""
SHARPNESS = 2.0
"""Exponent of the quality focal loss: what is nearly right already counts little."""


@dataclass(frozen=True)
class Wanted:
    """What a row is compared with: N boxes `[rows, N, ...]`, of which some are nothing."""

    corners: Tensor
    """f32 `[rows, N, 4]`."""
    number: Tensor
    """i64 `[rows, N]`, 0 where there is nothing."""
    score: Tensor
    """f32 `[rows, N]`: what is taught of a box that lies perfectly, and its weight; 0 where there is nothing to learn."""
    ignored: Tensor
    """bool `[rows, N]`: where nothing is judged."""
    regions: bool
    """Whether that are regions of many things, boxes that are learnt among them; else each is one thing that may be there."""

    def trimmed(self) -> "Wanted":
        """Without the places behind the last that any row has."""
        used = ((self.score > 0) | self.ignored).any(0).nonzero()
        last = int(used.max()) + 1 if len(used) else 0
        corners, number, score, ignored = (
            each[:, :last] for each in (self.corners, self.number, self.score, self.ignored)
        )
        return Wanted(corners, number, score, ignored, self.regions)


def of_labels(labels: Tensor) -> Wanted:
    """Of true boxes, f32 `[rows, M * 8]`; of a row without a label nothing."""
    each = labels.reshape(len(labels), -1, len(LABEL))
    there = each[..., CLASS] >= 0
    each = each.nan_to_num(0.0)
    counts = there & (each[..., SCORE] > 0)
    number = each[..., CLASS].clamp_min(0).long()
    return Wanted(each[..., :SCORE], number, counts.to(each.dtype), there & ~counts, regions=True)


def of_said(said: Tensor, keep_above: Tensor, ignore_above: float, soft: bool = True) -> Wanted:
    """Of what teachers say, f32 `[rows, M * 6]`; `keep_above` f32 `[C]`: the score from which on a box of a class is learnt; not
    `soft`: whatever its score then is."""
    each = said.reshape(len(said), -1, len(BOX))
    there = each[..., CLASS] >= 0
    each = each.nan_to_num(0.0)
    number, score = each[..., CLASS].clamp_min(0).long(), each[..., SCORE]
    keeps = there & (score >= keep_above.to(score)[number])
    taught = score * keeps if soft else keeps.to(score.dtype)
    return Wanted(each[..., :SCORE], number, taught, there & ~keeps & (score >= ignore_above), regions=False)


def hard(student: Tensor, target: Tensor) -> Tensor:
    """Beside true boxes `target` f32 `[rows, M * 8]`, as `teachers.tasks.boxes` has labels: `[rows]`."""
    return compared(student, of_labels(target))


def pseudo(
    student: Tensor,
    target: Tensor,
    *,
    keep_above: float | tuple[float, ...] = 0.3,
    ignore_above: float = 0.1,
    soft: bool = True,
) -> Tensor:
    """Beside what teachers say together, `target` f32 `[rows, M * 6]`: `[rows]`.

    A box with a score of `keep_above` and more (by class, or one for all) is learnt, the score being what is taught, and its
    weight; not `soft`: as a true box. One between `ignore_above` and that is neither learnt nor denied; below it is nothing.
    """
    given = [keep_above] * (student.shape[-1] - LOGITS) if isinstance(keep_above, float | int) else keep_above
    return compared(student, of_said(target, torch.tensor(given, device=student.device), ignore_above, soft))


def compared(student: Tensor, wanted: Wanted) -> Tensor:
    """`[rows]`, of `student` f32 `[rows, A, 6 + C]`."""
    wanted = wanted.trimmed()
    corners, logits = student[..., CORNERS], student[..., LOGITS:]
    found = assignment(
        corners.detach(), student[..., POINT].detach(), logits.detach(), wanted.corners, wanted.number, wanted.score
    )
    taught = torch.zeros_like(logits)
    taught.scatter_(2, found.number[..., None], found.quality[..., None])
    is_judged = ~_is_ignored(student[..., POINT].detach(), wanted, logits.shape[-1]) | (taught > 0)
    scores = (quality_focal(logits, taught) * is_judged).sum((1, 2))
    boxes = (1 - generalised_iou(corners, found.corners)) * found.weight
    return (scores + BOX_WEIGHT * boxes.sum(1)) / found.weight.sum(1).clamp_min(1.0)


def quality_focal(logits: Tensor, taught: Tensor) -> Tensor:
    """|sigma - y|^2 of the binary cross-entropy with soft targets y in 0 to 1, of each logit (Li et al., 2020)."""
    distance = (logits.detach().sigmoid() - taught).abs()
    return distance**SHARPNESS * F.binary_cross_entropy_with_logits(logits, taught, reduction="none")


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """IoU less the share of the smallest box around both that neither covers: `[...]` from -1 to 1, of boxes `[..., 4]`."""
    common = shared(one, other)
    union = (areas(one) + areas(other) - common).clamp_min(1e-9)
    low, high = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = areas(torch.cat([low, high], -1)).clamp_min(1e-9)
    return common / union - (around - union) / around


def _is_ignored(points: Tensor, wanted: Wanted, classes: int) -> Tensor:
    """Of which classes nothing is judged at a place, bool `[rows, A, C]`: its point is in an ignored box of the class; where that is
    one thing that may be there, and in none that is learnt: detectors say many an unsure box of what they have a sure one of, and
    further boxes of it are wrong, whatever else is there."""
    if not wanted.ignored.any():
        return torch.zeros(1, 1, 1, dtype=torch.bool, device=points.device)
    inside = is_inside(points, wanted.corners).to(points.dtype).transpose(1, 2)
    of_class = F.one_hot(wanted.number, classes).to(points.dtype)
    ignored = inside @ (of_class * wanted.ignored[..., None]) > 0
    return ignored if wanted.regions else ignored & ~(inside @ (of_class * (wanted.score > 0)[..., None]) > 0)


LOSSES: dict[LossName, Loss] = {"hard": hard, "pseudo": pseudo}
