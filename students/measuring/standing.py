"""How teachers stand before anybody learns from them: beside always giving the commonest answer, and beside each other.

Reads their label stores of one split, never of test. Knows nothing of recipes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from teachers.models.adapters import look_like_probabilities
from teachers.soft_targets.combine.class_scores import mean_probability
from teachers.soft_targets.combine.rules import align
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

from .evaluate import FORMAT
from .hearing import Source, hear
from .labelled import ROWS_AT_ONCE, Labelled

LEVEL = 0.95
FAR_BELOW = 0.20
"""Between a teacher's interval and the best one's, in accuracy."""

Stands = Literal["better", "no better", "open"]
"""Than always giving the commonest answer; `open`: of these rows not even a teacher that is always right could show it."""


def judge(transfer_set: Path, sources: Sequence[Source], split: Literal["train", "validation"]) -> dict[str, Any]:
    """`evaluation.json` of how each teacher stands on the rows of `split` with a usable label whose class it knows.

    `far_below`: who is so far below the best that the ensemble (`mean_probability`) is measured without it too. Raises
    DataError when no row has a label.
    """
    data = TransferSet.open(transfer_set)
    rows = Labelled.of(data, split).require(split)
    said = hear(rows, sources, "mean_probability").alone
    known = {source.name: known_classes(data, source) for source in sources}
    teachers = {name: _standing(logits, rows.labels, known[name], data.classes) for name, logits in said.items()}
    best, far = far_below(teachers)
    together = _together(said, known, rows.labels)
    return {
        "format": FORMAT,
        "split": split,
        "teachers": teachers,
        "together": together,
        "far_below": {
            name: {"best": best, "without": _together(said, known, rows.labels, without=name)} for name in far
        },
        "rows": len(rows.labels),
    }


def known_classes(data: TransferSet, source: Source) -> Tensor:
    """Classes of the transfer set that a teacher scores, bool[C]."""
    spec = SoftTargetStore.open(next(iter(source.stores.values()))).spec
    return align(spec.classes, data.classes, source.class_map)[1]


def _standing(logits: Tensor, labels: Tensor, known: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    mine = known[labels]
    said, labels = logits[mine].argmax(-1), labels[mine]
    counts = torch.bincount(labels, minlength=len(classes))
    like_probabilities = look_like_probabilities(logits[:, known])
    found = standing(int((said == labels).sum()), len(labels), int(counts.max()))
    return {**found, "commonest": classes[int(counts.argmax())], "like_probabilities": like_probabilities}


def standing(right: int, rows: int, commonest: int) -> dict[str, Any]:
    """Figures of a teacher that is right on so many of `rows`, of which `commonest` are of the commonest class.

    `low` and `high` are Clopper and Pearson's (1934) 95 % interval of its accuracy, `p_value` is of the one-sided exact
    binomial test of accuracy <= share of the commonest class.
    """
    from scipy.special import betainc, betaincinv  # all that is needed of scipy.stats, which takes a second to import

    if not rows:
        return {"rows": 0, "right": 0, "accuracy": None, "low": None, "high": None, "share": None, "p_value": None, "stands": "open"}  # fmt: skip
    share, wrong, outside = commonest / rows, rows - right, (1 - LEVEL) / 2
    p_value = float(betainc(right, wrong + 1, share)) if right else 1.0
    stands: Stands = "better" if p_value < 1 - LEVEL else "open" if share**rows >= 1 - LEVEL else "no better"
    return {
        "rows": rows,
        "right": right,
        "accuracy": right / rows,
        "low": float(betaincinv(right, wrong + 1, outside)) if right else 0.0,
        "high": float(betaincinv(right + 1, wrong, 1 - outside)) if wrong else 1.0,
        "share": share,
        "p_value": p_value,
        "stands": stands,
    }


def far_below(teachers: Mapping[str, Mapping[str, Any]]) -> tuple[str | None, list[str]]:
    """(the best teacher; those whose interval lies 20 points and more below its)."""
    judged = {name: found for name, found in teachers.items() if found["rows"]}
    if not judged:
        return None, []
    best = max(judged, key=lambda name: judged[name]["accuracy"])
    low = judged[best]["low"]
    return best, [name for name, found in judged.items() if low - found["high"] >= FAR_BELOW]


def _together(
    said: Mapping[str, Tensor], known: Mapping[str, Tensor], labels: Tensor, *, without: str | None = None
) -> float:
    """Accuracy of the mean of the probabilities of all teachers, or of all but one."""
    names = [name for name in said if name != without]
    knows = torch.stack([known[name] for name in names])[:, None]
    right = 0
    for first in range(0, len(labels), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        logits = torch.stack([said[name][rows] for name in names])
        combined, _ = mean_probability(logits, temperature=1.0, known=knows.expand_as(logits))
        right += int((combined.argmax(-1) == labels[rows]).sum())
    return right / len(labels)
