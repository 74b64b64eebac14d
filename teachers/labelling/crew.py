"""How many replicas a labelling has: those that are reserved, and others that come while there are shards for them, and go.

Knows nothing of who gets which shard.
"""

import logging
from typing import TYPE_CHECKING

from ..errors import EnvironmentUnfit
from ..process.waiting import Wait, go_on
from .hands import Replica

if TYPE_CHECKING:
    from .replicas import Calls

log = logging.getLogger(__name__)

AGAIN_S = 10.0
"""So long no other replica is asked for after one that came was lost before it was ready."""


class Crew:
    """The replicas of teacher `name`, at most `most` of them, by their numbers. More are asked for while there are shards that are
    worth their start; who finds none any more goes, but for those that are reserved."""

    def __init__(self, name: str, calls: "Calls", most: int) -> None:
        self.name, self.calls, self.most = name, calls, most
        self.replicas: dict[int, Replica] = {}
        self.unready: dict[int, Replica] = {}
        self.hungry: dict[int, Replica] = {}
        """Those that may find another shard to take."""
        self.most_at_once = 0
        self.first_ready: float | None = None
        self.last_loss = ""
        self._wait = Wait(log)
        self._looked, self._grow_at, self._start_s, self._worked_s = calls.now(), 0.0, 0.0, 0.0
        for number in range(calls.reserved):
            self._add(number)

    @property
    def num_ready(self) -> int:
        return len(self.replicas) - len(self.unready)

    def others(self, replica: Replica) -> bool:
        """Whether another one can take what this one has lost."""
        return any(other.ready and not other.is_stuck for other in self.replicas.values() if other is not replica)

    def resize(self, to_take: int, num_open: int, num_closed: int, *, in_need: bool) -> None:
        """No more idle replicas than shards that nobody has, `to_take`, and more where these are worth their start. Who is ready
        does not go for one that is lost, or that loads.

        `in_need`: one has to step in for another. Called every now and then.
        """
        now = self.calls.now()
        self._worked_s += self.num_ready * (now - self._looked)
        self._looked = now
        idle = [replica for replica in self.replicas.values() if replica.is_idle]
        may_go = [replica for replica in idle if not self._stays(replica)]
        may_go.sort(key=lambda replica: replica.ready)  # who is not even ready goes first
        num_ready = sum(replica.ready for replica in idle)
        for replica in may_go[: max(0, len(idle) - to_take)]:
            if replica.ready and num_ready <= to_take:
                break
            num_ready -= replica.ready
            self._drop(replica)
        left_s = None
        if self._worked_s:  # while none is done, the first takes so long at least
            left_s = num_open * self._worked_s / max(1, num_closed)
        worth = in_need or left_s is None or left_s > self._start_s * self.num_ready
        more = min(self.most - len(self.replicas), to_take - len(idle)) if worth and now >= self._grow_at else 0
        for number in self.calls.more(max(0, more), left_s):
            self._add(number)

    def is_ready(self, replica: Replica) -> None:
        if self.unready.pop(replica.number, None) is None:  # it was sent away before it could say so
            return
        if replica.lost_at is not None:
            log.info("teacher %s: replica %d is back", self.name, replica.number)
        else:
            self._start_s = self.calls.now() - replica.came_at
        replica.ready, replica.lost_at = True, None
        self.hungry[replica.number] = replica
        self.calls.stalls.killed.discard(replica.number)
        self.first_ready = self.first_ready or self.calls.now()

    def lose(self, replica: Replica, reason: str, again_s: float) -> None:
        """It is lost, as several of its calls may say; one that stays is asked again after `again_s`."""
        self.last_loss = reason
        if replica.number not in self.replicas:
            return
        now, stays = self.calls.now(), self._stays(replica)
        if replica.lost_at is None:
            what = "Ray starts it again" if stays else "another may come in its place"
            log.warning("teacher %s: replica %d is lost, %s", self.name, replica.number, what)
            replica.lost_at = now
        if not stays:
            self._grow_at = now if replica.ready else now + AGAIN_S
            self._drop(replica)
            return
        replica.ready, replica.ask_at = False, now + again_s
        self.unready[replica.number] = replica
        self.hungry.pop(replica.number, None)

    def wait_for_one(self, wait_s: float) -> None:
        """Say so when all replicas are lost, and raise EnvironmentUnfit in the end: a call to one without a node waits for ever."""
        go_on()
        lost = (
            [self.replicas[number].lost_at for number in range(self.calls.reserved)] if not self.num_ready else [None]
        )
        if None in lost:
            return
        self._wait.since = max(at or 0.0 for at in lost)
        if self.calls.now() - self._wait.since > wait_s:
            raise EnvironmentUnfit(
                f"{self._needed()}, and none came back within {wait_s:g} s; Ray says: {self.last_loss}. What is "
                f"labelled is kept: run the same command again once the cluster can hold them"
            )
        self._wait.tell(self._needed)

    def _needed(self) -> str:
        """By the replicas of which none is left."""
        return self.calls.needs(self.calls.reserved)

    def _stays(self, replica: Replica) -> bool:
        return replica.number < self.calls.reserved

    def _add(self, number: int) -> None:
        self.replicas[number] = self.unready[number] = Replica(number, self.calls.now())
        self.most_at_once = max(self.most_at_once, len(self.replicas))

    def _drop(self, replica: Replica) -> None:
        replica.ready = False
        for those in (self.replicas, self.unready, self.hungry):
            those.pop(replica.number, None)
        self.calls.retire(replica.number)
