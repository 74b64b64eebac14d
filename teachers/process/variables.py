"""`${NAME}` in the arguments of a recipe: a variable of the environment, read where the user's code is called.

What is compared, written down or sent anywhere has the name alone. `$${NAME}` stands for the text `${NAME}`.
"""

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import EnvironmentUnfit

REFERENCE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
SHORTEST_MASKED = 6
"""Characters: what is shorter stands in any text."""

Path = tuple[str | int, ...]
_read: set[str] = set()
_carried: set[str] = set()
"""Names of those that this process has put in, and of those that work which it gives to others may need."""


def references(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Where in a JSON value variables are named: (path, name)."""
    if isinstance(value, str):
        yield from ((path, name) for escaped, name in REFERENCE.findall(value) if not escaped)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from references(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from references(inner, (*path, number))


def resolved(value: Any) -> Any:
    """A JSON value with variables put in. Raises EnvironmentUnfit for one that this process does not have."""
    for path, name in references(value):
        if name not in os.environ:
            raise EnvironmentUnfit(missing(path, name))
        _read.add(name)
    return _put_in(value)


def missing(path: Path, name: str) -> str:
    where = ".".join(map(str, path))
    return f"{where + ': ' if where else ''}there is no variable {name} in the environment of {socket.gethostname()}; set it there"


def _put_in(value: Any) -> Any:
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: found[0][1:] if found[1] else os.environ[found[2]], value)
    if isinstance(value, Mapping):
        return {key: _put_in(inner) for key, inner in value.items()}
    return [_put_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def carry(names: Iterable[str]) -> None:
    """Work that this process gives to others may need these."""
    _carried.update(names)


def carried() -> dict[str, str]:
    """What goes with work that is given to another process, which may have none of it."""
    return {name: os.environ[name] for name in sorted(_carried) if name in os.environ}


def take_up(variables: Mapping[str, str]) -> None:
    """In the other process, before its work; what its machine has of its own stays."""
    carry(variables)
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def masked(text: str) -> str:
    """`text` with the values of variables as their names again: what others raise may say them."""
    for name in sorted(_read | _carried, key=lambda name: -len(os.environ.get(name, ""))):
        if len(value := os.environ.get(name, "").strip()) >= SHORTEST_MASKED:  # who uses it may have stripped it
            text = text.replace(value, f"${{{name}}}")
    return text
