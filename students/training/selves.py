"""What a student remembers of itself while it trains: what it last said of each row, and the average of its weights. And where it
is in a curriculum of its rows.

All are part of its checkpoints, and the same on every rank. Knows nothing of losses.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from teachers.tasks.space import Space

from ..config.lfme_term import LfmeTerm
from ..config.own_terms import MeanTeacherTerm, PsKdTerm
from ..data.batches import draws_of
from ..data.draws import PLACE
from ..data.inputs import Network
from ..data.rows import TrainingRows
from ..objective.curriculum import NOW, START, risen
from ..objective.own import AVERAGE, LAST_SAID, PROBABILITIES, ROW, last_places, mixed
from ..runs.run import Run
from ..runs.session import Session


class Memory(Protocol):
    """Of one term; `name`: in checkpoints. `delivered`: a network that is delivered in the student's place, or None."""

    name: str
    delivered: nn.Module | None

    def columns(self, batch: Mapping[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        """What the batch of step `step` (counted from 0) gets, before the student moves."""

    def moved(self, batch: Mapping[str, Tensor], said: Sequence[Tensor], step: int) -> None:
        """After the step; `said`: what the student gave in it, part by part, `[rows, width]`."""

    def state(self) -> Any:
        """For a checkpoint."""

    def load(self, state: Any) -> None: ...

    def buffers(self) -> Iterator[Tensor]:
        """Statistics that each rank has of its own rows."""


class LastSaid:
    """What the student said of each labelled row when it last saw it (PS-KD): f32 `[labelled rows, width]`, NaN before.

    Probabilities of training steps, so augmented and with dropout, as the authors have it. Of a row that is drawn twice in
    a batch the last counts. With several workers all tell each other what they said, in every step.
    """

    name = "last_said"
    delivered: nn.Module | None = None

    def __init__(
        self, term: PsKdTerm, run: Run, session: Session, rows: TrainingRows, space: Space, steps: int
    ) -> None:
        self.alpha, self.session, self.batch_size = term.alpha, session, run.train.batch_size
        (index, size), *_ = draws_of(rows, run, session.world)
        drawn, labelled = len(rows.labelled) if index is None else len(index), int(rows.labelled.sum())
        self.steps_of_epoch = max(1, drawn // size)
        self.epochs = math.ceil(steps / self.steps_of_epoch)
        self.probabilities = PROBABILITIES[space.answer]
        self.said = torch.full((labelled, space.width), math.nan, device=session.device)

    def share(self, step: int) -> float:
        """a = alpha * epoch / epochs, epochs counted from 1."""
        return self.alpha * (step // self.steps_of_epoch + 1) / self.epochs

    def columns(self, batch: Mapping[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        said = self.said[batch[ROW].clamp_min(0)]
        return {LAST_SAID: mixed(batch["label"], said, self.share(step))}

    def moved(self, batch: Mapping[str, Tensor], said: Sequence[Tensor], step: int) -> None:
        numbers, probabilities = batch[ROW], self.probabilities(torch.cat([*said]).float())
        if self.session.world > 1:
            places = batch[PLACE]
            everyone = probabilities.new_zeros(self.batch_size, probabilities.shape[1])
            whose = numbers.new_zeros(self.batch_size)
            everyone[places], whose[places] = probabilities, numbers
            probabilities, numbers = self.session.all_reduce_sum(everyone), self.session.all_reduce_sum(whose)
        last = last_of_each(numbers, len(self.said))
        self.said[numbers[last]] = probabilities[last]

    def state(self) -> Tensor:
        return self.said

    def load(self, state: Tensor) -> None:
        self.said.copy_(state)

    def buffers(self) -> Iterator[Tensor]:
        return iter(())


def last_of_each(numbers: Tensor, count: int) -> Tensor:
    """Which of i64 `[n]` numbers below `count` are the last of their kind, bool `[n]`; none of those below 0."""
    places = torch.arange(len(numbers), device=numbers.device)
    return (last_places(numbers, count) == places) & (numbers >= 0)


class Average:
    """A copy of the student whose weights are the moving average of the student's own (mean teacher).

    Statistics of batches are averaged as weights are, and over the ranks, each of which has those of its own rows; whole numbers
    among them are taken as they are.
    """

    name = "average"

    def __init__(self, decay: float, deliver: bool, module: nn.Module, session: Session) -> None:
        self.decay, self.module, self.session = decay, module, session
        self.copy = copy.deepcopy(module).eval().requires_grad_(False)
        self.delivered: nn.Module | None = self.copy if deliver else None

    def columns(self, batch: Mapping[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        self.copy.eval()
        with torch.no_grad():
            said: Tensor = self.copy(inputs)
        return {AVERAGE: said.float()}

    @torch.no_grad()
    def moved(self, batch: Mapping[str, Tensor], said: Sequence[Tensor], step: int) -> None:
        decay = min(self.decay, 1 - 1 / (step + 2))
        pairs = [*zip(_tensors(self.copy), _tensors(self.module), strict=True)]
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in averaged], [own for _, own in averaged], 1 - decay)
        for mean, own in pairs:
            if not mean.is_floating_point():
                mean.copy_(own)
        self._share([each for each in self.copy.buffers() if each.is_floating_point()])

    def _share(self, statistics: Sequence[Tensor]) -> None:
        """Bring each to its mean over the ranks, all in one message."""
        if self.session.world == 1 or not statistics:
            return
        whole = self.session.all_reduce_sum(torch.cat([each.flatten() for each in statistics])) / self.session.world
        for each, mean in zip(statistics, whole.split([each.numel() for each in statistics]), strict=True):
            each.copy_(mean.view_as(each))

    def state(self) -> dict[str, Tensor]:
        return self.copy.state_dict()

    def load(self, state: dict[str, Tensor]) -> None:
        self.copy.load_state_dict(state)

    def buffers(self) -> Iterator[Tensor]:
        return self.copy.buffers()


class Smoothed(Average):
    """The same where nothing is learnt from it (`train.ema`)."""

    name = "ema"

    def columns(self, batch: Mapping[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        return {}


class Curriculum:
    """What each row of a batch counts in `hard`; a function of the step, so there is nothing to remember."""

    name = "curriculum"
    delivered: nn.Module | None = None

    def __init__(self, share: float, steps: int) -> None:
        self.rise = max(1, round(share * steps))

    def columns(self, batch: Mapping[str, Tensor], inputs: Network, step: int) -> dict[str, Tensor]:
        return {NOW: risen(batch[START], step, self.rise)}

    def moved(self, batch: Mapping[str, Tensor], said: Sequence[Tensor], step: int) -> None: ...

    def state(self) -> Any: ...

    def load(self, state: Any) -> None: ...

    def buffers(self) -> Iterator[Tensor]:
        return iter(())


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def memories(
    run: Run, session: Session, rows: TrainingRows, module: nn.Module, space: Space, steps: int
) -> list[Memory]:
    """Of the terms of `run` in which it learns from itself, of its curriculum, and the average that its budget asks for."""
    found: list[Memory] = []
    for term in run.objective:
        if isinstance(term, PsKdTerm):
            found.append(LastSaid(term, run, session, rows, space, steps))
        if isinstance(term, MeanTeacherTerm):
            found.append(Average(term.decay, term.deliver == "average", module, session))
        if isinstance(term, LfmeTerm) and term.curriculum is not None:
            found.append(Curriculum(term.curriculum, steps))
    if run.train.ema is not None:
        found.append(Smoothed(run.train.ema, True, module, session))
    return found
