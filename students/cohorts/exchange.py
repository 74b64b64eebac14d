"""How the members of a cohort hear each other: one collective a step among the ranks that hold the same rows.

It stands between forward and backward and is waited for. There is nothing to gain by an overlap: the loss, and so the
backward, needs what it brings; only the terms without peers do not, and they are functions of a few logits.

Knows nothing of losses or methods.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from teachers.errors import CollegiumError

from ..runs.session import Session

WIRES = {"float16": torch.float16, "bfloat16": torch.bfloat16, None: None}
Said = list[Tensor]
"""Of one member: its logits `[rows, classes]`, then its stage maps."""


@dataclass
class Traffic:
    """What the exchange cost since it was last asked."""

    bytes: int = 0
    """Sent by this rank to each other."""
    seconds: float = 0.0
    """Of this process, waiting for slower peers included."""


class Exchange:
    """Gathers what every member says of a batch, detached. With all members in this process nothing travels.

    All of it is in one dtype that holds what every member says: a float32 member hears a bfloat16 one, and the other way
    round. `wire`: what it is rounded to on its way, also where nothing travels.
    """

    def __init__(self, session: Session, wire: torch.dtype | None = None) -> None:
        self.session, self.wire = session, wire
        self.traffic = Traffic()
        self.shapes: list[list[torch.Size]] = []
        self.dtype = torch.float32

    def __call__(self, mine: Sequence[Said]) -> list[Said]:
        """By member, in their order; `mine` are those of this process."""
        said = [[tensor.detach() for tensor in each] for each in mine]
        if self.session.world == 1:
            self.dtype = reduce(torch.promote_types, map(dtype_of, said))
            return [[self._to_wire(tensor).to(self.dtype) for tensor in each] for each in said]
        return self._timed(lambda: self._gather(said[0]))

    def taken(self, steps: int) -> dict[str, float]:
        """Bytes that this rank sent and milliseconds that it took, a step of `steps`; empty when nothing travels."""
        traffic, self.traffic = self.traffic, Traffic()
        if not traffic.bytes:
            return {}
        return {"exchange_bytes": traffic.bytes / steps, "exchange_ms": 1e3 * traffic.seconds / steps}

    def _to_wire(self, tensor: Tensor) -> Tensor:
        if self.wire is None:
            return tensor.to(self.dtype)
        limits = torch.finfo(self.wire)  # what is finite here stays finite there: else who hears it would be blamed
        return tensor.to(self.dtype).clamp(limits.min, limits.max).to(self.wire)

    def _timed(self, work: Callable[[], list[Said]]) -> list[Said]:
        start = time.perf_counter()
        heard = work()
        self.traffic.seconds += time.perf_counter() - start
        return heard

    def _gather(self, said: Said) -> list[Said]:
        """One buffer a member, as long as the longest: maps may differ in shape between members, logits do not."""
        mine = [tensor.shape for tensor in said]
        if not self.shapes or self.shapes[self.session.rank] != mine:
            told = self.session.everyone((mine, dtype_of(said)))
            self.shapes = [shapes for shapes, _ in told]
            self.dtype = reduce(torch.promote_types, (dtype for _, dtype in told))
        flat = torch.cat([self._to_wire(tensor).flatten() for tensor in said])
        longest = max(sum(shape.numel() for shape in shapes) for shapes in self.shapes)
        buffer = torch.nn.functional.pad(flat, (0, longest - len(flat)))
        self.traffic.bytes += buffer.nbytes
        return [
            unpacked(row, shapes, self.dtype)
            for row, shapes in zip(self.session.all_gather(buffer), self.shapes, strict=True)
        ]


def dtype_of(said: Said) -> torch.dtype:
    """That holds all of what a member says, at least float32."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in said), torch.float32)


def unpacked(buffer: Tensor, shapes: Sequence[torch.Size], dtype: torch.dtype) -> Said:
    lengths = [shape.numel() for shape in shapes]
    parts = torch.split(buffer[: sum(lengths)], lengths)
    return [part.view(shape).to(dtype) for part, shape in zip(parts, shapes, strict=True)]


def who_is_where(members: int, session: Session) -> tuple[list[int], Session, Session]:
    """Members that this process hosts, the session of one member's ranks, and that of the ranks with the same rows."""
    if session.world == 1:
        return [*range(members)], session, session
    if session.world % members:
        raise CollegiumError(f"{session.world} workers cannot be shared out among {members} members")
    per = session.world // members
    own = tuple(tuple(range(first, first + per)) for first in range(0, session.world, per))
    same_rows = tuple(tuple(range(slice_, session.world, per)) for slice_ in range(per))
    return [session.rank // per], session.part(own), session.part(same_rows)
