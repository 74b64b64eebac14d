"""What an estimator learns of soft targets: the rows, and how much of each is which class.

The engine's objective is a weighted sum of terms, each a mean over its rows. With cross-entropies it is linear in the targets,
so all terms together are one distribution and one weight a row: a classifier that takes weighted rows learns just that from
copies of them. Knows nothing of estimators.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from teachers.soft_targets.combine.class_scores import LOG_ZERO
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..config.terms import HardTerm, TeacherTermCommon
from ..objective.class_weights import class_weights
from ..objective.combination import Combination
from ..objective.voices import Chorus, Voice
from ..runs.run import Run
from .rows import check_that_there_are_rows, who_is_heard
from .told import told_of_rows

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taught:
    """What the terms of an objective make of the training rows in the order of their keys, which are `rows` of them all.

    `weights` f32 [N, C]: of each class in each row, summed over the terms; `logits` f32 [N, C]: their weighted mean of logits.
    """

    rows: NDArray[np.intp]
    weights: Floats
    logits: Floats


def taught(run: Run, transfer_set: TransferSet, probability_floor: float) -> Taught:
    """Raises DataError when no row can be learnt, RecipeError or StoreError when the stores cannot serve the objective."""
    train = MergedSplit(transfer_set, "train")
    labels = torch.from_numpy(train.labels().astype(np.int64))
    has_label = torch.from_numpy(train.labelled()) & (labels >= 0)
    classes = transfer_set.space.width
    voices, combinations = who_is_heard(run, train)
    total, scores = torch.zeros(2, len(labels), classes)
    cost = class_weights(run.train.class_weights, labels[has_label].numpy(), transfer_set.space.names, run.stage_name)
    for term, combination in zip(run.objective, combinations, strict=True):
        if isinstance(term, HardTerm):
            of_rows = torch.where(has_label, 1.0 if cost is None else cost[labels.clip(min=0)], 0.0)
            target = _smoothed(labels, classes, term.label_smoothing)
            logits = _smoothed(labels, classes, max(term.label_smoothing, probability_floor)).log()
        else:
            assert isinstance(term, TeacherTermCommon) and combination is not None
            logits, of_rows = said_by(combination, voices, torch.where(has_label, labels, -1), train)
            # a copy of a row can be of a class, and of no class it cannot say nothing: what nobody knows has probability 0
            logits.nan_to_num_(nan=term.temperature * LOG_ZERO)
            target = (logits / term.temperature).softmax(-1)
            logits = logits.clamp_min(
                term.temperature * math.log(probability_floor / classes)
            )  # of classes nobody knows
            if term.loss == "teacher_label":
                target = F.one_hot(logits.argmax(-1), classes).float()
                logits = _smoothed(logits.argmax(-1), classes, probability_floor).log()
        share = term.weight * len(labels) * of_rows / of_rows.sum().clamp_min(1e-12)  # a mean over the term's own rows
        total += share[:, None] * target
        scores += share[:, None] * (logits - logits.mean(-1, keepdim=True))
    weight = total.sum(-1, keepdim=True)
    rows = (has_label if run.labelled_only else weight[:, 0] > 0).nonzero()[:, 0]
    check_that_there_are_rows(len(rows), run)
    mean = scores / weight.clamp_min(1e-12)
    return Taught(rows.numpy(), total[rows].numpy(), mean[rows].numpy())


def _smoothed(labels: Tensor, classes: int, share: float) -> Tensor:
    """Labels i64 [N] (below 0: whatever) as distributions f32 [N, C] of which `share` is spread over all classes."""
    return (1 - share) * F.one_hot(labels.clip(min=0), classes).float() + share / classes


def said_by(
    combination: Combination, voices: dict[str, Voice], labels: Tensor, train: MergedSplit
) -> tuple[Tensor, Tensor]:
    """The target that the combined teachers are f32 [N, W], NaN of what nobody knows, and the weight of each row f32 [N]."""
    combination.refuse_estimator()
    told = replace(told_of_rows(train, [combination]), labels=labels)
    chorus = Chorus([voices[name] for name in combination.teachers])
    target, weight = torch.zeros(len(labels), chorus.known.shape[-1]), torch.zeros(len(labels))
    for rows, said, known in chorus.in_chunks(len(labels)):
        of_rows = told.of(combination, rows)
        found, weights = combination.target(said, known, **of_rows, check=not rows.start, complete=chorus.knows_all)
        target[rows], weight[rows] = found, weights.sum(0)
    return target, weight


@dataclass(frozen=True)
class Copies:
    """Rows to be learnt: `row` i64 [M] of the N that there are, `label` i32 [M], or of classes that each hold or not [M, C],
    `weight` f64 [M]."""

    row: NDArray[np.intp]
    label: NDArray[np.int32]
    weight: NDArray[np.float64]


def without_small(share: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Shares of a row [N, K] with 0 for those below `least`; a row's largest stays."""
    share[(share < least) & (share < share.max(1, keepdims=True))] = 0.0
    return share


def copies(weights: Floats, least: float) -> Copies:
    """Each row once for every class that has a share of it of `least` or more; what is left out, the others weigh more."""
    total = weights.sum(1, keepdims=True, dtype=np.float64)
    share = without_small(weights / total, least)
    share *= total / share.sum(1, keepdims=True)
    row, label = np.nonzero(share)
    return Copies(row, label.astype(np.int32), share[row, label])
