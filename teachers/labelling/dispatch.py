"""The driver's part of labelling: who gets which shard, what if one dies, and how many replicas there is work for.

Only control messages pass through here; rows and scores never do. Knows no Ray but its errors, and no clock but that of its calls.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

from ray.exceptions import RayError, RayTaskError

from ..errors import BadRowsError, CollegiumError, TeacherError, UsersCodeError
from ..process import prometheus
from .crew import Crew
from .hands import IN_FLIGHT, Pace, Replica, Shard, Waiting
from .replicas import Calls
from .shard import LabelTask, TeacherSpec

log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Between two looks at what takes long, who is back, and how many replicas there should be."""


class Dispatcher:
    """Sends shards to replicas, a bounded number at a time, and sends them again when they are lost.

    A shard that was lost runs alone on its replica from then on, after all others: one that kills its replica is not
    confused with its neighbours, and everything else is committed before it ends the run. Nothing is waited for when
    nothing succeeds any more.
    """

    def __init__(
        self,
        calls: Calls,
        shards: Waiting,
        teacher: TeacherSpec,
        tasks: Sequence[LabelTask],
        *,
        max_attempts: int,
        wait_s: float,
        most: int = 1,
    ) -> None:
        self.calls, self.waiting, self.teacher, self.tasks = calls, shards, teacher, tasks
        self.max_attempts, self.wait_s = max_attempts, wait_s
        self.crew = Crew(teacher.name, calls, most)
        self.lost: list[tuple[int, int, Shard]] = []
        """A heap: the fewest attempts first, then in the order in which they were lost."""
        self.late: list[Shard] = []
        self.given_up: list[TeacherError] = []
        self.asked: dict[Any, tuple[Replica, Shard | None]] = {}
        """By its ticket who was asked for what; None: whether it is ready."""
        self.num_open, self.num_closed = len(shards), 0
        self.num_retries = 0
        self.pace = Pace(calls.now)
        calls.stalls.at_hand = self._at_hand
        self.told: set[str] = set()
        self.num_lost_in_a_row = 0
        self._order, self._look_at = itertools.count(), calls.now()

    def run(self) -> Iterator[Shard]:
        """Yield each shard once it is committed.

        Raises TeacherError, EnvironmentUnfit when no replica comes back, or what a replica refused to load.
        """
        while self.num_open:
            if self.calls.now() >= self._look_at:
                self._look()
            self._submit()
            self.crew.wait_for_one(self.wait_s)
            for ticket in self.calls.done([*self.asked], PAUSE_S):
                replica, shard = self.asked.pop(ticket)
                if shard is None:
                    replica.asked = False
                else:
                    self._put_down(replica, shard)
                if self._succeeded(ticket, replica, shard) and shard is not None and not shard.is_done:
                    self.num_lost_in_a_row = 0
                    self.pace.note(shard)
                    self._close(shard)
                    yield shard
        if self.given_up:
            raise self.given_up[0]

    def _look(self) -> None:
        held = {shard for _, shard in self.asked.values() if shard is not None and not shard.is_done}
        self.late = self.pace.too_long(held)
        to_take = len(self.waiting) + len(self.lost) + len(self.late)
        self.crew.resize(to_take, self.num_open, self.num_closed, in_need=bool(self.late))
        for replica in self.crew.unready.values():
            self._ask_if_ready(replica)
        self._look_at = self.calls.now() + PAUSE_S

    def _submit(self) -> None:
        if not (self.waiting or self.lost or self.late):
            return
        for replica in [*self.crew.hungry.values()]:
            while (shard := self._next_for(replica)) is not None:
                self._give(replica, shard)
            if replica.in_hand:  # who has nothing goes on asking
                del self.crew.hungry[replica.number]

    def _ask_if_ready(self, replica: Replica) -> None:
        if not replica.asked and self.calls.now() >= replica.ask_at:
            replica.asked = True
            self.asked[self.calls.ready(replica.number)] = (replica, None)

    def _give(self, replica: Replica, shard: Shard) -> None:
        replica.in_hand.append(shard)
        shard.held_by.append(replica)
        shard.given_at = self.calls.now()
        last_try = shard.attempts + 1 >= self.max_attempts
        self.asked[self.calls.label(replica.number, shard, last_try)] = (replica, shard)

    def _put_down(self, replica: Replica, shard: Shard) -> None:
        replica.in_hand.remove(shard)
        shard.held_by.remove(replica)
        if replica.ready:
            self.crew.hungry[replica.number] = replica

    def _close(self, shard: Shard) -> None:
        shard.is_done = True
        self.num_open -= 1
        self.num_closed += 1

    def _next_for(self, replica: Replica) -> Shard | None:
        for shard in self.late:
            if not shard.is_done and len(shard.held_by) == 1 and replica.may_take(shard):
                self.late.remove(shard)  # two writers of one shard do no harm: one record wins
                told = "teacher %s: shard %d takes long (%.0f s with replica %d): replica %d gets it, too"
                has = shard.held_by[0].number, replica.number
                log.info(told, self.teacher.name, shard.number, self.calls.now() - shard.given_at, *has)
                return shard
        if self.waiting:
            fair = -(-len(self.waiting) // len(self.crew.replicas))  # so that none idles at the end
            return self.waiting.popleft() if len(replica.in_hand) < min(IN_FLIGHT, fair) else None
        return None if replica.in_hand else self._lost_before(replica)

    def _lost_before(self, replica: Replica) -> Shard | None:
        """One that was lost, by another replica if there is one."""
        own, found = [], None
        while self.lost and found is None:
            entry = heappop(self.lost)
            if entry[-1].lost_by is replica:
                own.append(entry)
            else:
                found = entry[-1]
        if found is None and own and not self.crew.others(replica):
            found = own.pop(0)[-1]
        for entry in own:
            heappush(self.lost, entry)
        return found

    def _at_hand(self, number: int) -> str:
        replica = self.crew.replicas.get(number)
        shards = ", ".join(str(shard.number) for shard in [*replica.in_hand]) if replica else ""
        return f" (at shard {shards})" if shards else ""

    def _succeeded(self, ticket: Any, replica: Replica, shard: Shard | None) -> bool:
        """What came of a call; what was lost by it is sent again."""
        try:
            answer = self.calls.answer(ticket)
        except RayTaskError as error:
            self._refused(replica, shard, error)
            return False
        except RayError as error:  # the process or its node is gone, or out of reach
            self._gone(replica, shard, error)
            return False
        if shard is None:
            self.crew.is_ready(replica)
        else:
            shard.record = answer
        return True

    def _refused(self, replica: Replica, shard: Shard | None, error: RayTaskError) -> None:
        if isinstance(error.cause, BadRowsError) and shard is not None:
            self.given_up.append(error.cause)
            self._close(shard)
            return
        users_code = isinstance(error.cause, UsersCodeError) and shard is not None
        if isinstance(error.cause, CollegiumError) and not users_code:  # another try would say it again
            raise error.cause from None
        if shard is None:
            raise TeacherError(f"teacher {self.teacher.name!r} could not be loaded: {error.cause!r}") from error
        self._send_again(replica, shard, error.cause)

    def _gone(self, replica: Replica, shard: Shard | None, error: RayError) -> None:
        stalls = self.calls.stalls
        killed = replica.number in stalls.killed
        cause = TimeoutError(f"no answer within stall_timeout_s = {stalls.timeout_s}") if killed else error
        self.crew.lose(replica, first_line(cause), PAUSE_S)
        if shard is not None:
            self._send_again(replica, shard, cause)

    def _send_again(self, replica: Replica, shard: Shard, error: Exception) -> None:
        if shard.is_done or shard.held_by:  # somebody else had it, too
            return
        shard.attempts += 1
        shard.lost_by = replica
        self.num_lost_in_a_row += 1
        if shard.attempts >= self.max_attempts:
            self.given_up.append(self._failure(shard, error))
            self._close(shard)
        else:
            reason = first_line(error)
            level = logging.DEBUG if reason in self.told else logging.WARNING
            log.log(level, "teacher %s: shard %d is sent again (%s)", self.teacher.name, shard.number, reason)
            self.told.add(reason)
            self.num_retries += 1
            prometheus.add("collegium_shard_retries", 1, teacher=self.teacher.name)
            heappush(self.lost, (shard.attempts, next(self._order), shard))
        if self.num_lost_in_a_row >= self.max_attempts * IN_FLIGHT * self.crew.most_at_once:
            raise self._failure(shard, error)

    def _failure(self, shard: Shard, error: Exception) -> TeacherError:
        task = self.tasks[shard.task]
        last_row = shard.first_row + shard.num_rows - 1
        return TeacherError(
            f"teacher {self.teacher.name!r} failed {shard.attempts} time{'s' * (shard.attempts != 1)} at shard {shard.number} of {task.store}, "
            f"rows {shard.first_row} to {last_row} of segment {task.segment}; the last time: {first_line(error)}. "
            f"What could be labelled is kept; look at these rows, and run the same command again"
        )


def first_line(error: Exception) -> str:
    told = str(error) if isinstance(error, CollegiumError) else f"{type(error).__name__}: {error}"
    return told.splitlines()[0]
