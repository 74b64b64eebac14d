"""Training rows beside those of the source: unlabelled files, synthetic rows. Each kind lies in segments of its own.

So the source's own segments are what they were without them, and so are statistics and dictionaries. Knows nothing of how rows
are read, made or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config.transfer_set import TransferSetConfig
from ..errors import DataError
from ..transfer_set.columns import Column
from ..transfer_set.transfer_set import TransferSet
from .census import Census, check_unique, joined
from .munge import munged
from .segments import PlannedSegment, Runner, plan_segments
from .shuffle import Reading, Run


@dataclass(frozen=True)
class Whole:
    """The source's rows and, behind them, those beside; `planned`: all segments, whose rows are numbers of the census."""

    census: Census
    runs: tuple[Run, ...]
    planned: list[PlannedSegment]
    num_rows: dict[str, int]
    """Of each kind that there is beside the source's."""


def with_rows_beside(
    config: TransferSetConfig,
    whole: Whole,
    extra: Census | None,
    told: Reading,
    columns: Sequence[Column],
    earlier: TransferSet | None,
    run: Runner,
    width: int,
) -> Whole:
    """`whole` of the source's rows alone, with what the recipe wants beside; `extra` counts its runs as `whole` does.

    Raises DataError for two rows of one key.
    """
    source, runs = whole.census, whole.runs
    if extra is not None:
        if not len(extra.keys):
            raise DataError("transfer_set.extra: no row is left of it; take it out, or give other rows")
        whole = _added(whole, "extra", extra, plan_segments(extra, columns, earlier, run, "extra"))
    if config.munge is not None:
        made, written = munged(config.munge, source, runs, told, columns, width)
        made = replace(made, run=made.run + np.uint32(len(runs)))
        whole = replace(whole, runs=(*runs, *written))
        check_unique(joined([whole.census, made]), whole.runs, told.pieces)
        whole = _added(whole, "munge", made, plan_segments(made, columns, earlier, run, "munge"))
    return whole


def _added(whole: Whole, kind: str, census: Census, planned: Sequence[PlannedSegment]) -> Whole:
    first = len(whole.census.keys)
    moved = [replace(segment, rows=segment.rows + first) for segment in planned]
    num_rows = {**whole.num_rows, kind: len(census.keys)}
    return Whole(joined([whole.census, census]), whole.runs, [*whole.planned, *moved], num_rows)


def report_of(whole: Whole, labels: Sequence[str]) -> dict[str, Any]:
    """What the manifest tells of them; nothing where there are none. `labels`: columns of the label that nobody reads."""
    if not whole.num_rows:
        return {}
    return {"beside": {**whole.num_rows, "labels_not_read": list(labels)}}
