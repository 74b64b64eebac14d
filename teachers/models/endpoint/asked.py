"""What is asked together, where answers are kept, and the ways in which one may not come. Knows nothing of HTTP libraries."""

import email.utils
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...process.variables import masked
from .apis import Told
from .purse import Tokens
from .rows import Batch
from .words import NoAnswer


class Away(Exception):
    """Nobody answers now; `after_s`: when to come again, as far as the server says so."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Refused(NoAnswer):
    """Another try would get the same."""


class Lost(NoAnswer):
    """Nothing that can be read has come, and nobody knows what it cost: held to be what was expected."""

    def __init__(self, why: str, used: Tokens) -> None:
        super().__init__(masked(why))
        self.used = used


@dataclass(frozen=True)
class Failure:
    """Of a row; `is_final`: it is not asked about again."""

    why: str
    is_final: bool = False


class Kept(Protocol):
    """Where it is written down what was asked and what came, before anybody goes on."""

    def sent(self, expected: Tokens) -> int:
        """A request leaves; its number."""

    def answered(self, request: int, told: Mapping[int, Told], used: Tokens) -> None:
        """By the key of each row that it answers."""

    def failed(self, request: int, why: str, used: Tokens) -> None: ...
    def votes(self, key: int) -> int:
        """That a row has already."""

    def has(self, key: int) -> bool:
        """Whether all is said of a row."""


@dataclass(frozen=True)
class Unit:
    """Rows of one request, by their places in the batch, and how often they were asked about in vain."""

    places: NDArray[np.int64]
    attempt: int = 0


@dataclass
class Asked:
    """Rows that are asked about together. `unknown`: places of those that nobody could answer, and why."""

    batch: Batch
    keys: NDArray[np.uint64]
    kept: Kept
    units: deque[Unit] = field(default_factory=deque)
    unknown: dict[int, str] = field(default_factory=dict)


def seconds_of(told: str) -> float | None:
    """Of `Retry-After`: a number of seconds, or a date."""
    with suppress(ValueError):
        return max(float(told), 0.0)
    with suppress(ValueError, TypeError):
        return max((email.utils.parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds(), 0.0)
    return None
