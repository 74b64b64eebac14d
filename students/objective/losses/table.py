"""Which function a term's `loss` is, task by task."""

from collections.abc import Callable

from torch import Tensor

from teachers.config.task import TaskName

from ...config.terms import LossName
from . import classification, maps, multilabel, regression

Loss = Callable[..., Tensor]

OF_MAPS: dict[LossName, Loss] = {"feature": maps.feature, "channel": maps.channel}
LOSSES: dict[TaskName, dict[LossName, Loss]] = {
    "classification": {
        "hard": classification.hard,
        "soft": classification.soft,
        "teacher_label": classification.teacher_label,
        "peer": classification.peer,
        **OF_MAPS,
    },
    "multilabel": {
        "hard": multilabel.hard,
        "soft": multilabel.soft,
        "teacher_label": multilabel.teacher_label,
        "peer": multilabel.peer,
        **OF_MAPS,
    },
    "regression": {"hard": regression.hard, "soft": regression.soft, "peer": regression.peer, **OF_MAPS},
}
