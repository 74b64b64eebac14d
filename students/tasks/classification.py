"""One class of C holds of a row; a label is its number, or -1 where nobody knows. What is said are logits, f32[N, C]."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tasks.space import Space

from .class_table import by_class, confusion
from .figure import NOTHING
from .meter import RowMeter, mean
from .standing import Standing, binomial
from .task import Document, Model, Task

NUM_BINS = 15
LEAST_LOG_P = -100.0
"""Logarithms of probabilities stop here, as in torch's binary cross-entropy: a class that a teacher does not know has p = 0."""


def log_probabilities(logits: Tensor) -> Tensor:
    """f64[N, C] at T = 1, bounded below."""
    return F.log_softmax(logits.double(), dim=-1).clamp_min(LEAST_LOG_P)


def answers(said: Tensor) -> Tensor:
    """The class that is said of each row, i64[N]; -1 where nothing is known of it."""
    return said.argmax(-1).masked_fill_(said[:, 0].isnan(), -1)


class ClassMeter(RowMeter):
    """Keeps of a row five numbers, however many classes there are.

    A row of which nothing is known (NaN) is not right; how sure one is, is told of the others.
    """

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
            "said": answers(said[judged]).to(torch.int32),
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
                loss = self._mean_of_known("log_p", weights)
                return None if loss is None else -loss
            case "brier":
                return self._mean_of_known("brier", weights)
            case _:
                return expected_calibration_error(self.reliability(weights))

    def _mean_of_known(self, part: str, weights: Tensor | None) -> float | None:
        values, known = self.parts()[part], self.parts()["said"] >= 0
        return (
            mean(values, weights) if known.all() else mean(values[known], None if weights is None else weights[known])
        )

    def details(self) -> Document:
        return {"reliability": self.reliability()}

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
        return torch.bincount(classes + 1, weights, minlength=self.width + 1)[1:].double()

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
        parts, known = self.parts(), self.parts()["said"] >= 0
        if not known.all():
            parts = {name: values[known] for name, values in parts.items()}
            weights = None if weights is None else weights[known]
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


def both_known(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of which both say something."""
    known = ~(one[:, 0].isnan() | other[:, 0].isnan())
    return (one, other) if known.all() else (one[known], other[known])


def agreement(logits: Tensor, others: Tensor) -> float | None:
    """Share of rows in which both say the same class."""
    return float((logits.argmax(-1) == others.argmax(-1)).double().mean()) if len(logits) else None


def kl(ensemble: Tensor, model: Tensor) -> float | None:
    """Mean KL(ensemble || model) at T = 1, in nats."""
    return (
        float(F.kl_div(log_probabilities(model), log_probabilities(ensemble), reduction="batchmean", log_target=True))
        if len(model)
        else None
    )


def right(said: Tensor, labels: Tensor, space: Space) -> Tensor:
    """1 where the class is right, else 0, f64[N]."""
    return (answers(said) == labels).double()


def beside(said: Tensor, together: Tensor, space: Space) -> Document:
    said, together = both_known(said, together)
    return {"agreement": agreement(said, together), "kl": kl(together, said)}


def tables(everybody: Mapping[str, Model], closely: Model, labels: Tensor, space: Space) -> Document:
    """`by_class`, and of the delivered one who is looked at closely the `confusion`."""
    unsure = {name for name, model in everybody.items() if not model.sure}
    said = {name: model.seeds for name, model in everybody.items()}
    return {
        "by_class": by_class(said, labels, space.names, unsure),
        "confusion": confusion(closely.seeds[0], labels),
    }


def mistakes(model: Model, together: Tensor, labels: Tensor, space: Space, count: int) -> list[tuple[int, Document]]:
    """Rows to which a wrong class is given, the surest first."""
    confidence, said = torch.softmax(model.seeds[0].double(), -1).max(-1)
    wrong = torch.nonzero((said != labels) & ~confidence.isnan()).flatten()
    surest = wrong[torch.argsort(confidence[wrong], descending=True, stable=True)[:count]].tolist()
    return [
        (
            row,
            {
                "label": space.names[int(labels[row])],
                "said": space.names[int(said[row])],
                "confidence": float(confidence[row]),
                "ensemble": NOTHING if together[row].isnan().any() else space.names[int(together[row].argmax())],
            },
        )
        for row in surest
    ]


IMBALANCE = 0.1
"""How far the share of the commonest class is above an even one before it is told beside accuracies."""


def commonest(labels: Tensor, of_training: Tensor, space: Space) -> Document:
    """The class with the most rows, its share of them, and how many classes have rows."""
    counts = torch.bincount(labels)
    name, share, classes = space.names[int(counts.argmax())], int(counts.max()) / len(labels), int((counts > 0).sum())
    remark = f"The classes are uneven: who always answers {name!r} has an accuracy of {100 * share:.1f} %."
    is_told = share >= 1 / classes + IMBALANCE
    return {"class": name, "share": share, "classes": classes, "remark": remark if is_told else None}


def standing(said: Tensor, labels: Tensor, known: Tensor, of_training: Tensor, space: Space) -> Standing:
    """On the rows whose class the teacher knows there, by the exact binomial test."""
    mine = known.expand_as(said).gather(1, labels[:, None])[:, 0]
    meter = ClassMeter(space)
    meter.update(said[mine], labels[mine])
    _, true, _ = meter.counts()
    right, rows, most = int(sum(meter.counts()[0])), int(mine.sum()), int(true.max())
    found, name, figures = binomial(right, rows, most), space.names[int(true.argmax())], meter.figures()
    return {
        **found,
        "accuracy": figures["accuracy"],
        "figures": figures,
        "scale": 1.0,
        "commonest": name,
        "words": {
            "found": f"right on {right:,} of {rows:,} {{rows}} ({right / max(rows, 1):.1%})",
            "always": f"answering {name!r}",
            "that": f"on {most / max(rows, 1):.1%}",
            "constant": f"{most / max(rows, 1):.1%}",
            "test": "one-sided exact binomial test",
            "open": _why_open(rows, most, name),
        },
    }


def _why_open(rows: int, most: int, name: str) -> str:
    if not rows:
        return "no {row} is of a class that it knows"
    if most == rows:
        return f"all {rows:,} {{rows}} are of one class, {name!r}"
    return (
        f"{most / rows:.1%} of the {rows:,} {{rows}} are of class {name!r}, "
        f"so no teacher could show that it is better than always answering that"
    )


def unjudged(said: Tensor, space: Space) -> Document:
    """`entropy`: the mean of the rows', in nats; `coverage`: the share of the classes that it says of some row; `said`: by
    class, the share of rows that are said to be of it."""
    said = said[~said[:, 0].isnan()]
    log_p = log_probabilities(said)
    counts = torch.bincount(said.argmax(-1), minlength=space.width)
    return {
        "entropy": float(-(log_p.exp() * log_p).sum(-1).mean()) if len(said) else None,
        "coverage": float((counts > 0).double().mean()),
        "said": dict(zip(space.names, (counts.double() / max(len(said), 1)).tolist(), strict=True)),
    }


CLASSIFICATION = Task(
    name="classification",
    meter=ClassMeter,
    merits=right,
    is_mean_of_merits=True,
    beside=beside,
    tables=tables,
    mistakes=mistakes,
    commonest=commonest,
    standing=standing,
    unjudged=unjudged,
)
