"""Test-time flips: a detector asked about each image and its mirror image. Knows nothing of which detector it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...config.detecting import Detector
from ..folded import Batch, Said, said_of
from ..scores import tensor_of
from ..teacher import LoadedTeacher
from .checked import any_wrong
from .images import mirrored
from .said import Keeping, together, turned_back


def with_flips(teacher: LoadedTeacher, config: Any, images: Sequence[str]) -> LoadedTeacher:
    """The teacher, asked twice where the recipe says so: all boxes of both answers, those of the mirror image turned back, through
    class-wise NMS; what its layers give is of the image itself. `images`: the image columns."""
    if not isinstance(config, Detector) or not config.flips:
        return teacher
    forward, keeping = teacher.forward, Keeping.of(config, teacher.max_boxes)

    def both(batch: Batch) -> Said:
        turned: dict[str, Any] = {
            name: mirrored(values) if name in images else values for name, values in batch.items()
        }
        answers = [said_of(forward(each)) for each in (batch, turned)]
        upright, mirror = (tensor_of(each.scores).float().cpu() for each in answers)
        found = together([upright, turned_back(mirror)], keeping)
        for each in (mirror, upright):  # what nobody may say is left as it is, for who looks at it
            wrong = any_wrong(each, len(teacher.classes), may_not_know=teacher.may_not_know)
            found[wrong] = each[wrong]
        return Said(found, answers[0].more)

    return replace(teacher, forward=both, device=None)
