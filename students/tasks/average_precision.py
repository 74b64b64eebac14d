"""What boxes are judged by: COCO's average precision and recall (Lin et al., 2014), of images that have a label.

Average precision of a class is the mean, over 101 recalls from 0 to 1, of the best precision at that recall or more; `ap` is the
mean over classes and ten overlaps from 0.5 to 0.95. A class without a true box counts nowhere. Boxes are matched once, when an
image comes in: figures under other weights of images, as a bootstrap asks for, only add up anew who was right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.tasks.boxes import CLASS, LABEL, SCORE, boxes_of, labels_of
from teachers.tasks.space import Space

from .matching import OVERLAPS, SIZES, matched
from .meter import RowMeter
from .task import Document

Array = NDArray[Any]

RECALLS = np.linspace(0.0, 1.0, 101)
THRESHOLD = 0.5
"""A score from which on a box is said, of a class that validation tells nothing of."""
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

    def mean(self, by_overlap: Array) -> Array:
        """Of `[T, C]`, by class."""
        chosen = slice(None) if self.overlap is None else np.isclose(OVERLAPS, self.overlap)
        found: Array = by_overlap[chosen].mean(0)
        return found


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
class Curves:
    """Boxes of all images by class and score, at one size: what precision and recall need of them.

    Segments are (overlap, class). Boxes of one row and score follow each other, so that figures under weights are those of the
    rows repeated (but for boxes of one row with equal scores).
    """

    classes: int
    row: Array
    """i64 `[N]` of every box that is asked, by class, the best first."""
    begins: Array
    """i64 `[C]`: where each class begins there."""
    right: Array
    """bool `[T, N]`."""
    ignored: Array
    """bool `[T, N]`."""
    true_row: Array
    """i64 of every true box that counts."""
    true_class: Array

    @cached_property
    def _hits(self) -> tuple[Array, Array, Array, Array]:
        """Of every right box: its segment, its place among all, and how many right ones are before its segment; of every segment
        whether it has any."""
        level, place = np.nonzero(self.right)
        number = np.searchsorted(self.begins, place, "right") - 1
        segment = level * self.classes + number
        return segment, place, np.searchsorted(segment, segment), level * len(self.row) + self.begins[number]

    @cached_property
    def _passed(self) -> tuple[Array, Array, Array]:
        """Of ignored boxes their places; how many of them are before each right box, and before its segment."""
        level, ignored = np.nonzero(self.ignored)
        segment, place, _, begin = self._hits
        at = level * len(self.row) + ignored
        return ignored, np.searchsorted(at, segment // self.classes * len(self.row) + place), np.searchsorted(at, begin)

    def true(self, weights: Array) -> Array:
        """True boxes of each class, f64 `[C]`."""
        return np.bincount(self.true_class, weights[self.true_row], self.classes)

    def points(self, weights: Array) -> tuple[Array, Array, Array]:
        """Of every right box (segment, recall, the best precision at that recall or more) under `weights` f64 `[rows]`."""
        segment, place, first, begin = self._hits
        ignored, passed_here, passed_before = self._passed
        of_box = weights[self.row]
        heard, passed = _sums(of_box), _sums(of_box[ignored])
        said = heard[place + 1] - heard[begin % max(len(self.row), 1)] - passed[passed_here] + passed[passed_before]
        sums = _sums(of_box[place])
        hits = sums[1:] - sums[first]
        precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
        true = self.true(weights)[segment % self.classes]
        recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
        apart = 2.0 * segment  # what is of another segment is always less, from behind
        best = np.maximum.accumulate((precision - apart)[::-1])[::-1] + apart
        return segment, recall, best

    def precision(self, weights: Array) -> Array:
        """Average precision f64 `[T, C]`; 0 of a class without a right box."""
        segment, recall, best = self.points(weights)
        reached = np.searchsorted(RECALLS, recall, "right")
        begins = np.append(True, segment[1:] != segment[:-1])[: len(segment)]
        before = np.where(begins, 0, np.append(0, reached[:-1])[: len(segment)])
        return self._by_segment(segment, best * (reached - before)) / len(RECALLS)

    def recall(self, weights: Array) -> Array:
        """The share of true boxes that is found, f64 `[T, C]`."""
        segment, place, _, _ = self._hits
        found, true = self._by_segment(segment, weights[self.row[place]]), self.true(weights)
        return np.divide(found, true, out=np.zeros_like(found), where=true > 0)

    def _by_segment(self, segment: Array, values: Array) -> Array:
        summed: Array = np.bincount(segment, values, len(OVERLAPS) * self.classes)
        return summed.reshape(len(OVERLAPS), self.classes)


def _sums(values: Array) -> Array:
    """Of all before each, and of all: `[n + 1]`."""
    return np.append(0.0, np.cumsum(values))


class BoxesMeter(RowMeter):
    """Keeps of each image its boxes' scores and classes, and as bits at which overlaps each was right or ignored, by size."""

    def __init__(self, space: Space, thresholds: Sequence[float] | None = None) -> None:
        super().__init__("detection")
        self.space = space
        self.thresholds = np.array(thresholds or [THRESHOLD] * len(space.names))
        self._curves: dict[str, Curves] = {}

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.empty(0, self.space.width), torch.empty(0, self.space.max_boxes * len(LABEL))

    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        judged = ~(labels.isnan().any(1) | said.isnan().any(1))
        answers, so = said[judged].cpu().float().numpy(), labels[judged].cpu().float().numpy()
        found, boxes, true = matched(answers, so), boxes_of(answers), labels_of(so)
        kept = {
            "score": np.where(found.asked, boxes[..., SCORE], 0),
            "class": np.where(found.asked, boxes[..., CLASS], -1).astype(np.int16),
            "right": (found.right * _BITS).sum(-1, dtype=np.int16).reshape(len(answers), -1),
            "ignored": (found.ignored * _BITS).sum(-1, dtype=np.int16).reshape(len(answers), -1),
            "true": true[..., CLASS].astype(np.int16),
            "counts": (found.counts << np.arange(len(SIZES))).sum(-1, dtype=np.uint8),
        }
        return {name: torch.from_numpy(values) for name, values in kept.items()}

    def join(self, parts: Mapping[str, Tensor]) -> None:
        self._curves = {}
        super().join(parts)

    def curves(self, size: str = "all") -> Curves:
        """Of all images so far; made once."""
        if size not in self._curves:
            self._curves[size] = _curves(
                {name: each.numpy() for name, each in self.parts().items()}, size, self.classes
            )
        return self._curves[size]

    @property
    def classes(self) -> int:
        return len(self.space.names)

    def _weights(self, weights: Tensor | None) -> Array:
        return np.ones(len(self.parts()["score"])) if weights is None else weights.cpu().numpy()

    def by_class(self, key: str, weights: Tensor | None = None) -> list[float | None]:
        """A figure of each class; None of one without a true box of that size."""
        of, curves, told = KEYS[key], self.curves(KEYS[key].size), self._weights(weights)
        found = of.mean(curves.precision(told) if of.of == "precision" else curves.recall(told))
        return [float(value) if true else None for value, true in zip(found, curves.true(told), strict=True)]

    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        defined = [each for each in self.by_class(key, weights) if each is not None]
        return fmean(defined) if defined else None

    def details(self) -> Document:
        """By size `ap_small`, `ap_medium`, `ap_large`; `by_class`: of each its true boxes and figures."""
        weights = self._weights(None)
        return {
            **{key: self._figure(key, None) for key in BY_SIZE},
            "by_class": {
                "classes": list(self.space.names),
                "true": self.curves().true(weights).astype(int).tolist(),
                **{key: self.by_class(key) for key in KEYS},
            },
        }


def _curves(parts: Mapping[str, Array], size: str, classes: int) -> Curves:
    number = [*SIZES].index(size)
    row, place = np.nonzero(parts["class"] >= 0)
    score, of_class = parts["score"][row, place], parts["class"][row, place]
    order = np.lexsort((-score, of_class))
    row, place = row[order], place[order]
    at = place * len(SIZES) + number
    true_row, true_place = np.nonzero(parts["counts"] >> number & 1)
    return Curves(
        classes,
        row,
        np.searchsorted(of_class[order], np.arange(classes)),
        (parts["right"][row, at] & _BITS[:, None]) > 0,
        (parts["ignored"][row, at] & _BITS[:, None]) > 0,
        true_row,
        parts["true"][true_row, true_place],
    )
