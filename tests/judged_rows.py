"""Rows of a test split without a transfer set: what judges need of `Labelled`, for documents that tests make up."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from students.measuring.judged import Voice, agreement_matrix, figures_of
from students.tasks.task import Task
from students.tasks.tasks import TASKS
from teachers.tasks.space import Space


@dataclass(frozen=True)
class Rows:
    space: Space
    labels: Tensor
    groups: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def task(self) -> Task:
        return TASKS[self.space.task]

    def figures(self, said: Tensor, together: Tensor | None = None):
        return figures_of(self, Voice(said), None if together is None else Voice(together))

    def agreement(self, said: dict[str, Tensor]):
        return agreement_matrix(self, said)


def of_digits(labels: Tensor) -> Rows:
    return Rows(Space("classification", tuple("0123456789")), labels)


def classes(width: int) -> Space:
    return Space("classification", tuple(map(str, range(width))))


def some_rows(task: str, rows: int = 60, seed: int = 0) -> tuple[Rows, Tensor]:
    """Rows with labels, a few of them unknown, and what a fair model says of them."""
    numbers = torch.Generator().manual_seed(seed)
    if task == "classification":
        labels = torch.randint(0, 3, (rows,), generator=numbers)
        said = 2 * torch.eye(3)[labels] + torch.randn(rows, 3, generator=numbers)
        return Rows(Space("classification", ("a", "b", "c")), labels), said
    truth = torch.randn(rows, 3, generator=numbers)
    said = truth + 0.5 * torch.randn(rows, 3, generator=numbers)
    unknown = torch.rand(rows, 3, generator=numbers) < 0.1
    unknown[:, 0] = False  # each row has a label
    if task == "multilabel":
        labels = torch.where(unknown, -1, truth > 0.3).to(torch.int8)
        return Rows(Space("multilabel", ("a", "b", "c")), labels), said
    space = Space("regression", ("a", "b", "c"), mean=(0.0, 0.0, 100.0), scale=(1.0, 1.0, 50.0))
    scale, mean = torch.tensor(space.scale), torch.tensor(space.mean)
    labels = torch.where(unknown, torch.nan, truth * scale + mean)
    return Rows(space, labels), said * scale + mean
