"""Boxes of objects in images, each with a class and a score; see `teachers.tasks.boxes` for how they lie in arrays.

How good an answer to one image is, is its average precision at an overlap of 0.5, all its classes in one list: no threshold
decides it. Where a box is said or not, it is by a threshold a class, chosen on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.tasks.boxes import BOX, CLASS, LABEL, SCORE, boxes_by_class, boxes_of, labels_of, no_boxes
from teachers.tasks.space import Space

from . import looking
from .average_precision import ALL, THRESHOLD, BoxesMeter
from .figure import headline
from .matching import SIZES
from .standing import Standing, by_squared_errors, interval
from .task import Document, Model, Task

Array = NDArray[Any]
SURE = 0.3
"""A score from which on two are asked whether they say the same boxes."""


@dataclass(frozen=True)
class Judged:
    """What is said of images with a label, beside what is so there, at an overlap of 0.5."""

    rows: Array
    """bool `[rows]`: which of the given rows these are."""
    score: Array
    """f32 `[judged, M]`."""
    number: Array
    """i64 `[judged, M]`, -1: no box, or one that is not judged."""
    right: Array
    """bool `[judged, M]`."""
    true: Array
    """i64 `[judged, C]`: boxes of each class that are there."""


def judged(said: Tensor, labels: Tensor, space: Space) -> Judged:
    meter = BoxesMeter(space)
    meter.update(said, labels)
    parts = {name: each.numpy() for name, each in meter.parts().items()}
    rows, boxes = parts["score"].shape
    right, ignored = ((parts[name].reshape(rows, boxes, len(SIZES))[..., ALL] & 1) > 0 for name in ("right", "ignored"))
    true = np.zeros((rows, len(space.names)), np.int64)
    row, place = np.nonzero(parts["counts"] >> ALL & 1)
    np.add.at(true, (row, parts["true"][row, place]), 1)
    number = np.where(ignored, -1, parts["class"])
    known = (~(labels.isnan().any(1) | said.isnan().any(1))).numpy()
    return Judged(known, parts["score"], number, right & ~ignored, true)


def merits(said: Tensor, labels: Tensor, space: Space) -> Tensor:
    """The average precision of each image's list of boxes; of an image without any, 1 less its highest score."""
    found = judged(said, labels, space)
    there = found.number >= 0
    precision = np.cumsum(found.right, 1) / np.maximum(np.cumsum(there, 1), 1)
    true = found.true.sum(1)
    average = (found.right * precision).sum(1) / np.maximum(true, 1)
    highest = np.where(there, found.score, 0.0).max(1, initial=0.0)
    out = np.zeros(len(labels))
    out[found.rows] = np.where(true > 0, average, 1 - highest)
    return torch.from_numpy(out)


def beside(said: Tensor, together: Tensor, space: Space) -> Document:
    """Of boxes with a score of 0.3 and more, at an overlap of 0.5: `agreement`: F1, over images; `found`: the share of theirs that
    is said."""
    found = judged(_sure(said), _as_labels(together, space), space)
    right, mine, theirs = int(found.right.sum()), int((found.number >= 0).sum()), int(found.true.sum())
    if not len(found.true):
        return {"agreement": None, "found": None}
    return {
        "agreement": 2 * right / (mine + theirs) if mine + theirs else 1.0,
        "found": right / theirs if theirs else None,
    }


def _sure(said: Tensor) -> Tensor:
    each = said.reshape(len(said), -1, len(BOX)).clone()
    each[..., CLASS] = torch.where(each[..., SCORE] < SURE, -1.0, each[..., CLASS])
    return each.flatten(1)


def _as_labels(said: Tensor, space: Space) -> Tensor:
    """As if the boxes were true ones, of an image that is one pixel."""
    each = boxes_of(_sure(said).numpy())
    out = no_boxes(len(each), len(LABEL), space.max_boxes)
    boxes = labels_of(out)
    boxes[..., : len(BOX)] = each
    boxes[..., SCORE] = 1.0
    boxes[..., len(BOX) :] = 1.0
    out[np.isnan(said.numpy()).any(1)] = np.nan
    return torch.from_numpy(out)


def best_thresholds(said: Tensor, labels: Tensor, space: Space) -> tuple[float, ...]:
    """Of each class the score from which on a box is said, for the best F1 on these images, half-way to the next one below; of
    equally good ones the highest."""
    found = judged(said, labels, space)
    return tuple(
        _best_threshold(found.score[mine], found.right[mine], int(found.true[:, number].sum()))
        for number in range(len(space.names))
        for mine in [found.number == number]
    )


def _best_threshold(score: Array, right: Array, true: int) -> float:
    if not true or not right.any():
        return THRESHOLD
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order])
    last = np.append(score[1:] != score[:-1], True)
    f1 = np.where(last, 2 * hits / (np.arange(1, len(score) + 1) + true), -1.0)
    best = int(f1.argmax())
    below = float(score[best + 1]) if best + 1 < len(score) else 0.0
    return (float(score[best]) + below) / 2


def tables(everybody: Mapping[str, Model], closely: Model, labels: Tensor, space: Space) -> Document:
    """`by_class`: of each class its true boxes (`support`) and images with one, and by name the boxes that are said at its
    threshold, how many of these are right, and figures; of several seeds the mean. `precision_at_recall` and `taken`: see
    `looking`."""
    found = {name: [_by_class(*each, labels, space) for each in _seeds(model)] for name, model in everybody.items()}
    each = labels_of(labels.numpy())
    support = boxes_by_class(each, len(space.names))
    return {
        "by_class": {
            "classes": list(space.names),
            "support": support.sum(0).tolist(),
            "images": (support > 0).sum(0).tolist(),
            **{
                figure: {
                    name: [_mean(values) for values in zip(*(seed[figure] for seed in seeds), strict=True)]
                    for name, seeds in found.items()
                }
                for figure in ("said", "recall", "precision", "f1", "average_precision", "threshold")
            },
        },
        "precision_at_recall": looking.curves(everybody, labels, space),
        "taken": looking.taken(everybody, labels, space),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [each for each in values if each is not None]
    return sum(defined) / len(defined) if defined else None


def _seeds(model: Model) -> list[tuple[Tensor, Sequence[float] | None]]:
    several = len(model.thresholds) == len(model.seeds)
    return [*zip(model.seeds, model.thresholds if several else [None] * len(model.seeds), strict=True)]


def _by_class(
    said: Tensor, thresholds: Sequence[float] | None, labels: Tensor, space: Space
) -> dict[str, list[float | None]]:
    meter = BoxesMeter(space, thresholds)
    meter.update(said, labels)
    found, at = judged(said, labels, space), np.array(thresholds or [THRESHOLD] * len(space.names))
    is_said = (found.number >= 0) & (found.score >= at[found.number])
    counts = [
        (int((is_said & mine & found.right).sum()), int((is_said & mine).sum()), int(found.true[:, number].sum()))
        for number in range(len(space.names))
        for mine in [found.number == number]
    ]
    return {
        "said": [said for _, said, _ in counts],
        "recall": [right / true if true else None for right, _, true in counts],
        "precision": [right / said if said else None for right, said, _ in counts],
        "f1": [2 * right / (said + true) if said + true else None for right, said, true in counts],
        "average_precision": meter.by_class("ap"),
        "threshold": at.tolist(),
    }


def mistakes(model: Model, together: Tensor, labels: Tensor, space: Space, count: int) -> list[tuple[int, Document]]:
    """The images with the least average precision, the worst first, with how many boxes of each class are there and are said."""
    said, thresholds = _seeds(model)[0]
    merit = merits(said, labels, space)
    at = np.array(thresholds or [THRESHOLD] * len(space.names))
    return [
        (
            row,
            {
                "label": _counted(labels_of(labels[row : row + 1].numpy())[0, :, CLASS], space),
                "said": _counted(_said_at(said[row], at), space),
                "error": 1 - float(merit[row]),
                "ensemble": _counted(_said_at(together[row], at), space),
            },
        )
        for row in torch.argsort(merit, stable=True)[:count].tolist()
        if merit[row] < 1
    ]


def _said_at(said: Tensor, thresholds: Array) -> Array:
    """The classes of what is said, -1 of what is below its threshold."""
    each = boxes_of(said.nan_to_num(-1.0).numpy())
    number = each[:, CLASS].astype(np.int64)
    return np.where(each[:, SCORE] >= thresholds[number], number, -1)


def _counted(numbers: Array, space: Space) -> str:
    """`12 RBC, 1 WBC`."""
    counts = np.bincount(numbers[numbers >= 0].astype(np.int64), minlength=len(space.names))
    return ", ".join(f"{count} {name}" for name, count in zip(space.names, counts, strict=True) if count) or NO_BOX


NO_BOX = "no box"


def _nothing(rows: int, space: Space) -> Tensor:
    return torch.from_numpy(no_boxes(rows, len(BOX), space.max_boxes))


def commonest(labels: Tensor, of_training: Tensor, space: Space) -> Document:
    """What it comes to to say no box of any image; a constant that is better nobody knows."""
    meter = BoxesMeter(space)
    meter.update(_nothing(len(labels), space), labels)
    return {"figures": meter.figures(), "remark": None}


def standing(said: Tensor, labels: Tensor, known: Tensor, of_training: Tensor, space: Space) -> Standing:
    """By a t-test of the merits of its answers against those of no box at all."""
    rows = known.any(1) & ~labels.isnan().all(1)
    said, labels = said[rows], labels[rows]
    meter = BoxesMeter(space)
    meter.update(said, labels)
    figures, number = meter.figures(), len(labels)
    below = merits(said, labels, space) - 1
    p_value, stands = by_squared_errors(below, merits(_nothing(number, space), labels, space) - 1)
    low, high = interval(meter, "ap")
    return {
        "rows": number,
        "figures": figures,
        "low": low,
        "high": high,
        "scale": 1.0,
        "p_value": p_value,
        "stands": stands,
        "words": {
            "found": f"AP {headline('detection').shown(figures['ap'])} on {number:,} {{rows}}",
            "always": "saying no box",
            "that": "has 0",
            "constant": headline("detection").shown(0.0),
            "test": "one-sided t-test of average precisions by image",
            "open": f"of {number:,} {{rows}} no teacher could show that it is better than saying no box",
        },
    }


def unjudged(said: Tensor, space: Space) -> Document:
    """`boxes`: how many are said of an image with a score of 0.5 and more, the mean; `coverage`: the share of the classes that are
    said of some; `said`: by class, the share of images of which one is said."""
    each = boxes_of(said[~said.isnan().all(1)].numpy())
    is_said = (each[..., CLASS] >= 0) & (each[..., SCORE] >= THRESHOLD)
    shares = [
        float((is_said & (each[..., CLASS] == n)).any(1).mean()) if len(each) else 0.0 for n in range(len(space.names))
    ]
    return {
        "boxes": float(is_said.sum(1).mean()) if len(each) else None,
        "coverage": float(np.mean([share > 0 for share in shares])),
        "said": dict(zip(space.names, shares, strict=True)),
    }


DETECTION = Task(
    name="detection",
    meter=BoxesMeter,
    merits=merits,
    is_mean_of_merits=False,
    beside=beside,
    tables=tables,
    mistakes=mistakes,
    commonest=commonest,
    standing=standing,
    unjudged=unjudged,
    sheet=looking.sheet,
    thresholds=best_thresholds,
)
