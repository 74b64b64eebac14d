"""What boxes are judged by: COCO's average precision and recall (Lin et al., 2014), of images that have a label.

Average precision of a class is the mean, over 101 recalls from 0 to 1, of the best precision at that recall or more; `ap` is the
mean over classes and ten overlaps from 0.5 to 0.95. A class without a true box counts nowhere. Boxes are matched once, when an
image comes in: figures under other weights of images, as a bootstrap asks for, only add up anew who was right.

`false_positives` is the one figure at a threshold: how many boxes of an image, the mean, have that of their class and are wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.tasks.boxes import CLASS, LABEL, SCORE, boxes_of, labels_of
from teachers.tasks.space import Space

from .matching import OVERLAPS, SIZES, matched
from .meter import RowMeter, mean
from .task import Document

Array = NDArray[Any]

RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLD = 0.5
"""A score from which on a box is said, of a class that validation tells nothing of."""
FALSE = "false_positives"
ALL = [*SIZES].index("all")
_BITS = 1 << np.arange(len(OVERLAPS), dtype=np.int16)


@dataclass(frozen=True)
class Key:
    """What a figure is of."""

    of: str
    """`precision` or `recall`."""
    size: str = "all"
    overlap: float | None = None
    """None: the mean over all."""

    @property
    def levels(self) -> list[int]:
        """Of OVERLAPS."""
        return [
            number for number, each in enumerate(OVERLAPS) if self.overlap is None or np.isclose(each, self.overlap)
        ]


KEYS: dict[str, Key] = {
    "ap": Key("precision"),
    "ap50": Key("precision", overlap=0.5),
    "ap75": Key("precision", overlap=0.75),
    "ar100": Key("recall"),
    "ap_small": Key("precision", "small"),
    "ap_medium": Key("precision", "medium"),
    "ap_large": Key("precision", "large"),
}
BY_SIZE = ("ap_small", "ap_medium", "ap_large")


@dataclass(frozen=True)
class Right:
    """Of a class, at one overlap and size: whose true boxes are found by the boxes that are asked, the best first."""

    row: Array
    """i64 `[H]`, of each box that is right."""
    upto: Array
    """i64 `[H]`: how many boxes of the class come up to it, itself too."""
    ignored: Array
    """i64, rows of boxes that are ignored."""
    passed: Array
    """i64 `[H]`: how many of those come before it."""

    @classmethod
    def of(cls, row: Array, right: Array, ignored: Array) -> "Right":
        """`row` i64, `right` and `ignored` bool, `[N]` of all boxes of the class."""
        (place,), (passed,) = right.nonzero(), ignored.nonzero()
        return cls(row[place], place + 1, row[passed], np.searchsorted(passed, place))

    def precision(self, asked: Array, weights: Array) -> tuple[Array, Array]:
        """(weights of right boxes up to each, the best precision there or later), `asked`: sums of weights up to every box."""
        hits, said = np.cumsum(weights[self.row]), asked[self.upto]
        if len(self.ignored):
            said = said - _sums(weights[self.ignored])[self.passed]
        precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
        return hits, np.maximum.accumulate(precision[::-1])[::-1]


@dataclass(frozen=True)
class OfClass:
    """Boxes of a class in all images, at one size.

    Those of one row and score follow each other, so that figures under weights are those of the rows repeated (but for boxes
    of one row with equal scores).
    """

    row: Array
    """i64 `[N]` of every box that is asked, the best first."""
    right: tuple[Right, ...]
    """At each of the overlaps."""
    true_row: Array
    """i64 of every true box that counts."""

    def true(self, weights: Array) -> float:
        return float(weights[self.true_row].sum())

    def average_precision(self, weights: Array, levels: Sequence[int]) -> float | None:
        """The mean over overlaps; `weights` f64 by row."""
        true, asked = self.true(weights), _sums(weights[self.row])
        if not true:
            return None
        total = 0.0
        for level in levels:
            hits, best = self.right[level].precision(asked, weights)
            total += np.append(best, 0.0)[np.searchsorted(hits / true, RECALLS)].sum()
        return float(total / len(RECALLS) / len(levels))

    def recall(self, weights: Array, levels: Sequence[int]) -> float | None:
        """The share of true boxes that is found, the mean over overlaps."""
        true = self.true(weights)
        found = sum(float(weights[self.right[level].row].sum()) for level in levels)
        return found / true / len(levels) if true else None

    def curve(self, level: int = 0) -> Array:
        """The best precision at each of `RECALLS` or more, f64 `[101]`; 0 of those that are never reached, and without a true box."""
        weights = np.ones(1 + int(max(self.row.max(initial=-1), self.true_row.max(initial=-1))))
        hits, best = self.right[level].precision(_sums(weights[self.row]), weights)
        found: Array = np.append(best, 0.0)[np.searchsorted(hits / max(self.true(weights), 1.0), RECALLS)]
        return found


def _sums(values: Array) -> Array:
    """Of all before each, and of all: `[n + 1]`."""
    return np.append(0.0, np.cumsum(values))


class BoxesMeter(RowMeter):
    """Keeps of each image its boxes' scores and classes, and as bits at which overlaps each was right or ignored, by size."""

    def __init__(self, space: Space, thresholds: Sequence[float] | None = None) -> None:
        super().__init__("detection")
        self.space = space
        self.thresholds = np.array(thresholds or [THRESHOLD] * len(space.names))
        self._classes: dict[str, list[OfClass]] = {}

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.empty(0, self.space.width), torch.empty(0, self.space.max_boxes * len(LABEL))

    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        judged = ~(labels.isnan().any(1) | said.isnan().any(1))
        answers, so = said[judged].cpu().float().numpy(), labels[judged].cpu().float().numpy()
        found, boxes, true = matched(answers, so), boxes_of(answers), labels_of(so)
        kept = {
            "score": np.where(found.asked, boxes[..., SCORE], 0),
            "class": np.where(found.asked, boxes[..., CLASS], -1).astype(np.int16),
            "right": (found.right * _BITS).sum(-1, dtype=np.int16).reshape(len(answers), boxes.shape[1] * len(SIZES)),
            "ignored": (found.ignored * _BITS)
            .sum(-1, dtype=np.int16)
            .reshape(len(answers), boxes.shape[1] * len(SIZES)),
            "true": true[..., CLASS].astype(np.int16),
            "counts": (found.counts << np.arange(len(SIZES))).sum(-1, dtype=np.uint8),
        }
        return {name: torch.from_numpy(values) for name, values in kept.items()}

    def join(self, parts: Mapping[str, Tensor]) -> None:
        self._classes = {}
        super().join(parts)

    def classes(self, size: str = "all") -> list[OfClass]:
        """Of all images so far; made once."""
        if size not in self._classes:
            parts = {name: each.numpy() for name, each in self.parts().items()}
            self._classes[size] = _classes(parts, [*SIZES].index(size), len(self.space.names))
        return self._classes[size]

    def by_class(self, key: str, weights: Tensor | None = None) -> list[float | None]:
        """A figure of each class; None of one without a true box of that size."""
        of, levels = KEYS[key], KEYS[key].levels
        told = np.ones(len(self.parts()["score"])) if weights is None else weights.double().cpu().numpy()
        classes = self.classes(of.size)
        if of.of == "precision":
            return [each.average_precision(told, levels) for each in classes]
        return [each.recall(told, levels) for each in classes]

    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        if key == FALSE:
            return mean(torch.from_numpy(self._false_positives()), weights)
        defined = [each for each in self.by_class(key, weights) if each is not None]
        return fmean(defined) if defined else None

    def _false_positives(self) -> Array:
        """f64 `[judged]`: boxes of each image that are said, and neither right at an overlap of 0.5 nor ignored."""
        parts = {name: each.numpy() for name, each in self.parts().items()}
        rows, boxes = parts["class"].shape
        right, ignored = (parts[name].reshape(rows, boxes, len(SIZES))[..., ALL] & 1 for name in ("right", "ignored"))
        is_said = (parts["class"] >= 0) & (parts["score"] >= self.thresholds[parts["class"]])
        found: Array = (is_said & (right == 0) & (ignored == 0)).sum(1).astype(np.float64)
        return found

    def details(self) -> Document:
        """By size `ap_small`, `ap_medium`, `ap_large`; `by_class`: of each its true boxes and figures."""
        return {
            **{key: self._figure(key, None) for key in BY_SIZE},
            "by_class": {
                "classes": list(self.space.names),
                "true": [len(each.true_row) for each in self.classes()],
                **{key: self.by_class(key) for key in KEYS},
            },
        }


def _classes(parts: Mapping[str, Array], size: int, classes: int) -> list[OfClass]:
    row, place = np.nonzero(parts["class"] >= 0)
    order = np.lexsort((-parts["score"][row, place], parts["class"][row, place]))
    row, place = row[order], place[order]
    true_row, true_place = np.nonzero(parts["counts"] >> size & 1)
    true_class = parts["true"][true_row, true_place]
    bits = [parts[name][row, place * len(SIZES) + size] for name in ("right", "ignored")]
    ends = np.searchsorted(parts["class"][row, place], np.arange(classes + 1))
    found = []
    for number in range(classes):
        own = slice(ends[number], ends[number + 1])
        right = tuple(Right.of(row[own], *((each[own] & bit) > 0 for each in bits)) for bit in _BITS)
        found.append(OfClass(row[own], right, true_row[true_class == number]))
    return found
