"""The rows of a training that all of its teachers have labelled so far, while they go on labelling.

Knows nothing of batches, nor of how long anybody waits.
"""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from teachers.soft_targets.schema import Commit
from teachers.transfer_set.merged import MergedSplit

from ..objective.growing import GrowingVoice
from ..objective.targets import Column, Targets
from ..runs.session import Session

LOOK_S = 0.5
"""Between two looks at what is committed: of an object store each lists it."""


class Following:
    """What grows while a student trains: `columns` are those that batches are drawn from.

    `there`: bool `[views, rows]`, the rows of segments laid one after another; nothing is there before the first look.
    """

    def __init__(
        self, voices: Sequence[GrowingVoice], targets: Targets, columns: dict[str, Column], train: MergedSplit
    ) -> None:
        self.voices, self.targets, self.columns, self.train = voices, targets, columns, train
        self.there: NDArray[np.bool_] = np.zeros((train.views, train.num_rows), bool)
        self._looked = -LOOK_S

    @property
    def share(self) -> float:
        """Of all rows, in all views, those that are there."""
        return float(self.there.mean())

    @property
    def is_whole(self) -> bool:
        return bool(self.there.all())

    def look(self, session: Session) -> None:
        """Take what was committed meanwhile: on every rank what rank 0 has found. Raises StoreError for a damaged shard."""
        news = session.agree(self._news() if session.rank == 0 else [])
        if not any(records for stores in news for records in stores):
            return
        for voice, mine in zip(self.voices, news, strict=True):
            voice.take(mine)
        there = np.logical_and.reduce([voice.there for voice in self.voices])
        new, self.there = there & ~self.there, there
        rows = [np.flatnonzero(self.train.ordered([mask])) + view * len(mask) for view, mask in enumerate(new)]
        self.targets.fill(np.concatenate(rows))
        self.columns |= {
            name: column for voice in self.voices for name, column in voice.columns.items() if name in self.columns
        }

    def _news(self) -> list[list[list[Commit]]]:
        """By teacher and store; none where it was looked a moment ago."""
        if self.is_whole or time.monotonic() - self._looked < LOOK_S:
            return []
        self._looked = time.monotonic()
        return [voice.news() for voice in self.voices]
