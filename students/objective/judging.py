"""Rules that weigh teachers by labelled validation rows: what each is told of them, by its name in the recipe."""

from collections.abc import Callable, Sequence

from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .fitted import fitted_weights
from .squared_errors import squared_errors

Judge = Callable[[Sequence[Source], TransferSet], dict[str, float]]
JUDGED_BY: dict[str, tuple[str, Judge]] = {
    "inverse_variance": ("variances", squared_errors),
    "fitted": ("teacher_weights", fitted_weights),
}
"""(keyword of the rule, what finds its value for each teacher)."""
