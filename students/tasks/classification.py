"""Figures of merit: functions of logits f32[N, C] and labels i64[N], summed in float64. Knows nothing of files or models."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_BINS = 15
LEAST_LOG_P = -100.0
"""Logarithms of probabilities stop here, as in torch's binary cross-entropy: a class that a teacher does not know has p = 0."""


def log_probabilities(logits: Tensor) -> Tensor:
    """f64[N, C] at T = 1, bounded below."""
    return F.log_softmax(logits.double(), dim=-1).clamp_min(LEAST_LOG_P)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(-1) == labels).double().mean())


def _counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By class, f64[C]: rows that are of it and said to be, that are of it, that are said to be."""
    said, classes = logits.argmax(-1), logits.shape[-1]
    found = [torch.bincount(rows, minlength=classes).double() for rows in (labels[said == labels], labels, said)]
    return found[0], found[1], found[2]


def recall(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Of each class, the share of its rows that are said to be of it; None for a class without a row."""
    both, true, _ = _counts(logits, labels)
    return [share if rows else None for share, rows in zip((both / true).tolist(), true.tolist(), strict=True)]


def balanced_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Mean recall of the classes that have a row: what accuracy would be if all had equally many."""
    return fmean(share for share in recall(logits, labels) if share is not None)


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Mean F1 of the classes that are said or true in some row; a class that is never both counts 0."""
    both, true, said = _counts(logits, labels)
    met = true + said > 0
    return float((2 * both[met] / (true + said)[met]).mean())


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    return float(F.nll_loss(log_probabilities(logits), labels))


def reliability(logits: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """What a confidence is worth: 15 bins (low, high] of equal width; an empty bin has no confidence and no accuracy."""
    confidence, said = log_probabilities(logits).exp().max(-1)
    number = (confidence * NUM_BINS).ceil().long().sub(1).clamp(0, NUM_BINS - 1)
    count = torch.bincount(number, minlength=NUM_BINS)
    sure = torch.bincount(number, weights=confidence, minlength=NUM_BINS)
    right = torch.bincount(number, weights=(said == labels).double(), minlength=NUM_BINS)
    return [
        {"confidence": s / n if n else None, "accuracy": r / n if n else None, "count": n}
        for s, r, n in zip(sure.tolist(), right.tolist(), count.tolist(), strict=True)
    ]


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by rows (Guo et al., 2017, equation 3)."""
    filled = [bin for bin in bins if bin["count"]]
    gap = sum(bin["count"] * abs(bin["confidence"] - bin["accuracy"]) for bin in filled)
    return float(gap / sum(bin["count"] for bin in filled))


def agreement(logits: Tensor, others: Tensor) -> float:
    """Share of rows in which both say the same class."""
    return float((logits.argmax(-1) == others.argmax(-1)).double().mean())


def kl(ensemble: Tensor, model: Tensor) -> float:
    """Mean KL(ensemble || model) at T = 1, in nats."""
    return float(
        F.kl_div(log_probabilities(model), log_probabilities(ensemble), reduction="batchmean", log_target=True)
    )


def all_metrics(
    logits: Tensor, labels: Tensor, ensemble: Tensor | None = None, *, sure: bool = True, ensemble_sure: bool = True
) -> dict[str, Any]:
    """Everything above of one model; `agreement` and `kl` only beside an ensemble.

    `sure`, `ensemble_sure`: whether the probabilities are what the model (the ensemble) says. Where they are made of
    classes alone they say nothing of it, and `nll`, `ece`, `reliability` and `kl` are None.
    """
    bins = reliability(logits, labels) if sure else None
    document = {
        "accuracy": accuracy(logits, labels),
        "balanced_accuracy": balanced_accuracy(logits, labels),
        "macro_f1": macro_f1(logits, labels),
        "nll": nll(logits, labels) if sure else None,
        "ece": expected_calibration_error(bins) if bins is not None else None,
        "reliability": bins,
    }
    if ensemble is not None:
        both = sure and ensemble_sure
        document |= {"agreement": agreement(logits, ensemble), "kl": kl(ensemble, logits) if both else None}
    return document


def average_precision(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Of each class, how well its probability ranks its rows before all others: sum over ranks of precision times the
    recall that is gained there, equal probabilities at once; scikit-learn's. None for a class without a row.

    Unlike recall it depends on no threshold, so it tells of a class that is too rare to be said.
    """
    rows, classes = logits.shape
    probabilities = F.softmax(logits.double(), dim=-1)
    found: list[float | None] = []
    at_once = max(1, ELEMENTS // max(rows, 1))
    for first in range(0, classes, at_once):
        some = range(first, min(first + at_once, classes))
        is_of = labels[:, None] == torch.tensor([*some])
        scores, order = probabilities[:, some.start : some.stop].sort(dim=0, descending=True)
        found += _average_precisions(scores, is_of.gather(0, order).double())
    return found


ELEMENTS = 1 << 23
"""Of probabilities that are ranked at a time."""


def _average_precisions(scores: Tensor, is_of: Tensor) -> list[float | None]:
    """Of columns f64[N, C] of scores in descending order, and of who is of the class."""
    hits = is_of.cumsum(0)
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    ends = torch.ones_like(scores, dtype=torch.bool)
    ends[:-1] = scores[1:] != scores[:-1]  # the last of those that are equal
    before = torch.where(ends, hits, 0.0).cummax(0).values
    gained = torch.where(ends, hits, 0.0)
    gained[1:] -= before[:-1]
    areas = torch.where(ends, gained * hits / ranks, 0.0).sum(0)
    total = is_of.sum(0)
    return [area if rows else None for area, rows in zip((areas / total).tolist(), total.tolist(), strict=True)]


def by_class(
    said: Mapping[str, Sequence[Tensor]], labels: Tensor, classes: Sequence[str], class_only: Collection[str] = ()
) -> dict[str, Any]:
    """A table of classes: `classes`, their rows (`support`), and by name figures of each class; of several, seeds, the mean.

    `said`: rows that are said to be of it; `recall`, `precision`, `f1`, `average_precision`: None where they are not
    defined. `class_only`: whose probabilities are not their own, so nothing is ranked by them. `rare`: classes with less
    than half of the rows that they would have if all that have some had equally many; and over these the mean of the
    average precision by name.
    """
    support = torch.bincount(labels, minlength=len(classes)).tolist()
    found = {
        name: [_of_classes(logits, labels, name not in class_only) for logits in seeds] for name, seeds in said.items()
    }
    figures = {
        figure: {
            name: [_mean(values) for values in zip(*(each[figure] for each in seeds), strict=True)]
            for name, seeds in found.items()
        }
        for figure in FIGURES
    }
    few = RARE * len(labels) / max(1, sum(map(bool, support)))
    rare = [number for number, rows in enumerate(support) if 0 < rows < few]
    return {
        "classes": list(classes),
        "support": support,
        **figures,
        "rare": {
            "classes": [classes[number] for number in rare],
            "average_precision": {
                name: _mean([shares[number] for number in rare])
                for name, shares in figures["average_precision"].items()
            },
        },
    }


FIGURES = ("said", "recall", "precision", "f1", "average_precision")
RARE = 0.5
"""Of an even share of the rows."""


def _of_classes(logits: Tensor, labels: Tensor, is_sure: bool) -> dict[str, list[float | None]]:
    both, true, said = (each.tolist() for each in _counts(logits, labels))
    counts = [*zip(both, true, said, strict=True)]
    return {
        "said": said,
        "recall": [hits / rows if rows else None for hits, rows, _ in counts],
        "precision": [hits / rows if rows else None for hits, _, rows in counts],
        "f1": [2 * hits / (rows + others) if rows + others else None for hits, rows, others in counts],
        "average_precision": average_precision(logits, labels) if is_sure else [None] * len(both),
    }


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


def confusion(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Rows by true class and by what is said: `matrix` i64[C][C] of at most 30 classes, else None; `largest`: the most
    frequent confusions, as (true, said, rows), at most 100."""
    classes = logits.shape[-1]
    pairs, counts = torch.unique(labels * classes + logits.argmax(-1), return_counts=True)
    counted = [
        (pair // classes, pair % classes, rows) for pair, rows in zip(pairs.tolist(), counts.tolist(), strict=True)
    ]
    wrong = sorted((pair for pair in counted if pair[0] != pair[1]), key=lambda pair: (-pair[2], pair))
    matrix = None
    if classes <= MATRIX_CLASSES:
        matrix = [[0] * classes for _ in range(classes)]
        for true, said, rows in counted:
            matrix[true][said] = rows
    return {"matrix": matrix, "largest": [list(pair) for pair in wrong[:LARGEST]]}


MATRIX_CLASSES = 30
LARGEST = 100


def agreement_matrix(logits: Mapping[str, Tensor]) -> dict[str, Any]:
    """Top-1 agreement of everyone with everyone: `names` and a symmetric `matrix` with ones on its diagonal."""
    names = list(logits)
    matrix = [[1.0] * len(names) for _ in names]
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        matrix[i][j] = matrix[j][i] = agreement(logits[one], logits[other])
    return {"names": names, "matrix": matrix}
