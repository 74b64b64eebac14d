"""From a file to a checked recipe: every error with file, line, column and path, all at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from teachers.errors import RecipeError

from .errors import told
from .file import read_yaml
from .model import Recipe


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
    return recipe


def check(recipe: Recipe) -> None:
    """Raise RecipeError for a recipe made in Python whose parts do not fit each other."""
    if problems := recipe.problems():
        raise RecipeError("\n".join(f"{'.'.join(map(str, loc))}: {message}" for loc, message in problems))


def changed(document: Mapping[str, Any], by: str) -> Recipe:
    """The recipe of a document that the program has changed. Raises RecipeError that says who changed it."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, loc))}: {message}" for loc, message in told(Recipe, document, error)]
        raise RecipeError("\n".join(f"{by}: {line}" for line in found)) from None
