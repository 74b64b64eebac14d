"""The stores of those who teach, opened for the rows that they are about, and what they say in the transfer set's names.

Knows nothing of what is made of them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from teachers.errors import StoreError
from teachers.soft_targets.alignment import Alignment
from teachers.soft_targets.growing import GrowingSoftTargets
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.labels import has_label
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import Segment, SplitName, TransferSet

from ..runs.run import Source


def open_store(source: Source, transfer_set: TransferSet, segment: Segment) -> SoftTargets:
    """The store of one teacher and segment. Raises StoreError when it is of other rows."""
    store = SoftTargets.open(_folder(source, segment))
    if not np.array_equal(store.keys(), transfer_set.keys(segment)):
        raise StoreError(
            f"{source.stores[segment.name]} holds other rows than segment {segment.name!r} of {transfer_set.folder}; "
            f"it was made from other data, label again"
        )
    return store


def growing_store(source: Source, transfer_set: TransferSet, segment: Segment) -> GrowingSoftTargets:
    """The same while it is filled."""
    return GrowingSoftTargets(_folder(source, segment), transfer_set.keys(segment))


def _folder(source: Source, segment: Segment) -> Path:
    if segment.name not in source.stores:
        raise StoreError(f"teacher {source.name!r} has no store for segment {segment.name!r}; label it first")
    return source.stores[segment.name]


def said_in(store: SoftTargets, source: Source, space: Space) -> Tensor:
    """f32 `[rows, width]` of all rows of a store, NaN in what the teacher does not know."""
    alignment = Alignment.of(store.spec.names, space, source.class_map, source.probability_floor)
    return alignment(store.said(source.probability_floor)).masked_fill(~alignment.known, torch.nan)


def classes_asked(sources: Sequence[Source], space: Space) -> dict[str, Tensor]:
    """For rules of boxes: `asked` bool `[K, C]`, the classes that each teacher looks for; empty where all look for all, or nobody
    says boxes."""
    if not space.max_boxes or any(not source.stores and source.live is None for source in sources):
        return {}
    asked = []
    for source in sources:
        names = source.live.classes if source.live is not None else _names_in(next(iter(source.stores.values())))
        looked_for = Alignment.of(names, space, source.class_map, source.probability_floor).looked_for
        asked.append(torch.ones(len(space.names), dtype=torch.bool) if looked_for is None else looked_for)
    stacked = torch.stack(asked)
    return {} if bool(stacked.all()) else {"asked": stacked}


def _names_in(store: Path) -> Sequence[str]:
    return SoftTargetStore.open(store).spec.names


def of_labelled(source: Source, transfer_set: TransferSet, split: SplitName = "validation") -> tuple[Tensor, Tensor]:
    """(what a teacher says, as `said_in`; labels as a transfer set has them) of the split's rows with a usable label."""
    said, labels = [torch.empty(0, transfer_set.space.width)], []
    for segment in transfer_set.of(split):
        store, found = open_store(source, transfer_set, segment), transfer_set.usable_labels(segment)
        rows = has_label(found)
        said.append(said_in(store, source, transfer_set.space)[torch.from_numpy(rows)])
        labels.append(torch.from_numpy(found[rows]))
    return torch.cat(said), torch.cat(labels) if labels else torch.empty(0, dtype=torch.int64)
