"""What a detector's scores are worth: of each class how often a box with such a score is right, that is, takes a true box that it
overlaps by half or more. Knows nothing of files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.tasks.boxes import BOX, CLASS, SCORE

from ..tasks.matching import matched
from .rising import best_temperature, rising, through

Curve = Callable[[Tensor], Tensor]
"""Scores f32 `[n]` in 0 to 1 to calibrated ones."""
FEWEST = 20
"""Boxes of a class that have a curve of their own; of fewer it is that of all classes together."""
ALL_SIZES, HALF = 0, 0
LEAST = 1e-6


@dataclass(frozen=True)
class CalibratedBoxes:
    """What is said f32 `[rows, M * 6]`, with other scores, the best first; NaN, what is unknown, stays NaN."""

    curves: Mapping[int, Curve]
    """By class."""
    of_all: Curve | None
    """Of other classes; None: there was no box to learn from."""

    def __call__(self, said: Tensor) -> Tensor:
        boxes = said.reshape(len(said), -1, len(BOX)).clone()
        number, score = boxes[..., CLASS], boxes[..., SCORE]
        there = number >= 0
        found = score.clone()
        for each in number[there].unique().tolist():
            curve = self.curves.get(int(each), self.of_all)
            if curve is not None:
                of_class = number == each
                found[of_class] = curve(score[of_class])
        boxes[..., SCORE] = found
        order = torch.where(there, found, -1.0).argsort(stable=True, dim=1, descending=True)
        return boxes.gather(1, order[..., None].expand_as(boxes)).flatten(1)


def by_class(
    fit: Callable[[Tensor, Tensor, float], Curve],
) -> Callable[[Tensor, Tensor, Tensor, float], CalibratedBoxes]:
    """`fit`: (scores `[n]`, whether each box is right `[n]`, probability floor) to a curve."""

    def fitted(said: Tensor, labels: Tensor, known: Tensor, floor: float) -> CalibratedBoxes:
        found = matched(said.numpy(), labels.numpy())
        heard = torch.from_numpy(found.asked & ~found.ignored[..., ALL_SIZES, HALF])
        boxes, right = said.reshape(len(said), -1, len(BOX))[heard], torch.from_numpy(found.right[..., ALL_SIZES, HALF])
        score, number, is_right = boxes[:, SCORE].float(), boxes[:, CLASS], right[heard]
        if not len(score):
            return CalibratedBoxes({}, None)
        classes = [int(each) for each in number.unique().tolist() if (number == each).sum() >= FEWEST]
        curves = {each: fit(score[number == each], is_right[number == each], floor) for each in classes}
        return CalibratedBoxes(curves, fit(score, is_right, floor))

    return fitted


def isotonic_score(score: Tensor, right: Tensor, floor: float) -> Curve:
    """The rising function of least squares (Zadrozny and Elkan, 2002)."""
    steps = rising(score, right)
    return lambda asked: (1 - floor) * through(asked, steps) + floor / 2


def score_temperature(score: Tensor, right: Tensor, floor: float) -> Curve:
    """One number that the logits of scores are divided by (Guo et al., 2017)."""
    logits, holds = logit(score.double()), right.double()
    found = best_temperature(lambda t: float(torch.nn.functional.binary_cross_entropy_with_logits(logits / t, holds)))
    return lambda asked: torch.sigmoid(logit(asked) / found)


def logit(score: Tensor) -> Tensor:
    return torch.logit(score.clamp(LEAST, 1 - LEAST))
