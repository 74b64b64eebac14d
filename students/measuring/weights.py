"""How much each teacher counts in each class, by a student's own rule: whom a rule trusts where."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teachers.transfer_set.transfer_set import TransferSet

from ..runs.run import Source
from .evaluate import FORMAT
from .hearing import hear, rule_at_work
from .labelled import Labelled


def weights_by_class(
    transfer_set: Path,
    sources: Sequence[Source],
    *,
    combine: str | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    order: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`evaluation.json`: `classes`, and by teacher its mean share over the test rows of each class, None where there is no row.

    Of one class of many. `options`: of the rule, as `rule_at_work` takes them. Raises DataError when no test row has a label.
    """
    rows = Labelled.of(TransferSet.open(transfer_set), "test").require("test")
    kept = hear(rows, sources).kept
    names, found = list(order or kept), []
    rule = rule_at_work(rows, sources, combine, teacher_weights, names, **options)
    for number in range(len(rows.space.names)):
        mine = rows.labels == number
        found.append(rule.of(kept, mine)[1] if mine.any() else {})
    counts = {name: [each.get(name) for each in found] for name in names}
    return {"format": FORMAT, "classes": list(rows.space.names), "counts": counts}
