"""What one says of labelled rows, as a document has it: every figure of the task, and what stands beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import Tensor

from ..tasks.figure import BESIDE, FIGURES
from ..tasks.task import Meter
from .labelled import Labelled

Thresholds = Sequence[float] | None
"""Probabilities from which on a class is said, one a class; None: the task has none, or nobody has chosen any."""


@dataclass(frozen=True)
class Voice:
    """What somebody says of rows, f32[N, width]. `sure`: whether its probabilities are what it says, and not made of classes."""

    said: Tensor
    sure: bool = True
    thresholds: Thresholds = None


def metered(rows: Labelled, voice: Voice) -> Meter:
    meter = rows.task.meter(rows.space, voice.thresholds)
    meter.update(voice.said, rows.labels)
    return meter


def figures_of(rows: Labelled, voice: Voice, together: Voice | None = None) -> dict[str, Any]:
    """Every figure of one voice; beside `together` also those that compare it with that.

    Where probabilities are made of classes alone they say nothing of it: figures of them are None.
    """
    meter = metered(rows, voice)
    unsure = {figure.key for figure in FIGURES[rows.task.name] if figure.of_probabilities and not voice.sure}
    document: dict[str, Any] = {**meter.figures(), **dict.fromkeys(unsure)}
    document |= meter.details() if voice.sure else dict.fromkeys(meter.details())
    if voice.thresholds is not None:
        document["thresholds"] = dict(zip(rows.space.names, voice.thresholds, strict=True))
    return document if together is None else document | beside(rows, voice, together)


def beside(rows: Labelled, voice: Voice, together: Voice) -> dict[str, Any]:
    """How one stands to what its teachers say together; needs no label."""
    both = voice.sure and together.sure
    found = rows.task.beside(voice.said, together.said, rows.space)
    return {
        figure.key: None if figure.of_probabilities and not both else found[figure.key]
        for figure in BESIDE[rows.task.name]
    }


def agreement_matrix(rows: Labelled, said: Mapping[str, Tensor]) -> dict[str, Any]:
    """How everyone agrees with everyone: `names` and a symmetric `matrix` with ones on its diagonal."""
    names, key = list(said), BESIDE[rows.task.name][0].key
    matrix = [[1.0] * len(names) for _ in names]
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        matrix[i][j] = matrix[j][i] = rows.task.beside(said[one], said[other], rows.space)[key]
    return {"names": names, "matrix": matrix}
