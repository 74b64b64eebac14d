"""From a file to a checked recipe: every error with file, line, column and path, all at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from teachers.config.published import OnnxTeacher
from teachers.errors import RecipeError

from .along import arrived
from .errors import told
from .file import SourceFile, read_yaml
from .model import Recipe, by_key

Given = Recipe | Mapping[str, Any] | str | Path
"""A recipe as Python's callers may give it: itself, a mapping as in its file, or the file."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override (`a.b=c`, list indices too) and check a recipe. Raises RecipeError with all that is wrong."""
    source = read_yaml(Path(path))
    for override in overrides:
        source.override(override)
    try:
        recipe = Recipe.model_validate(source.value)
    except ValidationError as error:
        raise RecipeError(source.tell_all(told(Recipe, source.value, error))) from None
    if problems := recipe.problems():
        raise RecipeError(source.tell_all(problems))
    return arrived(recipe)


def graph_told(path: Path, assignments: Sequence[str]) -> OnnxTeacher:
    """A graph that no recipe names, read as `key=value` say it, the keys of a `kind: onnx` teacher. Raises RecipeError."""
    source = SourceFile(path, {"kind": "onnx", "path": str(path)}, {}, set(), "--how")
    for assignment in assignments:
        source.override(assignment)
    try:
        return OnnxTeacher.model_validate(source.value)
    except ValidationError as error:
        problems = dict.fromkeys(told(OnnxTeacher, source.value, error))
        lines = (f"--how {'.'.join(map(str, at))}: {what}" if at else f"--how: {what}" for at, what in problems)
        raise RecipeError("\n".join(lines)) from None


def check(recipe: Recipe) -> None:
    """Raise RecipeError for a recipe made in Python whose parts do not fit each other."""
    if problems := recipe.problems():
        raise RecipeError(by_key(problems))


def recipe_of(given: Given) -> Recipe:
    """Raises RecipeError as `load_recipe`, and as `Recipe.from_dict`."""
    if isinstance(given, Recipe):
        return given
    return Recipe.from_dict(given) if isinstance(given, Mapping) else load_recipe(given)


def file_of(given: Given) -> str | None:
    """The file of what was given as one."""
    return str(given) if isinstance(given, str | Path) else None


def changed(document: Mapping[str, Any], by: str) -> Recipe:
    """The recipe of a document that the program has changed. Raises RecipeError that says who changed it."""
    try:
        return Recipe.from_dict(document)
    except RecipeError as error:
        raise RecipeError("\n".join(f"{by}: {line}" for line in str(error).splitlines())) from None
