"""Which function a term's `loss` is, task by task."""

from collections.abc import Callable

from torch import Tensor

from teachers.config.task import TaskName

from ...config.terms import LossName
from . import classification, detection, maps, multilabel, regression
from .loss import Loss

OF_MAPS: dict[LossName, Loss] = {"feature": maps.feature, "channel": maps.channel}
LOSSES: dict[TaskName, dict[LossName, Loss]] = {
    "classification": classification.LOSSES | OF_MAPS,
    "multilabel": multilabel.LOSSES | OF_MAPS,
    "regression": regression.LOSSES | OF_MAPS,
    "detection": detection.LOSSES,
}
READY: dict[TaskName, dict[LossName, tuple[Callable[..., Tensor], Loss]]] = {
    "classification": classification.READY,
    "multilabel": {},
    "regression": {},
    "detection": {},
}
"""Losses that make something of the target alone: `fn(target, **keywords)` for it, row by row, and the loss of what that gives."""
COMPARE_ROWS: tuple[LossName, ...] = ("dist",)
"""Losses in which rows are compared with each other: they are told what each counts (`weight`)."""
