"""Rules that weigh teachers by labelled validation rows: what each is told of them, as keywords of the rule.

Experts that a recipe names stand here too: nothing is looked at for them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import Options
from ..runs.run import Source
from .confusion import confusions
from .experts import experts
from .fitted import fitted_weights, weights_by_class
from .gate import trained_gate
from .merits import merits
from .squared_errors import squared_errors

Judge = Callable[[Sequence[Source], TransferSet, Options], Mapping[str, Any]]
"""(teachers in the order in which the rule hears them, rows, options of the term) to keywords of the rule."""


def _variances(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    return {"variances": tuple(squared_errors(sources, transfer_set).values())}


def _weights(sources: Sequence[Source], transfer_set: TransferSet, options: Options) -> dict[str, Any]:
    if options.by_class:
        return {"teacher_weights": weights_by_class(sources, transfer_set)}
    return {"teacher_weights": tuple(fitted_weights(sources, transfer_set).values())}


JUDGED_BY: dict[str, Judge] = {
    "inverse_variance": _variances,
    "fitted": _weights,
    "best": merits,
    "experts": experts,
    "learned": trained_gate,
    "confusion": confusions,
}
