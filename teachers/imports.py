"""Import strings `package.module:name`: loading what they name, and a digest of the code behind them.

The user's directory stands last on `sys.path`, so nothing in it can hide one of our packages or an installed one.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import EnvironmentUnfit, RecipeError
from .users_code import told_as

OURS = ("teachers", "students", "orchestrator")
SUBMITTED = "collegium_submitted"
"""Folder of a submitted job's recipe and user's modules. Ray puts the folder above it on the path, where only this is."""


def use_user_path(folder: Path) -> None:
    """Let import strings find modules in `folder`, after everything that is installed.

    In a submitted job they are those that came with it, wherever this node keeps them.
    """
    entry = str(submitted_folder() or folder.resolve())
    if entry not in sys.path:
        sys.path.append(entry)


def submitted_folder() -> Path | None:
    """Where this node keeps what came with a submitted job; None outside of one."""
    spec = importlib.util.find_spec(SUBMITTED)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def check_own_packages() -> None:
    """Raise EnvironmentUnfit when one of our packages would come from anywhere but this distribution."""
    home = Path(__file__).resolve().parent.parent
    for name in OURS:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
        if found != home / name:
            raise EnvironmentUnfit(
                f"package {name!r} would come from {found}, Collegium's own is in {home / name}; "
                f"rename that folder, or start the `collegium` command instead of a script beside it"
            )


def load(import_string: str) -> Any:
    """Return what `package.module:name` names. Raises RecipeError when it is not there."""
    module_name, _, name = import_string.partition(":")
    with told_as(lambda what: RecipeError(f"{import_string}: {module_name} cannot be imported: {what}")):
        module = _module(import_string, module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        public = sorted(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
        raise RecipeError(
            f"{import_string}: module {module_name} has no {name!r}; it has {', '.join(public)}"
        ) from None


def _module(import_string: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        cure = "is it in the working directory, or installed?"
        if (top := module_name.partition(".")[0]) in OURS:
            cure = f"{top!r} is Collegium's own package, which hides a folder of that name; rename yours"
        elif error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            cure = f"{module_name} was found, but it imports {error.name!r}, which is not installed"
        raise RecipeError(f"{import_string}: there is no module {error.name!r}; {cure}") from error


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
