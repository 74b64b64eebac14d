"""The traceback of what nobody foresaw is kept in a file, and the exception says in which."""

import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from teachers.errors import CollegiumError
from teachers.process.variables import masked
from teachers.storage.disk import is_unfit

TRACEBACK = "traceback.txt"
TOLD = "the traceback is in "


class traceback_kept:
    """A context: the traceback of what nobody foresaw is kept in `folder`, and the exception says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and _is_unforeseen(error):
            with suppress(OSError):  # a disk that is full: it is kept elsewhere
                error.add_note(_keep(error, self.folder))


def _is_unforeseen(error: Exception) -> bool:
    """Whether only a traceback helps. An error of ours that has one from another process carries it as a note."""
    foreseen = isinstance(error, CollegiumError) or is_unfit(error)
    return not foreseen or hasattr(error, "__notes__")


def _keep(error: Exception, folder: Path) -> str:
    file = folder / TRACEBACK
    file.write_text(masked("".join(traceback.format_exception(error))), encoding="utf-8")
    return f"{TOLD}{file}"
