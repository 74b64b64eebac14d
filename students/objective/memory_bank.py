"""What contrastive hints remember of every row: the embeddings that student and teacher had of it, and whom to tell it apart from.

Knows nothing of networks: it is shown embeddings, rows by number, and a seed.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runs.session import Session
from .own import last_places


class MemoryBank(nn.Module):
    """Two embeddings f32 `[num_rows, dim]` of unit length, and the constant of the scores; CRD (Tian et al., 2020).

    All of it is in the state of a checkpoint, but no buffer: ranks keep it equal by themselves, by adding all rows of a step.
    Negatives are drawn with replacement from the rows of other classes; a row without a label is of a class of its own, and so is
    every row where all labels are of one class.
    """

    def __init__(
        self,
        classes: Tensor,
        dim: int,
        *,
        negatives: int,
        temperature: float,
        momentum: float,
        positive: Literal["exact", "relax"] = "exact",
    ) -> None:
        """`classes`: i64 `[num_rows]`, -1 without a label."""
        super().__init__()
        self.negatives, self.temperature, self.momentum, self.positive = negatives, temperature, momentum, positive
        bound = (3 / dim) ** 0.5
        self.of_student = torch.empty(len(classes), dim).uniform_(-bound, bound)
        self.of_teacher = torch.empty(len(classes), dim).uniform_(-bound, bound)
        self.log_z = torch.full((2,), torch.nan)
        """Of the student's scores and of the teacher's; NaN before the first step."""
        self.has_z = False
        self.order, self.start, self.size = in_blocks(classes)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"of_student": self.of_student, "of_teacher": self.of_teacher, "log_z": self.log_z}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        if state["of_student"].shape != self.of_student.shape:
            raise ValueError(f"a memory of {list(state['of_student'].shape)}, expected {list(self.of_student.shape)}")
        self.of_student, self.of_teacher, self.log_z = (state[name] for name in self.get_extra_state())
        self.has_z = not bool(self.log_z.isnan().any())

    def on(self, device: torch.device) -> "MemoryBank":
        """The same, moved to `device`."""
        if self.of_student.device != device:
            for name in ("of_student", "of_teacher", "log_z", "order", "start", "size"):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def log_odds(
        self, student: Tensor, teacher: Tensor, rows: Tensor, seed: int, session: Session
    ) -> tuple[Tensor, Tensor]:
        """Of embeddings `[n, dim]` of the rows with these numbers: what `contrastive` compares, `[n, 1 + negatives]` each.

        The student's embedding is scored against what is remembered of the teacher's, and the other way round. The constants are
        of the very first rows that are scored, the mean over ranks.
        """
        self.on(student.device)
        candidates = self.candidates(rows, seed)
        scores = [
            scored(view, memory.to(view.dtype), candidates) / self.temperature
            for view, memory in ((student, self.of_teacher), (teacher, self.of_student))
        ]
        if not self.has_z:
            first = torch.stack([torch.logsumexp(each.detach().float().flatten(), 0) for each in scores])
            of_ranks = session.all_gather(first - math.log(candidates.numel()))
            self.log_z = of_ranks.logsumexp(0) - math.log(session.world / len(self.order))
            self.has_z = True
        noise = math.log(self.negatives / len(self.order))
        of_student, of_teacher = (each - z - noise for each, z in zip(scores, self.log_z, strict=True))
        return of_student, of_teacher

    def candidates(self, rows: Tensor, seed: int) -> Tensor:
        """Numbers of rows `[n, 1 + negatives]`: who a row goes with, then whom it is told apart from."""
        generator = torch.Generator(rows.device).manual_seed(seed)
        shape, total = (len(rows), self.negatives), len(self.order)
        start, size = self.start[rows], self.size[rows]
        drawn = torch.rand(shape, generator=generator, device=rows.device, dtype=torch.float64)
        others = (drawn * (total - size)[:, None]).long()
        others = others + torch.where(others >= start[:, None], size[:, None], 0)  # its own class is passed over
        others = others.clamp_max(total - 1)
        first = rows
        if self.positive == "relax":
            share = torch.rand(len(rows), generator=generator, device=rows.device, dtype=torch.float64)
            first = self.order[start + (share * size).long()]
        return torch.cat([first[:, None], self.order[others]], 1)

    @torch.no_grad()
    def remember(self, student: Tensor, teacher: Tensor, rows: Tensor, session: Session) -> None:
        """Move what is remembered of a step's rows, of all ranks, towards these embeddings."""
        if session.world > 1:
            student, teacher, rows = (session.all_gather(each).flatten(0, 1) for each in (student, teacher, rows))
        last = last_places(rows, len(self.order))  # of a row that comes twice the last counts, on every device
        for memory, seen in ((self.of_student, student), (self.of_teacher, teacher)):
            moved = self.momentum * memory[rows] + (1 - self.momentum) * seen.to(memory.dtype)
            memory[rows] = F.normalize(moved, dim=1)[last]


def scored(view: Tensor, memory: Tensor, candidates: Tensor) -> Tensor:
    """Inner products `[n, k]` of `[n, dim]` with rows of `memory`; all of its rows at once where that takes less memory."""
    if len(memory) <= candidates.shape[1] * memory.shape[1]:
        return (view @ memory.T).gather(1, candidates)
    return torch.einsum("nd,nkd->nk", view, memory[candidates])


def in_blocks(classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows by class, i64 `[num_rows]`: their order, and by row where its class begins in it and how many rows it has.

    A row without a label (-1) is a class of its own, and where there is but one class every row is.
    """
    if len(classes) and bool((classes == classes[0]).all()):
        classes = torch.full_like(classes, -1)
    own = torch.where(classes >= 0, classes, classes.max().clamp_min(-1) + 1 + torch.arange(len(classes)))
    _, block, counts = own.unique(return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    return own.argsort(stable=True), starts[block], counts[block]
