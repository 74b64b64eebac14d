"""What a step of a training costs beside a step of another: the two take turns, in one process, so that what else the machine
does falls on both. Nothing is published; weights are thrown away.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from teachers.resources.device import device_of
from teachers.users_code.calls import within
from teachers.users_code.imports import use_user_path

from ..config.hints import in_one_stage
from ..data.batches import Batches
from ..data.shared import SharedData
from ..runs.run import Run
from ..runs.session import PlainSession
from ..training.steps import Stepper
from ..training.train import Training
from .rehearsal import fastest

ROUNDS = 9
"""Of which each has a turn of both; odd, so that the median is one of them."""
TURN_S = 0.1
"""A turn takes about so long: long beside a clock's tick, short beside what else a machine does."""
FEWEST, MOST = 2, 200
"""Steps of a turn."""
WARM = 5
"""Steps before anything is measured: buffers are made, a compiler runs."""


@dataclass
class Pace:
    """A training whose steps are timed."""

    stepper: Stepper
    batches: Iterator[dict[str, Tensor]]
    step: int = 0

    @classmethod
    def of(cls, run: Run, session: PlainSession, shared: SharedData) -> "Pace":
        (data,) = shared.of([run], session)
        stepper = Training(run, session, data).stepper
        return cls(stepper, Batches(data.rows, run, session).from_step(0))

    def seconds(self, steps: int) -> float:
        """A step of `steps`, batches included."""
        device = self.stepper.session.device
        start = time.perf_counter()
        for _ in range(steps):
            self.stepper.advance(next(self.batches), self.step % self.stepper.steps)
            self.step += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / steps


def cost_of_steps(runs: Mapping[str, Run], beside: Run, *, threads: int, gpus: float) -> dict[str, Any]:
    """By key of `runs`, `ms` (the median of a step) and `ratio` (the median over turns to a step of `beside`, from labels alone).

    Each is measured by one worker on its share of a batch. `cross_entropy_ms`: of `beside`, over all turns.
    """
    torch.set_num_threads(threads)
    session = PlainSession(device_of("the cost of steps", gpus))
    found, theirs = {}, list[float]()
    for key, run in runs.items():
        with within(run.key):
            turns = _turns(for_one(beside), for_one(run), session)
        found[key] = {
            "ms": round(1000 * median(mine for _, mine in turns), 4),
            "ratio": round(median(mine / other for other, mine in turns), 4),
        }
        theirs += [other for other, _ in turns]
    return {"cross_entropy_ms": round(1000 * median(theirs), 4), "by_training": found, "rounds": ROUNDS}


def _turns(beside: Run, run: Run, session: PlainSession) -> list[tuple[float, float]]:
    """Seconds of a step, of both in turn; who begins changes from round to round."""
    for each in (beside, run):
        use_user_path(each.user_path)
    paces = [Pace.of(each, session, SharedData(at_once=2)) for each in (beside, run)]
    steps = [_steps_of_a_turn(pace) for pace in paces]
    turns = []
    for number in range(ROUNDS):
        taken = {place: paces[place].seconds(steps[place]) for place in ((0, 1) if number % 2 else (1, 0))}
        turns.append((taken[0], taken[1]))
    return turns


def _steps_of_a_turn(pace: Pace) -> int:
    pace.seconds(WARM)
    return min(MOST, max(FEWEST, math.ceil(TURN_S / pace.seconds(FEWEST))))


def seconds_of_a_step(run: Run, device: str) -> float:
    """Of one worker on its share of a batch, after the first."""
    pace = Pace.of(for_one(run), PlainSession(device), SharedData(at_once=1))
    pace.seconds(1)
    return fastest(lambda: pace.seconds(1))


def for_one(run: Run) -> Run:
    """The same of one worker of a group, with its share of a batch; with every term from the first step, as most steps have it."""
    train = run.train.model_copy(update={"workers": 1, "batch_size": run.train.batch_size // run.train.workers})
    hydra = None if run.hydra is None else run.hydra.model_copy(update={"phase_one": 0.0})
    return replace(run, train=train, hints=in_one_stage(run.hints), hydra=hydra)
