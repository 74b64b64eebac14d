"""Who trains, who chooses, who tests, whose label may be used: decided row by row from keys, never from positions.

Knows nothing of files or inputs. Everything is a seeded hash, so rows that are added move no other row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from ..config.transfer_set import SplitConfig
from ..errors import DataError
from ..sources.files import text_of
from ..transfer_set.hashes import Keys, mixed, text_hashes
from ..transfer_set.transfer_set import SPLITS, SplitName

UNUSED = len(SPLITS)
"""Split number of a row that the shares leave out."""


def sample_keys(ids: Sequence[str] | pa.StringArray, salt: str) -> Keys:
    """xxh3_64 of `salt` + id, u64 [rows]; ids in Arrow never become `str`."""
    held = ids if isinstance(ids, pa.Array) else text_of(ids)
    salted = pc.binary_join_element_wise(salt, held, "") if salt else held
    texts = salted.cast(pa.binary()).to_numpy(zero_copy_only=False)
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts))


def expected_shares(config: SplitConfig, given: SplitName | None) -> dict[SplitName, float]:
    """About which part of the rows of a file falls into each split; `given`: the split of the file."""
    validation, test = config.validation_share, config.test_share
    if given is None:
        return {
            "train": 1 - validation - test if config.train is None else config.train,
            "validation": validation,
            "test": test,
        }
    assert config.files is not None
    if given != "train" or config.files.validation is not None:
        return {given: 1.0}
    return {"train": 1 - validation, "validation": validation}


def split_numbers(keys: Keys, config: SplitConfig, given: SplitName | None) -> NDArray[np.uint8]:
    """Index into SPLITS (or UNUSED) per row. `keys`: of the row, or of its group. `given`: the split of the row's file."""
    validation, test = config.validation_share, config.test_share
    train: float | None = config.train
    if given is not None:
        assert config.files is not None
        if given != "train" or config.files.validation is not None:
            return np.full(len(keys), SPLITS.index(given), np.uint8)
        test, train = 0.0, None
    bounds = [test, test + validation, 1.0 if train is None else test + validation + train]
    limits = np.array([min(round(bound * 2**64), 2**64 - 1) for bound in bounds], np.uint64)
    numbers = np.array([SPLITS.index("test"), SPLITS.index("validation"), SPLITS.index("train"), UNUSED], np.uint8)
    if bounds[2] >= 1 - 1e-9:
        limits = limits[:2]
    return numbers[np.searchsorted(limits, place_of(keys, config), side="right")]


def place_of(keys: Keys, config: SplitConfig) -> Keys:
    """Where rows stand on the line that the shares cut, u64 [rows]: test first, then validation, then train."""
    return mixed(keys, "split", config.seed)


def order_of(split: NDArray[np.uint8], keys: Keys) -> NDArray[np.int64]:
    """Which rows come first, by split, then key; of equal keys the one that stands first."""
    found = []
    for number in np.flatnonzero(np.bincount(split)):
        rows = np.flatnonzero(split == number)
        order = np.argsort(keys[rows])  # four times as fast as a stable sort, which equal keys alone need
        if (np.diff(keys[rows[order]]) == 0).any():
            order = np.argsort(keys[rows], kind="stable")
        found.append(rows[order])
    return np.concatenate([np.zeros(0, np.int64), *found])


def first_of_classes(keys: Keys, split: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which rows have the smallest key of their class in their split, bool [rows]; a row without a label is of none."""
    order = np.lexsort((keys, labels, split))
    is_new = np.diff(labels[order], prepend=-2) != 0
    is_new |= np.diff(split[order].astype(np.int16), prepend=-1) != 0
    first = np.zeros(len(keys), bool)
    first[order[is_new]] = True
    return first & (labels >= 0)


def quotas(per_class: Sequence[int], count: int, split: SplitName = "train") -> list[int]:
    """Split `count` over classes by largest remainder, at least one for every class that has rows."""
    total = sum(per_class)
    count = min(count, total)
    present = sum(rows > 0 for rows in per_class)
    if count < present:
        raise DataError(
            f"transfer_set.labelled: {count} {split} rows are less than one row for each of the {present} classes; raise it"
        )
    wanted = [max(count * rows // total, 1) if rows else 0 for rows in per_class]

    def owed(number: int) -> int:  # how far the class is below its exact share, in 1 / total rows
        return count * per_class[number] - wanted[number] * total

    while sum(wanted) < count:
        wanted[max((n for n, rows in enumerate(per_class) if wanted[n] < rows), key=owed)] += 1
    while sum(wanted) > count:
        wanted[min((n for n in range(len(per_class)) if wanted[n] > 1), key=owed)] -= 1
    return wanted


def row_hashes(inputs: Sequence[NDArray[Any]]) -> Keys:
    """A 64-bit hash of each row's content, u64 [rows]; `inputs`: one [rows, ...] a column. No Python per row."""
    fixed = [text_hashes(values) if values.dtype == object else values for values in inputs]
    flat = [np.ascontiguousarray(values).reshape(len(values), int(np.prod(values.shape[1:]))) for values in fixed]
    rows = np.concatenate([values.view(np.uint8) for values in flat], axis=1)
    words = np.zeros((len(rows), -(-rows.shape[1] // 8) * 8), np.uint8)
    words[:, : rows.shape[1]] = rows
    lanes = words.view("<u8")
    odd = mixed(np.arange(lanes.shape[1], dtype=np.uint64), "lane", 0) | np.uint64(1)
    lanes = (lanes ^ (lanes >> np.uint64(32))) * odd
    lanes ^= lanes >> np.uint64(29)
    return mixed((lanes * odd[::-1]).sum(axis=1, dtype=np.uint64), "row", rows.shape[1])
