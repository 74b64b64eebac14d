"""Figures of merit: functions of logits f32[N, C] and labels i64[N], summed in float64. Knows nothing of files or models."""

from collections.abc import Mapping, Sequence
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


def by_class(said: Mapping[str, Sequence[Tensor]], labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """`classes`, their rows (`support`) and by name each one's recall, None without a row; of several, seeds, the mean."""
    recalls = {name: [recall(logits, labels) for logits in seeds] for name, seeds in said.items()}
    return {
        "classes": list(classes),
        "support": torch.bincount(labels, minlength=len(classes)).tolist(),
        "recall": {name: [_mean(shares) for shares in zip(*seeds, strict=True)] for name, seeds in recalls.items()},
    }


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


def agreement_matrix(logits: Mapping[str, Tensor]) -> dict[str, Any]:
    """Top-1 agreement of everyone with everyone: `names` and a symmetric `matrix` with ones on its diagonal."""
    names = list(logits)
    matrix = [[1.0] * len(names) for _ in names]
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        matrix[i][j] = matrix[j][i] = agreement(logits[one], logits[other])
    return {"names": names, "matrix": matrix}
