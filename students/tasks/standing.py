"""How a teacher stands beside whoever always gives the commonest answer: a test for each kind of answer.

A standing has `rows`, `figures` by key, `low` and `high` (95 %, of the headline), `scale` (what a headline that is 20 % of
it apart is far from), `p_value` of the hypothesis that the teacher is no better than that answer, `stands`, and `words`
for sentences: `found`, `always`, `that` (answer), its figure `constant`, `test`, and `open`, why it could not be told. Knows nothing of stores.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachers.config.task import TaskName
from teachers.tasks.space import Space

from .figure import headline
from .resampling import resampled, variance
from .task import MakesMeter, Meter

LEVEL = 0.95
PERMUTATIONS = 999
FEWEST_PERMUTATIONS = 99
ELEMENTS = 20_000_000
"""That are ranked anew in all permutations; beyond it there are fewer."""

Stands = Literal["better", "no better", "open"]
"""Than always giving the commonest answer; `open`: of these rows not even a teacher that is always right could show it."""
Standing = dict[str, Any]


def binomial(right: int, rows: int, commonest: int) -> Standing:
    """Figures of a teacher that is right on so many of `rows`, of which `commonest` are of the commonest class.

    `low` and `high` are Clopper and Pearson's (1934) 95 % interval of its share of right rows, `p_value` is of the one-sided
    exact binomial test of that share <= the share of the commonest class.
    """
    from scipy.special import betainc, betaincinv  # all that is needed of scipy.stats, which takes a second to import

    if not rows:
        return {"rows": 0, "right": 0, "low": None, "high": None, "share": None, "p_value": None, "stands": "open"}
    share, wrong, outside = commonest / rows, rows - right, (1 - LEVEL) / 2
    p_value = float(betainc(right, wrong + 1, share)) if right else 1.0
    return {
        "rows": rows,
        "right": right,
        "low": float(betaincinv(right, wrong + 1, outside)) if right else 0.0,
        "high": float(betaincinv(right + 1, wrong, 1 - outside)) if wrong else 1.0,
        "share": share,
        "p_value": p_value,
        "stands": _stands(p_value, lambda: share**rows),
    }


def _stands(p_value: float, at_best: Callable[[], float]) -> Stands:
    """`at_best`: the p value of a teacher that is always right."""
    if p_value < 1 - LEVEL:
        return "better"
    return "open" if at_best() >= 1 - LEVEL else "no better"


def by_permutation(
    task: TaskName, make: MakesMeter, said: Tensor, labels: Tensor, space: Space
) -> tuple[float, Stands]:
    """(p value, stands) where a headline of constant answers depends on the rows.

    The hypothesis is that answers have nothing to do with their rows, which always giving the same one is a case of: then
    the headline is as good with answers that are given to rows at random, in a share of p (Fisher, 1935).
    """
    key, sign = headline(task).key, headline(task).sign
    permutations = max(FEWEST_PERMUTATIONS, min(PERMUTATIONS, ELEMENTS // max(1, said.numel())))

    def of(answers: Tensor) -> float:
        meter = make(space)
        meter.update(answers, labels)
        value = meter.figures(keys=(key,))[key]
        return -math.inf if value is None else sign * value

    def p_of(answers: Tensor) -> float:
        numbers, found = torch.Generator().manual_seed(0), of(answers)
        as_good = 0
        for done in range(permutations):
            as_good += of(answers[torch.randperm(len(answers), generator=numbers)]) >= found
            if as_good > (1 - LEVEL) * (permutations + 1):  # it is above the level, whatever comes
                return (as_good + 1) / (done + 2)
        return (as_good + 1) / (permutations + 1)

    p_value = p_of(said)
    return p_value, _stands(p_value, lambda: p_of(labels.clamp_min(0).float()))


def by_squared_errors(merits: Tensor, of_constant: Tensor) -> tuple[float, Stands]:
    """(p value, stands), from less the squared error of each row, f64[rows], of the teacher and of always the same answer.

    Student's t, one-sided, of the mean difference over rows.
    """
    p_value = _one_sided(merits - of_constant)
    return p_value, _stands(p_value, lambda: _one_sided(-of_constant))


def _one_sided(differences: Tensor) -> float:
    """p of the hypothesis that their mean is not above 0; 1 where there are fewer than two."""
    from scipy.special import stdtr

    rows = len(differences)
    if rows < 2:
        return 1.0
    mean, spread = float(differences.mean()), float(differences.std()) / math.sqrt(rows)
    if not spread:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(rows - 1, -mean / spread))


def interval(
    meter: Meter, key: str, groups: NDArray[np.uint64] | None = None
) -> tuple[float, float] | tuple[None, None]:
    """95 %, of the figure `key`, by bootstrap of rows, or of `groups` of them; None where it cannot be told."""
    from scipy.special import stdtrit

    value = meter.figures(keys=(key,))[key]
    rows = len(next(iter(meter.parts().values()))) if groups is None else len(np.unique(groups))
    spread = math.sqrt(variance(resampled(meter, key, groups), rows)) if rows > 1 else math.nan
    if value is None or math.isnan(spread):
        return None, None
    half = float(stdtrit(rows - 1, (1 + LEVEL) / 2)) * spread
    return value - half, value + half
