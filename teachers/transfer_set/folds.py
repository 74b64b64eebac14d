"""How rows that a teacher learns are divided into folds, each of which one of its parts does not learn.

Knows nothing of teachers, and imports no torch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..config.folds import Folded
from ..config.task import TaskName
from ..errors import DataError, StoreError
from ..storage import seal
from ..tasks.labels import none_of, per_name
from .hashes import Keys, mixed
from .own_rows import of_teachers
from .transfer_set import Segment, TransferSet

FORMAT = 1
FOLDS = "folds.json"
PARTS = "teacher"
"""Folder of the parts, below that of the stage."""
WHOLE = "whole"
NOT_LEARNT = -1


@dataclass(frozen=True)
class Folds:
    """How the learnt rows are divided: by a seeded hash of the key of a row's group, so rows that are added move no other."""

    count: int
    seed: int
    refit: bool

    @classmethod
    def of_config(cls, train: Folded | None, seed: int) -> Self | None:
        """None without folds."""
        return None if train is None or train.folds is None else cls(train.folds, seed, train.refit)

    def of(self, groups: Keys) -> NDArray[np.int16]:
        """The fold of each row, i16 [rows], from the keys of their groups."""
        return (mixed(groups, "fold", self.seed) % np.uint64(self.count)).astype(np.int16)

    @property
    def parts(self) -> list[str]:
        """Names of the folders of who is trained: one for each fold, and the one that is trained on all rows."""
        return [*(f"fold-{number}" for number in range(self.count)), *([WHOLE] if self.refit else [])]

    def learnt_by(self, number: int, groups: Keys) -> NDArray[np.bool_]:
        """Which rows part `number` of `parts` learns, bool [rows]: all but its fold."""
        return np.full(len(groups), True) if number == self.count else self.of(groups) != number

    def check(
        self,
        labels: NDArray[Any],
        groups: Keys,
        classes: Sequence[str],
        key: str = "train.folds",
        task: TaskName | None = None,
    ) -> None:
        """Raise DataError for a part that would learn no row of a class (no number of a column).

        `labels`: of the labelled rows; `classes`: or names of numbers.
        """
        there = per_name(labels, len(classes), task)
        own = self.of(groups)
        for fold in range(self.count):
            left = per_name(labels[own != fold], len(classes), task)
            if lost := np.flatnonzero((there > 0) & (left == 0)).tolist():
                named = ", ".join(f"{classes[number]!r} ({there[number]})" for number in lost[:10])
                raise DataError(
                    f"{key}: without fold {fold + 1} of {self.count} no labelled training row is left of {named}: all of "
                    f"its rows are in that fold; give more such rows, or another number of folds or `seed`"
                )

    def save(self, folder: Path, learnt: Keys) -> None:
        """Write `folds.json`, when all parts are there. `learnt`: keys of the groups of all learnt rows, ascending."""
        document = {"format": FORMAT, **vars(self), "learnt": digest_of_keys(learnt)}
        seal.publish(folder / FOLDS, json.dumps(document, indent=1).encode())

    def of_rows(self, transfer_set: TransferSet, segment: Segment, folder: Path) -> NDArray[np.int16]:
        """The fold of each row of `segment`, NOT_LEARNT of one that no part has learnt, i16 [rows].

        `transfer_set`: with the classes that the teacher learns. Raises StoreError when the parts in `folder` have learnt
        other rows than its labelled training rows.
        """
        if segment.split != "train":
            return np.full(segment.num_rows, NOT_LEARNT, np.int16)
        learnt = np.unique(labelled_keys(transfer_set)[1])
        document = json.loads(seal.local(folder, FOLDS).read_bytes())
        seal.check_format(document, FORMAT, folder / FOLDS)
        if document["learnt"] != digest_of_keys(learnt):
            raise StoreError(f"{folder}: its parts learnt other rows than are labelled here; train it again")
        groups = transfer_set.groups(segment)
        return np.where(np.isin(groups, learnt), self.of(groups), np.int16(NOT_LEARNT))


def checked(folds: Folds, transfer_set: TransferSet, key: str = "train.folds") -> Keys:
    """Keys of the groups that are learnt, ascending. Raises DataError for a part that would learn no row of a class."""
    labels, groups = labelled_keys(transfer_set)
    folds.check(labels, groups, transfer_set.space.names, key, transfer_set.space.task)
    return np.unique(groups)


def labelled_keys(transfer_set: TransferSet) -> tuple[NDArray[Any], Keys]:
    """Label, as a transfer set has it, and key of the group of every labelled training row of a teacher."""
    transfer_set = of_teachers(transfer_set)
    space = transfer_set.space
    labels, groups = [none_of(space.task, 0, space.width)], [np.empty(0, np.uint64)]
    for segment in transfer_set.of("train"):
        labelled = transfer_set.labelled(segment)
        labels.append(transfer_set.labels(segment)[labelled])
        groups.append(transfer_set.groups(segment)[labelled])
    return np.concatenate(labels), np.concatenate(groups)


def digest_of_keys(keys: Keys) -> str:
    return xxhash.xxh3_128_hexdigest(keys.astype("<u8", copy=False).tobytes())
