"""What a class that holds or not is judged by: logits f32[N, C], labels 1, 0, or -1 where nobody knows.

A class is said where its probability reaches its threshold. Macro figures are means over the classes for which they are
defined; unknown elements count nowhere.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tasks.space import Space

from .meter import RowMeter, mean
from .ranking import Ranked, average_precision

LEAST_LOG_P = -100.0
"""Logarithms of probabilities stop here, as in torch's binary cross-entropy."""
THRESHOLD = 0.5
"""Of a class that validation tells nothing of: none of its rows there has it."""


def probabilities(said: Tensor) -> Tensor:
    """f64 of logits, each class for itself."""
    return said.double().sigmoid()


def nll(said: Tensor, labels: Tensor) -> Tensor:
    """-log p of what is so, in nats, f64[rows, C]; 0 where nobody knows."""
    signed = torch.where(labels > 0, said.double(), -said.double())
    return torch.where(labels < 0, 0.0, -F.logsigmoid(signed).clamp_min(LEAST_LOG_P))


class ClassSetMeter(RowMeter):
    """Keeps logits and labels, for ranking needs them all."""

    def __init__(self, space: Space, thresholds: Sequence[float] | None = None) -> None:
        super().__init__("multilabel")
        self.width = space.width
        self.thresholds = torch.tensor(thresholds or [THRESHOLD] * space.width, dtype=torch.float64)
        self._ranked: list[tuple[Tensor, Ranked]] = []

    def _nothing(self) -> tuple[Tensor, Tensor]:
        return torch.empty(0, self.width), torch.empty(0, self.width, dtype=torch.int8)

    def _kept(self, said: Tensor, labels: Tensor) -> dict[str, Tensor]:
        labels = torch.where(said.isnan(), -1, labels)
        judged = (labels >= 0).any(1)
        said, labels = said[judged].float(), labels[judged]
        known = (labels >= 0).sum(1)
        is_said = probabilities(said) >= self.thresholds.to(said.device)
        return {
            "said": said,
            "label": labels.to(torch.int8),
            "is_said": is_said,
            "nll": nll(said, labels).sum(1),
            "known": known.to(torch.int32),
        }

    def join(self, parts: Mapping[str, Tensor]) -> None:
        self._ranked = []
        super().join(parts)

    def _figure(self, key: str, weights: Tensor | None) -> float | None:
        return {
            "macro_average_precision": self._macro_average_precision,
            "micro_f1": self._micro_f1,
            "macro_f1": self._macro_f1,
            "nll": self._nll,
        }[key](weights)

    def average_precisions(self, weights: Tensor | None = None) -> list[float | None]:
        """Of each class."""
        if weights is None:  # once: what is sorted is not kept
            return [self._average_precision(*self._ranking(number), number, None) for number in range(self.width)]
        if not self._ranked:
            self._ranked = [self._ranking(number) for number in range(self.width)]
        return [self._average_precision(*ranking, number, weights) for number, ranking in enumerate(self._ranked)]

    def _ranking(self, number: int) -> tuple[Tensor, Ranked]:
        parts = self.parts()
        known = (parts["label"][:, number] >= 0).nonzero().flatten()
        return known, Ranked.of(parts["said"][known, number])

    def _average_precision(self, known: Tensor, ranked: Ranked, number: int, weights: Tensor | None) -> float | None:
        is_of = self.parts()["label"][known, number] > 0
        return average_precision(ranked, is_of, None if weights is None else weights[known])

    def counts(self, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """By class, f64[C]: known rows that have it and are said to, that have it, that are said to."""
        parts = self.parts()
        true, is_said = parts["label"] > 0, parts["is_said"] & (parts["label"] >= 0)
        both, true, is_said = (_summed(each, weights) for each in (true & is_said, true, is_said))
        return both, true, is_said

    def _macro_average_precision(self, weights: Tensor | None) -> float | None:
        return over_classes(self.average_precisions(weights))

    def _micro_f1(self, weights: Tensor | None) -> float | None:
        both, true, is_said = (float(each.sum()) for each in self.counts(weights))
        return 2 * both / (true + is_said) if true + is_said else None

    def _macro_f1(self, weights: Tensor | None) -> float | None:
        both, true, is_said = self.counts(weights)
        met = true + is_said > 0
        return float((2 * both[met] / (true + is_said)[met]).mean()) if met.any() else None

    def _nll(self, weights: Tensor | None) -> float | None:
        parts = self.parts()
        known = parts["known"].double()
        total = mean(parts["nll"], weights)
        per_row = mean(known, weights)
        return None if total is None or not per_row else total / per_row


def _summed(flags: Tensor, weights: Tensor | None) -> Tensor:
    """Of bool[rows, C] by class, f64[C]; a column at a time, so that nothing of eight bytes an element is made."""
    if weights is None:
        return flags.sum(0).double()
    return torch.stack([weights[flags[:, number]].sum() for number in range(flags.shape[1])])


def over_classes(found: Sequence[float | None]) -> float | None:
    """The mean of those that are defined."""
    defined = [each for each in found if each is not None]
    return fmean(defined) if defined else None
