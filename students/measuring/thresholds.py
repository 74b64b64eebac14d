"""Thresholds of classes that each hold or not: chosen on validation, by each who is judged for itself.

Whoever has no validation rows keeps a probability of 0.5.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from teachers.transfer_set.transfer_set import TransferSet

from ..config.combining import NO_OPTIONS, Options
from ..runs.run import Source
from .hearing import hear
from .judged import Thresholds
from .labelled import Labelled


def chosen_by(rows: Labelled, said: Callable[[], Tensor]) -> Thresholds:
    """From what somebody says of validation rows; None where there are none, or the task has no thresholds."""
    if rows.task.thresholds is None or not len(rows.labels):
        return None
    return rows.task.thresholds(said(), rows.labels, rows.space)


def thresholds_of_teachers(
    transfer_set: TransferSet,
    sources: Sequence[Source],
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    options: Options = NO_OPTIONS,
) -> dict[str, Thresholds]:
    """Of each teacher and of all together (`ensemble`), where their stores cover the validation rows."""
    rows = Labelled.of(transfer_set, "validation")
    if rows.task.thresholds is None or not covers(sources, rows) or not len(rows.labels):
        return {}
    heard = hear(rows, sources, combine, teacher_weights, order, options)
    return {name: rows.task.thresholds(said, rows.labels, rows.space) for name, said in heard.everyone.items()}


def covers(sources: Sequence[Source], rows: Labelled) -> bool:
    """Whether every teacher has labelled these rows."""
    return all(segment.name in source.stores for source in sources for segment in rows.segments)
