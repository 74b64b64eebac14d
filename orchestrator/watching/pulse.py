"""Whether a run still goes on, for who has nothing of it but its journal.

On its own machine its process is looked up. The clocks of two machines differ, so what says that a run elsewhere goes on
is that its beat changes while this process looks, by this one's clock alone.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from teachers.process.identity import is_process, neighbours
from teachers.process.log_lines import once

SILENT_S = 60.0
"""A run on another machine whose beat has not changed for so long is taken for dead."""
LOOK_S = 1.0

Run = Mapping[str, Any]
"""As its journal says."""
T = TypeVar("T", bound=Run)

log = logging.getLogger(__name__)


@dataclass
class Seen:
    """`since`: when this beat was first seen here; `sure`: it has changed under our eyes, or had its time to."""

    beat: float
    since: float
    sure: bool = False


class Pulse:
    """What this process has seen of the beats of runs elsewhere."""

    def __init__(self, silent_s: float = SILENT_S) -> None:
        self.silent_s = silent_s
        self._seen: dict[str, Seen] = {}

    def goes_on(self, run: Run) -> bool:
        """A run that is seen for the first time goes on until it has been silent for long enough."""
        if run["state"] != "running":
            return False
        if is_of_this_machine(run):
            return is_process(run["pid"], run["process_start"])
        now = time.monotonic()
        seen = self._seen.setdefault(run["id"], Seen(run["beat"], now))
        if seen.beat != run["beat"]:
            seen.beat, seen.since, seen.sure = run["beat"], now, True
        return now - seen.since <= self.silent_s

    def settle(self, read: Callable[[], list[T]], patience_s: float) -> list[T]:
        """Wait until each run that looks silent has beaten; those that have not in `patience_s` are dead. What was read last."""
        end, runs = time.monotonic() + patience_s, read()
        while waited := [run for run in runs if self._is_in_doubt(run)]:
            for run in waited:
                where = f"run {run['id']} on {run['host']}"
                once(log, f"{where} seems to be silent: looking for up to {patience_s:g} s whether it goes on")
            if time.monotonic() >= end:
                self._seen |= {run["id"]: Seen(run["beat"], -math.inf, sure=True) for run in waited}
                break
            time.sleep(min(LOOK_S, patience_s))
            runs = read()
        return runs

    def _is_in_doubt(self, run: Run) -> bool:
        return (
            self.goes_on(run) and not is_of_this_machine(run) and not self._seen[run["id"]].sure and looks_silent(run)
        )


def is_of_this_machine(run: Run) -> bool:
    return bool(run["processes"] == neighbours())


def looks_silent(run: Run) -> bool:
    """By the clocks of both machines: a hint, for one of them may be off."""
    return bool(abs(time.time() - run["beat"]) > SILENT_S)
