"""Classes divided by the shares of the split: which rows of a class go where, decided from keys and labels alone.

Every row has a place from 0 to 1, the hash that splits it; shares cut this line. A class that is stratified moves the cuts
for its own rows, to the nearest place at which it has what its shares demand; rows between the old cut and the new one
change sides, all others stay. Knows nothing of the order of rows, of files, or of who prepares.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import SplitConfig, TransferSetConfig
from ..tasks.labels import num_strata
from ..transfer_set.hashes import Keys
from ..transfer_set.transfer_set import SPLITS, SplitName
from .census import Census
from .ledger import Ledger
from .selection import at_places
from .splits import place_of

NEEDED = (1, 2, 0)
"""Who gets a row first, of a class that has fewer than one for each of test, validation, train."""
SLACK = 0.1
"""Of what a split should have of a class, the part by which it may differ before a row is moved; half a row at least.

Without it every appended row would shift a cut: a class of n rows and a share p lies by chance sqrt(n p (1 - p)) beside
n p, which is more than a tenth for small classes only. So large classes stay as they were hashed, and old rows stay where
they are; of small ones as many move as the bound demands.
"""


def stratified(ledger: Ledger, config: TransferSetConfig, width: int) -> tuple[Ledger, list[int]]:
    """(the ledger with every class, or those that would miss a split, divided by the shares; which classes were moved).

    Where files give the test split, the rows of train and validation are divided. A row without a label, and one that the
    shares leave out, stays where its hash put it. A class with fewer rows than splits is in train, then in test.
    """
    which = config.stratifies
    if which == "no":
        return ledger, []
    shares = shares_of(config.split)
    by_stratum = ledger.total(partial(_counted, config.split, num_strata(config.task, width)))
    counts = by_stratum[:, [SPLITS.index(name) for name in shares]]
    divided = [divide(row, [*shares.values()]) if which == "all" or misses(row) else row for row in counts.tolist()]
    wanted = np.array(divided, np.int64).reshape(counts.shape)
    moved = (wanted != counts).any(1)
    if not moved.any():
        return ledger, []
    cuts = []
    for places in np.cumsum(wanted, 1)[:, :-1].T:
        inside = np.where(moved & (places < counts.sum(1)), places, -1)
        at = at_places(ledger, partial(_placed, config.split), inside, counts.sum(1))
        cuts.append(np.where(inside >= 0, at, np.uint64(2**64 - 1)))
    change = partial(_divided, config.split, [SPLITS.index(name) for name in shares], moved, np.stack(cuts, 1))
    return ledger.changed("stratified", change), np.flatnonzero(moved).tolist()


def _mine(split: SplitConfig, census: Census) -> NDArray[np.int64]:
    """Rows that are divided."""
    mine = census.has_label
    return np.flatnonzero(mine if split.files is None else mine & (census.split != SPLITS.index("test")))


def _counted(split: SplitConfig, num: int, census: Census) -> NDArray[np.int64]:
    """Rows that are divided, by stratum and split, i64 [strata, splits]."""
    rows = _mine(split, census)
    both = census.strata[rows].astype(np.int64) * len(SPLITS) + census.split[rows]
    return np.bincount(both, minlength=num * len(SPLITS)).reshape(num, len(SPLITS))


def _placed(split: SplitConfig, census: Census) -> tuple[NDArray[np.int32], Keys]:
    """As `at_places` asks."""
    rows = _mine(split, census)
    return census.strata[rows], place_of(census.keys[rows], split)


def _divided(split: SplitConfig, names: list[int], moved: NDArray[np.bool_], cuts: Keys, census: Census) -> Census:
    """`names`: splits in the order of the line; `cuts`: of each stratum, where the next one begins, u64 [strata, names - 1]."""
    rows = _mine(split, census)
    rows = rows[moved[census.strata[rows]]]
    behind = place_of(census.keys[rows], split)[:, None] >= cuts[census.strata[rows]]
    numbers = census.split.copy()
    numbers[rows] = np.array(names, np.uint8)[behind.sum(1)]
    return replace(census, split=numbers).in_order()


def shares_of(config: SplitConfig) -> dict[SplitName, float]:
    """Of the rows that are in a split at all, by their places on the line."""
    validation, test = config.validation_share, config.test_share
    if config.files is not None:
        return {"validation": validation, "train": 1 - validation}
    train = 1 - validation - test if config.train is None else config.train
    total = test + validation + train
    return {"test": test / total, "validation": validation / total, "train": train / total}


def misses(counts: Sequence[int]) -> bool:
    """Whether a class has rows and none to learn from, or enough for every split and none in one."""
    return (sum(counts) > 0 and not counts[-1]) or (sum(counts) >= len(counts) and not all(counts))


def divide(counts: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How many rows of one class each part of the line gets; `counts`: what the hash gave it. The last takes what is left.

    Each lies within `SLACK` of its share, or half a row, as near to `counts` as that allows, and has a row where there are
    enough.
    """
    total = sum(counts)
    if total < len(counts):
        return [int(needed < total) for needed in NEEDED[-len(counts) :]]
    bounds = [_bounds(total * share) for share in shares]
    divided: list[int] = []
    cut = 0
    for number, (low, high) in enumerate(bounds[:-1]):
        natural = sum(counts[: number + 1]) - cut  # up to the cut of the hash, from where the part before ends now
        behind = len(counts) - number - 1
        divided.append(max(1, min(max(low, min(natural, high)), total - cut - behind)))
        cut += divided[-1]
    return [*divided, total - cut]


def _bounds(exact: float) -> tuple[int, int]:
    slack = max(0.5, SLACK * exact)
    low = max(1, ceil(exact - slack - 1e-9))
    return low, max(low, floor(exact + slack + 1e-9))
