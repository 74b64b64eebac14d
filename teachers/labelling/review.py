"""Images for a person to look at: those without a label that detectors differ over most, with what they say, as files of labels.

Knows nothing of recipes or Ray.
"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import RecipeError
from ..soft_targets.combine.dispute import in_dispute
from ..soft_targets.reader import SoftTargets
from ..storage.drafted import drafted_folder
from ..transfer_set.answers import Answered
from .box_files import FILES
from .boxes_out import ROWS, Wanted, Written, asked_of, checked, export_boxes, heard

LIST = "in_dispute.csv"


def review(segments: Sequence[Answered], folder: Path, wanted: Wanted, most: int) -> Written:
    """Write `folder` in one step: `coco/` and `yolo/` as `export_boxes` writes them, of at most `most` images, and `in_dispute.csv`: the
    id of each, its split and how many boxes are in dispute, the most first. Raises as `export_boxes`, and RecipeError for a single
    teacher, or where there is no image without a label."""
    rows, teachers = checked(segments, wanted)
    if len(teachers) < 2:
        raise RecipeError(f"--teachers: {teachers[0]!r} alone differs from nobody; name two or more")
    disputes = [_disputes(each, teachers, wanted) for each in segments]
    everywhere = np.concatenate(disputes)
    order = np.argsort(-everywhere, kind="stable")
    order = order[~np.isnan(everywhere[order])][:most]
    if not len(order):
        raise RecipeError("every image here has a label, so there is none to look at")
    is_chosen = np.zeros(len(everywhere), bool)
    is_chosen[order] = True
    chosen = np.split(is_chosen, np.cumsum([len(each) for each in disputes])[:-1])
    ids = [(name, segment.split) for of, segment in rows for name in of.ids(segment).to_pylist()]
    with drafted_folder(folder) as draft:
        for kind in FILES:
            written = export_boxes(segments, draft / kind, replace(wanted, kind=kind), chosen)
        with (draft / LIST).open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["id", "split", "in_dispute"])
            lines.writerows([*ids[row], f"{everywhere[row]:.3f}"] for row in order.tolist())
    return written


def _disputes(answered: Answered, teachers: Sequence[str], wanted: Wanted) -> NDArray[np.float64]:
    """Of each row of a segment, NaN where it has a label that may be used, or nobody knows it."""
    assert answered.rows is not None
    transfer_set, segment = answered.rows
    opened = {name: SoftTargets.open(answered.stores[name].folder) for name in teachers}
    asked, out = asked_of(opened, transfer_set, wanted), np.full(segment.num_rows, np.nan)
    labelled = transfer_set.labelled(segment)
    for first in range(0, segment.num_rows, ROWS):
        rows = slice(first, min(first + ROWS, segment.num_rows))
        said = [*heard(opened, transfer_set, wanted, rows).values()]
        unknown = np.logical_and.reduce([each.isnan().all(1).numpy() for each in said])
        out[rows] = np.where(labelled[rows] | unknown, np.nan, in_dispute(said, asked).numpy())
    return out
