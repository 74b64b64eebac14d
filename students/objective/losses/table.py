"""Which function a term's `loss` is, task by task."""

from collections.abc import Callable

from torch import Tensor

from teachers.config.task import TaskName

from ...config.terms import LossName
from . import classification, maps, multilabel, own, regression

Loss = Callable[..., Tensor]

OF_MAPS: dict[LossName, Loss] = {"feature": maps.feature, "channel": maps.channel}
LOSSES: dict[TaskName, dict[LossName, Loss]] = {
    "classification": {
        "hard": classification.hard,
        "soft": classification.soft,
        "teacher_label": classification.teacher_label,
        "peer": classification.peer,
        "ps_kd": own.ps_kd,
        "mean_teacher": classification.soft,
        **OF_MAPS,
    },
    "multilabel": {
        "hard": multilabel.hard,
        "soft": multilabel.soft,
        "teacher_label": multilabel.teacher_label,
        "peer": multilabel.peer,
        "ps_kd": multilabel.hard,
        "mean_teacher": multilabel.soft,
        **OF_MAPS,
    },
    "regression": {
        "hard": regression.hard,
        "soft": regression.soft,
        "peer": regression.peer,
        "mean_teacher": regression.soft,
        **OF_MAPS,
    },
}
