"""Of how many texts the end is cut off while rows are made ready: told by who tokenises, read by who commits the rows.

Counts what happens in one context of one thread: rows of several shards are made ready side by side.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Count:
    texts: int = 0


_count: ContextVar[Count | None] = ContextVar("texts that are cut off", default=None)


@contextmanager
def counting() -> Iterator[Count]:
    """What is cut off inside is counted here."""
    token = _count.set(count := Count())
    try:
        yield count
    finally:
        _count.reset(token)


def cut_off(num_texts: int) -> bool:
    """Whether somebody counts these."""
    if (count := _count.get()) is None:
        return False
    count.texts += num_texts
    return True
