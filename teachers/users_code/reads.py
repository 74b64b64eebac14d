"""What the user's code opens while it is called: files that nobody listed, and connections.

What decides an answer has to be in its key, and a key can only hold what is listed. An audit hook of Python sees what is
opened through Python; a library that opens files or connections in C by itself is not seen. Knows nothing of recipes.
"""

import logging
import os
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ..errors import RecipeError

log = logging.getLogger(__name__)

HOME = Path(__file__).resolve().parents[2]
NOT_DATA = (
    *("/proc", "/sys", "/dev", "/etc", "/usr", "/run"),
    *(os.path.expanduser(f"~/{name}") for name in (".config", ".nv", ".triton")),
    *(str(HOME / name) for name in ("teachers", "students", "orchestrator")),
    *(sys.prefix, sys.base_prefix, sys.exec_prefix, *(sysconfig.get_path(name) for name in ("stdlib", "purelib"))),
)
"""Folders of the system, of settings, of Python and of ours: what is read there decides nothing that is the user's."""


@dataclass(frozen=True)
class Watched:
    """What is known of the code that this process calls, by import string.

    `listed`: files and folders that count by content. `answers`: functions whose answers are kept, and whether the recipe
    gives them a `version`. `tell` takes a warning, which comes once for each file and each connection.
    """

    listed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    answers: Mapping[str, bool] = field(default_factory=dict)
    modules: Iterable[str] = ()
    """The user's, by name."""
    folders: Mapping[str, bool] = field(default_factory=dict)
    """More folders, and whether a file that is read there counts; the innermost decides."""
    tell: Callable[[str], None] = log.warning


@dataclass(eq=False)
class Call:
    """One call of the user's code, under `key` of the recipe."""

    key: str
    name: str
    refused: RecipeError | None = None


class _Here(threading.local):
    call: Call | None = None
    is_looking = False


_here = _Here()
_under_way: list[Call] = []
"""Of all threads; the latest is last."""
_state: dict[str, Any] = {"watched": None, "folders": {}, "told": set(), "hooked": False}


def watch(watched: Watched | None) -> None:
    """From now on, in this process. Audit hooks stay for good, so one is added when there is something to watch first."""
    folders = dict.fromkeys(map(os.path.realpath, (*NOT_DATA, tempfile.gettempdir())), False)
    _state["folders"] = folders | {
        os.path.realpath(each): c for each, c in (watched.folders if watched else {}).items()
    }
    _state["watched"] = watched
    _state["told"].clear()
    if watched is not None and not _state["hooked"]:
        _state["hooked"] = True
        sys.addaudithook(_heard)


class called:
    """A context: what this thread opens inside is opened by the code that `name` names; as is what others open in that code."""

    def __init__(self, key: str, name: str) -> None:
        self.call = Call(key, name)

    def __enter__(self) -> None:
        self.outer, _here.call = _here.call, self.call
        _under_way.append(self.call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _here.call = self.outer
        _under_way.remove(self.call)
        if self.call.refused is not None and error is not self.call.refused:  # the user's code went on without
            raise self.call.refused


class unwatched:
    """A context: what is opened inside is opened by us."""

    def __enter__(self) -> None:
        self.before, _here.is_looking = _here.is_looking, True

    def __exit__(self, *error: object) -> None:
        _here.is_looking = self.before


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    look = LOOKS.get(event)
    watched: Watched | None = _state["watched"]
    if look is None or watched is None or _here.is_looking:
        return
    call = _here.call
    if call is None and _under_way and _is_in(watched.modules):
        call = _under_way[-1]  # a thread that it has started
    if call is not None:
        with unwatched():
            look(watched, call, arguments)


def _is_in(modules: Iterable[str]) -> bool:
    """Whether this thread is at work in one of `modules`, or in what that has called."""
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename in files:
            return True
        frame = frame.f_back
    return False


def _opened(watched: Watched, call: Call, arguments: tuple[Any, ...]) -> None:
    given, _, flags = arguments
    if not isinstance(given, str | bytes | os.PathLike) or (flags or 0) & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        return
    if (name := os.fsdecode(given)).endswith(".pyc"):  # of an import, of which there are many
        return
    file = os.path.realpath(name)
    if file in _state["told"] or not os.path.isfile(file) or not _counts(watched, file, call.name):
        return
    _state["told"].add(file)
    shown = os.path.relpath(file) if file.startswith(f"{os.getcwd()}{os.sep}") else file
    watched.tell(
        f"{call.name} reads {shown}, which is in no key: when it changes, nothing is rebuilt; list it where the recipe "
        f"names {call.name}: `files: [{shown}]`"
    )


def _counts(watched: Watched, file: str, name: str) -> bool:
    """Whether a file that is read decides what the user's code says, and is not listed."""
    listed = watched.listed.get(name, frozenset())
    if any(_is_below(file, each) for each in listed):
        return False
    folders: dict[str, bool] = _state["folders"]
    around = [folder for folder in folders if _is_below(file, folder)]
    if around and not folders[max(around, key=len)]:
        return False
    return not (file.endswith(".py") and any(getattr(m, "__file__", None) == file for m in [*sys.modules.values()]))


def _is_below(file: str, place: str) -> bool:
    return file == place or file.startswith(place.rstrip(os.sep) + os.sep)


def _connected(watched: Watched, call: Call, arguments: tuple[Any, ...]) -> None:
    address = arguments[1]
    if not isinstance(address, tuple) or len(address) < 2:  # a socket of this machine's own: a path
        return
    where = f"{address[0]}:{address[1]}"
    if watched.answers.get(call.name) is False:
        key = f"{call.key.rpartition('.')[0]}.version".removeprefix(".")
        call.refused = RecipeError(
            f"{key}: {call.name} opens a connection to {where}, so no digest of code and files says what it answers; "
            f'give a `version: "…"`, and another one whenever its answers change'
        )
        raise call.refused
    if call.name not in watched.answers and (call.name, where) not in _state["told"]:
        _state["told"].add((call.name, where))
        watched.tell(
            f"{call.name} opens a connection to {where}: what comes from there is in no key, and when it changes, "
            f"nothing is rebuilt; keep it in a file, and list that under `files:`"
        )


LOOKS: dict[str, Callable[[Watched, Call, tuple[Any, ...]], None]] = {
    "open": _opened,
    "socket.connect": _connected,
}
"""By the name of the audit event."""
