"""A small network that says of each row whom to hear: `combine: learned`. It is told what teachers say, never the row itself.

Of each teacher: how sure it is, its entropy, the gap between its first two classes, how far it is from the mean of the others.
Every teacher's numbers pass the same network, with a bias of its own, so the order of teachers changes nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .class_scores import log_probabilities, pool
from .shares import share_of_name

FEATURES = 4
HIDDEN = 8


class Gate(NamedTuple):
    """Parameters, f64: `score = (bias + out) tanh(inward f + shift)`; of teacher k besides `own[k]`."""

    inward: Tensor
    """`[HIDDEN, FEATURES]`."""
    shift: Tensor
    """`[HIDDEN]`."""
    out: Tensor
    """`[HIDDEN]`."""
    own: Tensor
    """`[K]`."""

    def weights(self, features: Tensor, knows: Tensor) -> Tensor:
        """`[K, B]`, on the simplex of those that know the row, or all 0; of features `[K, B, FEATURES]`."""
        hidden = torch.tanh(features @ self.inward.to(features).T + self.shift.to(features))
        score = hidden @ self.out.to(features) + self.own.to(features)[:, None]
        return score.masked_fill(~knows, -torch.inf).softmax(0).nan_to_num(nan=0.0)


def features_of(logits: Tensor, known: Tensor) -> Tensor:
    """`[K, B, FEATURES]` of scores `[K, B, C]` at T = 1, each about 0 to 1; 0 where a teacher knows nothing of the row."""
    log_p = log_probabilities(logits, 1.0, known)
    p = log_p.exp()
    entropy = -torch.where(log_p.isneginf(), 0.0, p * log_p).sum(-1)
    first = p.topk(min(2, p.shape[-1]), dim=-1).values
    gap = first[..., 0] - (first[..., 1] if first.shape[-1] > 1 else 0.0)
    mean = p.sum(0) / known.sum(0).clamp_min(1)
    apart = (p - torch.where(known, mean, 0.0)).abs().sum(-1) / 2
    features = torch.stack([first[..., 0], entropy / 2.3, gap, apart], -1)
    return features * known.any(-1)[..., None]


def learned(
    logits: Tensor, *, temperature: float, known: Tensor, labels: Tensor | None = None, gate: Gate
) -> tuple[Tensor, Tensor]:
    """The mean of log-probabilities with weights of each row by a gate, in each class over those that know it.

    The gate is trained on the negative log-likelihood of labelled validation rows.
    """
    weights = gate.weights(features_of(logits, known), known.any(-1))
    return pool(logits, temperature, known, share_of_name(weights, known)), weights
