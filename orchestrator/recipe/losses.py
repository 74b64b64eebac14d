"""Terms of objectives that the recipe's rows or teachers cannot serve. Knows nothing of files."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from students.config.task_terms import ASK_THE_STUDENT
from students.config.terms import DkdTerm, LogitMseTerm, TeacherLabelTerm, TeacherTermCommon, TermCommon

from .file import Loc

if TYPE_CHECKING:
    from .model import Recipe


def loss_problems(recipe: "Recipe") -> Iterator[tuple[Loc, str]]:
    """(path, message) of each."""
    for where, term in _terms(recipe):
        if term.needs_labels and recipe.transfer_set.label is None:
            yield (
                (*where, "loss"),
                f"{term.loss!r} compares with labels: `transfer_set.label` is null; take another loss",
            )
        if isinstance(term, TeacherTermCommon):
            heard = term.teachers or recipe.learners[str(where[1])].teachers
            yield from _heard_problems(recipe, where, term, [name for name in heard if name in recipe.teachers])


def unlabelled_problems(recipe: "Recipe", labelled: int) -> Iterator[str]:
    """Terms that say nothing of a row without a label. `labelled`: of training rows, how many have one that may be used."""
    for where, term in _terms(recipe):
        if term.needs_labels and not labelled:
            yield (
                f"{'.'.join(map(str, where))}.loss: {term.loss!r} compares with labels, and no training row has one that may be "
                f"used; give labels, or {_without_labels(term)}"
            )


def labelled_notes(recipe: "Recipe", labelled: int, rows: int) -> Iterator[str]:
    """Terms that hear teachers of the labelled rows alone, where most of the training rows have no label."""
    for where, term in _terms(recipe):
        if isinstance(term, DkdTerm) and term.needs_labels and 2 * labelled < rows:
            yield (
                f"{'.'.join(map(str, where))}: `dkd` compares with labels, so of {rows:,} training rows it takes the "
                f"{labelled:,} labelled ones; `unlabelled: teacher_label` takes the others by the class that teachers say"
            )


def _without_labels(term: TermCommon) -> str:
    return "say `unlabelled: teacher_label`" if isinstance(term, DkdTerm) else "take another loss"


def _heard_problems(
    recipe: "Recipe", where: Loc, term: TeacherTermCommon, heard: Sequence[str]
) -> Iterator[tuple[Loc, str]]:
    """Of teachers of whom there is not what the term compares with."""
    for name in heard:
        if recipe.teachers[name].encoding == "label" and not isinstance(term, TeacherLabelTerm):
            yield (
                (*where, "loss"),
                f"teacher {name!r} keeps only labels; use `loss: teacher_label`, or `encoding: dense` for it",
            )
    if isinstance(term, LogitMseTerm) and term.standardise and (why := _made_in_steps(recipe, term, heard)):
        path = (*where, "standardise")
        yield path, f"divides by the spread of targets over all training rows, and {why}; remove it"


def _made_in_steps(recipe: "Recipe", term: LogitMseTerm, heard: Sequence[str]) -> str:
    """Why nobody knows a term's targets before the first step; empty where they are known."""
    if term.combine is not None and (":" in term.combine or term.combine in ASK_THE_STUDENT):
        return f"`{term.combine}` is asked in every step"
    if term.drop is not None:
        return "`drop` leaves out other teachers in every step"
    if term.level == "losses":
        return "`level: losses` has a target of each teacher"
    live = [name for name in heard if recipe.teachers[name].mode == "live"]
    return f"teacher {live[0]!r} is live" if live else ""


def _terms(recipe: "Recipe") -> Iterator[tuple[Loc, TermCommon]]:
    for kind, learners in (("students", recipe.students), ("cohorts", recipe.cohorts)):
        for name, learner in learners.items():
            for number, term in enumerate(learner.objective):
                yield (kind, name, "objective", number), term
