"""MUNGE: synthetic rows of a table, each made of a row and of the one next to it (Bucila, Caruana and Niculescu-Mizil, 2006).

Pure functions of numbers, categories and keys: every draw is a hash of (seed, key of the row, pass, attribute), so neither the
order of rows nor who computes them decides anything. Knows nothing of files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import ndtri

from ..config.munge import Munge
from ..transfer_set.hashes import Keys, mixed

AT_ONCE = 2**24
"""Distances that are held at once."""
FEW_DIMENSIONS = 16
"""Up to which a tree finds neighbours faster than comparing with every row does."""
GRID = 2.0**20
"""Scaled numbers are whole multiples of one part of it: sums of their squares are exact, in whatever order they are taken."""
FAR = 2.0**0.5
"""Of a number's whole range: as far apart as two rows are that differ in one category."""


@dataclass(frozen=True)
class Table:
    """Rows in the order of their keys: `numbers` f64 [N, F], NaN where there is none, and `categories` u64 [N, K]."""

    keys: Keys
    numbers: NDArray[np.float64]
    categories: NDArray[np.uint64]


def neighbours(table: Table) -> NDArray[np.int64]:
    """The nearest other row of each, i64 [N]: by numbers over their range, and by how many categories differ.

    A squared distance counts 2 for a category that differs, and for a whole range of a number. At most AT_ONCE distances are
    in memory.
    """
    if len(table.keys) < 2:
        return np.zeros(len(table.keys), np.int64)
    points, codes = _places(table.numbers), [np.unique(each, return_inverse=True)[1] for each in table.categories.T]
    dimensions = points.shape[1] + sum(int(each.max()) + 1 for each in codes)
    if dimensions > FEW_DIMENSIONS:
        return _by_all(points, codes)
    each_value = [(each[:, None] == np.arange(each.max() + 1)).astype(np.float64) for each in codes]
    return _by_tree(np.concatenate([points, *each_value], 1))


def _places(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """f64 [N, D]: over their range; a number that is missing lies in the middle, as far from any other as a category that differs."""
    columns: list[NDArray[np.float64]] = []
    for values in numbers.T:
        missing = np.isnan(values)
        known = values[~missing]
        low, wide = (known.min(), np.ptp(known)) if len(known) else (0.0, 0.0)
        scaled = np.where(missing, 0.5, (values - low) / wide if wide > 0 else 0.0)
        columns.append(np.round(scaled * FAR * GRID) / GRID)
        if missing.any():
            columns += [missing.astype(np.float64), (~missing).astype(np.float64)]
    return np.stack(columns, 1) if columns else np.zeros((len(numbers), 1))


def _by_tree(points: NDArray[np.float64]) -> NDArray[np.int64]:
    tree, found = cKDTree(points), []
    for rows in _in_chunks(len(points), 2):
        _, near = tree.query(points[rows], k=2)
        found.append(np.where(near[:, 0] == rows, near[:, 1], near[:, 0]))
    return np.concatenate(found).astype(np.int64)


def _by_all(points: NDArray[np.float64], codes: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Of rows that are equally near the first."""
    lengths, found = (points**2).sum(1), []
    for rows in _in_chunks(len(points), len(points)):
        distances = lengths - 2 * points[rows] @ points.T  # less its own length, which is one for all
        for each in codes:
            distances += 2 * (each[rows][:, None] != each)
        distances[np.arange(len(rows)), rows] = np.inf
        found.append(distances.argmin(1))
    return np.concatenate(found).astype(np.int64)


def _in_chunks(rows: int, each: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of all rows, so many at a time that `each` values of every one find room."""
    step = max(1, AT_ONCE // each)
    for first in range(0, rows, step):
        yield np.arange(first, min(first + step, rows))


def synthetic(table: Table, near: NDArray[np.int64], munge: Munge, number: int) -> Table:
    """A row for each of `table`, of pass `number`; `near` as `neighbours` gave it. Its keys are still those of the rows it is made of.

    A category becomes that of the neighbour with probability p, a number e with probability p one of N(e', |e - e'| / s).
    """
    numbers, categories = table.numbers.copy(), table.categories.copy()
    for at in range(numbers.shape[1]):
        changes = _uniform(table.keys, f"munge changes number {at} in {number}", munge.seed) < munge.p
        own, theirs = numbers[:, at].copy(), table.numbers[near, at]
        drawn = theirs + np.abs(own - theirs) / munge.s * _normal(
            table.keys, f"munge number {at} in {number}", munge.seed
        )
        numbers[:, at] = np.where(changes, np.where(np.isnan(drawn), theirs, drawn), own)
    for at in range(categories.shape[1]):
        changes = _uniform(table.keys, f"munge changes category {at} in {number}", munge.seed) < munge.p
        categories[:, at] = np.where(changes, table.categories[near, at], table.categories[:, at])
    return Table(table.keys, numbers, categories)


def _uniform(keys: Keys, purpose: str, seed: int) -> NDArray[Any]:
    """In (0, 1), f64 [rows]."""
    return ((mixed(keys, purpose, seed) >> np.uint64(12)).astype(np.float64) + 0.5) / 2**52


def _normal(keys: Keys, purpose: str, seed: int) -> NDArray[Any]:
    found: NDArray[Any] = ndtri(_uniform(keys, purpose, seed))
    return found
