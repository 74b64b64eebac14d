"""Classes divided by the shares of the split: which rows of a class go where, decided from keys and labels alone.

Every row has a place from 0 to 1, the hash that splits it; shares cut this line. A class that is stratified moves the cuts
for its own rows, to the nearest place at which it has what its shares demand; rows between the old cut and the new one
change sides, all others stay. Knows nothing of the order of rows, of files, or of who prepares.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, floor

import numpy as np

from ..config.transfer_set import SplitConfig, TransferSetConfig
from ..tasks.labels import num_strata
from ..transfer_set.transfer_set import SPLITS, SplitName
from .census import Census
from .splits import place_of

NEEDED = (1, 2, 0)
"""Who gets a row first, of a class that has fewer than one for each of test, validation, train."""
SLACK = 0.1
"""Of what a split should have of a class, the part by which it may differ before a row is moved; half a row at least.

Without it every appended row would shift a cut: a class of n rows and a share p lies by chance sqrt(n p (1 - p)) beside
n p, which is more than a tenth for small classes only. So large classes stay as they were hashed, and old rows stay where
they are; of small ones as many move as the bound demands.
"""


def stratified(census: Census, config: TransferSetConfig, width: int) -> tuple[Census, list[int]]:
    """(the census with every class, or those that would miss a split, divided by the shares; which classes were moved).

    Where files give the test split, the rows of train and validation are divided. A row without a label, and one that the
    shares leave out, stays where its hash put it. A class with fewer rows than splits is in train, then in test.
    """
    which = config.stratifies
    if which == "no":
        return census, []
    shares = shares_of(config.split)
    mine, strata = census.has_label.copy(), census.strata
    if config.split.files is not None:
        mine &= census.split != SPLITS.index("test")
    rows = np.flatnonzero(mine)
    order = rows[np.lexsort((place_of(census.keys[rows], config.split), strata[rows]))]
    starts = np.searchsorted(strata[order], np.arange(num_strata(config.task, width) + 1)).tolist()
    split, moved = census.split.copy(), []
    for number, there in enumerate(order[start:stop] for start, stop in pairwise(starts)):
        counts = [int((split[there] == SPLITS.index(name)).sum()) for name in shares]
        if which == "all" or misses(counts):
            divided = divide(counts, [*shares.values()])
            split[there] = np.repeat(np.array([SPLITS.index(name) for name in shares], np.uint8), divided)
            moved += [number] * (divided != counts)
    found = replace(census, split=split)
    return found.take(np.lexsort((found.keys, found.split))), moved


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
