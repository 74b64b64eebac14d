"""Ctrl-C and SIGTERM: the first raises `Interrupted` in the main thread, those after it wait for the tidying up.

Ray must not take these signals over: see `set_environment` of the cluster, and `aside` of the students' Ray Train.
"""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Not an Exception: nothing that handles errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def raise_on_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, _: FrameType | None) -> None:
    for each in SIGNALS:  # a second one would interrupt the tidying up, and leave processes behind
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
