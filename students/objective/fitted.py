"""What each teacher counts under `combine: fitted`: the weights of a logarithmic opinion pool, from labelled validation rows.

They minimise, over the simplex,

    sum over rows of -log p(label)  -  ROWS * sum over teachers of log w,     log p = sum over teachers of w log p_k - log Z

which is convex: the first sum is logsumexp of something linear less something linear (Heskes, 1998), the second is the
prior of equal weights, Dirichlet(1 + ROWS, ...). So few rows leave the weights near equal, and many decide them. With `by_class`
each class has weights of its own, of which those of the teachers are the prior.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .merits import heard_alone

ROWS = 10.0
"""That speak for each teacher before any other does: ten to a weight, a rule for regressions (Peduzzi et al., 1996).

Three published networks on CIFAR-100, of which one is bad, over eight draws: by 100 rows the pool is as good as their mean, by 320
0.3 points better, by 1,000 0.5; 3 and 30 differ by 0.1 at most.
"""
CHUNK = 16_384


def fitted_weights(sources: Sequence[Source], transfer_set: TransferSet) -> dict[str, float]:
    """By teacher; they sum to 1. Raises RecipeError where no labelled validation row has a class that somebody knows, StoreError
    where a teacher has not labelled validation."""
    weights = pool_weights(*_judged_rows(sources, transfer_set))
    return dict(zip([source.name for source in sources], weights.tolist(), strict=True))


def weights_by_class(sources: Sequence[Source], transfer_set: TransferSet) -> tuple[tuple[float, ...], ...]:
    """By teacher and class; they sum to 1 over the teachers. Raises as `fitted_weights`."""
    log_p, labels = _judged_rows(sources, transfer_set)
    found = class_weights_of_pool(log_p, labels, pool_weights(log_p, labels))
    return tuple(map(tuple, found.tolist()))


def _judged_rows(sources: Sequence[Source], transfer_set: TransferSet) -> tuple[Tensor, Tensor]:
    """(log-probabilities f32 `[K, N, C]`, labels i64 `[N]`) of the rows whose label somebody knows."""
    said = []
    for source in sources:
        heard, labels = heard_alone(source, transfer_set)
        said.append(heard)
    log_p, known = _filled(torch.stack(said))
    rows = known.gather(1, labels.long()[:, None]).flatten() if len(labels) else torch.zeros(0, dtype=torch.bool)
    if not rows.any():
        raise RecipeError(
            "fitted weighs teachers by what they say of labelled validation rows, and none there has a label that one of them "
            "knows; take `mean_logits`, or give `split.validation` labelled rows"
        )
    return log_p[:, rows], labels.long()[rows]


def _filled(said: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities f32 `[K, N, C]` of logits with NaN where a teacher knows nothing, and which somebody knows `[N, C]`.

    Who knows nothing of a class agrees there with the mean of those who do; where nobody does it is -1e4, as a target has it.
    """
    known = ~said.isnan()
    log_p = said.masked_fill(~known, -torch.inf).log_softmax(-1)
    counts = known.sum(0)
    mean = torch.where(known, log_p, 0.0).sum(0) / counts.clamp_min(1)
    return torch.where(known, log_p, mean.masked_fill(counts == 0, -1e4)), counts > 0


def pool_weights(log_p: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """f64 `[K]` of log-probabilities f32 `[K, N, C]` and labels i64 `[N]`."""
    from scipy.optimize import minimize  # takes a fifth of a second
    from scipy.special import softmax

    teachers = len(log_p)

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Of weights that are a softmax of `free`, so that they stay on the simplex; and its gradient."""
        weights = softmax(free)
        value, slope = _likelihood(torch.from_numpy(weights), log_p, labels)
        value, slope = value - ROWS * float(np.log(weights).sum()), slope - ROWS / weights
        return value, weights * (slope - weights @ slope)

    found = minimize(loss, np.zeros(teachers), jac=True, method="L-BFGS-B")
    weights: NDArray[np.float64] = softmax(found.x)
    return weights


def class_weights_of_pool(log_p: Tensor, labels: Tensor, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """f64 `[K, C]`: weights of each class, which minimise the same sum with log p_c = sum over teachers of w_kc log p_kc - log Z and,
    in each class, the prior Dirichlet(1 + K ROWS w_k, ...): a class with few rows keeps the weights of the teachers, `[K]`.
    """
    from scipy.optimize import minimize  # takes a fifth of a second

    given, own = log_p.double(), labels[:, None]
    strength = torch.from_numpy(len(weights) * ROWS * weights)[:, None]
    shape = given.shape[0], given.shape[2]

    def loss(free: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        parameters = torch.from_numpy(free).requires_grad_()
        log_w = parameters.view(shape).log_softmax(0)
        value = torch.zeros((), dtype=torch.float64)
        for first in range(0, len(labels), CHUNK):
            pooled = torch.einsum("kc,knc->nc", log_w.exp(), given[:, first : first + CHUNK]).log_softmax(-1)
            value = value - pooled.gather(1, own[first : first + CHUNK]).sum()
        value = value - (strength * log_w).sum()
        (slope,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), slope.numpy()

    start = np.repeat(np.log(weights)[:, None], shape[1], axis=1).ravel()
    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    by_class: NDArray[np.float64] = torch.from_numpy(found.x).view(shape).softmax(0).numpy()
    return by_class


def _likelihood(weights: Tensor, log_p: Tensor, labels: Tensor) -> tuple[float, NDArray[np.float64]]:
    """The sum over rows of -log p(label), and its gradient by the weights f64 `[K]`."""
    value, slope = 0.0, torch.zeros_like(weights)
    for first in range(0, len(labels), CHUNK):
        some, own = log_p[:, first : first + CHUNK].double(), labels[first : first + CHUNK, None]
        pooled = torch.einsum("k,knc->nc", weights, some).log_softmax(-1)
        value -= float(pooled.gather(1, own).sum())
        slope += torch.einsum("knc,nc->k", some, pooled.exp()) - some.gather(2, own.expand(len(some), -1, -1)).sum(
            (1, 2)
        )
    return value, slope.numpy()
