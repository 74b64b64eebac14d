"""Training rows beside those of the source: unlabelled files, synthetic rows. Each kind lies in segments of its own.

So the source's own segments are what they were without them, and so are statistics and dictionaries. Knows nothing of how rows
are read, made or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..transfer_set.columns import Column
from .ledger import Ledger
from .munge import munged
from .planning import Earlier, PlannedSegment, plan_segments
from .shuffle import Reading, Run
from .taking import check_apart, divided


@dataclass(frozen=True)
class Whole:
    """All segments, of the source's rows and of those beside, with the runs that hold their rows."""

    runs: tuple[Run, ...]
    planned: list[PlannedSegment]
    num_rows: dict[str, int]
    """Of each kind that there is beside the source's."""


def with_rows_beside(
    config: TransferSetConfig,
    whole: Whole,
    source: Ledger,
    extra: Ledger | None,
    told: Reading,
    columns: Sequence[Column],
    earlier: Earlier | None,
    width: int,
) -> Whole:
    """`whole` of the `source` alone, with what the recipe wants beside; `whole.runs` are those of `extra`, too.

    Raises DataError for two rows of one key.
    """
    ledgers = [source]
    if extra is not None:
        if not extra.counts()["train"]:
            raise DataError("transfer_set.extra: no row is left of it; take it out, or give other rows")
        whole = _added(whole, "extra", extra, columns, earlier)
        ledgers.append(extra)
    if config.munge is not None:
        made, written = munged(config.munge, source.whole(), whole.runs, told, columns, width)
        made = replace(made, run=made.run + len(whole.runs))
        whole = replace(whole, runs=(*whole.runs, *written))
        ledger = divided(made, source, told.pieces)
        check_apart([*ledgers, ledger], whole.runs, told.pieces)
        whole = _added(whole, "munge", ledger, columns, earlier)
    return whole


def _added(whole: Whole, kind: str, ledger: Ledger, columns: Sequence[Column], earlier: Earlier | None) -> Whole:
    planned = [*whole.planned, *plan_segments(ledger, columns, earlier, kind)]
    return Whole(whole.runs, planned, {**whole.num_rows, kind: ledger.counts()["train"]})


def report_of(whole: Whole, labels: Sequence[str]) -> dict[str, Any]:
    """What the manifest tells of them; nothing where there are none. `labels`: columns of the label that nobody reads."""
    if not whole.num_rows:
        return {}
    return {"beside": {**whole.num_rows, "labels_not_read": list(labels)}}
