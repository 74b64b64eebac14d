"""Calls of the code that a recipe names: what goes wrong in it is told by the recipe's key and the user's own line.

Knows nothing of what the code is for.
"""

import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeGuard

from ..errors import CollegiumError, RecipeError, UsersCodeError
from ..process.variables import masked
from ..storage.disk import is_full
from .reads import called

KEY = re.compile(r"[a-z_]+(\.\w+)*: ")
"""With which a message begins that names a key itself."""
MOST_LINES = 10
"""Of what foreign code says."""
OURS = Path(__file__).resolve().parents[2]
NOT_THE_USERS = tuple(
    [str(OURS / name) for name in ("teachers", "students", "orchestrator")]
    + [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
)


class told_as:
    """A context: what is raised inside becomes `error(description)`; ours, and what the machine lacks, stays as it is."""

    def __init__(self, error: Callable[[str], CollegiumError]) -> None:
        self.error = error

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_foreign(error):
            raise self.error(described(error)) from error


class calling(called):
    """A call of `name` (an import string), which stands under `key` of the recipe: raises UsersCodeError.

    What it opens is watched.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if is_foreign(error):
            raise UsersCodeError(self.call.key, f"{self.call.name} raised {described(error)}") from error


class within:
    """A context: keys of the recipe in errors from inside are below `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UsersCodeError):
            raise UsersCodeError(f"{self.prefix}.{error.key}", error.what) from error.__cause__
        if isinstance(error, RecipeError) and not str(error).startswith(self.prefix):
            joint = "." if KEY.match(str(error)) else ": "
            raise RecipeError(f"{self.prefix}{joint}{error}") from error.__cause__


def is_foreign(error: BaseException | None) -> TypeGuard[Exception]:
    """Whether foreign code is to blame for it: it is none of ours, and no lack of memory or room."""
    return isinstance(error, Exception) and not isinstance(error, CollegiumError) and not _lacks_something(error)


def described(error: BaseException) -> str:
    """`ValueError: what it says (file:line)`, with the user's innermost line, where there is one; in one line."""
    said = error.msg if isinstance(error, SyntaxError) else _first_lines(str(error))
    said, place = masked(said), _place(error)
    return f"{type(error).__name__}{f': {said}' * bool(said)}{f' ({place})' * bool(place)}"


def _first_lines(message: str) -> str:
    """Of a message of several lines the first alone often says nothing: `Error(s) in loading state_dict for Net:`."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return " ".join(lines[:MOST_LINES]) + " ..." * (len(lines) > MOST_LINES)


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if not frame.filename.startswith((*NOT_THE_USERS, "<"))]
    return f"{_short(mine[-1].filename)}:{mine[-1].lineno}" if mine else ""


def _short(file: str) -> str:
    return str(Path(file).relative_to(Path.cwd())) if Path(file).is_relative_to(Path.cwd()) else file


def _lacks_something(error: Exception) -> bool:
    """Memory or room on a disk: torch has its own error for a GPU's memory, and this module no torch."""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return out_of_memory or is_full(error)
