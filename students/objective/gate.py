"""The gate of `combine: learned`, trained on labelled validation rows: the least negative log-likelihood of what the teachers are
together by its weights, and a penalty that leaves them equal where rows are few. Knows nothing of students."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import RecipeError
from teachers.soft_targets.combine.class_scores import log_probabilities
from teachers.soft_targets.combine.gate import FEATURES, HIDDEN, Gate, features_of
from teachers.soft_targets.combine.shares import share_of_name
from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from .merits import heard_alone

PENALTY = 10.0
"""Times half the squares of all parameters, beside a sum over rows: as many as speak for equal weights under `fitted`."""
MOST_ROWS = 5_000
"""That are learnt from: a gate has some fifty parameters."""


def trained_gate(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    """`gate`. Raises RecipeError without a labelled validation row of a class that somebody knows."""
    heard = [heard_alone(source, transfer_set) for source in sources]
    said, labels = torch.stack([each for each, _ in heard]).double(), heard[0][1].long()
    known = ~said.isnan()
    can_say = known.any(0).gather(1, labels[:, None])[:, 0] if len(labels) else torch.zeros(0, dtype=torch.bool)
    if not can_say.any():
        raise RecipeError(
            "learned trains a gate on labelled validation rows, and none there has a label that a teacher knows; take "
            "`mean_logits`, or give `split.validation` labelled rows"
        )
    rows = can_say.nonzero()[:, 0]
    rows = rows[:: -(-len(rows) // MOST_ROWS)]
    return {"gate": gate_of(said[:, rows].nan_to_num(nan=0.0), known[:, rows], labels[rows])}


def gate_of(logits: Tensor, known: Tensor, labels: Tensor) -> Gate:
    """Of scores f64 `[K, N, C]`, known, and labels i64 `[N]` that somebody knows."""
    from scipy.optimize import minimize  # takes a fifth of a second

    features, knows = features_of(logits, known), known.any(-1)
    log_p = torch.where(known, log_probabilities(logits, 1.0, known), 0.0)
    nobody = ~known.any(0)

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        parameters = torch.from_numpy(free).requires_grad_()
        weights = _gate(parameters, len(logits)).weights(features, knows)
        pooled = (share_of_name(weights, known) * log_p).sum(0).masked_fill(nobody, -torch.inf).log_softmax(-1)
        value = -pooled.gather(1, labels[:, None]).sum() + PENALTY / 2 * parameters.square().sum()
        (slope,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), slope.numpy()

    size = HIDDEN * FEATURES + 2 * HIDDEN + len(logits)
    start = np.zeros(size)
    start[: size - len(logits)] = 0.1 * np.random.default_rng(0).standard_normal(size - len(logits))
    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return _gate(torch.from_numpy(found.x), len(logits))


def _gate(parameters: Tensor, teachers: int) -> Gate:
    inward, shift, out, own = parameters.split([HIDDEN * FEATURES, HIDDEN, HIDDEN, teachers])
    return Gate(inward.view(HIDDEN, FEATURES), shift, out, own)
