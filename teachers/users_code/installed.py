"""Files that an installed package brings, as a recipe names them: `package:FOLDER/FILE`. Imports no package."""

import importlib.util
from pathlib import Path

from ..errors import RecipeError


def placed(path: str) -> Path:
    """A path as it is; `package:FOLDER` is what lies there in an installed package. Raises RecipeError without that package."""
    package, colon, inside = path.partition(":")
    if not colon or not package.isidentifier() or Path(path).exists():
        return Path(path)
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # `__main__`
        found = None
    if found is None or not found.submodule_search_locations:
        raise RecipeError(
            f"{path}: there is no installed package {package}; install it, or give a path of this machine"
        )
    return Path(next(iter(found.submodule_search_locations))) / inside
