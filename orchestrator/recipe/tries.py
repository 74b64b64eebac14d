"""A few settings of each method, one training each, of which the best on validation rows goes into the comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from students.config.methods import MethodName, Setting, method_of
from teachers.config.task import ANSWER_OF
from teachers.errors import RecipeError

from .model import Recipe
from .variants import Variants, budget_in_words, changes_of, variants_of


@dataclass(frozen=True)
class Tries:
    """`recipe`: of one student a setting, with one seed that the comparison does not have; `of`: by name, (method, setting)."""

    recipe: Recipe
    of: Mapping[str, tuple[str, Setting]]

    def cost(self) -> str:
        each = budget_in_words(self.recipe.students[next(iter(self.of))])
        return f"before that {len(self.of)} trainings{each}, one a setting, of which validation rows choose the best of each method"


def tries_of(recipe: Recipe, made: Variants) -> Tries:
    """Every setting that the task has. Raises RecipeError for variants that have none."""
    if made.kind != "methods":
        raise RecipeError("--tune tries settings of methods; variants by teachers have the recipe's own")
    seed, tried, changes = max(made.seeds) + 1, dict[str, tuple[str, Setting]](), dict[str, dict[str, Any]]()
    train = recipe.students[made.student].train.model_dump(mode="json") | {"seeds": [seed]}
    for method in made.of.values():
        for number, setting in enumerate(_settings(recipe, made.student, method)):
            name = f"{method}-{number}"
            tried[name] = method, setting
            changes[name] = {**_changes(recipe, made.student, method, setting), "train": train, "control": False}
    variants = variants_of("methods", recipe, made.student, changes, None)
    return Tries(variants.recipe, {name: tried[own] for name, own in variants.of.items()})


def _settings(recipe: Recipe, student: str, method: str) -> list[Setting]:
    """As it stands first, then those of the method that this task and student can have."""
    found: list[Setting] = [{}]
    for setting in method_of(_named(method), ANSWER_OF[recipe.task]).settings:
        try:
            variants_of("methods", recipe, student, {method: _changes(recipe, student, method, setting)}, None)
        except RecipeError:
            continue
        found.append(setting)
    return found


def _changes(recipe: Recipe, student: str, method: str, setting: Setting) -> dict[str, Any]:
    return changes_of(recipe, student, _named(method), setting)


def _named(method: str) -> MethodName:
    return method  # type: ignore[return-value]  # the variants are of methods
