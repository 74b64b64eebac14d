"""What terms ask of a batch beside what teachers say together: labels, or nothing. And what is refused before the first batch.

Knows nothing of losses beyond what they take.
"""

import inspect
from collections.abc import Mapping
from functools import partial

import torch

from teachers.errors import RecipeError
from teachers.users_code.imports import load

from ..config.cohort_terms import CohortTerm
from ..config.terms import DkdTerm, ImportedTerm, Term
from .combination import Combination
from .targets import Ask, Asked, Batch
from .units import usable_labels
from .voices import Voice

COUNTS = "counts"
"""Of a batch: how much a row counts in what is heard from teachers, f32 `[rows]`, where rows differ in that."""


def as_they_count(ask: Ask) -> Ask:
    """The same, each row weighed as it counts."""

    def weighed(batch: Batch) -> Asked:
        found, counts = ask(batch), batch[COUNTS]
        return found._replace(weight=counts if found.weight is None else found.weight * counts)

    return weighed


def labels_of(batch: Batch) -> Asked:
    return Asked(batch["label"], batch.get("has_label"))


def every_row(batch: Batch) -> Asked:
    """Of a term that hears no stored targets and takes all rows."""
    return Asked(batch["label"], None)


def with_labels(term: Term | CohortTerm, ask: Ask) -> Ask:
    """The same with labels, where the term's loss takes them beside what teachers say: of labelled rows alone."""
    if isinstance(term, DkdTerm) and term.unlabelled == "teacher_label":
        return partial(_labels_or_theirs, ask)
    if isinstance(term, DkdTerm) or (isinstance(term, ImportedTerm) and has_a_parameter_for_labels(term.loss)):
        return partial(_labelled_rows, ask)
    return ask


def has_a_parameter_for_labels(loss: str) -> bool:
    """Of a function that an import string names."""
    try:
        return "labels" in inspect.signature(load(loss)).parameters
    except ValueError:  # of a function that is no Python
        return False


def _labelled_rows(ask: Ask, batch: Batch) -> Asked:
    found = ask(batch)
    weight = batch.get("has_label") if found.weight is None else found.weight * batch.get("has_label", 1.0)
    return found._replace(weight=weight, labels=batch["label"])


def _labels_or_theirs(ask: Ask, batch: Batch) -> Asked:
    """Of all rows: where there is no label, the class that teachers say."""
    found, labels = ask(batch), batch["label"]
    if found.target.ndim > 2:  # what teachers say is known when it is decided
        return found._replace(labels=usable_labels(batch))
    if "has_label" in batch:
        theirs = found.target.nan_to_num(nan=-torch.inf).argmax(-1)
        labels = torch.where(batch["has_label"] > 0, labels, theirs)
    return found._replace(labels=labels)


def check_encodings(
    term: Term | CohortTerm, number: int, combination: Combination, voices: Mapping[str, Voice]
) -> None:
    """Raise RecipeError when a term needs more than the class that a teacher's store keeps."""
    for name in combination.teachers:
        if term.loss != "teacher_label" and voices[name].encoding == "label":
            raise RecipeError(
                f"objective.{number}: loss {term.loss!r} needs the scores of teacher {name!r}, whose store keeps the "
                f"class only; set `teachers.{name}.encoding: dense`, or use `loss: teacher_label`"
            )
