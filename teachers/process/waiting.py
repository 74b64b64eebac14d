"""Waiting so that a signal or the failure of other work is answered, and so that a person is told what is waited for.

Knows nothing of what that is.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event
from types import TracebackType
from typing import Any, Self, TypeVar

from ..errors import CollegiumError
from .log_lines import with_ids

T = TypeVar("T")

POLL_S = 0.2
FIRST_LOG_S = 5.0
LOG_EVERY_S = 10.0
LEAVE_S = 8.0
"""So long a failed run waits for its other work to tidy up."""

_over: ContextVar[Event | None] = ContextVar("over", default=None)


class GivenUp(CollegiumError):
    """Work that was ended because other work of the same run has failed, or was interrupted."""


@contextmanager
def ended_by(over: Event) -> Iterator[None]:
    """What this thread does, and what it starts `with_ids`, is given up at its next wait once `over` is set."""
    token = _over.set(over)
    try:
        yield
    finally:
        _over.reset(token)


def go_on() -> None:
    """Between two short waits: raises GivenUp when the work that waits is not wanted any more."""
    over = _over.get()
    if over is not None and over.is_set():
        raise GivenUp("given up, since another part of the run has ended")


class Wait:
    """One wait, however it is done: since when, and when that was last told to `log`."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.told = -math.inf
        self.begin()

    def begin(self) -> None:
        """Something has come: what is waited for next is waited for since now."""
        self.since = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since

    def tell(self, what: Callable[[], str]) -> None:
        """Say what is waited for and since when: after five seconds, then every ten; called more often.

        Raises GivenUp as `go_on` does.
        """
        go_on()
        if time.monotonic() >= max(self.since + FIRST_LOG_S, self.told + LOG_EVERY_S):
            self.told = time.monotonic()
            at = time.strftime("%H:%M:%S", time.localtime(time.time() - self.seconds))
            self.log.info("waiting since %s (%.0f s): %s", at, self.seconds, what())


class SideBySide:
    """A context for works in threads of their own. The first that fails, or a signal, ends the others at their next wait."""

    def __init__(self, name: str, at_once: int) -> None:
        self._over = Event()
        self._futures: list[Future[Any]] = []
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After a failure they tidy up, and whoever takes long with it is left alone."""
        self._over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait(self._futures, timeout=LEAVE_S)

    def of_these(self, work: Callable[..., T]) -> Callable[..., T]:
        """`work` for one of the threads, whoever starts it, with the ids of this one."""
        with ended_by(self._over):
            return with_ids(work)

    def start(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        future = self._threads.submit(self.of_these(work), *arguments)
        self._futures.append(future)
        return future

    def outcome(self, future: Future[T]) -> T:
        """Its result. Raises what the first of all the works that fails has raised, as soon as it does."""
        while not future.done():
            wait([future], timeout=POLL_S)
            go_on()
            for other in self._futures:
                if other.done() and other.exception() is not None:
                    other.result()
        return future.result()


def outcome(future: Future[T]) -> T:
    """`future.result()`, waited for as `until_done` does."""
    until_done([future])
    return future.result()


def until_done(futures: Collection[Future[T]]) -> None:
    """Until all have ended, in short waits: with some libraries (polars) a signal does not end a long one."""
    while wait(futures, timeout=POLL_S).not_done:
        go_on()


def aside(work: Callable[[], T]) -> T:
    """`work()` in a thread of its own, which is left alone when a signal, or GivenUp, ends the wait for it."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return outcome(thread.submit(with_ids(work)))
    finally:
        thread.shutdown(wait=False)
