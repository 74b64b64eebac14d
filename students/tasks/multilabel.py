"""Any of C classes hold of a row, each with a logit of its own; a label is 1, 0, or -1 where nobody knows.

A class is said where its probability reaches its threshold: 0.5, or the one with the best F1 on validation.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.tasks.space import Space

from .class_set import LEAST_LOG_P, THRESHOLD, ClassSetMeter, over_classes, probabilities
from .figure import headline
from .ranking import Ranked, placements
from .standing import Standing, by_permutation, interval
from .task import Document, Model, Task


def merits(said: Tensor, labels: Tensor, space: Space) -> Tensor:
    """The mean over a row's known classes of how well it is placed among the rows of the other side (`placements`).

    Like the headline it asks how each class ranks rows and not how sure a network is: whoever scales a class's logits
    has the same.
    """
    total, known = torch.zeros(len(labels), dtype=torch.float64), (labels >= 0) & ~said.isnan()
    for number in range(space.width):
        rows = known[:, number].nonzero().flatten()
        total[rows] += placements(Ranked.of(said[rows, number]), labels[rows, number] > 0)
    return total / known.sum(1).clamp_min(1)


def best_thresholds(said: Tensor, labels: Tensor, space: Space | None = None) -> tuple[float, ...]:
    """Of each class the probability from which on it is said, for the best F1 on these rows.

    It lies half-way from the last probability that is said to the next one below; of equally good ones it is the highest.
    """
    return tuple(
        _best_threshold(probabilities(column[is_known]), known[is_known] > 0)
        for column, known in zip(said.unbind(1), labels.unbind(1), strict=True)
        for is_known in [(known >= 0) & ~column.isnan()]
    )


def _best_threshold(scores: Tensor, is_of: Tensor) -> float:
    if not is_of.any():
        return THRESHOLD
    ranked = Ranked.of(scores)
    hits = ranked.up_to_each(is_of.double())
    best = int((2 * hits / (ranked.last + 1 + hits[-1])).argmax())
    levels = torch.cat([scores[ranked.order[ranked.last]], scores.new_zeros(1)])
    here, below = float(levels[best]), float(levels[best + 1])
    middle = (here + below) / 2
    return middle if middle > below else here


def beside(said: Tensor, together: Tensor, space: Space) -> Document:
    """`agreement`: the share of (row, class) of which both say the same at a probability of 0.5; `kl`: the mean over them
    of KL(together || said) of whether the class holds, in nats."""
    known = ~(said.isnan() | together.isnan())
    mine, theirs = said[known].double(), together[known].double()
    if not len(mine):
        return {"agreement": None, "kl": None}
    p = theirs.sigmoid()
    divergence = p * (_log_p(theirs) - _log_p(mine)) + (1 - p) * (_log_p(-theirs) - _log_p(-mine))
    return {"agreement": float(((mine >= 0) == (theirs >= 0)).double().mean()), "kl": float(divergence.mean())}


def _log_p(logits: Tensor) -> Tensor:
    return F.logsigmoid(logits).clamp_min(LEAST_LOG_P)


def tables(everybody: Mapping[str, Model], closely: Model, labels: Tensor, space: Space) -> Document:
    """`by_class`: of each class its rows, and by name what is said of it, its figures and its threshold."""
    found = {name: [_by_class(*each, labels, space) for each in _seeds(model)] for name, model in everybody.items()}
    return {
        "by_class": {
            "classes": list(space.names),
            "support": (labels > 0).sum(0).tolist(),
            "known": (labels >= 0).sum(0).tolist(),
            **{
                figure: {
                    name: [over_classes(values) for values in zip(*(each[figure] for each in seeds), strict=True)]
                    for name, seeds in found.items()
                }
                for figure in ("said", "recall", "precision", "f1", "average_precision", "threshold")
            },
        }
    }


def _seeds(model: Model) -> Iterator[tuple[Tensor, Sequence[float] | None]]:
    thresholds = model.thresholds if len(model.thresholds) == len(model.seeds) else [None] * len(model.seeds)
    yield from zip(model.seeds, thresholds, strict=True)


def _by_class(
    said: Tensor, thresholds: Sequence[float] | None, labels: Tensor, space: Space
) -> dict[str, list[float | None]]:
    meter = ClassSetMeter(space, thresholds)
    meter.update(said, labels)
    both, true, is_said = (each.tolist() for each in meter.counts())
    counts = [*zip(both, true, is_said, strict=True)]
    return {
        "said": is_said,
        "recall": [hits / rows if rows else None for hits, rows, _ in counts],
        "precision": [hits / rows if rows else None for hits, _, rows in counts],
        "f1": [2 * hits / (rows + others) if rows + others else None for hits, rows, others in counts],
        "average_precision": meter.average_precisions(),
        "threshold": meter.thresholds.tolist(),
    }


def mistakes(model: Model, together: Tensor, labels: Tensor, space: Space, count: int) -> list[tuple[int, Document]]:
    """Rows of which a class is said, or is not, that the probability of the other is least of; each with all its classes."""
    said, thresholds = next(_seeds(model))
    p = probabilities(said)
    at = torch.tensor(thresholds or [THRESHOLD] * space.width, dtype=torch.float64)
    is_wrong = ((p >= at) != (labels > 0)) & (labels >= 0)
    surety = torch.where(is_wrong, torch.where(labels > 0, 1 - p, p), -1.0).amax(1)
    rows = torch.argsort(surety, descending=True, stable=True)[:count]
    return [
        (
            row,
            {
                "label": _named(labels[row] > 0, space),
                "said": _named(p[row] >= at, space),
                "confidence": float(surety[row]),
                "ensemble": _named(together[row] >= 0, space),
            },
        )
        for row in rows[surety[rows] >= 0].tolist()
    ]


def _named(flags: Tensor, space: Space) -> str:
    return ", ".join(name for name, holds in zip(space.names, flags.tolist(), strict=True) if holds) or NO_CLASS


NO_CLASS = "none"


def frequencies(labels: Tensor, space: Space) -> Tensor:
    """Of each class the share of the rows where it is known that have it, f64[C]; 0 where nobody knows it."""
    return (labels > 0).double().sum(0) / (labels >= 0).double().sum(0).clamp_min(1)


def commonest(labels: Tensor, of_training: Tensor, space: Space) -> Document:
    """What it comes to to give every row the frequencies of the training rows."""
    meter = ClassSetMeter(space)
    meter.update(torch.logit(frequencies(of_training, space), 1e-6).float().expand(len(labels), -1), labels)
    figures = meter.figures()
    shown = headline("multilabel").shown(figures["macro_average_precision"])
    remark = (
        f"Who gives every row the frequencies of the classes in training rows has a macro AP of {shown} and "
        f"{figures['nll']:.3f} nats per class."
    )
    return {"figures": figures, "remark": remark}


def standing(said: Tensor, labels: Tensor, known: Tensor, of_training: Tensor, space: Space) -> Standing:
    """By permutation: whether its answers have anything to do with the rows that they are given to."""
    labels = torch.where(known, labels, -1)
    judged = (labels >= 0).any(1)
    said, labels = said[judged], labels[judged]
    meter = ClassSetMeter(space)
    meter.update(said, labels)
    figures, rows = meter.figures(), len(labels)
    p_value, stands = by_permutation("multilabel", ClassSetMeter, said, labels, space)
    low, high = interval(meter, "macro_average_precision")
    shown = headline("multilabel").shown(figures["macro_average_precision"])
    by_chance = over_classes([share for share in frequencies(labels, space).tolist() if share])
    constant = headline("multilabel").shown(by_chance)
    return {
        "rows": rows,
        "figures": figures,
        "low": low,
        "high": high,
        "scale": 1.0,
        "p_value": p_value,
        "stands": stands,
        "words": {
            "found": f"macro AP {shown} on {rows:,} {{rows}}",
            "always": "giving every row the same answer",
            "that": f"has {constant}",
            "constant": constant,
            "test": "one-sided permutation test",
            "open": "no {row} has a class that it knows"
            if by_chance is None
            else f"of {rows:,} {{rows}} no teacher could show that it is better than always giving the same answer",
        },
    }


def unjudged(said: Tensor, space: Space) -> Document:
    """`entropy`: the mean over rows and classes, in nats; `coverage`: the share of the classes that it says of some row;
    `said`: by class, the share of rows of which it is said, at a probability of 0.5."""
    p, known = probabilities(said), ~said.isnan()
    entropy = -(p * _log_p(said.double()) + (1 - p) * _log_p(-said.double()))
    shares = ((said >= 0) & known).double().sum(0) / known.sum(0).clamp_min(1)
    return {
        "entropy": float(entropy[known].mean()) if known.any() else None,
        "coverage": float((shares > 0).double().mean()),
        "said": dict(zip(space.names, shares.tolist(), strict=True)),
    }


MULTILABEL = Task(
    name="multilabel",
    meter=ClassSetMeter,
    merits=merits,
    is_mean_of_merits=False,
    beside=beside,
    tables=tables,
    mistakes=mistakes,
    commonest=commonest,
    standing=standing,
    unjudged=unjudged,
    thresholds=best_thresholds,
)
