"""The recipes and the schema that come with Collegium."""

from pathlib import Path

from teachers.errors import RecipeError
from teachers.users_code.imports import submitted_folder

from .file import nearest


def home() -> Path:
    """Where the files lie: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package if (package / "recipes").is_dir() else package.parent


def recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted((home() / "recipes").glob("*.yaml"))}


def find(name: str) -> Path:
    """A recipe's path: a file of that name, what a submitted job brought, else the shipped recipe.

    Raises RecipeError with the nearest.
    """
    path = Path(name)
    submitted = submitted_folder()
    if submitted is not None and (submitted / name).is_file():
        return submitted / name
    if path.exists():
        return path
    known = recipes()
    stem = path.stem if path.parent in (Path(), Path("recipes")) else name
    if stem in known:
        return known[stem]
    raise RecipeError(
        f"{name}: there is no such file, and no recipe of that name is shipped{nearest(stem, list(known))}"
    )
