"""What people write in Python where a recipe's file has text, numbers and lists: said as the file would say it."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from teachers.errors import RecipeError

from .file import Loc


def plain(value: Any, at: Loc = ()) -> Any:
    """Paths, tuples, NumPy's numbers and arrays, functions and classes as a YAML file would have them; the rest as it is.

    A function of a notebook's cell is `__main__:f`. Raises RecipeError, naming the key, for one without a name.
    """
    if isinstance(value, Mapping):
        return {key: plain(inner, (*at, str(key))) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, (*at, number)) for number, inner in enumerate(value)]
    if isinstance(value, PathLike):
        return fspath(value)
    if type(value).__module__ == "numpy":
        return value.tolist()
    if callable(value) and hasattr(value, "__qualname__"):
        return _import_string(value, at)
    return value


def _import_string(value: Any, at: Loc) -> str:
    module, name = value.__module__, value.__qualname__
    if "." in name or "<" in name:  # of a class, inside another function, or a lambda
        raise RecipeError(
            f"{'.'.join(map(str, at))}: {name} has no name of its own in {module}, by which other processes find it; "
            f"define it at the top of a module or of a cell, with `def` or `class`"
        )
    return f"{module}:{name}"
