"""Import strings `package.module:name`: loading what they name.

The user's directory stands last on `sys.path`, so nothing in it can hide one of our packages or an installed one.
"""

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import EnvironmentUnfit, RecipeError
from .calls import told_as
from .code import GATE, UsersCode
from .following import OURS
from .in_main import is_in_main
from .reads import called

UserPath = Path | UsersCode
"""The user's directory, or that and what a run knows of the code in it."""
SUBMITTED = "collegium_submitted"
"""Folder of a submitted job's recipe and user's modules. Ray puts the folder above it on the path, where only this is."""
EXTRAS = ("xgboost", "lightgbm", "catboost")
"""Libraries whose estimators teach and learn, each an extra of its own name."""


_used: list[str] = []
"""What stands on `sys.path` for the user's modules."""


def use_user_path(path: UserPath) -> None:
    """Let import strings find modules in a folder, after everything that is installed; that of an earlier call is left.

    In a submitted job they are those that came with it, wherever this node keeps them. Of a run's code no other version
    than the run's is imported from then on.
    """
    folder = path.folder if isinstance(path, UsersCode) else path
    entry = str(submitted_folder() or folder.resolve())
    for earlier in [each for each in _used if each != entry]:
        _used.remove(earlier)
        if earlier in sys.path:
            sys.path.remove(earlier)
    if entry not in sys.path:
        sys.path.append(entry)
        _used.append(entry)
    if isinstance(path, UsersCode):
        path.take_up()


def also_from(path: Path) -> None:
    """The same for who only opens a model: where a user's directory stands already, as in a run, that stays."""
    if not _used:
        use_user_path(path)


def submitted_folder() -> Path | None:
    """Where this node keeps what came with a submitted job; None outside of one."""
    spec = importlib.util.find_spec(SUBMITTED)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None


def check_own_packages() -> None:
    """Raise EnvironmentUnfit when one of our packages would come from anywhere but this distribution."""
    home = Path(__file__).resolve().parents[2]
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
    cannot = told_as(lambda what: RecipeError(f"{import_string}: {module_name} cannot be imported: {what}"))
    with cannot, called("", import_string):
        if is_in_main(import_string):
            return GATE.value_of(import_string)
        module = _module(import_string, module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        public = sorted(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
        raise RecipeError(
            f"{import_string}: module {module_name} has no {name!r}; it has {', '.join(public)}"
        ) from None


def asked_for(function: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What of `given` a function takes beside its first argument, by these names, and has no value of its own for."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # it does not say
        return {}
    none = (inspect.Parameter.empty, None, ())
    return {each.name: given[each.name] for each in parameters if each.name in given and each.default in none}


def _module(import_string: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        cure = "is it in the working directory, or installed?"
        if (top := module_name.partition(".")[0]) in OURS:
            cure = f"{top!r} is Collegium's own package, which hides a folder of that name; rename yours"
        elif error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            cure = f"{module_name} was found, but it imports {error.name!r}, which is not installed"
        if top in EXTRAS and error.name == top:
            cure = f"pip install collegium[{top}]"
        raise RecipeError(f"{import_string}: there is no module {error.name!r}; {cure}") from error
