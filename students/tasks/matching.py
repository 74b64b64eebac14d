"""Which boxes that are said are true ones, as COCO matches them (Lin et al., 2014). Knows nothing of figures.

Of an image and a class boxes are asked in the order of their scores, at most `MOST`. Each takes the free true box that it overlaps
most, by intersection over union at least as much as is asked for; of equally good ones the last. A region in which nothing is
judged, and a true box of another size than is judged, is taken only where no other can be, and what took it is ignored, as is
what took nothing and is of another size itself. A region is never used up, and a box's overlap with it is the share of the box
that lies in it.

Sizes are of boxes, in pixels of the image: a file's `area`, which may be that of an outline, is not asked. A corner within
1/4096 of a whole pixel stands on it, as it did before it became a float32 in 0 to 1.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teachers.tasks.boxes import CLASS, HEIGHT, SCORE, WIDTH, boxes_of, labels_of

Array = NDArray[Any]

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which on a box is found."""
SIZES: dict[str, tuple[float, float]] = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
"""Least and largest area in pixels, both included."""
MOST = 100
"""Boxes of an image and a class; further ones, of lower scores, are not looked at."""
ROWS_AT_ONCE = 256
"""No match depends on it."""
WHOLE = 1 / 4096
_SIZES, _OVERLAPS = np.ogrid[: len(SIZES), : len(OVERLAPS)]


@dataclass(frozen=True)
class Matches:
    """Of `rows` images, M boxes said and G true ones of each, at S `SIZES` and T `OVERLAPS`."""

    asked: Array
    """bool `[rows, M]`: is a box, and among the `MOST` of its class."""
    matched: Array
    """bool `[rows, M, S, T]`: took a true box or a region."""
    ignored: Array
    """bool `[rows, M, S, T]`: counts neither as right nor as wrong."""
    counts: Array
    """bool `[rows, G, S]`: a true box that should be found."""

    @classmethod
    def of_none(cls, rows: int, said: int, true: int) -> "Matches":
        each = (rows, said, len(SIZES), len(OVERLAPS))
        return cls(
            np.zeros((rows, said), bool),
            np.zeros(each, bool),
            np.zeros(each, bool),
            np.zeros((rows, true, len(SIZES)), bool),
        )

    def some(self, rows: slice) -> "Matches":
        """Views of some rows."""
        return Matches(*(getattr(self, each.name)[rows] for each in fields(self)))

    @property
    def right(self) -> Array:
        return self.matched & ~self.ignored


def matched(said: Array, labels: Array) -> Matches:
    """Of `said` f32 `[rows, M * 6]` and `labels` f32 `[rows, G * 8]`, as `boxes` has them; no row is unknown."""
    boxes, true = boxes_of(said), labels_of(labels)
    found = Matches.of_none(len(boxes), boxes.shape[1], true.shape[1])
    for first in range(0, len(boxes), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        _match(boxes[some].astype(np.float64), true[some].astype(np.float64), found.some(some))
    return found


def _match(boxes: Array, true: Array, out: Matches) -> None:
    """Some rows, written into `out`."""
    pixels = true[:, :1, [WIDTH, HEIGHT, WIDTH, HEIGHT]]
    corners, of_true = _whole(boxes[..., :4] * pixels), _whole(true[..., :4] * pixels)
    there, is_region = true[..., CLASS] >= 0, true[..., SCORE] == 0
    passed_over = _of_other_size(of_true) | is_region[..., None]
    out.asked[:] = _first_of_class(boxes)
    out.counts[:] = there[..., None] & ~passed_over
    of_class = boxes[:, :, None, CLASS] == true[:, None, :, CLASS]
    row, said, truth = np.nonzero(of_class & out.asked[:, :, None] & there[:, None])
    overlap = _overlap(corners[row, said], of_true[row, truth], is_region[row, truth])
    near = overlap >= OVERLAPS[0]
    pairs = tuple(each[near] for each in (row, said, truth, overlap))
    _take(boxes, pairs, is_region, passed_over, out)
    out.ignored[:] |= ~out.matched & out.asked[..., None, None] & _of_other_size(corners)[..., None]


def _take(boxes: Array, pairs: tuple[Array, ...], is_region: Array, passed_over: Array, out: Matches) -> None:
    """Who takes whom, of `pairs` (row, number said, number of the true one, overlap): step by step the best box of every class and image that has not had its turn."""
    row, said, truth, overlap = pairs
    takers, candidates, overlaps = _by_taker(row * boxes.shape[1] + said, row * is_region.shape[1] + truth, overlap)
    in_row, number = np.divmod(takers, max(boxes.shape[1], 1))
    of_taker = boxes[in_row, number]
    order, turn = _turns(in_row, of_taker[:, CLASS], of_taker[:, SCORE])
    region, over = np.append(is_region, False), np.append(passed_over.reshape(-1, len(SIZES)), [[False] * 4], 0)
    taken = np.zeros((len(region), len(SIZES), len(OVERLAPS)), bool)
    for now in (order[turn == each] for each in range(int(turn.max(initial=-1)) + 1)):
        can = candidates[now]
        free = ~taken[can] | region[can][..., None, None]
        each = overlaps[now][..., None, None]
        worth = np.where(free & (each >= OVERLAPS), each + 2.0 * ~over[can][..., None], 0.0)
        best = worth.argmax(1)
        chosen = can[np.arange(len(now))[:, None, None], best]
        found = worth.max(1) > 0
        _, size, level = np.nonzero(found)
        taken[chosen[found], size, level] = True
        out.matched[in_row[now], number[now]] = found
        out.ignored[in_row[now], number[now]] = found & over[chosen, _SIZES]


def _by_taker(said: Array, truth: Array, overlap: Array) -> tuple[Array, Array, Array]:
    """Pairs, sorted by `said`, as (takers `[n]`, their truths `[n, K]`, the last first, with -1 for none, overlaps `[n, K]`)."""
    takers, first, place, count = np.unique(said, return_index=True, return_inverse=True, return_counts=True)
    shape = (len(takers), int(count.max(initial=0)))
    candidates, overlaps = np.full(shape, -1), np.zeros(shape)
    column = first[place] + count[place] - 1 - np.arange(len(said))
    candidates[place, column], overlaps[place, column] = truth, overlap
    return takers, candidates, overlaps


def _turns(row: Array, number: Array, score: Array) -> tuple[Array, Array]:
    """(order, the place of each in it among those of its row and class), the best first, of equal ones the first."""
    order = np.lexsort((-score, number, row))
    row, number = row[order], number[order]
    begins = np.append(True, (row[1:] != row[:-1]) | (number[1:] != number[:-1]))[: len(order)]
    starts = np.flatnonzero(begins)
    return order, np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))


def _first_of_class(boxes: Array) -> Array:
    """bool `[rows, M]`: the `MOST` best of each class."""
    row, number = np.nonzero(boxes[..., CLASS] >= 0)
    order, turn = _turns(row, boxes[row, number, CLASS], boxes[row, number, SCORE])
    asked: Array = np.zeros(boxes.shape[:2], bool)
    asked[row[order], number[order]] = turn < MOST
    return asked


def _whole(corners: Array) -> Array:
    near: Array = np.rint(corners)
    return np.where(np.abs(corners - near) < WHOLE, near, corners)


def _area(corners: Array) -> Array:
    area: Array = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    return area


def _of_other_size(corners: Array) -> Array:
    """bool `[..., S]`."""
    area, limits = _area(corners)[..., None], np.array([*SIZES.values()])
    return (area < limits[:, 0]) | (area > limits[:, 1])


def _overlap(said: Array, true: Array, is_region: Array) -> Array:
    """Of pairs of corners `[n, 4]`, f64 `[n]`; 0 where neither has an area."""
    sides = np.minimum(said[:, 2:], true[:, 2:]) - np.maximum(said[:, :2], true[:, :2])
    both = sides.clip(0).prod(1)
    of_said = _area(said)
    whole = np.where(is_region, of_said, of_said + _area(true) - both)
    found: Array = np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
    return found
