"""Ctrl-C and SIGTERM raise `Interrupted` in the main thread.

Ray must not take these signals over: see `ray_environment`, and `aside` where it trains.
"""

import signal
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOON_S = 0.01
IMPORTING = "<frozen importlib._bootstrap>"
_heard: list[float] = []
"""When signals were raised."""
TIDYING_S = 5.0
"""After a signal, in which the next is not heard: it would interrupt the tidying up."""


class Interrupted(BaseException):
    """Not an Exception: nothing that handles errors may swallow it. What is lost all the same, in a library's bare
    `except` or in a finalizer, is raised again: whoever ends the command for it says so by `is_heard`."""

    told = "interrupted"
    """The last words of a command; who knows more to say sets others."""
    is_heard = False

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number

    def __del__(self) -> None:
        if not self.is_heard:
            _heard.clear()
            _again(self.number)


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
    def interrupt(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == IMPORTING:
            # An exception between its locks and their `try` would keep every other thread from importing, for ever.
            _again(number)
        elif not _heard or time.monotonic() - _heard[-1] > TIDYING_S:
            _heard.append(time.monotonic())
            raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, interrupt)


def _again(number: int) -> None:
    """The signal once more, and soon; to the main thread itself, so that it ends a wait."""
    soon = threading.Timer(SOON_S, signal.pthread_kill, (threading.main_thread().ident or 0, number))
    soon.daemon = True
    soon.start()
