"""How the members of a cohort hear each other: one collective a step among the ranks that hold the same rows.

Knows nothing of losses or methods.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teachers.errors import CollegiumError

from .session import Session

WIRES = {"float16": torch.float16, "bfloat16": torch.bfloat16, None: None}
Said = list[Tensor]
"""Of one member: its logits `[rows, classes]`, then its stage maps."""


@dataclass
class Traffic:
    """What the exchange cost since it was last asked."""

    calls: int = 0
    bytes: int = 0
    """Sent by this rank to each other."""
    seconds: float = 0.0
    """Of this process, waiting for slower peers included."""


class Exchange:
    """Gathers what every member says of a batch, detached. With all members in this process nothing travels."""

    def __init__(self, session: Session, wire: torch.dtype | None = None) -> None:
        self.session, self.wire = session, wire
        self.traffic = Traffic()
        self.shapes: list[list[torch.Size]] = []

    def __call__(self, mine: Sequence[Said]) -> list[Said]:
        """By member, in their order; `mine` are those of this process."""
        sent = [[self._rounded(tensor.detach()) for tensor in said] for said in mine]
        if self.session.world == 1:
            return [[tensor.to(mine[0][0].dtype) for tensor in said] for said in sent]
        return self._timed(lambda: self._gather(sent[0], mine[0][0].dtype))

    def taken(self) -> dict[str, float]:
        """Bytes that this rank sent and milliseconds that it took, a call, since the last time; empty when nothing travels."""
        traffic, self.traffic = self.traffic, Traffic()
        calls = max(traffic.calls, 1)
        return (
            {"exchange_bytes": traffic.bytes / calls, "exchange_ms": 1e3 * traffic.seconds / calls}
            if traffic.calls
            else {}
        )

    def _rounded(self, tensor: Tensor) -> Tensor:
        return tensor if self.wire is None else tensor.to(self.wire)

    def _timed(self, work: Callable[[], list[Said]]) -> list[Said]:
        start = time.perf_counter()
        heard = work()
        self.traffic.seconds += time.perf_counter() - start
        self.traffic.calls += 1
        return heard

    def _gather(self, sent: Said, dtype: torch.dtype) -> list[Said]:
        """One buffer a member, as long as the longest: maps may differ in shape between members, logits do not."""
        flat = torch.cat([tensor.flatten() for tensor in sent])
        mine = [tensor.shape for tensor in sent]
        if not self.shapes or self.shapes[self.session.rank] != mine:
            self.shapes = self.session.everyone(mine)
        longest = max(sum(shape.numel() for shape in shapes) for shapes in self.shapes)
        buffer = torch.nn.functional.pad(flat, (0, longest - len(flat)))
        self.traffic.bytes += buffer.nbytes
        return [
            unpacked(row, shapes, dtype)
            for row, shapes in zip(self.session.all_gather(buffer), self.shapes, strict=True)
        ]


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
