"""How fast a server may be asked: what it lets through a minute, and how many requests at once do it good.

The window is found by additive increase and multiplicative decrease (Chiu and Jain, 1989), doubling until the server first
says that it is too much. Belongs to one event loop.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...config.endpoint import Limits

BURST_S = 0.1
"""What was not used so long ago may be made up for: sleeps are never exact."""
FIRST_WINDOW = 4.0
LOOK_S = 1.0
"""Between two looks whether it is worth waiting."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


def jittered(attempt: int) -> float:
    """Seconds before the next try: full jitter, from nothing to twice as much each time (Brooker, 2015)."""
    return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt))


class Rate:
    """So much a second, evenly spread; what is asked for is had in the order of the asking."""

    def __init__(self, per_minute: float | None) -> None:
        self.per_second = None if per_minute is None else per_minute / 60
        self._free_at = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        """Take `amount`; how long to wait until it is there."""
        if self.per_second is None:
            return 0.0
        self._free_at = max(self._free_at, now - BURST_S)
        wait_s = self._free_at - now
        self._free_at += amount / self.per_second
        return max(wait_s, 0.0)


class Pace:
    """Turns to ask."""

    def __init__(self, limits: Limits) -> None:
        self.most = limits.concurrency
        self.window = min(FIRST_WINDOW, float(self.most))
        self.num_under_way = 0
        self.requests, self.tokens = Rate(limits.requests_per_minute), Rate(limits.tokens_per_minute)
        self.is_over = False
        """Nothing more is asked: nobody waits."""
        self._is_doubling = True
        self._cut_at = self._held_until = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, tokens: float) -> AsyncIterator[None]:
        """A request of about so many tokens may be under way."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.num_under_way < int(self.window))
            self.num_under_way += 1
        try:
            now = time.monotonic()
            free_at = now + max(self.requests.wait_s(1, now), self.tokens.wait_s(tokens, now))
            while (wait_s := max(free_at, self._held_until) - time.monotonic()) > 0 and not self.is_over:
                await asyncio.sleep(min(wait_s, LOOK_S))
            yield
        finally:
            async with self._changed:
                self.num_under_way -= 1
                self._changed.notify_all()

    def went_well(self) -> None:
        """One more at once, in the time that a window takes; while doubling for each answer."""
        self.window = min(self.window + (1 if self._is_doubling else 1 / self.window), float(self.most))

    def was_too_much(self, sent_at: float, after_s: float | None) -> None:
        """Half as many at once, once for all that was sent before the last time; and nobody asks for `after_s`."""
        now = time.monotonic()
        if sent_at > self._cut_at:
            self.window, self._cut_at, self._is_doubling = max(self.window / 2, 1.0), now, False
        self._held_until = max(self._held_until, now + (after_s or 0.0))
