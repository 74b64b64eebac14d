"""Experts that divide the classes (`loss: lfme`): what is wrong with the division, as far as it is known before any work."""

from collections.abc import Iterator, Mapping, Sequence

from students.config.lfme_term import LfmeTerm
from teachers.errors import CollegiumError
from teachers.soft_targets.class_map import mapped, resolved

from .checks import known_by
from .model import Recipe


def divides(recipe: Recipe) -> bool:
    """Whether a student has experts that divide the classes."""
    return any(True for _ in _terms(recipe))


def division_problems(
    recipe: Recipe, classes: Sequence[str] | None, validation: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Classes that two experts know, or none; experts without a row to be judged by. `validation`: labelled rows of each class,
    as far as that is known."""
    for key, heard in _terms(recipe):
        own = {name: _own(recipe, name, classes or ()) for name in heard}
        if not classes or any(each is None for each in own.values()):
            continue  # told by `class_problems`, or by a file when the run has it
        for name in classes:
            knowing = [expert for expert, mine in own.items() if name in (mine or ())]
            if len(knowing) > 1:
                yield (
                    f"{key}: `lfme` hears each expert in its own classes, and {' and '.join(knowing)} share {name!r}; give it to one "
                    f"of them (`classes`, or null in `class_map`)"
                )
            if not knowing:
                yield (
                    f"{key}: no expert among {', '.join(heard)} knows the class {name!r}; add it to the `classes` of one of them"
                )
        for expert, mine in own.items():
            if validation is not None and mine and not any(validation[name] for name in mine):
                yield (
                    f"{key}: `lfme` paces {expert!r} by labelled validation rows of its classes {', '.join(mine[:10])}, and there are "
                    f"none; give some (`split.stratify: true`), or leave the expert out"
                )


def undivided(recipe: Recipe, student: str) -> str | None:
    """Why the teachers of a student cannot be experts, with the key to set; None where they can, as far as the recipe says."""
    teachers = recipe.students[student].teachers
    if len(teachers) < 2:
        return f"takes two experts or more, and students.{student}.teachers has {len(teachers)}; name another there"
    own: dict[str, str] = {}
    for name in teachers:
        classes = recipe.teachers[name].classes if name in recipe.teachers else None
        if classes is None:
            return f"takes experts that divide the classes, and {name} is of all; say which it learns: `teachers.{name}.classes`"
        for each in classes:
            if each in own:
                return f"takes experts that divide the classes, and {own[each]} and {name} share {each!r}"
            own[each] = name
    return None


def _terms(recipe: Recipe) -> Iterator[tuple[str, list[str]]]:
    """(key, experts) of each such term."""
    for name, student in recipe.students.items():
        for number, term in enumerate(student.objective):
            if isinstance(term, LfmeTerm):
                yield f"students.{name}.objective.{number}.loss", list(term.teachers or student.teachers)


def _own(recipe: Recipe, name: str, classes: Sequence[str]) -> list[str] | None:
    """The classes that an expert knows, in the transfer set's order; None where that is not known, or wrong for another reason."""
    if name not in recipe.teachers:
        return list(classes)  # an assistant learnt all of them
    teacher = recipe.teachers[name]
    try:
        theirs = known_by(teacher, recipe.task, classes)
        if theirs is None:
            return None
        found = {*mapped(theirs, classes, resolved(teacher.class_map)).values()}
    except CollegiumError:
        return None
    return [each for each in classes if each in found]
