"""The engine: one network on its way from its seed to its result, resumed exactly where its newest checkpoint is.

Knows nothing of Ray: a `Session` says which rank this is.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from teachers.errors import CollegiumError
from teachers.models.folder import WEIGHTS, ModelConfig, save_model
from teachers.storage.disk import is_unfit, unfit
from teachers.storage.seal import publish
from teachers.users_code.calls import calling

from ..data.batches import Batches
from ..data.passes import PASSES, Passes
from ..data.rows import TrainingRows
from ..data.shared import Data
from ..data.validation import Look, is_better
from ..objective.pacing import paced
from ..runs.curves import Record, keep_metrics
from ..runs.run import Run, RunResult
from ..runs.session import Session
from ..tasks.figure import LOOKS
from .checkpoint import Attempt, drop_attempts, newest_checkpoint, publish_result, read_checkpoint, read_result
from .headed import architecture, kind_of
from .look_ahead import LookAhead
from .optimize import resolve_evaluate_every, resolve_steps
from .steps import Stepper

log = logging.getLogger(__name__)
Stepping = TypeVar("Stepping", bound=Stepper)

CHECKPOINT_EVERY_S = 10.0
CHECKPOINT_SHARE = 0.05
"""Of the time that checkpoints may take, where they are slow."""
STEPS_PER_POINT = 50
"""At most so many steps are averaged into one point of a curve."""


@dataclass
class Progress:
    """Where a training is; with the module and the optimiser, all that a checkpoint holds."""

    step: int = 0
    best_step: int = 0
    best: Look | None = None
    best_weights: dict[str, Tensor] | None = None
    looks_without_better: int = 0
    pending: dict[int, Tensor] = field(default_factory=dict)
    """By step, the terms `[terms]` since the last point of the curves, this rank's share."""
    peer_weights: list[float] = field(default_factory=list)
    """Of the members of its cohort, from the last look at validation; empty: they count alike."""
    rollbacks: int = 0
    """Times that this member of a cohort diverged; its learning rate is halved by each."""


class Clock:
    """When the next checkpoint is due."""

    def __init__(self, every_s: float) -> None:
        self.every_s, self.due_s = every_s, time.monotonic() + every_s

    def is_due(self) -> bool:
        return time.monotonic() >= self.due_s

    def time(self, work: Callable[[], None]) -> None:
        """Do `work`, and wait longer for the next the longer it takes."""
        start_s = time.monotonic()
        work()
        now_s = time.monotonic()
        self.due_s = now_s + max(self.every_s, (now_s - start_s) / CHECKPOINT_SHARE)


class Training:
    """One network on its way from its seed to its result."""

    def __init__(self, run: Run, session: Session, data: Data, stepper: Stepper | None = None) -> None:
        self.run, self.session, self.data = run, session, data
        self.steps = budget(run, data.rows)
        self.evaluate_every = resolve_evaluate_every(run.train, self.steps, data.validation.num_rows)
        self.stepper = stepper or started(run, session, data)
        self.module = self.stepper.delivered
        """What is delivered."""
        self.progress = Progress()
        self.attempt = Attempt(run)
        self.look_ahead: LookAhead | None = None
        self.passes: Passes | None = None
        if data.rows.following is not None:
            self.passes = Passes(data.rows, data.rows.following, run, session, self.steps)

    def train(self, checkpoint_every_s: float = CHECKPOINT_EVERY_S) -> None:
        """Take all steps that are left, with looks at validation and checkpoints on the way."""
        progress, clock = self.progress, Clock(checkpoint_every_s)
        if self.passes is not None:
            self.passes.while_waiting = partial(self.save_if_due, clock)
        for batch in self.batches():
            self.advance(batch)
            if progress.step == self.steps or progress.step % self.evaluate_every == 0:
                self.look()
                if progress.step == self.steps or self.is_stopped():
                    break
            self.save_if_due(clock)

    def save_if_due(self, clock: Clock) -> None:
        """By rank 0, and no step twice."""
        if self.session.rank == 0 and self.progress.step > self.attempt.step and clock.is_due():
            clock.time(self.save)

    @property
    def stream(self) -> tuple[int, tuple[int, int], int]:
        """Trainings that agree on it see the same batches."""
        rows, member = self.data.rows, self.run.membership
        return id(rows), member.share_of_rows, self.run.view_seed if rows.live else 0

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The batches of all steps that are left, complete: with what live teachers say of them."""
        if self.passes is not None:
            return self.passes.from_step(self.progress.step)
        batches = Batches(self.data.rows, self.run, self.session).from_step(self.progress.step)
        if self.data.rows.live is None:
            return batches
        self.look_ahead = LookAhead(
            batches, self.data.rows.live, self.run, self.session, range(self.progress.step, self.steps)
        )
        return self.look_ahead

    def advance(self, batch: dict[str, Tensor]) -> None:
        """One optimiser step."""
        self.took(self.stepper.advance(batch, self.progress.step))

    def took(self, terms: Tensor | None) -> None:
        """Count a step; None: one of the cohort's that was not this member's."""
        if terms is not None:
            self.progress.pending[self.progress.step] = terms
        self.progress.step += 1
        if len(self.progress.pending) >= STEPS_PER_POINT:
            self.report_losses()

    def report_losses(self) -> None:
        """One point for each curve of the training loss. Raises CollegiumError when a loss is not finite."""
        pending, objective = self.progress.pending, self.stepper.objective
        if not pending:
            return
        terms = self.session.all_reduce_sum(torch.stack([*pending.values()])).double().cpu()
        steps = [*pending]
        pending.clear()
        for row, term in (~terms.isfinite()).nonzero().tolist():
            raise CollegiumError(
                f"{self.run.stage_name}: {self.run.name}: the loss {objective.names[term]!r} is {float(terms[row, term])} "
                f"at step {steps[row] + 1}; lower train.learning_rate, or set train.clip"
            )
        own = [step // self.run.membership.every for step in steps]
        weights = torch.tensor([objective.weights(step, self.stepper.steps) for step in own])
        values = {"loss": float((terms * weights).sum(1).mean())}
        values |= dict(zip(objective.names, terms.mean(0).tolist(), strict=True)) | objective.shares(
            self.stepper.moment
        )
        if self.look_ahead is not None:
            values["wait_s"] = self.look_ahead.take_wait_s()
        if self.passes is not None:
            values |= {"labelled": self.passes.following.share, "waited_s": self.passes.waited_s}
        self.report("train", values | {"learning_rate": self.stepper.learning_rate(own[-1])})

    def look(self) -> None:
        """Look at validation."""
        self.report_losses()
        self.stepper.share_batch_statistics()
        with calling("model", self.run.model):
            measured = self.data.validation.measured(self.module)
        self.saw(None if measured is None else measured.figures(keys=LOOKS[self.stepper.space.task]))
        if measured is None:
            return
        if paces := paced(self.stepper.objective.terms, measured, self.stepper.moment, self.session.device):
            self.report("validation", paces)

    def saw(self, found: Look | None) -> None:
        """Keep the weights when they are the best so far; without labels keep the last."""
        progress = self.progress
        self.stepper.moment.student_figures = found or {}
        if found is None:
            progress.best_step = progress.step
            return
        if progress.step > self.stepper.first_kept:
            self._keep_if_better(found)
        self.report("validation", {key: value for key, value in found.items() if value is not None})

    def _keep_if_better(self, found: Look) -> None:
        progress = self.progress
        progress.looks_without_better += 1
        if is_better(self.stepper.space.task, found, progress.best):
            progress.best, progress.best_step, progress.looks_without_better = found, progress.step, 0
            progress.best_weights = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def is_stopped(self) -> bool:
        rule = self.run.train.early_stopping
        return rule is not None and self.progress.looks_without_better >= rule.patience

    def report(self, group: str, values: dict[str, float]) -> None:
        if self.session.rank == 0:
            run, step, now = self.run, self.progress.step, time.time()
            records = [
                Record(stage=run.stage_name, run=run.name, step=step, key=f"{group}.{key}", value=value, time=now)
                for key, value in values.items()
            ]
            self.session.report(run, records)

    def save(self) -> None:
        """Write a checkpoint, unless somebody has sealed the run meanwhile."""
        modules: dict[str, Any] = {
            "module": self.stepper.whole.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
        }
        if self.stepper.objective.taught_late:
            modules["moment"] = self.stepper.moment.document()
        modules |= {f"own.{memory.name}": memory.state() for memory in self.stepper.selves}
        if self.passes is not None:
            modules["passes"] = self.passes.document()
        try:
            keep_metrics(self.run.stage)
            self.attempt.save(self.progress.step, vars(self.progress) | modules)
        except OSError as error:
            if read_result(self.run) is None:
                if is_unfit(error):
                    raise unfit(error) from error
                raise CollegiumError(f"{self.run.name}: cannot write a checkpoint: {error}") from error

    def resume(self) -> None:
        """Go to the newest checkpoint of any attempt, if there is one."""
        folder = self.session.agree(newest_checkpoint(self.run) if self.session.rank == 0 else None)
        if folder is not None:
            self.go_to(folder)
            log.info("%s: %s goes on from step %d", self.run.stage_name, self.run.name, self.progress.step)

    def go_to(self, checkpoint: Path) -> None:
        state = read_checkpoint(checkpoint, self.session.device)
        self.stepper.whole.load_state_dict(state["module"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        if "moment" in state:
            self.stepper.moment.go_to(state["moment"])
        for memory in self.stepper.selves:
            memory.load(state[f"own.{memory.name}"])
        if self.passes is not None:
            self.passes.go_to(state["passes"])
        self.progress = Progress(**{name: state[name] for name in vars(self.progress)})
        self.attempt.step = self.progress.step
        if self.session.world > 1:  # rank 0's share of these steps is all that was saved: no sum over ranks
            self.progress.pending.clear()
            self.stepper.moment.shares.clear()

    def finish(self) -> RunResult:
        """Publish the best weights and seal the run's folder; what the seal holds is the result, on every rank."""
        if self.session.rank == 0:
            self.publish()
        sealed = self.session.agree(read_result(self.run) if self.session.rank == 0 else None)
        assert sealed is not None
        if self.session.rank == 0:
            drop_attempts(self.run)
        return sealed

    def publish(self) -> None:
        run, progress = self.run, self.progress
        preprocess, files = self.data.preprocessor.resolved(), self.data.preprocessor.files
        rows = self.data.transfer_set
        config = ModelConfig(*architecture(run, self.module), rows.space, preprocess, rows.made_of, files=files)
        result = RunResult(run.name, run.folder, run.seed, progress.step, progress.best_step, progress.best)
        state = progress.best_weights or self.module.state_dict()

        def save(folder: Path) -> None:
            save_model(folder, state=state, config=config)
            if self.passes is not None:
                publish(folder / PASSES, json.dumps({"format": 1, "passes": self.passes.document()}).encode())

        publish_result(run, save, WEIGHTS, result, [*files, *([PASSES] if self.passes is not None else [])])


def budget(run: Run, rows: TrainingRows) -> int:
    """Optimiser steps of `run`."""
    return resolve_steps(run.train, int(rows.labelled.sum()) if run.labelled_only else len(rows.labelled))


def started(run: Run, session: Session, data: Data) -> Stepper:
    """What takes the steps of a network that learns by itself, ready for the first."""
    return make_stepper(run, session, data, kind_of(run)).start()


def make_stepper(run: Run, session: Session, data: Data, kind: type[Stepping]) -> Stepping:
    """Not started yet."""
    steps = math.ceil(budget(run, data.rows) / run.membership.every)
    return kind(run, session, data.rows, data.transfer_set, data.preprocessor, steps)
