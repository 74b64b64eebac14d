"""A session of several processes, over torch.distributed. Knows nothing of who started them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..runs.curves import Record, deliver_records
from ..runs.run import CohortRun, Run
from ..runs.session import LiveTeachers, Session

T = TypeVar("T")


class Ranks:
    """This process among those of a group, by default all. The process group must have been started."""

    def __init__(
        self, device: torch.device, mailbox: Any = None, live: LiveTeachers | None = None, group: Any = None
    ) -> None:
        self.device, self.mailbox, self.live, self.group = device, mailbox, live, group
        self.rank: int = dist.get_rank(group)
        self.world: int = dist.get_world_size(group)
        self.parts: dict[tuple[tuple[int, ...], ...], Ranks] = {}

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        deliver_records(self.mailbox, run.stage, records)

    def wrap(self, module: nn.Module, *, uses_all: bool = True) -> nn.Module:
        if self.world == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=devices, process_group=self.group, find_unused_parameters=not uses_all
        )

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def agree(self, value: T) -> T:
        return self.everyone(value)[0] if self.group is not None else self._from_first(value)

    def _from_first(self, value: T) -> T:
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def everyone(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def all_gather(self, tensor: Tensor) -> Tensor:
        out = tensor.new_empty(self.world * tensor.numel())  # gloo takes no other shape
        dist.all_gather_single(out, tensor.flatten(), group=self.group)
        return out.view(self.world, *tensor.shape)

    def part(self, groups: tuple[tuple[int, ...], ...]) -> Session:
        if groups not in self.parts:
            # every rank makes every group, in the same order: torch asks for that
            made = [dist.new_group(list(ranks)) for ranks in groups]
            mine = next(group for ranks, group in zip(groups, made, strict=True) if self.rank in ranks)
            self.parts[groups] = Ranks(self.device, self.mailbox, self.live, mine)
        return self.parts[groups]
