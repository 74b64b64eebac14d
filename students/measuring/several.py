"""Several gains at once: what each is worth when it is one of many that were looked at. Reads gains as documents have them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .gain import LEVEL, Conclusion

Gained = Mapping[str, Any]
"""`Gain.to_json`."""


def p_value(gain: Gained) -> float | None:
    """The smallest level at which `Gain.conclusion` would be drawn; None where there is no interval.

    A conclusion needs the interval to exclude 0 *and* the sign test to agree, so its p-value is the larger of the two (an
    intersection-union test: Berger, 1982); 1 where the two point apart.
    """
    if gain["low"] is None:
        return None
    if gain["mean"] == 0 or (gain["won"] > gain["lost"]) != (gain["mean"] > 0):
        return 1.0
    return max(_p_of_interval(gain), float(gain["sign_p"]))


def _p_of_interval(gain: Gained) -> float:
    """The level at which the interval mean +- sqrt(t(k - 1)^2 v_seeds + t(n - 1)^2 v_rows) just reaches 0, by bisection.

    v_rows is what the documented 95% interval leaves when v_seeds, which the seeds' gains tell, is taken out.
    """
    from scipy.special import stdtrit

    by_seed, mean = np.array(gain["by_seed"]), abs(float(gain["mean"]))
    degrees = (len(by_seed) - 1, gain["units"] - 1)
    of_seeds = float(by_seed.var(ddof=1)) / len(by_seed)
    seeds, rows = (float(stdtrit(each, (1 + LEVEL) / 2)) for each in degrees)
    half = (gain["high"] - gain["low"]) / 2
    of_rows = max(0.0, half**2 - seeds**2 * of_seeds) / rows**2
    if of_seeds + of_rows == 0:
        return 0.0

    def half_at(p: float) -> float:
        seeds, rows = (float(stdtrit(each, 1 - p / 2)) for each in degrees)
        return math.sqrt(seeds**2 * of_seeds + rows**2 * of_rows)

    inside, outside = 1.0, SMALLEST
    if half_at(outside) < mean:
        return SMALLEST
    while inside / outside > 1 + 1e-9:
        middle = math.sqrt(inside * outside)
        inside, outside = (middle, outside) if half_at(middle) < mean else (inside, middle)
    return inside


SMALLEST = 1e-12
"""Below which no p-value is told."""


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Of each, the level at which it is shown among all of them (Holm, 1979); None stays None and counts for nothing.

    With p sorted, p_(1) <= ... <= p_(m), the i-th becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1: the chance
    of any false claim among the m is then at most the level, however they depend on each other.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for number, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - number) * p))
        found[place] = largest
    return found


def concluded(gains: Sequence[Gained]) -> list[dict[str, Any]]:
    """`gains` as one family: each with `p`, `p_corrected` and the `conclusion` that is left of its own."""
    p_values = [p_value(gain) for gain in gains]
    return [
        {**gain, "p": p, "p_corrected": level, "conclusion": _conclusion(gain, level)}
        for gain, p, level in zip(gains, p_values, corrected(p_values), strict=True)
    ]


def _conclusion(gain: Gained, level: float | None) -> Conclusion:
    alone: Conclusion = gain["conclusion"]
    return alone if level is not None and level < 1 - LEVEL else "open"
