"""How far apart training rows are in each class, as the combined teachers have it: what `logit_mse` can divide by.

A student that learns targets of unit variance and is scaled back afterwards has the same loss (Ba and Caruana, 2014); this one
keeps the logits' own scale.
"""

from dataclasses import replace

import torch
from torch import Tensor

from teachers.errors import RecipeError

from ..config.cohort_terms import CohortTerm
from ..config.terms import LogitMseTerm, Term
from .combination import Combination
from .losses.known import centred
from .targets import Targets
from .voices import Chorus


def spread_for(
    term: Term | CohortTerm, number: int, combination: Combination | None, targets: Targets
) -> Tensor | None:
    """What the term divides differences by, f32 `[width]`; None: by nothing.

    Raises RecipeError where nobody can know it before the first batch: teachers that are asked live, a rule of the user's.
    """
    if combination is None or not isinstance(term, LogitMseTerm) or not term.standardise:
        return None
    if not replace(combination, of_heads=False).is_made_once(targets.voices):
        raise RecipeError(
            f"objective.{number}.standardise: divides by the spread of targets over all training rows, and here they are made "
            f"batch by batch, of live teachers, by a rule of yours or with `level` or `drop`; remove it"
        )
    return spread_of(combination, targets, centre=term.centre)


def spread_of(combination: Combination, targets: Targets, *, centre: bool) -> Tensor:
    """Standard deviation f32 `[width]` of the target in each class over the rows that know it, 1 where there is none.

    `centre`: of targets of one class of many less their mean over the row's classes.
    """
    chorus = Chorus([targets.voices[name] for name in combination.teachers])
    sums = torch.zeros(3, chorus.known.shape[-1], dtype=torch.float64)
    for rows, said, known in chorus.in_chunks(targets.num_rows):
        of_rows = targets.of_rows.of(combination, rows)
        target, weights = combination.target(said, known, complete=chorus.knows_all, **of_rows)
        target = target[weights.sum(0) > 0].double()
        target = centred(target) if centre and combination.answer == "class_axis" else target
        there = ~target.isnan()
        target = torch.where(there, target, 0.0)
        sums += torch.stack([there.sum(0).double(), target.sum(0), target.square().sum(0)])
    count, total, squares = sums
    count = count.clamp_min(1)
    variance = squares / count - (total / count).square()
    return torch.where(variance > 0, variance, 1.0).sqrt().float()
