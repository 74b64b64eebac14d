"""How far teachers of numbers are off on labelled validation rows: what `combine: inverse_variance` weighs them by."""

from collections.abc import Sequence

import numpy as np

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .stores import open_store, said_in


def squared_errors(sources: Sequence[Source], transfer_set: TransferSet) -> dict[str, float]:
    """By teacher the mean squared error over the known numbers of validation, in standard deviations of each.

    Raises RecipeError where there is none, StoreError where a teacher has not labelled validation.
    """
    return {source.name: _squared_error(source, transfer_set) for source in sources}


def _squared_error(source: Source, transfer_set: TransferSet) -> float:
    total, found = 0.0, 0
    for segment in transfer_set.of("validation"):
        store = open_store(source, transfer_set, segment)
        said = said_in(store, source, transfer_set.space).double().numpy()
        off = transfer_set.space.standardised(said) - transfer_set.space.standardised(
            transfer_set.usable_labels(segment)
        )
        counts = ~np.isnan(off)
        total, found = total + float(np.square(off[counts]).sum()), found + int(counts.sum())
    if not found:
        raise RecipeError(
            f"inverse_variance weighs teacher {source.name!r} by its errors on validation, and no row there has a "
            f"label of what it says; take `mean`, or give `split.validation` labelled rows"
        )
    return total / found
