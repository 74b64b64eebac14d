"""Terms of an objective on rows that are mixed two by two.

A term whose targets are of whole rows, labels or what a store keeps, has for a mixed row a weighted mean of two values: one with its
own target, one with that of the other row of its pair. Where a loss is linear in what it is compared with, up to what the student has
no part in (cross-entropy and KL in the target's probabilities, squared distances in the target itself), that is the loss beside the
mixed target, with the same gradient. Who is asked about the mixed row itself has one target, and nothing is to be done.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from teachers.errors import RecipeError

from ..config.cohort_terms import CohortTerm
from ..config.own_terms import MeanTeacherTerm
from ..config.terms import HardTerm, ImportedTerm, LabelSmoothingTeacherTerm, Term
from ..runs.run import Run
from .asks import has_a_parameter_for_labels
from .combination import Combination
from .targets import Asked


def compares_with_labels(term: Term | CohortTerm) -> bool:
    """Whether a term of who mixes rows says nothing of a row without a label."""
    return isinstance(term, HardTerm | LabelSmoothingTeacherTerm)


def mixed_terms(run: Run, combinations: Sequence[Combination | None]) -> list[bool]:
    """Of each term of `run`, whether its targets are of whole rows. Raises RecipeError for a loss of the user's that takes labels."""
    live = {source.name for source in run.sources if source.live is not None}
    found = []
    for number, (term, combination) in enumerate(zip(run.objective, combinations, strict=True)):
        if isinstance(term, ImportedTerm) and has_a_parameter_for_labels(term.loss):
            raise RecipeError(
                f"objective.{number}.loss: {term.loss} takes the label of a row, and `train.mix` makes rows of two; remove one"
            )
        of_mixed = isinstance(term, MeanTeacherTerm) or (
            combination is not None and bool(live & {*combination.teachers})
        )
        found.append(not of_mixed and not (combination is not None and combination.is_late))
    return found


def terms_of_labels(run: Run) -> list[bool]:
    """Of each term of who sees views that are mixed, of which teachers speak, whether it compares with labels. Raises RecipeError for
    a loss of the user's that takes labels."""
    for number, term in enumerate(run.objective):
        if isinstance(term, ImportedTerm) and has_a_parameter_for_labels(term.loss):
            raise RecipeError(
                f"objective.{number}.loss: {term.loss} takes the label of a row, and `transfer_set.transform: mixup` makes rows of two; "
                f"remove one"
            )
    return [compares_with_labels(term) for term in run.objective]


def beside_others(asked: Sequence[Asked], pairs: Sequence[bool], own: Tensor, other: Tensor) -> list[Asked]:
    """As `mixed`, of rows whose other row is none of the batch; `other`: what that is labelled."""
    first = [
        each._replace(own=own, other=other) if is_label else each for each, is_label in zip(asked, pairs, strict=False)
    ]
    return [*first, *asked[len(first) :]]


def mixed(asked: Sequence[Asked], pairs: Sequence[bool], own: Tensor) -> list[Asked]:
    """`asked` of all terms, for rows of which each has `own` of itself, f32 `[rows]`, and the rest of the other of its pair.

    `pairs`: of the first of them, whether targets are of whole rows. Mixed rows count where something is known of both.
    """
    first = [_of_pairs(each, own) if whole else each for each, whole in zip(asked, pairs, strict=False)]
    return [*first, *asked[len(first) :]]


def _of_pairs(asked: Asked, own: Tensor) -> Asked:
    if asked.weight is None:
        return asked._replace(own=own)
    both = (asked.weight > 0) & (swapped(asked.weight) > 0)
    return asked._replace(own=own, weight=torch.where(both | (own >= 1), asked.weight, 0.0))


def sum_of_pairs(values: Callable[[Tensor, Tensor | None, Tensor | None], Tensor], asked: Asked, own: Tensor) -> Tensor:
    """The weighted sum of a term: beside its own target as much as there is of a row, beside the other's the rest.

    `values` of (targets, weights, labels) `[rows]`.
    """
    total = own.new_zeros(())
    for share, (target, weight, labels) in ((own, asked[:3]), (1 - own, _others(asked))):
        value, counts = share * values(target, weight, labels), share > 0
        if weight is not None:
            value, counts = value * weight, counts & (weight > 0)
        total = total + torch.where(counts, value, 0.0).sum()
    return total


def _others(asked: Asked) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What the other row of each pair is compared with."""
    if asked.other is not None:
        return asked.other, asked.weight, None
    weight, labels = (None if each is None else swapped(each) for each in (asked.weight, asked.labels))
    return swapped(asked.target), weight, labels


def swapped(values: Tensor) -> Tensor:
    """Of rows two by two, `[rows, ...]`, each of a pair in the place of the other: a part of a batch has no half of one."""
    return values.reshape(-1, 2, *values.shape[1:]).flip(1).reshape(values.shape)
