"""How a task is judged. The tasks themselves are in `TASKS`; nothing else asks which one it has.

What everybody says is f32 `[rows, width]`: logits, or numbers. A network's numbers are standardised, those of teachers,
of delivered students and of labels are in the label's own units; `said` below is always the latter.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from teachers.config.task import TaskName
from teachers.tasks.space import Space


class Meter(Protocol):
    """Figures of merit of rows with a label: additive over chunks, over ranks, and under integer weights of rows.

    With weights `w` every figure is that of the rows repeated `w` times.
    """

    def update(self, said: Tensor, labels: Tensor) -> None:
        """Some rows more: `said` f32 `[rows, width]`, `labels` as a transfer set has them; rows without one are left out."""

    def parts(self) -> dict[str, Tensor]:
        """What it has kept, on the CPU, a row of each a judged row, in the order of `update`."""

    def join(self, parts: Mapping[str, Tensor]) -> None:
        """The rows of another meter more, from its `parts`."""

    def figures(
        self, row_weights: Tensor | None = None, keys: Collection[str] | None = None
    ) -> dict[str, float | None]:
        """By key, those of `FIGURES[task]` (or of `keys` alone); None where one is not defined. `row_weights`: i64 `[rows]`."""


class MakesMeter(Protocol):
    def __call__(self, space: Space, thresholds: Sequence[float] | None = None) -> Meter:
        """`thresholds`: a probability a class, from which on it is said; a task that has none does not look at them."""


@dataclass(frozen=True)
class Task:
    """Plain functions; its `FIGURES` and `LOOKS` are in `figure`, which torch is not needed for."""

    name: TaskName
    meter: MakesMeter
    merits: Callable[[Tensor, Tensor, Space], Tensor]
    """(said, labels, space) to f64 `[rows]`: how good each row's answer is, for comparing two row by row; more is better.

    All rows have a label."""
    is_mean_of_merits: bool
    """Whether the headline is the mean of `merits`, so that an interval of it needs no bootstrap."""
    thresholds: Callable[[Tensor, Tensor], tuple[float, ...]] | None = None
    """(said, labels) of validation rows to the thresholds that a meter and `predict` are given; None: it has none."""
