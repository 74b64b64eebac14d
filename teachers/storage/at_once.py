"""The same work on many things, a bounded number of them under way in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 12
"""Objects that one process moves side by side."""


def at_once(work: Callable[[Item], Result], items: Iterable[Item], num: int = AT_ONCE) -> Iterator[Result]:
    """`map(work, items)`, in order; of a million items no more than a few are held. The first error ends it when what is under way has ended."""
    with ThreadPoolExecutor(num, thread_name_prefix="mirror") as pool:
        under_way = deque[Future[Result]]()
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= 2 * num:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
