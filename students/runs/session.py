"""Who does a training: a process or a group of them. The engine does not know whether Ray is behind it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from teachers.labelling.heard import LiveAnswer

from .curves import Record, deliver_records
from .run import CohortRun, Run

T = TypeVar("T")


class LiveTeachers(Protocol):
    """Who answers for the live teachers; `teachers.labelling.live.ReplicaClient` on a Ray cluster."""

    def ask(self, teachers: Sequence[str], inputs: Mapping[str, np.ndarray], sample_key: np.ndarray) -> Any:
        """Ask all of `teachers` about canonical inputs; does not wait."""

    def answers(self, asked: Any) -> Mapping[str, LiveAnswer]:
        """Logits f32 `[rows, C]` of each of them, in its own classes, with its named outputs where it has some."""


class Session(Protocol):
    """A process among `world` that train the same network together."""

    rank: int
    world: int
    device: torch.device
    live: LiveTeachers | None

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        """Keep points of curves; called by rank 0, never waits."""

    def wrap(self, module: nn.Module, *, uses_all: bool = True) -> nn.Module:
        """The module whose backward averages gradients over all ranks; `uses_all`: of every parameter in every step."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""

    def agree(self, value: T) -> T:
        """Rank 0's value, on every rank."""

    def everyone(self, value: T) -> list[T]:
        """The value of each rank, in order."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape, `[world, ...]`."""

    def part(self, groups: tuple[tuple[int, ...], ...]) -> "Session":
        """The session of the group that this rank is in; every rank calls it with the same groups of all ranks."""


class PlainSession:
    """This process, alone. `mailbox` is an actor handle whose `put` takes points of curves, or None."""

    rank = 0
    world = 1

    def __init__(
        self, device: torch.device | str = "cpu", mailbox: Any = None, live: LiveTeachers | None = None
    ) -> None:
        self.device = torch.device(device)
        self.mailbox = mailbox
        self.live = live

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        deliver_records(self.mailbox, run.stage, records)

    def wrap(self, module: nn.Module, *, uses_all: bool = True) -> nn.Module:
        return module

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def agree(self, value: T) -> T:
        return value

    def everyone(self, value: T) -> list[T]:
        return [value]

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]

    def part(self, groups: tuple[tuple[int, ...], ...]) -> "Session":
        return self
