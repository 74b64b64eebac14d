"""Classes one by one: how well each is found, and which is taken for which. Of classification, for reports."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .ranking import Ranked, average_precision


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
    classes, known = logits.shape[-1], ~logits[:, 0].isnan()
    answers = logits.argmax(-1)
    both, true, said = (
        torch.bincount(rows, minlength=classes).tolist()
        for rows in (labels[known & (answers == labels)], labels, answers[known])
    )
    counts = [*zip(both, true, said, strict=True)]
    return {
        "said": said,
        "recall": [hits / rows if rows else None for hits, rows, _ in counts],
        "precision": [hits / rows if rows else None for hits, _, rows in counts],
        "f1": [2 * hits / (rows + others) if rows + others else None for hits, rows, others in counts],
        "average_precision": average_precisions(logits[known], labels[known]) if is_sure else [None] * classes,
    }


def average_precisions(logits: Tensor, labels: Tensor) -> list[float | None]:
    """Of each class, how well its probability ranks its rows before all others; None for a class without a row."""
    probabilities = F.softmax(logits.double(), dim=-1)
    return [
        average_precision(Ranked.of(column), labels == number) for number, column in enumerate(probabilities.unbind(-1))
    ]


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


def confusion(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Rows of which something is said, by true class and by what is said: `matrix` i64[C][C] of at most 30 classes, else None; `largest`: the most
    frequent confusions, as (true, said, rows), at most 100."""
    classes = logits.shape[-1]
    known = ~logits[:, 0].isnan()
    pairs, counts = torch.unique((labels * classes + logits.argmax(-1))[known], return_counts=True)
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
