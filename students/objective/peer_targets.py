"""What a member of a cohort follows: functions from what everybody says to a target, one row at a time.

A rule looks at each row alone, so any number of workers makes the same targets. All get what is said, detached,
`[rows, members, width]`, labels as batches have them (of one class of many i64 `[rows]`, -1: none) and the member's number,
and give `[rows, peers, width]`.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.config.task import AnswerName

PeerRule = Callable[..., Tensor]

LINEAR_STEPS = 200


def others(logits: Tensor, labels: Tensor, member: int) -> Tensor:
    """Every other member for itself (deep mutual learning, Zhang et al., 2018)."""
    return torch.cat([logits[:, :member], logits[:, member + 1 :]], 1)


def mean_of_others(logits: Tensor, labels: Tensor, member: int, *, temperature: float) -> Tensor:
    """T log of the mean of the others' softened probabilities (codistillation, Anil et al., 2018).

    softmax(target / T) is that mean, so a loss divides by T once.
    """
    log_p = (others(logits, labels, member) / temperature).log_softmax(-1)
    return temperature * (log_p.logsumexp(1, keepdim=True) - math.log(logits.shape[1] - 1))


def mean_of_others_class_by_class(said: Tensor, labels: Tensor, member: int, *, temperature: float) -> Tensor:
    """T logit of the mean of the others' softened probabilities of each class: sigmoid(target / T) is that mean."""
    softened = others(said, labels, member) / temperature
    holds, fails = (F.logsigmoid(each).logsumexp(1, keepdim=True) for each in (softened, -softened))
    return temperature * (holds - fails)


def mean_number_of_others(said: Tensor, labels: Tensor, member: int, *, temperature: float) -> Tensor:
    """The mean of the others' numbers; a temperature changes nothing."""
    return others(said, labels, member).mean(1, keepdim=True)


def naive(logits: Tensor, labels: Tensor, member: int) -> Tensor:
    """The logits of the member with the lowest cross-entropy (KDCL-Naive, Guo et al., 2020)."""
    best = _cross_entropy(logits, labels).argmin(1)
    return logits[torch.arange(len(best), device=best.device), best][:, None]


def min_logit(logits: Tensor, labels: Tensor, member: int) -> Tensor:
    """For each class the smallest margin to the label's logit, z[c] = min_k (z_k[c] - z_k[y]) (KDCL-MinLogit, Guo et al., 2020).

    Its cross-entropy is never above the best member's: every logit against the label's is at most that member's.
    """
    return _margins(logits, labels).amin(1, keepdim=True)


def linear(logits: Tensor, labels: Tensor, member: int) -> Tensor:
    """The convex combination of the members' logits with the lowest cross-entropy (KDCL-Linear, Guo et al., 2020).

    Solved for each row by accelerated projected gradient on the simplex; the cross-entropy is convex in the weights.
    """
    weights = simplex_minimum(_margins(logits, labels))
    return torch.einsum("bk,bkc->bc", weights, logits)[:, None]


def general(logits: Tensor, labels: Tensor, member: int, *, weights: Tensor) -> Tensor:
    """sum_k w_k z_k with `weights` `[members]` from a held-out set (KDCL-General, Guo et al., 2020): see `general_weights`."""
    return torch.einsum("k,bkc->bc", weights.to(logits), logits)[:, None]


PEER_RULES: dict[AnswerName, dict[str, PeerRule]] = {
    "class_axis": {
        "others": others,
        "mean_of_others": mean_of_others,
        "naive": naive,
        "linear": linear,
        "min_logit": min_logit,
        "general": general,
    },
    "class_set": {"others": others, "mean_of_others": mean_of_others_class_by_class, "general": general},
    "values": {"others": others, "mean_of_others": mean_number_of_others, "general": general},
    "boxes": {},
}
NEED_LABELS = {"naive", "linear", "min_logit"}
"""Rules that say nothing of a row without a label."""


def general_weights(covariance: Tensor) -> Tensor:
    """w = C^-1 1 / (1' C^-1 1), which sums to 1, of the members' error covariance C `[members, members]`.

    C[i, j] = mean over held-out rows of <p_i - y, p_j - y> (Perrone and Cooper, 1992; Guo et al., 2020). Members
    that err alike make C singular; a ridge of 1e-6 of its mean diagonal then shares the weight among them.
    """
    members = len(covariance)
    ridge = 1e-6 * covariance.diagonal().mean().clamp_min(torch.finfo(covariance.dtype).tiny)
    solved = torch.linalg.solve(
        covariance + ridge * torch.eye(members, dtype=covariance.dtype), torch.ones(members, dtype=covariance.dtype)
    )
    weights: Tensor = solved / solved.sum()
    return weights


def simplex_minimum(margins: Tensor) -> Tensor:
    """argmin over the simplex of logsumexp_c (sum_k a_k m[k, c]), for each row of `[rows, members, classes]`.

    Accelerated projected gradient, started again where it turns back (O'Donoghue and Candes, 2015). The gradient's
    Lipschitz constant is at most the sum of the squared ranges of a row's margins over 4, so the step needs no search.
    """
    ranges = margins.amax(2) - margins.amin(2)
    step = 4 / ranges.square().sum(1, keepdim=True).clamp_min(1e-12)
    weights = torch.full(margins.shape[:2], 1 / margins.shape[1], dtype=margins.dtype, device=margins.device)
    ahead, momentum = weights, torch.ones_like(step)
    for _ in range(LINEAR_STEPS):
        p = torch.einsum("bk,bkc->bc", ahead, margins).softmax(-1)
        gradient = torch.einsum("bkc,bc->bk", margins, p)
        moved = onto_simplex(ahead - step * gradient)
        turned = ((ahead - moved) * (moved - weights)).sum(1, keepdim=True) > 0
        momentum = torch.where(turned, 1.0, momentum)
        following = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = torch.where(turned, moved, moved + (momentum - 1) / following * (moved - weights))
        weights, momentum = moved, torch.where(turned, torch.ones_like(momentum), following)
    return weights


def onto_simplex(points: Tensor) -> Tensor:
    """The nearest point of the simplex to each row of `[rows, members]` (Duchi et al., 2008)."""
    ordered = points.sort(-1, descending=True).values
    surplus = ordered.cumsum(-1) - 1
    counts = torch.arange(1, points.shape[-1] + 1, device=points.device)
    held = (ordered - surplus / counts > 0).sum(-1, keepdim=True)
    threshold = surplus.gather(-1, held - 1) / held
    return (points - threshold).clamp_min(0)


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """`z_k[c] - z_k[y]`; where there is no label, against the first class, and unused."""
    index = labels.clamp_min(0)[:, None, None].expand(-1, logits.shape[1], 1)
    return logits - logits.gather(-1, index)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """`[rows, members]`."""
    return _margins(logits, labels).logsumexp(-1)
