"""Who builds a stage, repairs it or clears it up: one process at a time, on this machine and on all that share an OUT."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teachers.storage.lease import Doubt, lease

log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path, title: str) -> Iterator[Doubt]:
    """Only saves double work, but repair and gc need it. The kernel frees it when its holder dies.

    In an object store a lease does the same between machines. Yields what is asked before anything is repaired or cleared
    up: why that may not be. Storage may know no conditional writes, or a machine that was not heard has lost its lease.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another run that is building %s", title)
            fcntl.flock(file, fcntl.LOCK_EX)
        with lease(folder, title) as doubt:
            yield doubt
