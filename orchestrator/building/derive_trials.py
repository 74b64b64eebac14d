"""What the trials of a search make of text: made once, before them, where the search names each of its choices.

Knows nothing of trials. What is not made here (a length that is drawn from a range), each trial makes for itself.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from ..recipe.model import Recipe
from ..recipe.search import Choice
from ..search.trial import setting
from ..stages.stages import Built
from .context import Context
from .derive import derive, text_columns

MOST = 64
"""Combinations of choices; of more, those that are over are made by the trials."""

log = logging.getLogger("collegium")


def derive_for_trials(context: Context, prepared: Built) -> list[Built]:
    """Arrays are found by their content, so a trial reads what is here."""
    found: dict[str, Built] = {}
    if text_columns(TransferSet.open(prepared.folder)):
        for recipe in islice(_tried(context.recipe), MOST):
            found |= {built.digest: built for built in derive(replace(context, recipe=recipe), prepared)}
    return [*found.values()]


def _tried(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe with each combination of the choices that a search has for a `preprocess`."""
    assert recipe.search is not None
    name, learner = recipe.search.student, recipe.learners[recipe.search.student]
    choices = {
        path: entry.choice
        for path, entry in recipe.search.space.items()
        if "preprocess" in path.split(".") and isinstance(entry, Choice)
    }
    for values in product(*choices.values()) if choices else ():
        try:
            tried = setting(learner, "student", dict(zip(choices, values, strict=True)))
        except RecipeError as error:  # a trial would say the same of itself
            log.debug("%s: %s", name, error)
            continue
        kind = "students" if name in recipe.students else "cohorts"
        yield recipe.model_copy(update={kind: {**getattr(recipe, kind), name: tried}})
