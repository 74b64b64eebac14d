"""A teacher's replicas on the Ray cluster, and the driver's part of labelling: who gets which shard, and what if one dies.

Only control messages pass through here; rows and scores never do.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ..errors import BadRowsError, CollegiumError, EnvironmentUnfit, TeacherError, UsersCodeError
from ..process import prometheus
from ..process.log_lines import Carried
from ..process.waiting import Wait, go_on
from ..resources.bundles import num_threads
from ..resources.reservation import Request, actor_options, free_of, num_gpus, reserved
from .actor import TeacherActor
from .hands import IN_FLIGHT, Pace, Replica, Shard, Waiting
from .shard import LabelTask, TeacherSpec
from .stalls import Stalls

log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Between two questions whether a lost replica is back."""


@contextmanager
def replicas(
    teacher: TeacherSpec, tasks: Sequence[LabelTask], num: int, wait_s: float
) -> Iterator[tuple[list[Any], Stalls]]:
    """Reserve all replicas together, start and watch them, and give everything back at the end, whatever happened."""
    resources = teacher.config.resources
    actors: list[Any] = []
    with reserved([Request.of(f"replicas of teacher {teacher.name!r}", resources, num)], wait_s) as (group,):
        try:
            for number in range(num):
                options = actor_options(resources, group, number, max_concurrency=IN_FLIGHT)
                given = (teacher, num_threads(resources), num_gpus(resources), Carried.from_here())
                actors.append(TeacherActor.options(**options).remote(tasks, *given))
            with Stalls(f"teacher {teacher.name!r}", actors, teacher.config.stall_timeout_s) as stalls:
                yield actors, stalls
        finally:
            for actor in actors:
                ray.kill(actor, no_restart=True)


class Dispatcher:
    """Sends shards to replicas, a bounded number at a time, and sends them again when they are lost.

    A shard that was lost runs alone on its replica from then on, after all others: one that kills its replica is not
    confused with its neighbours, and everything else is committed before it ends the run. Nothing is waited for when
    nothing succeeds any more.
    """

    def __init__(
        self,
        actors: Sequence[Any],
        shards: Waiting,
        teacher: TeacherSpec,
        tasks: Sequence[LabelTask],
        *,
        max_attempts: int,
        wait_s: float,
        stalls: Stalls,
    ) -> None:
        self.replicas = [Replica(number, actor) for number, actor in enumerate(actors)]
        self.waiting = shards
        self.lost: list[Shard] = []
        self.given_up: list[TeacherError] = []
        self.calls: dict[Any, tuple[Replica, Shard | None]] = {}
        self.teacher = teacher
        self.tasks = tasks
        self.max_attempts = max_attempts
        self.wait_s = wait_s
        self.num_open = len(shards)
        self.num_in_flight = 0
        self.num_retries = 0
        self.pace = Pace()
        self.stalls = stalls
        stalls.at_hand = self._at_hand
        self.told: set[str] = set()
        self.num_lost_in_a_row = 0
        self.first_ready: float | None = None
        self.wait = Wait(log)
        self.last_loss = ""

    @property
    def num_ready(self) -> int:
        return sum(replica.ready for replica in self.replicas)

    def run(self) -> Iterator[Shard]:
        """Yield each shard once it is committed.

        Raises TeacherError, EnvironmentUnfit when no replica comes back, or what a replica refused to load.
        """
        while self.num_open:
            self._submit()
            self._wait_for_a_replica()
            for ref in self._done():
                replica, shard = self.calls.pop(ref)
                if shard is None:
                    replica.asked = False
                else:
                    self._put_down(replica, shard)
                if self._succeeded(ref, replica, shard) and shard is not None and not shard.is_done:
                    self.num_lost_in_a_row = 0
                    self.pace.note(shard)
                    self._close(shard)
                    yield shard
        if self.given_up:
            raise self.given_up[0]

    def _wait_for_a_replica(self) -> None:
        """Say so when all replicas are lost, and raise EnvironmentUnfit in the end: a call to one without a node waits for ever."""
        go_on()
        if any(replica.lost_at is None for replica in self.replicas):
            return
        self.wait.since = max(replica.lost_at or 0.0 for replica in self.replicas)
        if self.wait.seconds > self.wait_s:
            raise EnvironmentUnfit(
                f"{self._needed()}, and none came back within {self.wait_s:g} s; Ray says: {self.last_loss}. What is "
                f"labelled is kept: run the same command again once the cluster can hold them"
            )
        self.wait.tell(self._needed)

    def _needed(self) -> str:
        """By the replicas of which none is left."""
        request = Request.of(
            f"replicas of teacher {self.teacher.name!r}", self.teacher.config.resources, len(self.replicas)
        )
        return f"all {request.who} are lost; they need {request}, beside that are free {free_of(request.bundle)}"

    def _done(self) -> list[Any]:
        if not self.calls:  # every replica is lost
            time.sleep(PAUSE_S)
            return []
        ray.wait(list(self.calls), timeout=PAUSE_S)
        done: list[Any] = ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)[0]
        return done

    def _submit(self) -> None:
        held = {shard for _, shard in self.calls.values() if shard is not None and not shard.is_done}
        late = self.pace.too_long(held) if len(self.replicas) > 1 else []
        for replica in self.replicas:
            if not replica.ready:
                self._ask_if_ready(replica)
            while replica.ready and (shard := self._next_for(replica, late)) is not None:
                self._give(replica, shard)

    def _ask_if_ready(self, replica: Replica) -> None:
        if not replica.asked and time.monotonic() >= replica.ask_at:
            replica.asked = True
            self.calls[replica.actor.ready.remote()] = (replica, None)

    def _give(self, replica: Replica, shard: Shard) -> None:
        replica.in_hand.append(shard)
        shard.held_by.append(replica)
        shard.given_at = time.monotonic()
        self.num_in_flight += 1
        last_try = shard.attempts + 1 >= self.max_attempts
        self.calls[replica.actor.label.remote(shard.task, shard.number, last_try)] = (replica, shard)

    def _put_down(self, replica: Replica, shard: Shard) -> None:
        replica.in_hand.remove(shard)
        shard.held_by.remove(replica)
        self.num_in_flight -= 1

    def _close(self, shard: Shard) -> None:
        shard.is_done = True
        self.num_open -= 1

    def _next_for(self, replica: Replica, late: list[Shard]) -> Shard | None:
        for shard in late:
            if replica.may_take(shard):  # two writers of one shard do no harm: one record wins
                late.remove(shard)
                told = "teacher %s: shard %d takes long (%.0f s with replica %d): replica %d gets it, too"
                has = shard.held_by[0].number, replica.number
                log.info(told, self.teacher.name, shard.number, time.monotonic() - shard.given_at, *has)
                return shard
        if self.waiting:
            fair = -(-(len(self.waiting) + self.num_in_flight) // len(self.replicas))  # so that none idles at the end
            return self.waiting.popleft() if len(replica.in_hand) < min(IN_FLIGHT, fair) else None
        if replica.in_hand:
            return None
        others = any(other.ready and not other.is_stuck for other in self.replicas if other is not replica)
        candidates = [shard for shard in self.lost if shard.lost_by is not replica or not others]
        if not candidates:
            return None
        shard = min(candidates, key=lambda shard: shard.attempts)
        self.lost.remove(shard)
        return shard

    def _at_hand(self, number: int) -> str:
        shards = ", ".join(str(shard.number) for shard in [*self.replicas[number].in_hand])
        return f" (at shard {shards})" if shards else ""

    def _succeeded(self, ref: Any, replica: Replica, shard: Shard | None) -> bool:
        """What came of a call; what was lost by it is sent again."""
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            self._refused(replica, shard, error)
            return False
        except RayError as error:  # the process or its node is gone, or out of reach
            self._gone(replica, shard, error)
            return False
        if shard is None:
            if replica.lost_at is not None:
                log.info("teacher %s: replica %d is back", self.teacher.name, replica.number)
            replica.ready, replica.lost_at = True, None
            self.stalls.killed.discard(replica.number)
            self.first_ready = self.first_ready or time.monotonic()
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
        now = time.monotonic()
        if replica.lost_at is None:
            replica.lost_at = now
            log.warning("teacher %s: replica %d is lost, Ray starts it again", self.teacher.name, replica.number)
        killed = replica.number in self.stalls.killed
        cause = TimeoutError(f"no answer within stall_timeout_s = {self.stalls.timeout_s}") if killed else error
        replica.ready, replica.ask_at, self.last_loss = False, now + PAUSE_S, first_line(cause)
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
            self.lost.append(shard)
        if self.num_lost_in_a_row >= self.max_attempts * IN_FLIGHT * len(self.replicas):
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
