"""The stores of those who teach, opened for the rows that they are about. Knows nothing of what is made of them."""

import numpy as np

from teachers.errors import StoreError
from teachers.soft_targets.reader import SoftTargets
from teachers.transfer_set.transfer_set import Segment, TransferSet

from ..runs.run import Source


def open_store(source: Source, transfer_set: TransferSet, segment: Segment) -> SoftTargets:
    """The store of one teacher and segment. Raises StoreError when it is of other rows."""
    if segment.name not in source.stores:
        raise StoreError(f"teacher {source.name!r} has no store for segment {segment.name!r}; label it first")
    store = SoftTargets.open(source.stores[segment.name])
    if not np.array_equal(store.keys(), transfer_set.keys(segment)):
        raise StoreError(
            f"{source.stores[segment.name]} holds other rows than segment {segment.name!r} of {transfer_set.folder}; "
            f"it belongs to another transfer set: label this one"
        )
    return store
