"""Ctrl-C and SIGTERM raise `Interrupted` in the main thread.

Ray must not take these signals over: see `ray_environment`, and `aside` where it trains.
"""

import signal
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIDYING_S = 5.0
"""After a signal, in which the next is not heard: it would interrupt the tidying up."""


class Interrupted(BaseException):
    """Not an Exception: nothing that handles errors may swallow it."""

    told = "interrupted"
    """The last words of a command; who knows more to say sets others."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class going_on:
    """A context: what is interrupted in it goes on when the command is given again, and that is said."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Interrupted):
            error.told = f"{Interrupted.told}; the same command goes on from here"


def raise_on_signals() -> None:
    heard: list[float] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        if not heard or time.monotonic() - heard[-1] > TIDYING_S:
            heard.append(time.monotonic())
            raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, interrupt)
