"""One batch through a training, as the engine does it, without a result: what `plan --check` tries.

Forward, objective and backward of one step, and the network at rest, as a look at validation asks it. Weights are not
moved; nothing is published.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from teachers.config.training import TrainConfig
from teachers.errors import CollegiumError
from teachers.models.folder import ModelConfig, save_model
from teachers.tasks.said import said_by
from teachers.users_code.calls import calling, within

from ..config.hints import in_one_stage
from ..data.batches import Batches
from ..data.shared import SharedData
from ..runs.run import CohortRun, Run
from ..runs.session import PlainSession
from ..training.headed import Headed, architecture, kind_of
from ..training.steps import Stepper, Work, rows_of
from ..training.train import make_stepper, started
from .fit import fit

STEPS = 2
"""Of a cohort: in the first nobody has heard anybody yet."""
MEMORY_BYTES = 64 << 20
FEWEST_TRIES, TRIES_S = 2, 0.2
Budget = TypeVar("Budget", bound=TrainConfig)


@dataclass(frozen=True)
class Tried:
    """One training: parameters that got no gradient, how many there are, and how long a further batch took, where it was timed; of an estimator nothing."""

    idle: list[str] = field(default_factory=list)
    parameters: int = 0
    seconds: float | None = None


def fastest(do: Callable[[], object]) -> float:
    """Seconds, of two tries or of as many as a fraction of a second holds: whatever else the machine does makes one slower."""
    took: list[float] = []
    while len(took) < FEWEST_TRIES or sum(took) < TRIES_S:
        began = time.perf_counter()
        do()
        took.append(time.perf_counter() - began)
    return min(took)


@contextmanager
def with_threads(num: int) -> Iterator[None]:
    """Of torch: as many as a worker has is how it is timed."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rehearse(run: Run, device: str, threads: int | None = None) -> Tried:
    """Try `run` on a batch of its rows, and time it with `threads`, where these are given.

    Raises CollegiumError, whose message begins with the recipe's key, for what a run would end with.
    """
    session = PlainSession(device)
    run = replace(run, hints=in_one_stage(run.hints))
    with within(run.key):
        if run.estimator is not None:
            with tempfile.TemporaryDirectory() as folder:
                fit([replace(run, folder=Path(folder) / run.name, stage=Path(folder))], session)
            return Tried()
        (data,) = SharedData(MEMORY_BYTES).of([run], session)
        stepper = started(run, session, data)
        batch = next(iter(Batches(data.rows, run, session).from_step(0)))
        step = partial(_both_phases if isinstance(stepper, Headed) else _step, stepper, batch)  # type: ignore[arg-type]
        work = step()
        stepper.module.eval()
        with torch.inference_mode(), calling("model", run.model):
            at_rest = stepper.module(rows_of(work.inputs, stepper.parts[0]))
        stepper.check(at_rest, stepper.parts[0])
        said_by(at_rest, stepper.space)
        parameters = dict(stepper.module.named_parameters())
        idle = [name for name, each in parameters.items() if each.requires_grad and each.grad is None]
        seconds = None
        if threads is not None:
            stepper.module.train()
            with with_threads(threads):
                seconds = fastest(step)
    return Tried(idle, sum(each.numel() for each in parameters.values()), seconds)


def _both_phases(stepper: Headed, batch: dict[str, Tensor]) -> Work:
    """A step of each phase of a student with a head for each teacher; gradients are those of the second."""
    if stepper.run.hydra is not None and stepper.run.hydra.phase_one:
        with stepper.in_phase(1):
            _step(stepper, batch)
        stepper.module.zero_grad()
    with stepper.in_phase(2):
        return _step(stepper, batch)


def _step(stepper: Stepper, batch: dict[str, Tensor]) -> Work:
    """One, but for moving the weights. Raises CollegiumError for a loss that is not finite."""
    work = stepper.begin(batch, 0)
    student, heard = stepper.answer(work, 0)
    stepper.check(student, stepper.parts[0])
    stepper.backward(work, 0, student, heard)
    for name, value in zip(stepper.objective.names, work.terms[0].tolist(), strict=True):
        if not torch.tensor(value).isfinite():
            raise CollegiumError(f"{stepper.run.key}: the loss {name!r} is {value} of the first batch")
    return work


def at_chance(run: Run, folder: Path) -> Path:
    """A model folder of what `run` would train, with weights of chance: for who would begin with what it learns."""
    session = PlainSession("cpu")
    run = replace(run, init=None)
    with within(run.key):
        (data,) = SharedData(MEMORY_BYTES).of([run], session)
        module = make_stepper(run, session, data, kind_of(run)).module
    rows, preprocessor = data.transfer_set, data.preprocessor
    about = *architecture(run, module), rows.space, preprocessor.resolved(), rows.made_of
    save_model(folder, module.state_dict(), ModelConfig(*about, files=preprocessor.files))
    return folder


def rehearse_together(run: CohortRun, device: str) -> None:
    """Try every member of a cohort, then let them take STEPS steps together, into a folder that is gone afterwards."""
    for member in run.members:
        rehearse(member, device)
    with tempfile.TemporaryDirectory() as folder:
        members = [replace(member, folder=Path(folder) / member.name, stage=Path(folder)) for member in run.members]
        with within(run.key):
            fit([replace(run, members=tuple(members))], PlainSession(device))


def shortened(train: Budget, batch_size: int, steps: int = 1) -> Budget:
    """A budget for one batch of few rows, by one worker."""
    few = {"steps": steps, "epochs": None, "workers": 1, "accumulate": 1, "evaluate_every": steps}
    return train.model_copy(
        update={**few, "batch_size": batch_size, "compile": False, "early_stopping": None, "shuffle_window": None}
    )
