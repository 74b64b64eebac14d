"""An objective at work: a weighted sum of terms, each (global sum) / (global count) over its rows.

Knows nothing of stores, optimisers or ranks beyond a sum over them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from teachers.errors import RecipeError
from teachers.imports import load

from .config import HardTerm, ImportedTerm, SoftTerm, Term
from .losses import LOSSES, Loss
from .session import Session
from .targets import Asked, Batch

Count = Tensor | int


@dataclass(frozen=True)
class TermAtWork:
    """One term; `ask` gives what the student is compared with and the weight of each row."""

    name: str
    loss: Loss
    weight: float
    ramp_steps: int
    ask: Callable[[Batch], Asked]

    def weight_at(self, step: int) -> float:
        return self.weight if step >= self.ramp_steps else self.weight * step / self.ramp_steps


def labels_of(batch: Batch) -> Asked:
    return batch["label"], batch.get("has_label")


def bound_loss(term: Term) -> Loss:
    """The term's function of (student, target)."""
    if isinstance(term, ImportedTerm):
        return partial(load(term.loss), temperature=term.temperature, **term.arguments)
    keywords: dict[str, Any] = {}
    if isinstance(term, HardTerm):
        keywords = {"label_smoothing": term.label_smoothing}
    elif isinstance(term, SoftTerm):
        keywords = {"temperature": term.temperature}
    return partial(LOSSES[term.loss], **keywords)


class Objective:
    """The terms of one run. `names` are those of its curves."""

    def __init__(self, terms: Sequence[Term], asks: Sequence[Callable[[Batch], Asked]]) -> None:
        seen: Counter[str] = Counter()
        self.terms: list[TermAtWork] = []
        for term, ask in zip(terms, asks, strict=True):
            name = term.loss.rpartition(":")[2]
            seen[name] += 1
            numbered = name if seen[name] == 1 else f"{name}_{seen[name]}"
            ramp_steps = term.ramp.steps if term.ramp else 0
            self.terms.append(TermAtWork(numbered, bound_loss(term), term.weight, ramp_steps, ask))
        self.names = tuple(term.name for term in self.terms)

    def ask(self, batch: Batch) -> list[Asked]:
        """What each term compares the student with, for this rank's rows of a step."""
        return [term.ask(batch) for term in self.terms]

    def counts(self, asked: Sequence[Asked], batch_size: int, session: Session) -> list[Count]:
        """Rows of the global batch that take part in each term."""
        if all(weight is None for _, weight in asked):
            return [batch_size] * len(asked)
        device = next(weight.device for _, weight in asked if weight is not None)
        here = [torch.tensor(0, device=device) if w is None else (w > 0).sum() for _, w in asked]
        everywhere = session.all_reduce_sum(torch.stack(here)).clamp(min=1).unbind()
        return [batch_size if w is None else n for (_, w), n in zip(asked, everywhere, strict=True)]

    def parts(self, student: Tensor, asked: Sequence[Asked], counts: Sequence[Count]) -> list[Tensor]:
        """This rank's share of each term, unweighted: scalars whose sum over parts and ranks is the term."""
        return [
            row_sum(term, student, target, weight) / count
            for term, (target, weight), count in zip(self.terms, asked, counts, strict=True)
        ]

    def weights(self, step: int) -> list[float]:
        return [term.weight_at(step) for term in self.terms]


def row_sum(term: TermAtWork, student: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted sum of a term's values over the given rows."""
    value = term.loss(student, target)
    if value.shape != student.shape[:1]:
        raise RecipeError(
            f"loss {term.name!r} returned {list(value.shape)} for {len(student)} rows, expected one value per row; "
            f"leave the mean to the engine"
        )
    return value.sum() if weight is None else torch.where(weight > 0, value * weight, 0.0).sum()


def slices(asked: Sequence[Asked], part: slice) -> list[Asked]:
    """`asked` of some rows of the batch."""
    return [(target[part], None if weight is None else weight[part]) for target, weight in asked]
