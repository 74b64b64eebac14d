"""What a teacher's probabilities are worth, learnt from labelled rows that it has not seen; applied when a target is made, never in a store.

These are validation rows; where none has a label, training rows of a teacher that labels them out of fold.

`temperature`: one number that its logits are divided by (Guo et al., 2017). `isotonic`: of each class a rising function of its
probability, one class against all others, and all normalised once more (Zadrozny and Elkan, 2002).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.config.any_teacher import CalibrateName
from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .box_scores import by_class, isotonic_score, score_temperature
from .rising import best_temperature, rising, through
from .stores import of_labelled

Calibrated = Callable[[Tensor], Tensor]
"""Logits f32 `[rows, width]` in the transfer set's classes to calibrated ones; NaN, what is unknown, stays NaN."""
Fit = Callable[[Tensor, Tensor, Tensor, float], Calibrated]
"""(logits `[rows, width]`, labels as a transfer set has them, known bool `[width]`, probability floor)"""


def calibration_of(source: Source, transfer_set: TransferSet) -> Calibrated | None:
    """Of a teacher whose recipe asks for one. Raises RecipeError without a labelled row of what it knows."""
    if source.calibrate is None:
        return None
    said, labels = _unseen(source, transfer_set)
    if not len(labels):
        raise RecipeError(
            f"teachers.{source.name}.calibrate: no labelled row that it has not learnt is of what this teacher knows, so nothing "
            f"can be calibrated; give `split.validation` labelled rows, or remove it"
        )
    known = ~said.isnan().all(0)
    return FITS[transfer_set.space.answer][source.calibrate](said, labels, known, source.probability_floor)


def _unseen(source: Source, transfer_set: TransferSet) -> tuple[Tensor, Tensor]:
    """(what it says f32, labels: of classes i64) of the labelled rows that it has not learnt and whose label it can say."""
    by_training = source.out_of_fold and not transfer_set.report["labelled"]["validation"]
    said, labels = of_labelled(source, transfer_set, "train" if by_training else "validation")
    known = ~said.isnan()
    if labels.is_floating_point():
        rows = known.any(1) & ~labels.isnan().any(1)
        return said[rows], labels[rows]
    labels = labels.long()
    if labels.ndim == 1:
        rows = known.gather(1, labels[:, None])[:, 0] if len(labels) else torch.zeros(0, dtype=torch.bool)
    else:
        labels = torch.where(known, labels, -1)
        rows = (labels >= 0).any(1)
    return said[rows], labels[rows]


@dataclass(frozen=True)
class Divided:
    """Below 1 it makes a teacher surer than it was."""

    temperature: float

    def __call__(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


def _class_temperature(said: Tensor, labels: Tensor, known: Tensor, floor: float) -> Calibrated:
    logits = said.double().masked_fill(~known, -torch.inf)
    return Divided(best_temperature(lambda t: float(F.cross_entropy(logits / t, labels))))


def _set_temperature(said: Tensor, labels: Tensor, known: Tensor, floor: float) -> Calibrated:
    there = labels >= 0
    logits, holds = said.double()[there], labels[there].double()
    return Divided(best_temperature(lambda t: float(F.binary_cross_entropy_with_logits(logits / t, holds))))


def _class_isotonic(said: Tensor, labels: Tensor, known: Tensor, floor: float) -> Calibrated:
    places = known.nonzero().flatten().tolist()
    p = said.masked_fill(~known, -torch.inf).softmax(1)
    steps = {place: rising(p[:, place], labels == place) for place in places}

    def calibrated(logits: Tensor) -> Tensor:
        p = logits.masked_fill(~known.to(logits.device), -torch.inf).softmax(1)
        risen = torch.stack([through(p[:, place], steps[place]) for place in places], 1)
        total = risen.sum(1, keepdim=True)
        shares = torch.where(total > 0, risen / total.clamp_min(torch.finfo(p.dtype).tiny), p[:, places])
        out = logits.clone()
        out[:, places] = torch.log((1 - floor) * shares + floor / len(places))
        return out.masked_fill_(logits.isnan(), torch.nan)

    return calibrated


def _set_isotonic(said: Tensor, labels: Tensor, known: Tensor, floor: float) -> Calibrated:
    steps = {}
    for place in known.nonzero().flatten().tolist():
        there = labels[:, place] >= 0
        if there.any():
            steps[place] = rising(said[there, place].sigmoid(), labels[there, place])

    def calibrated(logits: Tensor) -> Tensor:
        out = logits.clone()
        for place, each in steps.items():
            p = through(logits[:, place].sigmoid(), each)
            out[:, place] = torch.logit((1 - floor) * p + floor / 2)
        return out.masked_fill_(logits.isnan(), torch.nan)

    return calibrated


FITS: dict[AnswerName, dict[CalibrateName, Fit]] = {
    "class_axis": {"temperature": _class_temperature, "isotonic": _class_isotonic},
    "class_set": {"temperature": _set_temperature, "isotonic": _set_isotonic},
    "values": {},
    "boxes": {"temperature": by_class(score_temperature), "isotonic": by_class(isotonic_score)},
}
