"""What earlier runs in an OUT could not tell their server, sent by whoever comes next."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from teachers.config.secrets import without_password
from teachers.errors import StoreError
from teachers.process.log_lines import once
from teachers.storage import mirror

from ..watching import journal
from ..watching.pulse import SILENT_S, Pulse
from .away import failures
from .courier import Courier
from .ledger import NAME as LEDGER
from .ledger import Ledger, Status, ledgers, ledgers_with_unsent
from .server import client_of, place_of, resolve_uri

STATUS: dict[str, Status] = {"finished": "FINISHED", "failed": "FAILED"}
"""By how a journal says that a run ended."""

log = logging.getLogger(__name__)


class Late:
    """Of the runs that are in `out` by now; `uri` has the password, if theirs is the same."""

    def __init__(self, out: Path, uri: str, silent_s: float = SILENT_S) -> None:
        self.out, self.uri = out, uri
        self.pulse = Pulse(silent_s)
        self.open = [ledger.folder for ledger in ledgers(out) if not ledger.closed]
        """Folders of the runs that go on, or were killed: then nobody else would send what they had not."""
        self.looked_s = -math.inf

    def runs(self) -> list[dict[str, Any]]:
        """What is said by the journals of those, and their `folder`."""
        found = []
        for folder in self.open:
            mirror.refresh(folder / journal.NAME)  # of one size, whatever it says
            try:
                if (run := journal.read(folder)) is not None:
                    found.append({**run, "folder": folder})
            except StoreError as error:
                once(log, str(error))
        return found

    def close_abandoned(self) -> int:
        """Close the ledgers of runs whose process is gone; how many."""
        gone = [run for run in self.runs() if not self.pulse.goes_on(run)]
        for run in gone:
            self.open.remove(run["folder"])
            mirror.refresh(run["folder"] / LEDGER)
            try:
                _close(Ledger.open(run["folder"]), run)
            except StoreError as error:
                once(log, str(error))
        return len(gone)

    def send(self) -> Iterator[str]:
        """Send what runs that have ended could not; what to tell the user, one after another."""
        self.looked_s = time.monotonic()
        for ledger in ledgers_with_unsent(self.out):
            with ledger.alone() as mine:
                if not mine:
                    continue  # somebody sends it at this moment
                client = client_of(self.uri if without_password(self.uri) == ledger.uri else ledger.uri)
                if failure(Courier(client, ledger, place_of(self.out)).sync) is None:
                    yield f"sent to MLflow at {ledger.uri} what run {ledger.folder.name} had kept"
                else:
                    yield f"MLflow at {ledger.uri} does not answer; run {ledger.folder.name} stays kept"
                failure(ledger.save)

    def look(self) -> Iterator[str]:
        """Now and then: whether another run has died meanwhile, and what it has left."""
        if self.open and time.monotonic() - self.looked_s > journal.BEAT_S:
            self.looked_s = time.monotonic()
            if self.close_abandoned():
                yield from self.send()


def _close(ledger: Ledger, run: dict[str, Any]) -> None:
    if not ledger.closed:
        ended = {"status": STATUS.get(run["state"], "KILLED"), "time": int(run["beat"] * 1000)}
        ledger.outbox += [{"do": "end_children", "stage": None, **ended}, {"do": "end", **ended}]
        ledger.close()
        ledger.save()


def replay(out: Path, uri: str | None = None, patience_s: float = SILENT_S) -> list[str]:
    """Send what earlier runs in `out` could not; `uri` is the recipe's. Returns what to tell the user.

    A run of another machine that seems to have been silent gets `patience_s` to beat.
    """
    late = Late(out, resolve_uri(uri, out))
    late.pulse.settle(late.runs, patience_s)
    late.close_abandoned()
    return list(late.send())


def failure(work: Callable[[], None]) -> Exception | None:
    """What a server that does not answer, or a disk that is full, makes of `work`."""
    try:
        work()
    except failures() as error:
        return error
    return None
