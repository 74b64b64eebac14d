"""Codistillation: members that train apart and listen to older generations of each other (Anil et al., 2018).

A member is its own trainer and never waits: it publishes a generation of itself every `exchange_every` steps, and as
often takes the newest whole one of each peer, if there is one, to run it on its own batches. What it hears is therefore
a matter of timing, and no two runs are the same; but where no peer moves, a resumed member ends like an undisturbed one.

In one process all members go on together. There a member hears generations up to its own step only, and checkpoints
are taken where generations are, so the result is the same every time, killed and resumed or not.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from teachers.models.folder import ModelConfig
from teachers.models.preprocess import Preprocessor
from teachers.models.transformers_network import lasting_arguments
from teachers.storage import mirror
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import calling, within

from ..config.cohort import CodistillationCohort
from ..data.draws import Views
from ..data.inputs import Network
from ..data.rows import TrainingRows
from ..data.shared import Data, SharedData
from ..objective.objective import NOTHING, Heard
from ..objective.peer_targets import PEER_RULES
from ..runs.run import CohortRun, Run, RunResult
from ..runs.session import Session
from ..training.steps import Stepper, Work, at_least_float32, rows_of
from ..training.train import Clock, Training, make_stepper
from .generations import Generation, drop_after, load_generation, newest_generation, publish_generation
from .peers import Cohort

log = logging.getLogger(__name__)


def generations_of(run: CohortRun, member: str) -> Path:
    """Where `member` publishes: `peers/seed-<n>/<member>` in the stage."""
    return run.stage / "peers" / run.name / member


def drop_generations(run: CohortRun) -> None:
    """Of a cohort whose members are all sealed."""
    mirror.remove_folder(run.stage / "peers" / run.name)
    with suppress(OSError):  # another seed's lie there too
        (run.stage / "peers").rmdir()


class Listener:
    """What one member hears: by name, the newest generation of each peer that it has found."""

    def __init__(self, folders: Mapping[str, Path], trust: Sequence[str], session: Session) -> None:
        self.folders, self.trust, self.session = folders, trust, session
        self.found: dict[str, Generation] = {}

    @classmethod
    def of(cls, run: CohortRun, member: Run, session: Session) -> Self:
        """Trusts what the recipe names: its own list, and the members' models and functions."""
        names, configs = [*run.config.members], run.config.members.values()
        named = [named for each in configs for named in (each.model, each.preprocess.function) if named]
        peers = [name for number, name in enumerate(names) if number != member.membership.number]
        return cls({name: generations_of(run, name) for name in peers}, (*member.trust, *named), session)

    def look(self, up_to: int | None) -> None:
        """Take the newest whole generation of each peer; what cannot be had now leaves the one before in its place.

        Every rank of a member hears the same: rank 0 looks, and a generation counts when all ranks could load it.
        """
        newest = self.session.agree(self._newest(up_to) if self.session.rank == 0 else {})
        loaded = {name: self._load(name, step) for name, step in newest.items()}
        had = self.session.everyone([name for name, generation in loaded.items() if generation is not None])
        everywhere = set.intersection(*map(set, had))
        self.found |= {name: each for name, each in loaded.items() if each is not None and name in everywhere}

    def _newest(self, up_to: int | None) -> dict[str, int]:
        steps = {
            name: newest_generation(folder, up_to=up_to, known=self._step(name))
            for name, folder in self.folders.items()
        }
        return {name: step for name, step in steps.items() if step is not None}

    def _step(self, name: str) -> int | None:
        return self.found[name].step if name in self.found else None

    def _load(self, name: str, step: int) -> Generation | None:
        if step == self._step(name):
            return self.found[name]
        return load_generation(self.folders[name], step, self.trust, self.session.device)

    def heard_at(self, step: int, max_staleness: int) -> list[Generation]:
        """Those that are at most `max_staleness` steps behind, in the recipe's order of peers."""
        found = [self.found[name] for name in self.folders if name in self.found]
        return [each for each in found if step - each.step <= max_staleness]


class ListeningStepper(Stepper):
    """A member that runs its peers' generations on its own batches."""

    canonical: dict[str, Tensor]

    def __init__(
        self,
        run: Run,
        session: Session,
        rows: TrainingRows,
        transfer_set: TransferSet,
        preprocessor: Preprocessor,
        steps: int,
    ) -> None:
        super().__init__(run, session, rows, transfer_set, preprocessor, steps)
        self.preprocessor = preprocessor
        self.config = ModelConfig(
            run.model,
            lasting_arguments(self.module, run.arguments),
            transfer_set.space,
            preprocessor.resolved(),
            transfer_set.made_of,
            files=preprocessor.files,
        )
        """Of its generations."""

    def inputs(self, batch: dict[str, Tensor], views: Views) -> Network:
        if self.rows.canonical is None:
            return super().inputs(batch, views)
        # rows for live teachers were augmented before
        self.canonical = self.rows.canonical(batch, None if self.rows.live else views)
        return self.preprocessor(self.canonical)

    def hear(
        self, work: Work, number: int, own: Tensor, generations: Sequence[Generation], temperature: float
    ) -> Heard:
        """What the mean of `generations` says of part `number` of the rows, beside the member's own logits.

        One whose logits overflow is passed over: it is on its way to be set back, and this member is not.
        """
        said = [self.ask(each, work, number) for each in generations]
        heard = [logits for logits in said if bool(logits.isfinite().all())]
        if not heard:
            return NOTHING
        own = at_least_float32(own.detach())
        logits = torch.stack([own, *(each.to(own.dtype) for each in heard)], 1)
        labels = torch.full(logits.shape[:1], -1, device=logits.device)
        rule = PEER_RULES[self.space.answer][self.run.membership.peer_rule]
        return Heard(rule(logits, labels, 0, temperature=temperature))

    def ask(self, generation: Generation, work: Work, number: int) -> Tensor:
        """Logits `[rows, classes]`, of the same rows, augmented alike, as the generation takes them."""
        config, part = generation.model.config, self.parts[number]
        alike = config.preprocess == self.config.preprocess
        inputs: Any = rows_of(work.inputs, part) if alike else generation.model.preprocessor(self.rows_before(part))
        with torch.no_grad(), calling("model", config.model), self._autocast():
            logits: Tensor = generation.model.module(inputs)
        return logits

    def rows_before(self, part: slice) -> dict[str, Tensor]:
        """Some rows of the batch before any network's preprocess."""
        return {name: column[part] for name, column in self.canonical.items()}


class CodistillingCohort(Cohort):
    """One codistilling member in its own trainer, or all of them in one process. Early stopping waits for all of these."""

    def __init__(self, run: CohortRun, session: Session, shared: SharedData) -> None:
        assert isinstance(run.config, CodistillationCohort)
        self.config = run.config
        super().__init__(run, session, shared)
        self.listeners = [Listener.of(run, training.run, self.own) for training in self.trainings]
        self.has_looked = False
        if self.config.burn_in >= self.steps and session.rank == 0:
            log.warning(
                "%s: burn_in is %d of %d steps, so no member ever listens", run.key, self.config.burn_in, self.steps
            )

    @property
    def in_turn(self) -> bool:
        return len(self.run.members) > 1

    @property
    def is_at_exchange(self) -> bool:
        return self.step % self.config.exchange_every == 0

    def make_trainings(self, data: Sequence[Data]) -> list[Training]:
        mine = [self.run.members[number] for number in self.hosts]
        return [
            Training(member, self.own, each, make_stepper(member, self.own, each, ListeningStepper).start())
            for member, each in zip(mine, data, strict=True)
        ]

    def advance(self, batches: Sequence[dict[str, Tensor]], clock: Clock) -> bool:
        self.listen()
        due = super().advance(batches, clock)
        if self.is_at_exchange or self.step == self.steps:
            self.publish()
        return due and (self.is_at_exchange or not self.in_turn)

    def listen(self) -> None:
        """Look for generations when it is time; a member that has just started, or been resumed, looks at once."""
        if self.step < self.config.burn_in or (self.has_looked and not self.is_at_exchange):
            return
        self.has_looked = True
        for training, listener in zip(self.trainings, self.listeners, strict=True):
            with within(training.run.key):
                listener.look(self.step if self.in_turn else None)
            behind = [
                float(self.step - each.step) for each in listener.heard_at(self.step, self.config.staleness_bound)
            ]
            training.report("peers", {"heard": len(behind)} | ({"staleness": max(behind)} if behind else {}))

    def learn(
        self, works: Sequence[Work], batches: Sequence[dict[str, Tensor]], moving: Sequence[bool], number: int
    ) -> None:
        for training, listener, work in zip(self.trainings, self.listeners, works, strict=True):
            stepper = training.stepper
            assert isinstance(stepper, ListeningStepper)
            own = self.say(training, work, True, number)[0]
            generations = listener.heard_at(self.step, self.config.staleness_bound)
            with within(training.run.key):
                heard = stepper.hear(work, number, own, generations, self.config.peer_temperature)
                stepper.backward(work, number, own, heard)

    def publish(self) -> None:
        """A generation of each member that is here."""
        if self.own.rank == 0:
            for training in self.trainings:
                stepper = training.stepper
                assert isinstance(stepper, ListeningStepper)
                folder = self.folder_of(training)
                publish_generation(folder, self.step, stepper.module.state_dict(), stepper.config)
        if self.in_turn:
            self.session.everyone(None)  # all have published before one looks

    def folder_of(self, training: Training) -> Path:
        return generations_of(self.run, [*self.config.members][training.run.membership.number])

    def resume(self, *, before: int | None = None) -> bool:
        found = super().resume(before=before)
        self.has_looked = False
        for listener in self.listeners:
            listener.found.clear()
        if found and self.in_turn:
            self.publish()  # those of a process that came further may have been dropped
        return found

    def set_back(self, members: Sequence[int]) -> None:
        super().set_back(members)
        if self.own.rank == 0:
            for training in self.trainings:
                drop_after(self.folder_of(training), self.step)

    def finish(self) -> list[RunResult]:
        results = super().finish()
        if self.in_turn and self.session.rank == 0:
            drop_generations(self.run)
        return results
