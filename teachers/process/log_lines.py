"""Log lines and the ids of what they are about: run, stage and shard. Plain text, or one JSON object a line.

Ids follow the work: a context says what is being worked on, and `Carried` takes that to a process of Ray. There lines go
to stderr, which Ray keeps in the worker's own file.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Self, TypeVar

from . import variables

ROOTS = ("collegium", "orchestrator", "students", "teachers")
"""Our loggers; all others stand below one of these."""
Ids = Mapping[str, str | int]
NOTHING: Ids = MappingProxyType({})
T = TypeVar("T")

_worked_on: ContextVar[Ids] = ContextVar("worked_on", default=NOTHING)
_of_this_process: dict[str, str | int] = {}


def ids() -> dict[str, str | int]:
    """`run`, `stage`, `shard` of the work that this thread is at, as far as it is known."""
    return {**_of_this_process, **_worked_on.get()}


@contextmanager
def working_on(**more: str | int) -> Iterator[None]:
    """Lines of this thread are about these ids too, for as long as this context lasts."""
    token = _worked_on.set({**_worked_on.get(), **more})
    try:
        yield
    finally:
        _worked_on.reset(token)


def with_ids(work: Callable[..., T]) -> Callable[..., T]:
    """`work` for another thread, with the ids of this one."""
    return partial(copy_context().run, work)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message and the ids."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **ids(),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


class TextWithIds(logging.Formatter):
    """Of a worker, whose file holds nothing else that says what a line is about."""

    def format(self, record: logging.LogRecord) -> str:
        about = " ".join(f"{name}={value}" for name, value in ids().items())
        return f"{super().format(record)} [{about}]"


def handle(handler: logging.Handler, level: int) -> None:
    """All our lines from `level` on go to `handler`, and nowhere else."""
    for name in ROOTS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level)


def are_json() -> bool:
    """Whether this process writes its lines as JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger("collegium").handlers)


@cache
def once(log: logging.Logger, message: str) -> None:
    """Warn of something that would be met again and again; in this process once."""
    log.warning("%s", message)


@dataclass(frozen=True)
class Carried:
    """What another process needs, to write lines as this one does, and to read the variables that arguments name.

    Variables travel here and not in Ray's runtime environment, which its page shows to everybody.
    """

    ids: Ids = field(default_factory=dict)
    as_json: bool = False
    level: int = logging.INFO
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_here(cls) -> Self:
        return cls(ids(), are_json(), logging.getLogger("collegium").getEffectiveLevel(), variables.carried())

    def take_up(self) -> None:
        """In the other process, before its work."""
        variables.take_up(self.variables)
        _of_this_process.clear()
        _of_this_process.update(self.ids)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines() if self.as_json else TextWithIds("%(asctime)s %(levelname)s %(message)s"))
        handle(handler, self.level)


NOT_CARRIED = Carried()
"""Of work that was started without a run."""
