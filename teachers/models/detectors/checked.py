"""Whether boxes are what a teacher may say of rows: one look at them. Knows nothing of who says them, or of keys of rows."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...tasks.boxes import BOX, CLASS, SCORE

HAIR = 1e-6
"""What rounding may put a corner or a score outside 0 to 1."""


def wrong_boxes(rows: Tensor, num_classes: int, *, may_not_know: bool) -> Iterator[tuple[Tensor, str]]:
    """(which rows, bool `[rows]`; what of them is wrong, with the first such box) of rows f32 `[rows, M * 6]`, for each thing that
    may be wrong; rows of NaN alone are unknown where it `may_not_know`."""
    each = rows.unflatten(1, (-1, len(BOX)))
    unknown = rows.isnan().all(1) & may_not_know
    odd = ~each.isfinite().all(-1) & ~unknown[:, None]
    told = " (NaN in all of a row would say that it knows nothing of it)" if may_not_know else ""
    yield odd.any(1), f"NaN or infinity in a box{told}"
    each = torch.where((odd | unknown[:, None])[..., None], -1.0, each)
    number, score, corners = each[..., CLASS], each[..., SCORE], each[..., :SCORE]
    there = number >= 0
    gap = there & (~there).cumsum(1).bool()
    yield gap.any(1), "boxes behind the end of a row's boxes (a class of -1 ends them)"
    no_class = (there & ((number >= num_classes) | (number != number.round()))) | ((number < 0) & (number != -1))
    yield no_class.any(1), f"a class outside 0 to {num_classes - 1}{_first(each, no_class)}"
    outside = there & ((corners < -HAIR) | (corners > 1 + HAIR)).any(-1)
    cure = "; of pixels, divide by the image's width and height"
    yield outside.any(1), f"corners outside 0 to 1 of the image{_first(each, outside)}{cure}"
    inverted = there & (corners[..., :2] > corners[..., 2:]).any(-1)
    cure = "; expected x1, y1, x2, y2 with x1 < x2 and y1 < y2"
    yield inverted.any(1), f"corners in another order{_first(each, inverted)}{cure}"
    no_score = there & ((score < -HAIR) | (score > 1 + HAIR))
    yield no_score.any(1), f"scores outside 0 to 1{_first(each, no_score)}"


def any_wrong(rows: Tensor, num_classes: int, *, may_not_know: bool) -> Tensor:
    """Which rows have anything that is wrong, bool `[rows]`."""
    found = [wrong for wrong, _ in wrong_boxes(rows, num_classes, may_not_know=may_not_know)]
    return torch.stack(found).any(0)


def _first(each: Tensor, wrong: Tensor) -> str:
    if not wrong.any():
        return ""
    numbers = ", ".join(f"{value:.4g}" for value in each[wrong][0].tolist())
    return f" (the first: {numbers} as {', '.join(BOX)})"
