"""What an estimator learns of classes that each hold or not, and of numbers: of each of them in a row one mean over the terms.

Binary cross-entropy and squared distance are linear in the target up to a constant, so all terms of an objective together
are one target and one weight. Knows nothing of estimators.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.task import AnswerName
from teachers.models.scores import to_logits
from teachers.tasks.space import Space
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..config.terms import HardTerm, TeacherTermCommon
from ..objective.units import Units
from ..runs.run import Run
from .copies import Copies, said_by, without_small
from .labels import batch_labels
from .rows import check_that_there_are_rows, who_is_heard

Floats = NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Elements:
    """Training rows in the order of their keys, `rows` of them all: those of which somebody says every element.

    `weight` f32 [N]; `target` f32 [N, W]: probabilities, or standardised numbers; `logits` f32 [N, W]: the mean of logits,
    of numbers the target once more.
    """

    rows: NDArray[np.intp]
    weight: Floats
    target: Floats
    logits: Floats


Target = tuple[Tensor, Tensor]
"""(what is learnt, as logits) of every row, f32 `[N, W]`, NaN where nobody knows."""


@dataclass(frozen=True)
class Means:
    """How terms are targets, by the kind of answer."""

    of_labels: Callable[[Tensor, HardTerm, float], Target]
    """(labels as a batch has them, the term, probability floor)"""
    of_teachers: Callable[[Tensor, TeacherTermCommon, float, Space], Target]
    """(what they say together, as a rule has it; the term, probability floor, space)"""


def elements(run: Run, transfer_set: TransferSet, probability_floor: float) -> Elements:
    """Raises DataError when no row can be learnt, RecipeError or StoreError when the stores cannot serve the objective."""
    train, space = MergedSplit(transfer_set, "train"), transfer_set.space
    means, labels = MEANS[space.answer], batch_labels(train.usable_labels(), space)
    voices, combinations = who_is_heard(run, train)
    in_units = Units(space).of_label(labels)
    weight, total, scores = torch.zeros(3, *labels.shape)
    for term, combination in zip(run.objective, combinations, strict=True):
        if combination is None:
            target, logits = means.of_labels(labels, _hard(term), probability_floor)
            of_rows = (~labels.isnan()).any(1).float()
        else:
            assert isinstance(term, TeacherTermCommon)
            said, of_rows = said_by(combination, voices, in_units, train)
            target, logits = means.of_teachers(said, term, probability_floor, space)
        share = term.weight * len(labels) * of_rows / of_rows.sum().clamp_min(1e-12)  # a mean over the term's own rows
        known = ~target.isnan()
        weight += share[:, None] * known
        total += share[:, None] * torch.where(known, target, 0.0)
        scores += share[:, None] * torch.where(known, logits, 0.0)
    rows = (weight > 0).all(1).nonzero()[:, 0]  # an estimator has no way to leave an element out
    check_that_there_are_rows(len(rows), run)
    if len(rows) < len(labels):
        told = "%s: an estimator learns whole rows, and of %s of %s nobody says everything: they are left out"
        log.warning(told, run.stage_name, f"{len(labels) - len(rows):,}", f"{len(labels):,}")
    of_rows, mean = weight[rows].mean(1), (total[rows] / weight[rows], scores[rows] / weight[rows])
    return Elements(rows.numpy(), of_rows.numpy(), mean[0].numpy(), mean[1].numpy())


def _hard(term: object) -> HardTerm:
    assert isinstance(term, HardTerm)  # the recipe has no others that hear nobody
    return term


def _set_labels(labels: Tensor, term: HardTerm, floor: float) -> Target:
    share = term.label_smoothing
    return labels * (1 - share) + share / 2, to_logits(labels, "probabilities", max(share, floor), "class_set")


def _set_teachers(said: Tensor, term: TeacherTermCommon, floor: float, space: Space) -> Target:
    if term.loss == "teacher_label":
        holds = torch.where(said.isnan(), said, (said > 0).float())
        return holds, to_logits(holds, "probabilities", floor, "class_set")
    p = torch.sigmoid(said / term.temperature)
    return p, term.temperature * to_logits(p, "probabilities", floor, "class_set")


def _number_labels(labels: Tensor, term: HardTerm, floor: float) -> Target:
    return labels, labels


def _number_teachers(said: Tensor, term: TeacherTermCommon, floor: float, space: Space) -> Target:
    standardised = Units(space).standardised(said)
    return standardised, standardised


MEANS: dict[AnswerName, Means] = {
    "class_set": Means(_set_labels, _set_teachers),
    "values": Means(_number_labels, _number_teachers),
}


def copies_of_sets(target: Floats, weight: Floats, least: float) -> Copies:
    """Rows whose classes each hold or not, so often and so heavy that every class holds in its share of the row.

    With the probabilities of a row in descending order, the copy in which the first k classes hold weighs p_k - p_(k+1):
    at most C + 1 copies. What weighs less than `least` of its row is left out, the others weigh more.
    """
    num_rows, num_classes = target.shape
    order = np.argsort(-target, axis=1, kind="stable")
    edges = np.ones((num_rows, num_classes + 2))
    edges[:, 1:-1], edges[:, -1] = np.take_along_axis(target, order, 1), 0.0
    share = without_small(edges[:, :-1] - edges[:, 1:], least)
    share /= share.sum(1, keepdims=True)
    row, number = np.nonzero(share)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(num_classes)[None], 1)
    holds = rank[row] < number[:, None]
    return Copies(row, holds.astype(np.int32), weight[row] * share[row, number])
