"""What processes of a run, on whatever node, have to say of the user's code: each leaves it in a file, the driver tells it."""

import logging
from contextlib import suppress
from pathlib import Path
from threading import Lock

from teachers.errors import CollegiumError
from teachers.storage import mirror

log = logging.getLogger("collegium")


class Warnings:
    """A context: what lies in `folder` is told once, whenever `tell` is called and at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: set[str] = set()
        self._lock = Lock()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.tell()

    def tell(self) -> None:
        with self._lock, suppress(CollegiumError, OSError):  # they can be told later
            mirror.pull_all(self.folder)
            for path in sorted(self.folder.glob("*.txt")):
                if path.name not in self._told:
                    self._told.add(path.name)
                    log.warning("%s", path.read_text("utf-8"))
