"""Figures of merit: functions of logits f32[N, C] and labels i64[N], summed in float64. Knows nothing of files or models."""

from collections.abc import Mapping
from itertools import combinations
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


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Mean F1 of the classes that are said or true in some row; a class that is never both counts 0."""
    classes = logits.shape[-1]
    confusion = (
        torch.bincount(labels * classes + logits.argmax(-1), minlength=classes**2).view(classes, classes).double()
    )
    both, either = confusion.diag(), confusion.sum(0) + confusion.sum(1)
    met = either > 0
    return float((2 * both[met] / either[met]).mean())


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


def all_metrics(logits: Tensor, labels: Tensor, ensemble: Tensor | None = None) -> dict[str, Any]:
    """Everything above of one model; `agreement` and `kl` only beside an ensemble."""
    bins = reliability(logits, labels)
    document = {
        "accuracy": accuracy(logits, labels),
        "macro_f1": macro_f1(logits, labels),
        "nll": nll(logits, labels),
        "ece": expected_calibration_error(bins),
        "reliability": bins,
    }
    if ensemble is not None:
        document |= {"agreement": agreement(logits, ensemble), "kl": kl(ensemble, logits)}
    return document


def agreement_matrix(logits: Mapping[str, Tensor]) -> dict[str, Any]:
    """Top-1 agreement of everyone with everyone: `names` and a symmetric `matrix` with ones on its diagonal."""
    names = list(logits)
    matrix = [[1.0] * len(names) for _ in names]
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        matrix[i][j] = matrix[j][i] = agreement(logits[one], logits[other])
    return {"names": names, "matrix": matrix}
