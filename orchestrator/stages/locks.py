"""Who builds a stage, repairs it or clears it up: one process at a time, on this machine and on all that share an OUT."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teachers.process.log_lines import once
from teachers.process.waiting import POLL_S, Wait
from teachers.storage.flock import NO_LOCK, try_lock
from teachers.storage.lease import Doubt, lease
from teachers.storage.place import remote_of

NO_LOCKS = (
    "the storage has no locks ({}): another run may do the same work, nothing is lost by it; what is damaged is not "
    "repaired there"
)

log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path, title: str) -> Iterator[Doubt]:
    """Only saves double work, but repair and gc need it. The kernel frees it when its holder dies.

    In an object store a lease does the same between machines. Yields what is asked before anything is repaired or cleared
    up: why that may not be. Storage may know no locks or conditional writes, or a machine that was not heard has lost its
    lease.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        locked = _locked(file.fileno(), title)
        with lease(folder, title) as doubt:
            in_storage = remote_of(folder) is not None  # there the lease keeps the processes of this machine apart too
            yield doubt if locked or in_storage else lambda: NO_LOCK


def _locked(file: int, title: str) -> bool:
    """Whether the lock was taken, after a while perhaps; else the storage has none."""
    try:
        wait, told = Wait(log), False
        while not try_lock(file):  # not in one long wait, in which nothing could be told, nor given up
            if not told:
                log.info("waiting for another run that is building %s", title)
                told = True
            wait.tell(lambda: f"another run is building {title}")
            time.sleep(POLL_S)
    except NotImplementedError as error:
        once(log, NO_LOCKS.format(error))
        return False
    return True
