"""What a recipe makes of text: each thing once, whoever of its teachers and students makes it. Imports no torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from teachers.models.text import TextTransform, of_document, text_transform
from teachers.users_code.calls import within

from ..recipe.model import Recipe
from .code import code_of_folder

ANY = ("text",)
"""In place of the text columns, where nobody has looked at the source yet."""


def texts_of(recipe: Recipe, names: Sequence[str] = ANY) -> dict[str, TextTransform]:
    """By the name of its stage (`ngrams`; the second one is `ngrams-2`), of the text columns `names`.

    Raises RecipeError for what cannot be made of them, by the recipe's key.
    """
    found: dict[str, TextTransform] = {}
    for where, config in _who_reads(recipe):
        with within(where):
            text = _text(config, names)
        if text is not None and text.digest not in [other.digest for other in found.values()]:
            of_kind = sum(other.kind == text.kind for other in found.values())
            found[text.kind + (f"-{of_kind + 1}" if of_kind else "")] = text
    return found


def _who_reads(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    for name, teacher in recipe.teachers.items():
        yield f"teachers.{name}", teacher
    for name, student in recipe.students.items():
        yield f"students.{name}", student
    for name, cohort in recipe.cohorts.items():
        for member, config in cohort.members.items():
            yield f"cohorts.{name}.members.{member}", config


def _text(config: Any, names: Sequence[str]) -> TextTransform | None:
    if getattr(config, "kind", None) == "checkpoint":
        document = (code_of_folder(config).get("preprocess") or {}).get("text")
        made = None if document is None else of_document(document, Path(config.path).resolve())
        return made if made is not None and (names == ANY or set(made.names) <= set(names)) else None
    preprocess = getattr(config, "preprocess", None)
    return None if preprocess is None else text_transform(preprocess.absolute(), names)
