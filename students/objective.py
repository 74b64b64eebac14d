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
from teachers.users_code import calling

from .config import HardTerm, ImportedTerm, SoftTerm, Term
from .losses import LOSSES, Loss
from .session import Session
from .targets import Asked, Batch


@dataclass(frozen=True)
class TermAtWork:
    """One term; `ask` gives what the student is compared with and the weight of each row."""

    name: str
    key: str
    """Of the recipe."""
    loss_name: str
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
        for number, (term, ask) in enumerate(zip(terms, asks, strict=True)):
            name = term.loss.rpartition(":")[2]
            seen[name] += 1
            numbered = name if seen[name] == 1 else f"{name}_{seen[name]}"
            ramp_steps = term.ramp.steps if term.ramp else 0
            key = f"objective.{number}.loss"
            self.terms.append(TermAtWork(numbered, key, term.loss, bound_loss(term), term.weight, ramp_steps, ask))
        self.names = tuple(term.name for term in self.terms)
        self.constants: dict[tuple[float, ...], Tensor] = {}

    def ask(self, batch: Batch) -> list[Asked]:
        """What each term compares the student with, for this rank's rows of a step."""
        return [term.ask(batch) for term in self.terms]

    def counts(self, asked: Sequence[Asked], batch_size: int, session: Session) -> Tensor:
        """Rows of the global batch that take part in each term, f32 `[terms]`, at least 1."""
        if all(weight is None for _, weight in asked):
            return self._constant((float(batch_size),) * len(asked), session.device)
        rows = torch.tensor(batch_size / session.world, device=session.device)
        here = [rows if weight is None else (weight > 0).sum() for _, weight in asked]
        return session.all_reduce_sum(torch.stack([count.float() for count in here])).clamp_(min=1)

    def sums(self, student: Tensor, asked: Sequence[Asked]) -> Tensor:
        """The sum of each term, unweighted, over the given rows: f32 `[terms]`."""
        values = [
            row_sum(term, student, target, weight) for term, (target, weight) in zip(self.terms, asked, strict=True)
        ]
        return torch.stack(values)

    def weights(self, step: int) -> tuple[float, ...]:
        return tuple(term.weight_at(step) for term in self.terms)

    def weights_on(self, device: torch.device, step: int) -> Tensor:
        return self._constant(self.weights(step), device)

    def _constant(self, values: tuple[float, ...], device: torch.device) -> Tensor:
        """`values` on the device, from the last time where they are the same: a tiny network feels every copy."""
        if values not in self.constants:
            self.constants = dict(list(self.constants.items())[-1:]) | {values: torch.tensor(values, device=device)}
        return self.constants[values]


def row_sum(term: TermAtWork, student: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted sum of a term's values over the given rows."""
    with calling(term.key, term.loss_name):
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
