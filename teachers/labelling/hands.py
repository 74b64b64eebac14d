"""Shards in the hands of replicas, as the driver sees them, and which of them takes too long."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..soft_targets.schema import Commit
from ..soft_targets.store import SoftTargetStore

IN_FLIGHT = 3
"""Shards that a replica has in hand: one is read, one computed, one written."""
TIMES_THE_MEDIAN = 5.0
LEAST_S = 2.0
"""So long nothing takes too long."""
FEWEST = 3
"""So many shards have a median."""


@dataclass(eq=False, slots=True)
class Shard:
    """A shard of the store of task number `task`; `lost_by` is the replica that last failed at it."""

    task: int
    number: int
    first_row: int
    num_rows: int
    attempts: int = 0
    lost_by: "Replica | None" = None
    held_by: list["Replica"] = field(default_factory=list)
    given_at: float = 0.0
    """To the one that it was last given to."""
    is_done: bool = False
    record: Commit | None = None
    """What its writer says."""


class Waiting:
    """Shards that nobody has yet, in order, made when they are taken: of a million no more than their numbers are held.

    `missing`: by the number of a task its store, and the shards that this misses.
    """

    def __init__(self, missing: Mapping[int, tuple[SoftTargetStore, Sequence[int]]]) -> None:
        self._left = sum(len(numbers) for _, numbers in missing.values())
        self._made = (
            Shard(task, number, *store.shard_rows(number))
            for task, (store, numbers) in missing.items()
            for number in numbers
        )

    def __len__(self) -> int:
        return self._left

    def popleft(self) -> Shard:
        self._left -= 1
        return next(self._made)


@dataclass(eq=False)
class Replica:
    """A replica as the dispatcher sees it. It is asked whether it is ready before it gets a shard, and after it was lost."""

    number: int
    came_at: float
    ready: bool = False
    lost_at: float | None = None
    asked: bool = False
    ask_at: float = 0.0
    in_hand: list[Shard] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it has is still to be done."""
        return all(shard.is_done for shard in self.in_hand)

    @property
    def is_stuck(self) -> bool:
        """Whether it has a shard that somebody else has done, or has to do, in its place."""
        return any(shard.is_done or len(shard.held_by) > 1 for shard in self.in_hand)

    def may_take(self, shard: Shard) -> bool:
        """A shard that somebody else has, too. One that was lost before runs alone."""
        alone = not self.in_hand if shard.attempts else not any(other.attempts for other in self.in_hand)
        return self not in shard.held_by and alone and len(self.in_hand) < IN_FLIGHT


class Pace:
    """How long shards take by `clock`, from their being given to a replica until they are committed, by the row."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of_a_row_s: deque[float] = deque(maxlen=100)

    def note(self, shard: Shard) -> None:
        """It is done."""
        self._of_a_row_s.append((self._clock() - shard.given_at) / shard.num_rows)

    def too_long(self, shards: Collection[Shard]) -> list[Shard]:
        """Those that one replica alone has had for five times the median, the oldest first."""
        if len(self._of_a_row_s) < FEWEST:
            return []
        row_s, now = TIMES_THE_MEDIAN * statistics.median(self._of_a_row_s), self._clock()
        late = [s for s in shards if len(s.held_by) == 1 and now - s.given_at > max(LEAST_S, row_s * s.num_rows)]
        return sorted(late, key=lambda shard: shard.given_at)
