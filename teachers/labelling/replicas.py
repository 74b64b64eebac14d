"""A teacher's replicas on the Ray cluster: some are reserved together, others come as there is room for them, and go.

Knows nothing of who gets which shard.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import ray
from ray.util.placement_group import placement_group

from ..process.log_lines import Carried
from ..resources.bundles import num_threads
from ..resources.reservation import (
    HOLD_S,
    PLACING_S,
    Request,
    actor_options,
    free_of,
    is_placed,
    num_gpus,
    remove,
    reserved,
)
from .actor import TeacherActor
from .hands import IN_FLIGHT, Shard
from .shard import LabelTask, TeacherSpec
from .stalls import Stalls

MOST_LOOKED_AT = 32
"""Of those that have found no room yet, at one look: each is a question to Ray's head."""


class Seats(Protocol):
    """Who says whether a labelling may have room beyond what it has reserved."""

    @property
    def patient(self) -> bool:
        """Whether what finds no room on the cluster at once stays asked for, since nodes come for it."""

    def want(self, num: int, left_s: float | None) -> int:
        """`num` more replicas would have shards to take; one alone would take `left_s` for all that is left, if that is
        known. How many may come now."""

    def give_back(self) -> None:
        """One that came, or was to come, is not there any more."""


class FreeSeats:
    """Whatever is free on the cluster."""

    patient = False

    def want(self, num: int, left_s: float | None) -> int:
        return num

    def give_back(self) -> None:
        pass


class Calls(Protocol):
    """Replicas by their numbers, and how a dispatcher asks them: Ray's actors, or others on virtual time."""

    reserved: int
    """How many are there from the beginning to the end: those of the lowest numbers. Another that is lost has gone."""
    stalls: Stalls

    def now(self) -> float:
        """Seconds of its clock."""

    def ready(self, number: int) -> Any:
        """Ask a replica to load its teacher; a ticket."""

    def label(self, number: int, shard: Shard, last_try: bool) -> Any:
        """Give it a shard; a ticket."""

    def done(self, tickets: Sequence[Any], wait_s: float) -> Sequence[Any]:
        """Those of them that are answered: once there is one, or after `wait_s`."""

    def answer(self, ticket: Any) -> Any:
        """Raises RayTaskError with what the replica raised, or RayError when it was lost."""

    def more(self, num: int, left_s: float | None) -> Sequence[int]:
        """Replicas that have come since. `num` more than those before would have shards to take; `left_s` as for Seats."""

    def retire(self, number: int) -> None:
        """It is lost, or nothing is left for it."""

    def needs(self, num: int) -> str:
        """What so many ask the cluster for, and what that has free."""


class Actors:
    """Ray's: those of `request` in a group that is reserved, each other one in a group of its own."""

    now = staticmethod(time.monotonic)
    answer = staticmethod(ray.get)

    def __init__(
        self,
        teacher: TeacherSpec,
        tasks: Sequence[LabelTask],
        group: Any,
        request: Request,
        seats: Seats,
        stalls: Stalls,
    ) -> None:
        self.teacher, self.tasks, self.seats, self.stalls = teacher, tasks, seats, stalls
        self.request, self.reserved = request, request.num
        self.handles: dict[int, Any] = {}
        self._num_begun = 0
        self._own: dict[int, Any] = {}
        """Groups of those beyond the reserved, by their numbers."""
        self._coming: list[tuple[Any, float]] = []
        """Groups that find room or do not, and since when."""
        self._ask_at = 0.0
        for number in range(request.num):
            self._begin(group, number)

    def ready(self, number: int) -> Any:
        return self.handles[number].ready.remote()

    def label(self, number: int, shard: Shard, last_try: bool) -> Any:
        return self.handles[number].label.remote(shard.task, shard.number, last_try)

    def done(self, tickets: Sequence[Any], wait_s: float) -> Sequence[Any]:
        if not tickets:
            time.sleep(wait_s)
            return []
        ray.wait([*tickets], timeout=wait_s)
        done: list[Any] = ray.wait([*tickets], num_returns=len(tickets), timeout=0)[0]
        return done

    def more(self, num: int, left_s: float | None) -> Sequence[int]:
        come = [self._begin(group) for group in self._placed()]
        num = max(0, num - len(come))
        for group, since in self._coming[num:]:
            if self.now() - since > PLACING_S:
                self._withdraw(group, since)
        num = max(0, num - len(self._coming))
        if not self.seats.patient:  # else who adds nodes has to see what is asked for
            num = min(num, self._free() if num and self.now() >= self._ask_at else 0)
        for _ in range(self.seats.want(num, left_s)):
            self._coming.append((placement_group([self.request.bundle]), self.now()))
        return come

    def retire(self, number: int) -> None:
        self.stalls.forget(number)
        ray.kill(self.handles.pop(number), no_restart=True)
        remove([self._own.pop(number)])
        self.seats.give_back()

    def needs(self, num: int) -> str:
        request = replace(self.request, num=num)
        return f"all {request.who} are lost; they need {request}, beside that are free {free_of(request.bundle)}"

    def end(self) -> None:
        """Of all of them."""
        for actor in self.handles.values():
            ray.kill(actor, no_restart=True)
        remove([group for group, _ in self._coming], max((since for _, since in self._coming), default=None))
        remove([*self._own.values()])

    def _free(self) -> int:
        """How many more the cluster seems to have room for at this moment."""
        free = free_of(self.request.bundle)
        fit = min(int(free[name] / amount + 1e-9) for name, amount in self.request.bundle.items())
        return max(0, fit - len(self._coming))

    def _placed(self) -> list[Any]:
        """Groups that have found room. One that found none for a while is withdrawn: it would keep larger ones from theirs."""
        placed, looked_at = list[Any](), 0
        for group, since in [*self._coming]:
            if is_placed(group):
                self._coming.remove((group, since))
                placed.append(group)
            elif (looked_at := looked_at + 1) >= MOST_LOOKED_AT:
                break
            elif not self.seats.patient and self.now() - since > HOLD_S:
                self._withdraw(group, since)
                self._ask_at = self.now() + random.uniform(HOLD_S, 2 * HOLD_S)
        return placed

    def _withdraw(self, group: Any, since: float) -> None:
        self._coming.remove((group, since))
        remove([group], since)
        self.seats.give_back()

    def _begin(self, group: Any, bundle: int | None = None) -> int:
        """A replica in a bundle of the reserved group, or (None) in a group of its own."""
        number, resources = self._num_begun, self.teacher.config.resources
        self._num_begun += 1
        options = actor_options(resources, group, bundle or 0, max_concurrency=IN_FLIGHT)
        if bundle is None:
            self._own[number] = group
            options["max_restarts"] = 0  # where it goes next is for who gives seats to say
        given = (self.teacher, num_threads(resources), num_gpus(resources), Carried.from_here())
        self.handles[number] = TeacherActor.options(**options).remote(self.tasks, *given)
        self.stalls.watch(number, self.handles[number])
        return number


@contextmanager
def replicas(
    teacher: TeacherSpec, tasks: Sequence[LabelTask], num: int, wait_s: float, seats: Seats | None = None
) -> Iterator[Actors]:
    """Reserve `num` replicas together, start and watch them and those that come, and give everything back at the end."""
    request = Request.of(f"replicas of teacher {teacher.name!r}", teacher.config.resources, num)
    with reserved([request], wait_s) as (group,):
        stalls = Stalls(f"teacher {teacher.name!r}", [], teacher.config.stall_timeout_s)
        actors = Actors(teacher, tasks, group, request, seats or FreeSeats(), stalls)
        try:
            with stalls:
                yield actors
        finally:
            actors.end()
