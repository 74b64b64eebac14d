"""The recipes and the schema that come with Collegium."""

import os
import re
from pathlib import Path

from teachers.config.strict import LONGEST_NAME
from teachers.errors import RecipeError
from teachers.users_code.imports import submitted_folder

from .file import nearest

SCHEMA = Path(__file__).resolve().with_name("recipe.schema.json")
MODELINE = "# yaml-language-server: $schema="


def home() -> Path:
    """Where the recipes lie: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package if (package / "recipes").is_dir() else package.parent


def recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted((home() / "recipes").glob("*.yaml"))}


def starters() -> dict[str, Path]:
    """Recipes for data of one's own, by the job: what is to be filled in is marked, so none runs as it stands."""
    return {path.stem: path for path in sorted((SCHEMA.parent / "starters").glob("*.yaml"))}


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


def starter(name: str, target: Path) -> str:
    """The text of a starter, or a recipe (as `find`), for the file `target`, which it is named after.

    Of a starter and a recipe of one name it is the starter; `recipes/NAME` is the recipe. Its first line tells an editor where the schema lies. Raises RecipeError with the nearest.
    """
    known = starters()
    if name not in known and name.removeprefix("recipes/") not in recipes() and not Path(name).exists():
        raise RecipeError(f"--from {name}: there is none of that name{nearest(name, [*known, *recipes()])}")
    text = (known[name] if name in known else find(name)).read_text("utf-8")
    lines = [line for line in text.splitlines(True) if not line.startswith(MODELINE)]
    named = [f"name: {name_for(target)}\n" if line.startswith("name: ") else line for line in lines]
    return f"{MODELINE}{schema_from(target.resolve().parent, Path.cwd())}\n" + "".join(named)


def name_for(target: Path) -> str:
    """A recipe's name that says which file it is in."""
    fit = re.sub(r"[^A-Za-z0-9_-]+", "-", target.stem).strip("-")[:LONGEST_NAME]
    return fit if fit[:1].isalpha() else f"r-{fit}"[:LONGEST_NAME].rstrip("-")


def schema_from(folder: Path, project: Path, schema: Path = SCHEMA) -> str:
    """How a YAML file in `folder` names the schema.

    A relative path where both lie in `project`, which can then move as a whole; else a URI of the installed file. An editor
    takes a path as it stands, up to a blank or `#`; a URI may hold anything.
    """
    if folder.is_relative_to(project) and schema.is_relative_to(project):
        relative = os.path.relpath(schema, folder).replace(os.sep, "/")
        if re.fullmatch(r"[\w./@+-]+", relative, re.ASCII):
            return relative
    return schema.as_uri()
