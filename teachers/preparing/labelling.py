"""Whose label may be used (`labelled`): so many rows of a split, in proportion to the classes, decided from keys and a seed."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..tasks.labels import num_strata
from ..transfer_set.hashes import Keys, mixed
from ..transfer_set.transfer_set import EVERY, SplitName
from .census import Census
from .ledger import Ledger
from .selection import at_places
from .splits import quotas

Chosen = tuple[Keys, NDArray[np.bool_]]
"""Of each stratum, the last hash that is let in, and whether any is."""


def with_labelled(ledger: Ledger, config: TransferSetConfig, width: int) -> Ledger:
    """The ledger, in which rows of teachers are a split of their own, with whose label may be used.

    `labelled` restricts the splits that it names, and never test. Raises DataError for more labels than there are.
    """
    wanted = config.labelled_by_split
    of_teachers = wanted.pop("teachers", 0)
    if not wanted and not of_teachers:
        return ledger
    none = np.zeros(num_strata(config.task, width), np.int64)
    let_in: dict[SplitName, Chosen] = {}
    used = none + ledger.total(partial(_counted, "train", len(none))) if "train" not in wanted else none
    for split, count in wanted.items():
        taken, let_in[split] = _chosen(ledger, config, none, split, count)
        used = taken if split == "train" else used
    own = _chosen(ledger, config, used, "teachers", of_teachers)[1] if of_teachers else None
    return ledger.changed("labelled", partial(_with_labelled, config.split.seed, let_in, own))


def _chosen(
    ledger: Ledger, config: TransferSetConfig, used: NDArray[np.int64], split: SplitName, count: int
) -> tuple[NDArray[np.int64], Chosen]:
    """(how many rows of each stratum, which) of a split: `count`, behind those that are `used`; rows of teachers are training rows."""
    rows: SplitName = "train" if split == "teachers" else split
    counts = ledger.total(partial(_counted, rows, len(used)))
    free = counts - used
    there = int(free.sum())
    if count > there and config.limit is None:  # of the rows that `limit` leaves there may be fewer
        asked, left = f"{count:,} labels of {split} rows may be used", f"{there:,} {split} rows have one"
        if split == "teachers":
            asked, left = (
                f"{count:,} training rows are the teachers' alone",
                f"{there:,} further ones have a label",
            )
        raise DataError(f"transfer_set.labelled: {asked}, and {left}; say fewer, or null for all of them")
    wanted = np.array(quotas(free.tolist(), count, split), np.int64)
    places = np.where(wanted > 0, used + wanted - 1, -1)
    return wanted, (at_places(ledger, partial(_hashed, config.split.seed, rows), places, counts), wanted > 0)


def _counted(split: SplitName, num: int, census: Census) -> NDArray[np.int64]:
    """Rows with a label of a split, by stratum."""
    strata = census.strata[census.of(split)]
    return np.bincount(strata[strata >= 0], minlength=num)


def _hashed(seed: int, split: SplitName, census: Census) -> tuple[NDArray[np.int32], Keys]:
    """As `at_places` asks."""
    strata, keys = census.strata[census.of(split)], census.keys[census.of(split)]
    return strata[strata >= 0], _order(keys[strata >= 0], seed)


def _order(keys: Keys, seed: int) -> Keys:
    """By what rows of a stratum are chosen, the smallest first."""
    return mixed(keys, "labelled", seed)


def _with_labelled(seed: int, let_in: dict[SplitName, Chosen], own: Chosen | None, census: Census) -> Census:
    usable, split = census.has_label.copy(), census.split.copy()
    for name, chosen in let_in.items():
        usable[census.of(name)] = _is_in(chosen, census, name, seed)
    if own is not None:
        train = census.of("train")
        mine = _is_in(own, census, "train", seed) & ~usable[train]
        usable[train] |= mine
        split[train][mine] = EVERY.index("teachers")
    changed = replace(census, labelled=usable, split=split)
    return changed if own is None else changed.in_order()


def _is_in(chosen: Chosen, census: Census, split: SplitName, seed: int) -> NDArray[np.bool_]:
    last, any_is = chosen
    strata, hashes = census.strata[census.of(split)], _order(census.keys[census.of(split)], seed)
    return np.asarray((strata >= 0) & any_is[strata] & (hashes <= last[strata]))
