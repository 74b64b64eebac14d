"""A digest of the code behind an import string, without running it."""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

from ..errors import RecipeError
from .calls import told_as
from .imports import OURS


def code_digest(import_string: str) -> str:
    """What decides the meaning of an import string, without running it.

    Ours: the string alone (the stage's code version answers for it). An installed package: name and version.
    The user's: SHA-256 over the module and every module of the same directory tree that it imports.
    """
    module_name = import_string.partition(":")[0]
    top = module_name.partition(".")[0]
    if top in OURS or top in sys.stdlib_module_names:
        return import_string
    source = _source_file(module_name)
    if source is None:
        raise RecipeError(
            f"{import_string}: there is no module {module_name!r}; is it in the working directory, or installed?"
        )
    distributions = importlib.metadata.packages_distributions().get(top)
    if distributions and "site-packages" in source.parts:
        return f"{import_string}@{distributions[0]}=={importlib.metadata.version(distributions[0])}"
    hashed = hashlib.sha256(import_string.encode())
    for name, path in sorted(_read(import_string).items()):
        hashed.update(f"\0{name}\0".encode() + path.read_bytes())
    return hashed.hexdigest()


def users_modules(import_string: str) -> dict[str, Path] | None:
    """The user's module that is named and all of the user's that it imports; nothing of ours and installed ones.

    None when there is no such module here. Raises RecipeError for one that cannot be read.
    """
    module_name = import_string.partition(":")[0]
    top = module_name.partition(".")[0]
    if top in OURS or top in sys.stdlib_module_names:
        return {}
    spec = importlib.util.find_spec(top)  # of the whole name it would import an installed package, which takes long
    if spec is not None and any("site-packages" in Path(place).parts for place in _places(spec)):
        return {}
    return _read(import_string) if spec is not None and _source_file(module_name) is not None else None


def _places(spec: ModuleSpec) -> list[str]:
    return [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]


def _read(import_string: str) -> dict[str, Path]:
    module_name = import_string.partition(":")[0]
    with told_as(lambda what: RecipeError(f"{import_string}: {module_name} cannot be read: {what}")):
        return _reachable(module_name)


def _source_file(module_name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module_name)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec is not None and spec.origin and spec.has_location else None


def _reachable(module_name: str) -> dict[str, Path]:
    """The module and what it imports, directly or not, as far as that lies in the same directory tree."""
    first = _source_file(module_name)
    assert first is not None
    root = first.parents[module_name.count(".") + (first.name == "__init__.py")]
    found: dict[str, Path] = {}
    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        path = _source_file(name)
        if (
            name in found
            or path is None
            or not path.is_relative_to(root)
            or "site-packages" in path.parts
            or path.suffix != ".py"
        ):
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imported(path, package)
        waiting += [parent for parent in [name.rpartition(".")[0]] if parent]
    return found


def _imported(path: Path, package: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (up, node.module or "") if part)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name and name.partition(".")[0] not in sys.stdlib_module_names]
