"""Does distillation pay? Student against control, paired over seeds and test rows: the gain, its interval, its verdict in words.

Speaks of the method, so both the seeds and the rows count as drawn anew. Knows nothing of models or files.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

Conclusion = Literal["helps", "hurts", "open"]


@dataclass(frozen=True)
class Gain:
    """Student's accuracy minus its control's, a fraction: the mean over seeds, its 95% interval, and that of every seed.

    `low` and `high` are None where no interval can be given: with one seed, or with one row (or group) to test on.
    `won` and `lost` count the `units` in which the student was right more often, or less often, than its control over all
    seeds; `units` are test rows, or groups of them (`grouped`).
    """

    low: float | None
    mean: float
    high: float | None
    by_seed: tuple[float, ...]
    won: int
    lost: int
    units: int
    grouped: bool = False

    @property
    def sign_p(self) -> float:
        """Of the exact two-sided sign test: how often a fair coin is as uneven as `won` and `lost` (Dixon & Mood, 1946)."""
        from scipy.special import bdtr  # takes a third of a second, and who only tells of a gain needs none of it

        return float(min(1.0, 2 * bdtr(min(self.won, self.lost), self.won + self.lost, 0.5)))

    @property
    def conclusion(self) -> Conclusion:
        """`helps` or `hurts` where the interval excludes 0, the sign test says the same, and the gain is not 0.0 points."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high or points(self.mean) == "0.0":
            return "open"
        agrees = self.sign_p < 1 - LEVEL and (self.won > self.lost) == (self.mean > 0)
        return "open" if not agrees else "helps" if self.mean > 0 else "hurts"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"sign_p": self.sign_p, "conclusion": self.conclusion}


def paired_gain(
    student: NDArray[np.bool_], control: NDArray[np.bool_], groups: NDArray[np.uint64] | None = None
) -> Gain:
    """The gain from who was right, both bool[seeds, rows]: same seed and same row beside each other.

    With d[s, r] the difference of the two, the variance of its mean over k seeds and n rows is taken as

        v_seeds + v_rows,   v_seeds = var_s(mean_r d) / k,   v_rows = var_r(mean_s d) / n

    and the interval is mean +- sqrt(t(k - 1)^2 v_seeds + t(n - 1)^2 v_rows): Student's t, each part with the quantile of
    its own degrees of freedom (Banerjee, 1960). That covers at least 95% for any ratio of the two. Welch's and
    Satterthwaite's one number of degrees of freedom for the sum does not: where k seeds happen to lie close together it
    takes the rows for everything, and claimed a difference in 7% (3 seeds) to 12% (2 seeds) of null experiments.
    What neither seed nor row explains is in both variances (Cameron, Gelbach & Miller, 2011), so the interval is a
    little wide. `groups` u64[rows]: rows of one group are no independent evidence, so v_rows is that of group totals
    (Liang & Zeger, 1986) and n in its degrees of freedom is the number of groups.
    """
    assert student.shape == control.shape and student.size, (student.shape, control.shape)
    num_seeds, num_rows = student.shape
    difference = student.astype(np.int64) - control
    wins = difference.sum(0)
    group, members = np.unique(np.arange(num_rows) if groups is None else groups, return_inverse=True)
    mean, by_seed = wins.sum() / wins.size / num_seeds, difference.mean(1)
    totals = np.bincount(members, weights=wins)
    won, lost, units = int((totals > 0).sum()), int((totals < 0).sum()), len(group)
    half = math.nan
    if num_seeds > 1 and units > 1:
        of_seeds = by_seed.var(ddof=1) / num_seeds
        surplus = np.bincount(members, weights=wins / num_seeds - mean)
        of_rows = (surplus**2).sum() / num_rows**2 * units / (units - 1)
        half = math.sqrt(_quantile(num_seeds - 1) ** 2 * of_seeds + _quantile(units - 1) ** 2 * of_rows)
    low, high = (None, None) if math.isnan(half) else (float(mean - half), float(mean + half))
    return Gain(low, float(mean), high, tuple(by_seed.tolist()), won, lost, units, units < num_rows)


def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def verdict(gain: Gain | None) -> str:
    """One sentence that claims no more than the interval and the sign test show."""
    if gain is None:
        return "No control was trained, so nothing is shown of what distillation brings."
    mean = f"{points(gain.mean)} points of test accuracy"
    kind = "groups of test rows" if gain.grouped else "test rows"
    if len(gain.by_seed) < 2:
        return f"No verdict: {mean} against the control with one seed, which does not show what another seed would change; give `train.seeds` at least two, better five."
    if gain.low is None or gain.high is None:
        return (
            f"No verdict: {mean} against the control, on a single one of the {kind}; more are needed for an interval."
        )
    told = f"95% interval {points(gain.low)} to {points(gain.high)}, {len(gain.by_seed)} seeds, {gain.units:,} {kind}"
    if any(one * gain.mean <= 0 for one in gain.by_seed) and gain.conclusion != "open":
        told += f"; the seeds disagree: {points(min(gain.by_seed))} to {points(max(gain.by_seed))}"
    if gain.conclusion == "helps":
        return f"Distillation helps: {mean} over the control ({told})."
    if gain.conclusion == "hurts":
        return f"Distillation hurts: {mean} against the control ({told})."
    if not gain.low <= 0 <= gain.high:
        told += f"; better in {gain.won:,} and worse in {gain.lost:,} of them, which a fair coin does too, p = {gain.sign_p:.2g}"
    return f"No difference shown: {mean} against the control ({told})."


def with_interval(gain: Mapping[str, Any]) -> str:
    """Of a gain as documents have it: `+6.0 (+3.1 to +8.9)`."""
    if gain["low"] is None:
        return f"{points(gain['mean'])} (no interval)"
    return f"{points(gain['mean'])} ({points(gain['low'])} to {points(gain['high'])})"


def points(fraction: float) -> str:
    """A difference of two fractions in percentage points, with its sign: `+6.0`."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")
