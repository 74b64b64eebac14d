"""From a file to a checked recipe: every error with file, line, column and path, all at once."""

from collections.abc import Sequence
from pathlib import Path

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
