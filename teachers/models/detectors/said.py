"""Boxes that somebody has said of images, as the rows that are stored: filtered, sorted, cut to so many. Knows nothing of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config.detecting import NMS_ABOVE, SCORE_ABOVE, Detector
from ...tasks.boxes import BOX, CLASS, NO_CLASS, SCORE
from ...tasks.suppression import not_suppressed

MOST_CANDIDATES = 2048
"""Boxes of an image that are compared with each other: the best ones, so that a square of them fits the memory."""


@dataclass(frozen=True)
class Places:
    """What a detector says of each of its N places: corners f32 `[rows, N, 4]` in 0 to 1 of the image, which may reach beyond
    it; score f32 `[rows, N]`; label `[rows, N]`, the number of the class."""

    corners: Tensor
    score: Tensor
    label: Tensor


@dataclass(frozen=True)
class Keeping:
    """Which of the boxes stay: the best `max_boxes` of those with a higher score than `score_above`; `nms_above` None: no NMS."""

    max_boxes: int
    score_above: float = SCORE_ABOVE
    nms_above: float | None = None

    @classmethod
    def of(cls, config: Detector, max_boxes: int, nms_above: float | None = None) -> "Keeping":
        """As the recipe says, else `nms_above` of this kind of detector."""
        above = SCORE_ABOVE if config.score_above is None else config.score_above
        return cls(max_boxes, above, nms_above if config.nms_above is None else config.nms_above)

    def rows(self, said: Places) -> Tensor:
        """f32 `[rows, M * 6]`, as `teachers.tasks.boxes` says. Boxes are cut off at the image's edge, after they were compared with
        each other; what has no area then is none. Equal scores stay in the detector's order. A row with a score or corner that is
        NaN is NaN in all, for who checks it."""
        whole, score = said.corners.float(), said.score.float()
        corners = whole.clamp(0, 1)
        broken = score.isnan().any(1) | corners.isnan().flatten(1).any(1)
        is_box = (corners[..., 2:] > corners[..., :2]).all(-1) & (said.label >= 0)
        score = torch.where(is_box & (score > self.score_above), score, -torch.inf)
        if self.nms_above is not None and len(score):
            one_by_one = zip(whole, score, said.label, strict=True)
            score = torch.stack([self._suppressed(*each, self.nms_above) for each in one_by_one])
        return self._packed(corners, score, said.label).masked_fill(broken[:, None], torch.nan)

    @staticmethod
    def _suppressed(corners: Tensor, score: Tensor, label: Tensor, above: float) -> Tensor:
        """Scores of the boxes of one image, -infinity of those that do not stay."""
        first = score.argsort(descending=True, stable=True)[:MOST_CANDIDATES]
        first = first[score[first] > -torch.inf]
        stays = first[not_suppressed(corners[first], label[first], above)]
        found = torch.full_like(score, -torch.inf)
        found[stays] = score[stays]
        return found

    def _packed(self, corners: Tensor, score: Tensor, label: Tensor) -> Tensor:
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self.max_boxes]
        score = score.gather(1, best)
        out = torch.zeros(len(score), self.max_boxes, len(BOX), device=score.device)
        out[..., CLASS] = NO_CLASS
        there = score > -torch.inf
        found = torch.cat(
            [
                corners.gather(1, best[..., None].expand(-1, -1, 4)),
                score[..., None],
                label.gather(1, best)[..., None].float(),
            ],
            -1,
        )
        out[:, : best.shape[1]] = torch.where(there[..., None], found, out[:, : best.shape[1]])
        return out.flatten(1)


def places_of(rows: Tensor) -> Places:
    """What was said, f32 `[rows, M * 6]`, as places; what is no box there has a score of -infinity."""
    each = rows.unflatten(1, (-1, len(BOX)))
    there = each[..., CLASS] >= 0
    score = torch.where(there, each[..., SCORE], -torch.inf)
    return Places(each[..., :SCORE], score, each[..., CLASS].long())


def together(said: Sequence[Tensor], keeping: Keeping) -> Tensor:
    """What several said of the same rows, f32 `[rows, M * 6]` each, as one: all their boxes through NMS."""
    places = [places_of(each) for each in said]
    parts = ((each.corners, each.score, each.label) for each in places)
    corners, score, label = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    above = NMS_ABOVE if keeping.nms_above is None else keeping.nms_above
    return Keeping(keeping.max_boxes, keeping.score_above, above).rows(Places(corners, score, label))


def turned_back(rows: Tensor) -> Tensor:
    """Boxes of mirrored images, f32 `[rows, M * 6]`, where they are in the images themselves."""
    each = rows.unflatten(1, (-1, len(BOX))).clone()
    there = each[..., CLASS] >= 0
    left, right = 1 - each[..., 2], 1 - each[..., 0]
    each[..., 0], each[..., 2] = torch.where(there, left, each[..., 0]), torch.where(there, right, each[..., 2])
    found: Tensor = each.flatten(1)
    return found
