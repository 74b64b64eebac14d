"""Training rows beside those of the source: how many, and that nobody read their labels. Knows nothing but counts."""

from collections.abc import Iterator, Mapping
from typing import Any

WHAT = {"extra": "of `transfer_set.extra`", "munge": "synthetic (`transfer_set.munge`)"}


def about_beside(counted: Mapping[str, Any]) -> Iterator[str]:
    """A sentence on each kind, one on labels that were there."""
    beside = counted.get("beside", {})
    told = [f"{beside[kind]:,} {what}" for kind, what in WHAT.items() if kind in beside]
    if told:
        yield (
            f"Beside the source's training rows {' and '.join(told)} were labelled by teachers and learnt by students; they have no "
            f"labels, so no control and no teacher has been trained on them."
        )
    if labels := beside.get("labels_not_read"):
        yield f"`transfer_set.extra` has {', '.join(f'`{name}`' for name in labels)}, which nobody has read."
    if corrected := counted.get("corrected"):
        told = [
            f"{rows:,} {'of teachers alone' if split == 'teachers' else split}" for split, rows in corrected.items()
        ]
        yield f"`transfer_set.corrections` has labels of {', '.join(told)} rows, which stand in place of the source's."
