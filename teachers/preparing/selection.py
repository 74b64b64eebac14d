"""The row of a given place among those of its stratum, in the order of a hash, without sorting them all.

Hashes are even, so the one that is wanted lies near its share of the line: only those around it are gathered. Where it does not lie
there the window grows, up to the whole line. Knows nothing of what the order is for.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..transfer_set.hashes import Keys
from .census import Census
from .ledger import Ledger

Values = Callable[[Census], tuple[NDArray[np.int32], Keys]]
"""Stratum and hash of the rows that take part."""
Window = tuple[Keys, Keys, NDArray[np.bool_]]
"""Of each stratum the first hash and the last, and whether any is wanted."""
WIDTH = 4.0
"""Times the root of how many rows there are, on each side: eight standard deviations at least, beyond which lies one of 10^15."""
GROWS = 64.0


def at_places(ledger: Ledger, values: Values, places: NDArray[np.int64], counts: NDArray[np.int64]) -> Keys:
    """Of each stratum, the hash of the row of that place, u64 [strata]; 0 where `places` is -1. `counts`: of its rows."""
    found, wanted, width = np.zeros(len(places), np.uint64), places >= 0, WIDTH
    while wanted.any():
        window = _window(places, counts, wanted, width)
        parts = list(ledger.each(partial(_looked_at, values, window)))
        below = sum((before for before, _, _ in parts), np.zeros(len(places), np.int64))
        strata, hashes = (np.concatenate([part[at] for part in parts]) for at in (1, 2))
        order = np.lexsort((hashes, strata))
        starts = np.searchsorted(strata[order], np.arange(len(places) + 1))
        inside = places - below
        hit = wanted & (inside >= 0) & (inside < np.diff(starts))
        found[hit] = hashes[order[starts[:-1][hit] + inside[hit]]]
        wanted &= ~hit
        width *= GROWS
    return found


def _window(places: NDArray[np.int64], counts: NDArray[np.int64], wanted: NDArray[np.bool_], width: float) -> Window:
    of = np.maximum(counts, 1)
    near, reach = (places + 0.5) / of, (width * np.sqrt(of) + width) / of
    low, high = np.maximum(near - reach, 0.0), near + reach
    last = np.where(high >= 1, np.uint64(2**64 - 1), (np.minimum(high, 1 - 2**-53) * 2.0**64).astype(np.uint64))
    return (low * 2.0**64).astype(np.uint64), last, wanted


def _looked_at(values: Values, window: Window, census: Census) -> tuple[NDArray[np.int64], NDArray[np.int32], Keys]:
    """(how many rows of each stratum lie before its window; stratum and hash of those in it)."""
    low, high, wanted = window
    strata, hashes = values(census)
    mine = np.flatnonzero(wanted[strata])
    strata, hashes = strata[mine], hashes[mine]
    before = np.bincount(strata[hashes < low[strata]], minlength=len(low))
    inside = (hashes >= low[strata]) & (hashes <= high[strata])
    return before, strata[inside], hashes[inside]
