"""What can be known to be wrong with the combination of teachers before any work. Knows nothing of what they say."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from students.config.terms import TeacherTermCommon

from .file import nearest
from .model import Recipe

if TYPE_CHECKING:
    from teachers.transfer_set.columns import Column


def _terms(recipe: Recipe) -> Iterator[tuple[str, TeacherTermCommon]]:
    """(key, term) of each that listens to teachers."""
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            for number, term in enumerate(learner.objective):
                if isinstance(term, TeacherTermCommon):
                    yield f"{kind}.{name}.objective.{number}", term


def expert_problems(recipe: Recipe, classes: Sequence[str]) -> Iterator[str]:
    """Experts of classes that are none, and thresholds of boxes of such."""
    for key, term in _terms(recipe):
        for teacher, of in (term.experts or {}).items() if classes else ():
            if strange := [each for each in of if each not in classes]:
                yield f"{key}.experts.{teacher}: {strange[0]!r} is no class{nearest(strange[0], classes)}"
        kept = getattr(term, "keep_above", None)
        if isinstance(kept, dict) and classes and (strange := [each for each in kept if each not in classes]):
            yield f"{key}.keep_above: {strange[0]!r} is no class{nearest(strange[0], classes)}"


def route_problems(recipe: Recipe, columns: Sequence["Column"]) -> Iterator[str]:
    """Columns that name no teachers: absent, or no names; and names of a category that are no teacher's."""
    names = [name for each in columns for name in (each.names or (each.name,)) if each.kind in ("text", "category")]
    values = {name: of for each in columns for name, of in zip(each.names, each.values, strict=False)}
    for key, term in _terms(recipe):
        if term.column is None:
            continue
        heard = term.teachers or _teachers_of(recipe, key)
        if term.column not in names:
            yield (
                f"{key}.column: there is no column {term.column!r} of names among `transfer_set.inputs`, expected a category or "
                f"text; it has {', '.join(names) or 'none'}"
            )
        elif strange := [value for value in values.get(term.column, ()) if value not in heard]:
            yield (
                f"{key}.column: {term.column!r} names {strange[:10]}, who are not among the teachers {list(heard)}; leave such a row "
                f"empty, or give it the name of a teacher of this term"
            )


def _teachers_of(recipe: Recipe, key: str) -> list[str]:
    return list(recipe.learners[key.split(".")[1]].teachers)
