"""What there is to look at in boxes: images on which detectors differ most, with everybody's boxes; curves of precision; who says what
the teachers say together. Knows nothing of how they are drawn.

Names are those of an evaluation: `OTHERS` are no teachers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.soft_targets.combine.boxes import fuse
from teachers.soft_targets.combine.dispute import in_dispute
from teachers.tasks.boxes import BOX, CLASS, HEIGHT, SCORE, WIDTH, boxes_of, labels_of
from teachers.tasks.space import Space

from .average_precision import BoxesMeter
from .task import Document, Model

Array = NDArray[Any]

OTHERS = ("ensemble", "student", "control", "offline")
SHOWN = 0.3
"""A score from which on a box is drawn, or counted."""
MOST_DRAWN = 60
"""Boxes of a voice in an image."""
TRUTH = "truth"


def teachers_of(everybody: Mapping[str, Model]) -> dict[str, Model]:
    return {name: model for name, model in everybody.items() if name not in OTHERS}


def sheet(everybody: Mapping[str, Model], labels: Tensor, space: Space, count: int) -> list[tuple[int, Document]]:
    """The rows that teachers (of one, it and the student) differ most over, the most first: `in_dispute`, `size` of the image
    (width and height in pixels), and `boxes` of the truth and of everybody's first seed, by name: lists of x1, y1, x2, y2 in 0 to 1,
    score, class."""
    voices = [model.seeds[0] for model in teachers_of(everybody).values()]
    if len(voices) < 2:
        voices += [everybody[name].seeds[0] for name in ("student",) if name in everybody]
    if not voices:
        return []
    dispute = in_dispute(voices)
    rows = torch.argsort(dispute, descending=True, stable=True)[:count].tolist()
    drawn = [name for name in everybody if name not in ("control", "offline")]
    return [
        (
            row,
            {
                "in_dispute": round(float(dispute[row]), 3),
                "size": _size(labels[row]),
                "boxes": {
                    TRUTH: _true(labels[row], space),
                    **{name: _said(everybody[name].seeds[0][row], space) for name in drawn},
                },
            },
        )
        for row in rows
    ]


def _size(label: Tensor) -> list[int]:
    return [int(each) for each in labels_of(label.nan_to_num(1.0).numpy())[0, [WIDTH, HEIGHT]]]


def _said(said: Tensor, space: Space) -> list[list[Any]]:
    each = boxes_of(said.nan_to_num(-1.0).numpy())
    each = each[(each[:, CLASS] >= 0) & (each[:, SCORE] >= SHOWN)][:MOST_DRAWN]
    return [_told(box, space) for box in each.tolist()]


def _true(label: Tensor, space: Space) -> list[list[Any]]:
    """Without regions in which nothing is judged."""
    each = labels_of(label.nan_to_num(-1.0).numpy())
    each = each[(each[:, CLASS] >= 0) & (each[:, SCORE] > 0)][:MOST_DRAWN]
    return [_told(box, space) for box in each[:, : len(BOX)].tolist()]


def _told(box: Sequence[float], space: Space) -> list[Any]:
    return [*(round(corner, 4) for corner in box[:SCORE]), round(box[SCORE], 2), space.names[int(box[CLASS])]]


def curves(everybody: Mapping[str, Model], labels: Tensor, space: Space) -> Document:
    """By name, of the first seed: the best precision at each of 101 recalls from 0 to 1 or more, at an overlap of 0.5, the mean over
    classes with a true box."""
    found = {}
    for name, model in everybody.items():
        meter = BoxesMeter(space)
        meter.update(model.seeds[0], labels)
        each = [one.curve() for one in meter.classes() if len(one.true_row)]
        found[name] = np.mean(each, 0).round(4).tolist() if each else None
    return found


def taken(everybody: Mapping[str, Model], labels: Tensor, space: Space) -> Document | None:
    """What weighted fusion takes from whom, of boxes with a score of 0.3 and more; None of fewer than two teachers.

    `agree`: by how many teachers say a box, from one on, `boxes` and how many of them are `right` at an overlap of 0.5; `teachers`: by
    name, of `has` (boxes that it says with others or alone), `alone` and `lacks` (boxes of others alone) the same.
    """
    teachers = teachers_of(everybody)
    if len(teachers) < 2:
        return None
    said = torch.stack([model.seeds[0] for model in teachers.values()])
    found = fuse(said.nan_to_num(), ~said.isnan())
    boxes = found.boxes.numpy()
    shown = (boxes[..., CLASS] >= 0) & (boxes[..., SCORE] >= SHOWN)
    right, judged = _right(found.boxes, labels, space)
    shown[~judged] = False
    of = found.of.numpy() & shown
    agree = of.sum(0)

    def counted(chosen: Array) -> dict[str, int]:
        return {"boxes": int((chosen & shown).sum()), "right": int((chosen & shown & right).sum())}

    return {
        "agree": [counted(agree == number) for number in range(1, len(teachers) + 1)],
        "teachers": {
            name: {
                "has": counted(own),
                "alone": counted(own & (agree == 1)),
                "lacks": counted(~own),
            }
            for name, own in zip(teachers, of, strict=True)
        },
    }


def _right(boxes: Tensor, labels: Tensor, space: Space) -> tuple[Array, Array]:
    """(bool `[rows, M]`: takes a true box, bool `[rows]`: is judged)."""
    meter, said = BoxesMeter(space), boxes.flatten(1)
    meter.update(said, labels)
    judged = (~(labels.isnan().any(1) | said.isnan().any(1))).numpy()
    found = meter.parts()["right"].reshape(int(judged.sum()), boxes.shape[1], -1)[..., 0].numpy() & 1
    right = np.zeros(boxes.shape[:2], bool)
    right[judged] = found > 0
    return right, judged
