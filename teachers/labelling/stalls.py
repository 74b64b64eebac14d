"""Replicas that stand still: told every ten seconds, and after a while killed, so that Ray starts them again.

A replica says itself since when it has been at the same piece of its work (a batch, or the loading of its teacher); one
that does not even say that stands still as well. Whoever waits for a replica that is killed sees that it is lost.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError

from ..process.log_lines import with_ids
from ..process.waiting import LOG_EVERY_S, GivenUp, Wait

log = logging.getLogger(__name__)

PULSE = "pulse"
"""Ray's concurrency group in which a replica is asked: it answers while all its other threads are at work."""
POLL_S = 0.5
ASK_EVERY_S = 5.0
"""Between two questions to the same replica."""


class Pulse:
    """Of a replica, in its own process: since when it has been at the same piece of work. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._num_at_work = 0
        self._moved = time.monotonic()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A call that is answered here."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def beat(self) -> None:
        """A piece is done."""
        self._moved = time.monotonic()

    def still_s(self) -> float:
        """Seconds since the last piece was done; 0 when there is nothing to do."""
        with self._lock:
            return time.monotonic() - self._moved if self._num_at_work else 0.0

    def _count(self, more: int) -> None:
        with self._lock:
            if more < 0 or not self._num_at_work:
                self._moved = time.monotonic()
            self._num_at_work += more


class Watched:
    """A replica as it is watched from the driver. `ask_every_s`: between two questions whether it moves."""

    def __init__(self, number: int, actor: Any, ask_every_s: float) -> None:
        self.number, self.actor, self.ask_every_s = number, actor, ask_every_s
        self.moved = time.monotonic()
        """When it was last known to move, or to have nothing to do."""
        self.asked: Any = None
        self.ask_at = 0.0

    @property
    def still_s(self) -> float:
        return time.monotonic() - self.moved

    def ask(self) -> None:
        if self.asked is None and time.monotonic() >= self.ask_at:
            self.asked, self.ask_at = self.actor.still_s.remote(), time.monotonic() + self.ask_every_s

    def take(self) -> None:
        """What it answered, if it has."""
        if self.asked is None or not ray.wait([self.asked], timeout=0)[0]:
            return
        asked, self.asked = self.asked, None
        with suppress(RayActorError):  # it is lost: whoever asked it for more sees to that
            self.moved = time.monotonic() - ray.get(asked)

    def kill(self) -> None:
        ray.kill(self.actor, no_restart=False)
        self.moved, self.asked = time.monotonic(), None


class Stalls:
    """A context that watches `actors`, the replicas of `who`, by their numbers; each has a method `still_s` in the concurrency group PULSE.

    One that stands still for `timeout_s` is killed and started again by Ray; None: it is only told.
    """

    def __init__(self, who: str, actors: Sequence[Any], timeout_s: float | None) -> None:
        self.who, self.timeout_s = who, timeout_s
        self.watched: dict[int, Watched] = {}
        for number, actor in enumerate(actors):
            self.watch(number, actor)
        self.at_hand: Callable[[int], str] = lambda number: ""
        """What the replica of that number has in hand, as is told."""
        self.killed: set[int] = set()
        """Numbers of replicas that were killed once, at least."""
        self._wait = Wait(log)
        self._over = Event()
        self._thread = Thread(target=with_ids(self._watch), name="stalls", daemon=True)

    def watch(self, number: int, actor: Any) -> None:
        ask_every_s = min(ASK_EVERY_S, (self.timeout_s or ASK_EVERY_S) / 4)
        self.watched[number] = Watched(number, actor, ask_every_s)

    def forget(self, number: int) -> None:
        """It is not wanted any more."""
        self.watched.pop(number, None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with suppress(GivenUp, RayError, RuntimeError):  # the run has ended, and maybe Ray
            while not self._over.wait(POLL_S):
                watched = [*self.watched.values()]  # they come and go in another thread
                for replica in watched:
                    replica.ask()
                    replica.take()
                self._tell(watched)
                for replica in watched:
                    if self.timeout_s is not None and replica.still_s >= self.timeout_s:
                        self._kill(replica)

    def _tell(self, watched: Sequence[Watched]) -> None:
        still = [replica for replica in watched if replica.still_s >= LOG_EVERY_S]
        if still:
            self._wait.since = min(replica.moved for replica in still)
            self._wait.tell(lambda: self._told(still))

    def _told(self, still: Sequence[Watched]) -> str:
        numbers = ", ".join(f"{replica.number}{self.at_hand(replica.number)}" for replica in still)
        cure = "" if self.timeout_s is None else f"; after {self.timeout_s:g} s (stall_timeout_s) it is replaced"
        return f"no answer from {len(still)} of {len(self.watched)} replicas of {self.who}: number {numbers}{cure}"

    def _kill(self, replica: Watched) -> None:
        log.warning(
            "replica %d of %s%s has not answered for %.0f s: it is killed, and Ray starts another in its place",
            replica.number, self.who, self.at_hand(replica.number), replica.still_s,
        )  # fmt: skip
        self.killed.add(replica.number)
        replica.kill()
