"""What the manifest tells people of the rows: counts, and what was dropped or looks wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks.labels import per_name, usable
from ..transfer_set.transfer_set import EVERY, SPLITS
from .census import Census
from .gathering import Gathered
from .ledger import Ledger


@dataclass(frozen=True)
class Counts:
    """Of one census: rows whose label may be used by split of EVERY, training rows with such a label by class, and without a label."""

    labelled: NDArray[np.int64]
    per_class: NDArray[np.int64]
    without_label: int


def report_on(found: Gathered, ledger: Ledger) -> dict[str, Any]:
    """`ledger`: its rows, with whose label may be used."""
    rows = ledger.counts()
    parts = list(ledger.each(partial(_counted, len(found.classes))))
    labelled = dict(zip(EVERY, np.sum([part.labelled for part in parts], 0).tolist(), strict=True))
    per_class = np.sum([part.per_class for part in parts], 0)
    first: Mapping[str, Any] = {
        "rows": {split: rows[split] for split in SPLITS} | {"unused": found.num_unused},
        "labelled": {split: labelled[split] for split in SPLITS},
        "labelled_per_class": dict(zip(found.classes, per_class.tolist(), strict=True)),
        "stratified": list(found.divided),
        **({"of_teachers": rows["teachers"]} if rows["teachers"] else {}),
        "without_label": sum(part.without_label for part in parts),
        "bad_rows": found.bad.number,
        "first_bad_rows": [f"{row.position}: {row.reason}" for row in found.bad.first],
        "duplicates_across_splits": dict(found.duplicates),
        "dropped_duplicates": dict(found.dropped),
    }
    return {**first, **({"truncated_labels": found.num_cut} if found.num_cut else {})}


def _counted(num_classes: int, census: Census) -> Counts:
    train = census.of("train")
    usable_train = census.labels[train][census.labelled[train]]
    labelled = np.bincount(census.split[census.labelled], minlength=len(EVERY))
    per_class = per_name(usable_train, num_classes, census.task)
    return Counts(labelled, per_class, int((~census.has_label[train]).sum()))


def training_labels(ledger: Ledger) -> Iterator[NDArray[Any]]:
    """Labels of training rows that may be learnt from, in the order of keys, part by part."""
    return ledger.each(_training_labels)


def _training_labels(census: Census) -> NDArray[Any]:
    train = census.of("train")
    return usable(census.labels[train], census.labelled[train])
