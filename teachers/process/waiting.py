"""Waiting for threads so that Ctrl-C and SIGTERM are answered. Knows nothing of what the threads do."""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from .log_lines import with_ids

T = TypeVar("T")

POLL_S = 0.2


def outcome(future: Future[T]) -> T:
    """`future.result()`, waited for as `until_done` does."""
    until_done([future])
    return future.result()


def until_done(futures: Collection[Future[T]]) -> None:
    """Until all have ended, in short waits: with some libraries (polars) a signal does not end a long one."""
    while wait(futures, timeout=POLL_S).not_done:
        pass


def aside(work: Callable[[], T]) -> T:
    """`work()` in a thread of its own, which is left alone when a signal ends the wait for it."""
    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return outcome(thread.submit(with_ids(work)))
    finally:
        thread.shutdown(wait=False)
