"""What decides the meaning of the code that a part of a recipe names, without running it: modules, distributions, files.

A module of the user's counts by what it means: comments, docstrings and the lines that things stand on do not. Ours counts
by the stage's code version, not here.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from ..errors import RecipeError
from ..storage.seal import digest_of, sha256_file
from .calls import within
from .following import Reach, file_of, reach
from .in_main import is_in_main, reach_in_main
from .installed import placed
from .meaning import source_digest

NAMES_CODE = ("model", "function", "loss", "combine", "augment", "transform")
"""Fields of a recipe that hold import strings, or words of ours."""
NAMES_NO_CODE = ("arguments", "classes", "class_map", "words", "body")
"""Fields whose content is the user's."""
LARGEST_FILES, LARGEST_BYTES, MOST_FILES = 10_000, 1 << 30, 1_000_000
"""A folder up to these counts by content, a larger one by names, sizes and times of change; more files are refused."""
T = TypeVar("T")


@dataclass(frozen=True)
class Named:
    """Import strings that stand together `at` a key of a recipe, by their fields, with what stands beside them."""

    at: str
    names: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    arguments: Mapping[str, Any]

    def inputs(self) -> dict[str, str]:
        """As `inputs_of`."""
        inputs: dict[str, str] = {}
        for field, name in self.names:
            with within(f"{self.at}{field}"):
                each = reached(name)
                if each.hidden and not self.files:
                    raise RecipeError(
                        f"{name}: {each.hidden[0]} cannot be followed, so nobody would see what it brings in change; "
                        f"import that by its name, or list its files beside {name}: `files: [...]`"
                    )
                inputs |= {f"code of {file_of(*module)}": module_digest(module[1]) for module in each.modules.items()}
                inputs |= {f"code of __main__:{name}": digest for name, digest in each.defined.items()}
                inputs |= {f"version of {top}": version for top, version in _versions(each)}
        return inputs | {f"file {file}": file_digest(placed(file)) for file in self.read()}

    def relative(self) -> list[str]:
        """What is listed, or there as an argument, and means another place in another working directory."""
        given = (*self.files, *_paths_in(self.arguments))
        return [file for file in given if not placed(file).is_absolute()]  # of an installed package it is

    def read(self) -> list[str]:
        """Files and folders that are listed, and those that arguments name."""
        for file in self.files:
            if not Path(file).exists():
                raise RecipeError(f"{self.at}files: there is no file or folder {file} (looked from {Path.cwd()})")
        return sorted({*self.files, *_paths_in(self.arguments)})


def inputs_of(document: Mapping[str, Any]) -> dict[str, str]:
    """What decides the code of all import strings in a part of a recipe, by what it is called in a reason.

    `code of api.py`: a module of the user's that is named or brought in; `version of numpy`: an installed distribution that
    one of those imports; `file words.txt`: a file or folder under `files`, or among the arguments. Raises RecipeError for
    what is not there, cannot be read, or cannot be followed.
    """
    found: dict[str, str] = {}
    for named in named_in(document):
        found |= named.inputs()
    return found


def named_in(document: Any, at: str = "") -> Iterator[Named]:
    """Every place in a part of a recipe (as JSON) that names code; `at` is its key, with a dot."""
    if isinstance(document, Mapping):
        names = [(field, name) for field in NAMES_CODE for name in _texts(document.get(field)) if ":" in name]
        arguments = document.get("arguments") or {}
        if names:
            yield Named(at, tuple(names), tuple(document.get("files") or ()), arguments)
        for key, value in document.items():
            if key not in NAMES_NO_CODE:
                yield from named_in(value, f"{at}{key}.")
        yield from _models_in(arguments, f"{at}arguments.")
    elif isinstance(document, list | tuple):
        for number, value in enumerate(document):
            yield from named_in(value, f"{at}{number}.")


def _models_in(arguments: Any, at: str) -> Iterator[Named]:
    """Networks that arguments name in turn, as an ensemble's do."""
    if isinstance(arguments, Mapping):
        if isinstance(arguments.get("model"), str) and ":" in arguments["model"]:
            yield Named(at, (("model", arguments["model"]),), (), arguments.get("arguments") or {})
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        for value in arguments:
            yield from _models_in(value, at)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [each for each in value if isinstance(each, str)] if value else []


def _paths_in(value: Any) -> Iterator[str]:
    """Arguments that are paths of what exists."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _paths_in(each)
    elif isinstance(value, str) and value.strip("./") and len(value) < 4096 and "\0" not in value and _exists(value):
        yield value


def _exists(path: str) -> bool:
    try:
        return placed(path).exists()
    except (OSError, RecipeError):  # a name too long for the file system; `module:name`
        return False


def reached(import_string: str) -> Reach:
    """As `reach`, of `__main__:f` too."""
    look = reach_in_main if is_in_main(import_string) else reach
    return _seen(("import string", import_string), lambda: look(import_string))


def users_modules(import_string: str) -> dict[str, Path] | None:
    """The user's module that is named and all of the user's that it imports; nothing of ours and installed ones.

    None when there is no such module here. Raises RecipeError for one that cannot be read.
    """
    try:
        return reach(import_string).modules
    except RecipeError as error:
        if error.__cause__ is None:
            return None
        raise


def module_digest(path: Path) -> str:
    return _seen(("module", path), lambda: source_digest(path.read_bytes(), path))


def _versions(found: Reach) -> Iterator[tuple[str, str]]:
    """(distribution, version) of what the user's modules import."""
    for top in sorted(found.installed):
        yield from distributions_of(top)


@lru_cache
def distributions_of(top: str) -> tuple[tuple[str, str], ...]:
    """(name, version) of the installed distributions that bring the top package `top`; of no other is more read than a list."""
    brings = [each for each in importlib.metadata.distributions() if _brings(each, top)]
    return tuple(sorted({(each.metadata["Name"], each.version) for each in brings}))


def _brings(distribution: importlib.metadata.Distribution, top: str) -> bool:
    if declared := (distribution.read_text("top_level.txt") or "").split():
        return top in declared
    files = f"\n{distribution.read_text('RECORD') or ''}"
    return f"\n{top}/" in files or f"\n{top}." in files


def file_digest(path: Path) -> str:
    """Of a file's bytes, or of the names and bytes of a folder's files. Raises RecipeError for a folder without end."""
    return _seen(("file", path.resolve()), lambda: sha256_file(path) if path.is_file() else _folder_digest(path))


def _folder_digest(folder: Path) -> str:
    files: list[Path] = []
    for above, _, names in os.walk(folder):
        files += [Path(above, name) for name in names if Path(above).name != "__pycache__"]
        if len(files) > MOST_FILES:
            raise RecipeError(
                f"{folder} holds more than {MOST_FILES:,} files, and counts by content; name the files that are read"
            )
    named = sorted((file.relative_to(folder).as_posix(), file) for file in files if file.is_file())
    stats = [file.stat() for _, file in named]
    if len(named) <= LARGEST_FILES and sum(stat.st_size for stat in stats) <= LARGEST_BYTES:
        return digest_of([[name, sha256_file(file)] for name, file in named])
    return digest_of([[name, s.st_size, s.st_mtime_ns] for (name, _), s in zip(named, stats, strict=True)])


_looked_at: dict[Any, Any] = {}
_open_looks: list[object] = []


@contextmanager
def one_look() -> Iterator[None]:
    """Inside, modules and files are looked at once: all keys of a run are about the same code, whatever is edited meanwhile."""
    mine = object()
    if not _open_looks:
        importlib.invalidate_caches()  # they go by the second, too
    _open_looks.append(mine)
    try:
        yield
    finally:
        _open_looks.remove(mine)
        if not _open_looks:
            _looked_at.clear()


def _seen(what: tuple[str, Any], look: Callable[[], T]) -> T:
    if not _open_looks:
        return look()
    if what not in _looked_at:
        _looked_at[what] = look()
    found: T = _looked_at[what]
    return found
