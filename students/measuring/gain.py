"""Does distillation pay? Student against control, paired over seeds and test rows: the gain, its interval, its verdict in words.

Speaks of the method, so both the seeds and the rows count as drawn anew. Knows nothing of models or files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from teachers.config.task import DEFAULT_TASK

from ..tasks.figure import Figure, headline
from ..tasks.resampling import variance

LEVEL = 0.95
FIRST = headline(DEFAULT_TASK)
"""The headline that is a mean over rows."""

Conclusion = Literal["helps", "hurts", "open"]


@dataclass(frozen=True)
class Gain:
    """How much better a student's headline is than its control's (+ is better): the mean over seeds, its 95% interval, and
    that of every seed.

    `low` and `high` are None where no interval can be given: with one seed, or with one row (or group) to test on.
    `won` and `lost` count the `units` in which the student's answers were better, or worse, than its control's over all
    seeds (for classes: right more often); `units` are test rows, or groups of them (`grouped`). `figure`: of which it is.
    """

    low: float | None
    mean: float
    high: float | None
    by_seed: tuple[float, ...]
    won: int
    lost: int
    units: int
    grouped: bool = False
    figure: Figure = FIRST

    @property
    def sign_p(self) -> float:
        """Of the exact two-sided sign test: how often a fair coin is as uneven as `won` and `lost` (Dixon & Mood, 1946)."""
        from scipy.special import bdtr  # takes a third of a second, and who only tells of a gain needs none of it

        return float(min(1.0, 2 * bdtr(min(self.won, self.lost), self.won + self.lost, 0.5)))

    @property
    def conclusion(self) -> Conclusion:
        """`helps` or `hurts` where the interval excludes 0, the sign test says the same, and the gain is not told as 0."""
        is_nothing = not any(digit in self.figure.gained(self.mean) for digit in "123456789")
        if self.low is None or self.high is None or self.low <= 0 <= self.high or is_nothing:
            return "open"
        agrees = self.sign_p < 1 - LEVEL and (self.won > self.lost) == (self.mean > 0)
        return "open" if not agrees else "helps" if self.mean > 0 else "hurts"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"figure": self.figure.key, "sign_p": self.sign_p, "conclusion": self.conclusion}


@dataclass(frozen=True)
class Scored:
    """One training on the rows: its headline, that on rows drawn anew f64[replicates], and how good each row's answer is
    f64[rows]."""

    value: float
    resampled: NDArray[np.float64]
    merits: NDArray[np.float64]


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
    mean, by_seed = wins.sum() / wins.size / num_seeds, difference.mean(1)
    members, units = _members(num_rows, groups)
    surplus = np.bincount(members, weights=wins / num_seeds - mean)
    of_rows = (surplus**2).sum() / num_rows**2 * units / max(units - 1, 1)
    return _gain(FIRST, by_seed, mean, of_rows, np.bincount(members, weights=wins), num_rows)


def resampled_gain(
    figure: Figure,
    student: Sequence[Scored],
    control: Sequence[Scored],
    groups: NDArray[np.uint64] | None = None,
) -> Gain:
    """The gain of a headline that is no mean over rows, from the same seeds beside each other.

    The same interval: v_seeds as above, v_rows the variance of the mean over seeds under rows (or groups) that are drawn
    anew, the same draws for everybody (`resampling`). `won` and `lost` compare `merits`.
    """
    pairs = [*zip(student, control, strict=True)]
    num_rows = len(pairs[0][0].merits)
    members, units = _members(num_rows, groups)
    by_seed = np.array([figure.sign * (mine.value - other.value) for mine, other in pairs])
    drawn = np.mean([figure.sign * (mine.resampled - other.resampled) for mine, other in pairs], axis=0)
    wins = np.sum([mine.merits - other.merits for mine, other in pairs], axis=0)
    totals = np.bincount(members, weights=wins)
    return _gain(figure, by_seed, by_seed.mean(), variance(drawn, units), totals, num_rows)


def _members(num_rows: int, groups: NDArray[np.uint64] | None) -> tuple[NDArray[np.int64], int]:
    """(to which unit each row belongs, how many there are)."""
    group, members = np.unique(np.arange(num_rows) if groups is None else groups, return_inverse=True)
    return members, len(group)


def _gain(
    figure: Figure,
    by_seed: NDArray[np.float64],
    mean: float,
    of_rows: float,
    totals: NDArray[Any],
    num_rows: int,
) -> Gain:
    num_seeds, units = len(by_seed), len(totals)
    won, lost = int((totals > 0).sum()), int((totals < 0).sum())
    half = math.nan
    if num_seeds > 1 and units > 1:
        of_seeds = by_seed.var(ddof=1) / num_seeds
        half = math.sqrt(_quantile(num_seeds - 1) ** 2 * of_seeds + _quantile(units - 1) ** 2 * of_rows)
    low, high = (None, None) if math.isnan(half) else (float(mean - half), float(mean + half))
    return Gain(low, float(mean), high, tuple(by_seed.tolist()), won, lost, units, units < num_rows, figure)


def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def verdict(gain: Gain | None) -> str:
    """One sentence that claims no more than the interval and the sign test show."""
    if gain is None:
        return "No control was trained, so nothing is shown of what distillation brings."
    told_as = gain.figure.gained
    mean = f"{told_as(gain.mean)} {gain.figure.units_gained}"
    kind = "groups of test rows" if gain.grouped else "test rows"
    if len(gain.by_seed) < 2:
        return f"No verdict: {mean} against the control with one seed, which does not show what another seed would change; give `train.seeds` at least two, better five."
    if gain.low is None or gain.high is None:
        return (
            f"No verdict: {mean} against the control, on a single one of the {kind}; more are needed for an interval."
        )
    told = f"95% interval {told_as(gain.low)} to {told_as(gain.high)}, {len(gain.by_seed)} seeds, {gain.units:,} {kind}"
    if any(one * gain.mean <= 0 for one in gain.by_seed) and gain.conclusion != "open":
        told += f"; the seeds disagree: {told_as(min(gain.by_seed))} to {told_as(max(gain.by_seed))}"
    if gain.conclusion == "helps":
        return f"Distillation helps: {mean} over the control ({told})."
    if gain.conclusion == "hurts":
        return f"Distillation hurts: {mean} against the control ({told})."
    if not gain.low <= 0 <= gain.high:
        told += f"; better in {gain.won:,} and worse in {gain.lost:,} of them, which a fair coin does too, p = {gain.sign_p:.2g}"
    return f"No difference shown: {mean} against the control ({told})."


def with_interval(figure: Figure, gain: Mapping[str, Any]) -> str:
    """Of a gain as documents have it: `+6.0 (+3.1 to +8.9)`."""
    if gain["low"] is None:
        return f"{figure.gained(gain['mean'])} (no interval)"
    return f"{figure.gained(gain['mean'])} ({figure.gained(gain['low'])} to {figure.gained(gain['high'])})"
