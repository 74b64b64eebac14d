"""Does distillation pay? A paired bootstrap of student against control over test rows, and its verdict in words."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Gain:
    """Student's accuracy minus its control's, a fraction: the mean over seeds, its 95% interval, and that of every seed."""

    low: float
    mean: float
    high: float
    by_seed: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def paired_gain(student: NDArray[np.bool_], control: NDArray[np.bool_], *, seed: int = 0) -> Gain:
    """The gain from who was right, both bool[seeds, rows]: same seed and same row beside each other.

    Rows are drawn with replacement, each with its outcomes in all seeds: they share the row, so they are not independent
    evidence. A row's mean difference takes few values, and how often each value is drawn is multinomial: that is the same
    distribution as drawing rows one by one, at the cost of a few numbers a resample (Efron & Tibshirani, 1993, chapter 13).
    """
    assert student.shape == control.shape and student.size, (student.shape, control.shape)
    num_seeds, num_rows = student.shape
    wins = (student.astype(np.int64) - control).sum(0)
    values, counts = np.unique(wins, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(num_rows, counts / num_rows, size=NUM_RESAMPLES)
    gains = drawn @ values / (num_rows * num_seeds)
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    by_seed = tuple((student.mean(1) - control.mean(1)).tolist())
    return Gain(float(low), float(wins.sum() / (num_rows * num_seeds)), float(high), by_seed)


def verdict(gain: Gain | None, num_seeds: int) -> str:
    """One sentence that claims no more than the interval shows."""
    if gain is None:
        return "No control was trained, so nothing is shown of what distillation brings."
    seeds = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
    told = f"95% interval over test rows {points(gain.low)} to {points(gain.high)}, {seeds}"
    if gain.low <= 0 <= gain.high:
        return f"No difference shown: {points(gain.mean)} points of test accuracy against the control ({told})."
    if any(one * gain.mean <= 0 for one in gain.by_seed):
        told += f", which disagree: {points(min(gain.by_seed))} to {points(max(gain.by_seed))}"
    if gain.low > 0:
        return f"Distillation helps: {points(gain.mean)} points of test accuracy over the control ({told})."
    return f"Distillation hurts: {points(gain.mean)} points of test accuracy against the control ({told})."


def points(fraction: float) -> str:
    """A difference of two fractions in percentage points, with its sign: `+6.0`."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")
