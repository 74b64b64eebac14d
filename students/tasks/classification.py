"""One class of C holds of a row; a label is its number, or -1 where nobody knows. What is said are logits, f32[N, C]."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tasks.space import Space

from .meter import RowMeter, mean
from .task import Task

NUM_BINS = 15
LEAST_LOG_P = -100.0
"""Logarithms of probabilities stop here, as in torch's binary cross-entropy: a class that a teacher does not know has p = 0."""


def log_probabilities(logits: Tensor) -> Tensor:
    """f64[N, C] at T = 1, bounded below."""
    return F.log_softmax(logits.double(), dim=-1).clamp_min(LEAST_LOG_P)


class ClassMeter(RowMeter):
    """Keeps of a row five numbers, however many classes there are."""

    def __init__(self, space: Space, thresholds: Sequence[float] | None = None) -> None:
        super().__init__("classification")
        self.width = space.width

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.empty(0, self.width), torch.empty(0, dtype=torch.int64)

    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        judged = labels >= 0
        labels = labels[judged].long()
        log_p = log_probabilities(said[judged])
        own = log_p.gather(1, labels[:, None]).flatten()
        p = log_p.exp_()
        return {
            "said": said[judged].argmax(-1).to(torch.int32),
            "label": labels.to(torch.int32),
            "log_p": own,
            "confidence": p.amax(-1),
            "brier": (p * p).sum(-1) - 2 * own.exp() + 1,
        }

    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        parts = self.parts()
        match key:
            case "accuracy":
                return mean((parts["said"] == parts["label"]).double(), weights)
            case "balanced_accuracy":
                return _over_defined(self.recalls(weights))
            case "macro_f1":
                return self._macro_f1(weights)
            case "nll":
                loss = mean(parts["log_p"], weights)
                return None if loss is None else -loss
            case "brier":
                return mean(parts["brier"], weights)
            case _:
                return expected_calibration_error(self.reliability(weights))

    def counts(self, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """By class, f64[C]: rows that are of it and said to be, that are of it, that are said to be."""
        parts = self.parts()
        said, labels = parts["said"], parts["label"]
        right = said == labels
        return (
            self._counted(labels[right], None if weights is None else weights[right]),
            self._counted(labels, weights),
            self._counted(said, weights),
        )

    def _counted(self, classes: Tensor, weights: Tensor | None) -> Tensor:
        return torch.bincount(classes, weights, minlength=self.width).double()

    def recalls(self, weights: Tensor | None = None) -> list[float | None]:
        """Of each class, the share of its rows that are said to be of it; None for a class without a row."""
        both, true, _ = self.counts(weights)
        return [share if rows else None for share, rows in zip((both / true).tolist(), true.tolist(), strict=True)]

    def _macro_f1(self, weights: Tensor | None) -> float | None:
        """Mean F1 of the classes that are said or true in some row; a class that is never both counts 0."""
        both, true, said = self.counts(weights)
        met = true + said > 0
        return float((2 * both[met] / (true + said)[met]).mean()) if met.any() else None

    def reliability(self, weights: Tensor | None = None) -> list[dict[str, Any]]:
        """What a confidence is worth: 15 bins (low, high] of equal width; an empty bin has no confidence and no accuracy."""
        parts = self.parts()
        confidence, right = parts["confidence"], (parts["said"] == parts["label"]).double()
        number = (confidence * NUM_BINS).ceil().long().sub(1).clamp(0, NUM_BINS - 1)
        count = torch.bincount(number, weights, minlength=NUM_BINS)
        of = 1.0 if weights is None else weights
        sure = torch.bincount(number, weights=of * confidence, minlength=NUM_BINS)
        hits = torch.bincount(number, weights=of * right, minlength=NUM_BINS)
        return [
            {"confidence": s / n if n else None, "accuracy": r / n if n else None, "count": int(n)}
            for s, r, n in zip(sure.tolist(), hits.tolist(), count.tolist(), strict=True)
        ]


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Mean distance of confidence and accuracy over the bins, weighted by rows (Guo et al., 2017, equation 3)."""
    filled = [bin for bin in bins if bin["count"]]
    if not filled:
        return None
    gap = sum(bin["count"] * abs(bin["confidence"] - bin["accuracy"]) for bin in filled)
    return float(gap / sum(bin["count"] for bin in filled))


def _over_defined(shares: Sequence[float | None]) -> float | None:
    defined = [share for share in shares if share is not None]
    return fmean(defined) if defined else None


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
    """Every figure of one model; `agreement` and `kl` only beside an ensemble.

    `sure`, `ensemble_sure`: whether the probabilities are what the model (the ensemble) says. Where they are made of
    classes alone they say nothing of it, and figures of them are None.
    """
    meter = ClassMeter(Space("classification", tuple(map(str, range(logits.shape[-1])))))
    meter.update(logits, labels)
    figures: dict[str, Any] = {**meter.figures(), "reliability": meter.reliability()}
    if not sure:
        figures |= dict.fromkeys(("nll", "brier", "ece", "reliability"))
    if ensemble is not None:
        both = sure and ensemble_sure
        figures |= {"agreement": agreement(logits, ensemble), "kl": kl(ensemble, logits) if both else None}
    return figures


def agreement_matrix(logits: Mapping[str, Tensor]) -> dict[str, Any]:
    """Top-1 agreement of everyone with everyone: `names` and a symmetric `matrix` with ones on its diagonal."""
    names = list(logits)
    matrix = [[1.0] * len(names) for _ in names]
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        matrix[i][j] = matrix[j][i] = agreement(logits[one], logits[other])
    return {"names": names, "matrix": matrix}


def right(said: Tensor, labels: Tensor, space: Space) -> Tensor:
    """1 where the class is right, else 0, f64[N]."""
    return (said.argmax(-1) == labels).double()


CLASSIFICATION = Task(name="classification", meter=ClassMeter, merits=right, is_mean_of_merits=True)
