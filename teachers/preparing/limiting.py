"""`limit`: the first rows of each split in the order of their keys, and the first of each class that has none among them."""

from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..tasks.labels import num_strata
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import SPLITS
from .bad_rows import BadRows
from .census import Census
from .ledger import Ledger
from .taking import END, within

NONE = np.uint64(2**64 - 1)


def limited(ledger: Ledger, bad: BadRows, limit: int | None, width: int) -> tuple[Ledger, BadRows]:
    """The first `limit` rows of each split in key order, and the first of each class that has none among them.

    Bad rows are counted, so that what is left never depends on which rows are bad elsewhere. `width`: of the labels' space.
    """
    if limit is None:
        return ledger, bad
    last = _last(ledger, bad, limit)
    num = num_strata(ledger.task, width)
    firsts = np.minimum.reduce([*ledger.each(partial(_firsts, num))])
    change = partial(_kept, np.array(last, np.uint64), firsts)
    return ledger.changed("limited", change), bad.up_to(last)


def _last(ledger: Ledger, bad: BadRows, limit: int) -> tuple[int, ...]:
    """Of each split, the key of the last row that is let in, whether it can be used or not; 0 without any."""
    spoilt = bad.smallest_keys(limit, len(SPLITS))
    last, before = [0] * len(SPLITS), [0] * len(SPLITS)
    for census, keys in zip(ledger.censuses(), pairwise([*ledger.bounds, END]), strict=True):
        for number, split in enumerate(SPLITS):
            also = spoilt[number][slice(*within(spoilt[number], 0, len(spoilt[number]), keys))]
            there = np.sort(np.concatenate([census.keys[census.of(split)], also]))[: limit - before[number]]
            before[number] += len(there)
            last[number] = int(there[-1]) if len(there) else last[number]
    return tuple(last)


def _firsts(num: int, census: Census) -> Keys:
    """The smallest key of each stratum in each split, u64 [splits, strata]; NONE without any."""
    found = np.full((len(SPLITS), num), NONE, np.uint64)
    rows = np.flatnonzero(census.strata >= 0)
    np.minimum.at(found, (census.split[rows], census.strata[rows]), census.keys[rows])
    return found


def _kept(last: Keys, firsts: Keys, census: Census) -> Census:
    near: NDArray[np.bool_] = census.keys <= last[census.split]
    there = census.strata >= 0
    first = np.zeros(len(near), bool)
    first[there] = census.keys[there] == firsts[census.split[there], census.strata[there]]
    return census.take(near | first)
