"""How a task is judged. The tasks themselves are in `TASKS`; nothing else asks which one it has.

What everybody says is f32 `[rows, width]`: logits, or numbers. A network's numbers are standardised, those of teachers,
of delivered students and of labels are in the label's own units; `said` below is always the latter. An element of it is
NaN where somebody knows nothing of a class or a number, and counts in no figure then.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from teachers.config.task import TaskName
from teachers.tasks.space import Space

Document = dict[str, Any]


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

    def details(self) -> Document:
        """What stands beside the figures in a document and is no number: a table, bins."""


class MakesMeter(Protocol):
    def __call__(self, space: Space, thresholds: Sequence[float] | None = None) -> Meter:
        """`thresholds`: a probability a class, from which on it is said; a task that has none does not look at them."""


@dataclass(frozen=True)
class Model:
    """What one of those who are judged side by side says of the rows, by seed, one tensor a seed."""

    seeds: Sequence[Tensor]
    sure: bool = True
    """Whether its probabilities are its own."""
    thresholds: Sequence[Sequence[float] | None] = (None,)
    """Of every seed."""


@dataclass(frozen=True)
class Task:
    """Plain functions; its `FIGURES` and `LOOKS` are in `figure`, which torch is not needed for."""

    name: TaskName
    meter: MakesMeter
    merits: Callable[[Tensor, Tensor, Space], Tensor]
    """(said, labels, space) to f64 `[rows]`: how good each row's answer is, for comparing two row by row; more is better.

    All rows have a label."""
    is_mean_of_merits: bool
    """Whether the headline is the mean of `merits`, each 0 or 1, so that an interval of it needs no bootstrap."""
    beside: Callable[[Tensor, Tensor, Space], Document]
    """(said, what its teachers say together, space) to the figures `BESIDE[task]`."""
    tables: Callable[[Mapping[str, Model], Model, Tensor, Space], Document]
    """(everybody, one seed that is looked at closely, labels, space) to the tables of a report, by their keys."""
    mistakes: Callable[[Model, Tensor, Tensor, Space, int], list[tuple[int, Document]]]
    """(one seed, what its teachers say together, labels, space, how many) to rows with what is wrong there, the worst first."""
    commonest: Callable[[Tensor, Tensor, Space], Document]
    """(labels, labels of training, space): what the best constant answer comes to; `remark`: a sentence, or None."""
    standing: Callable[[Tensor, Tensor, Tensor, Tensor, Space], Document]
    """(said, labels, what the teacher knows bool `[rows, width]`, labels of training, space): see `standing`."""
    unjudged: Callable[[Tensor, Space], Document]
    """(said, space) to the figures `UNJUDGED[task]`, and `said`: by name, what is said of it."""
    sheet: Callable[[Mapping[str, "Model"], Tensor, Space, int], list[tuple[int, Document]]] | None = None
    """(everybody, labels, space, how many): rows to look at side by side, and what is said of each; None: of none."""
    thresholds: Callable[[Tensor, Tensor, Space], tuple[float, ...]] | None = None
    """(said, labels, space) of validation rows to the thresholds that a meter and `predict` are given; None: it has none."""
