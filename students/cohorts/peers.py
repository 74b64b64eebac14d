"""Synchronous cohorts: members that see the same rows and take every step together, on one rank each or in turn on one.

A rank that hosts one member and a process that hosts all of them run the same lines; only the exchange differs. Knows
nothing of Ray. Cohorts with a shared trunk are in `trunk`, codistillation is in `generations`.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from uuid import uuid4

import torch
from torch import Tensor

from teachers.errors import CollegiumError
from teachers.users_code.calls import within

from ..config.cohort import SynchronousCohort
from ..data.shared import Data, SharedData
from ..objective.objective import Heard
from ..objective.peer_targets import PEER_RULES, general_weights
from ..objective.units import usable_labels
from ..runs.curves import Record
from ..runs.run import CohortRun, RunResult
from ..runs.session import Session
from ..training.checkpoint import Attempt, drop_attempts, newest_common, read_result
from ..training.steps import Work, at_least_float32
from ..training.train import Clock, Training, make_stepper
from .exchange import WIRES, Exchange, Said, who_is_where
from .features import FeatureStepper, connect
from .together import Together, look_together

log = logging.getLogger(__name__)


class Diverged(Exception):
    """A gradient is not finite; `members` are the numbers of those whose it is."""

    def __init__(self, members: Sequence[int]) -> None:
        self.members = members


class Cohort:
    """The members of one cohort that this process hosts, and how they hear the others."""

    def __init__(self, run: CohortRun, session: Session, shared: SharedData) -> None:
        self.run, self.session = run, session
        self.hosts, self.own, self.same_rows = self.places()
        mine = [run.members[number] for number in self.hosts]
        self.data = shared.of(mine, self.own, self.session.world)
        self.check_classes()
        self.trainings = self.make_trainings(self.data)
        wire = run.config.wire if isinstance(run.config, SynchronousCohort) else None
        self.exchange = Exchange(self.same_rows, WIRES[wire])
        self.rollbacks = [0] * len(run.members)
        """Of each member: it goes on at half its learning rate after each."""
        self.overflowed: dict[str, Tensor | float] = {}
        """By member: parts of this step whose logits are not finite."""
        self.busy_s, self.taken = 0.0, 0
        """Seconds in steps and their number, since the last look."""
        self.new_attempt()

    def places(self) -> tuple[list[int], Session, Session]:
        return who_is_where(len(self.run.members), self.session)

    def make_trainings(self, data: Sequence[Data]) -> list[Training]:
        mine = [self.run.members[number] for number in self.hosts]
        if self.run.exchange and any(member.membership.layers for member in self.run.members):
            makers = [
                make_stepper(member, self.own, each, FeatureStepper) for member, each in zip(mine, data, strict=True)
            ]
            connect(makers, self.run, self.same_rows, [each.preprocessor.of_zeros(1, self.own.device) for each in data])
            return [Training(*each) for each in zip(mine, repeat(self.own), data, makers)]
        return [Training(member, self.own, each) for member, each in zip(mine, data, strict=True)]

    def check_classes(self) -> None:
        found = self.same_rows.everyone([each.transfer_set.classes for each in self.data])
        if len({tuple(classes) for each in found for classes in each}) > 1:
            raise CollegiumError(f"{self.run.key}: its members have different classes; give them one transfer set")

    @property
    def weights(self) -> Tensor:
        """Of the rule `general`, f64 `[members]`."""
        members = len(self.run.members)
        return torch.tensor(self.trainings[0].progress.peer_weights or [1 / members] * members, dtype=torch.float64)

    @property
    def step(self) -> int:
        return self.trainings[0].progress.step

    @property
    def steps(self) -> int:
        return self.trainings[0].steps

    def train(self, checkpoint_every_s: float) -> None:
        """Take all steps that are left; who diverges is set back and goes on at half its rate."""
        done = False
        while not done:
            try:
                self.go_on(Clock(checkpoint_every_s))
                done = True
            except Diverged as diverged:
                self.set_back(diverged.members)

    def go_on(self, clock: Clock) -> None:
        first = self.trainings[0]
        if self.step == self.steps:
            return
        for batches in self.batches():
            begun = time.perf_counter()
            due = self.advance(batches, clock)
            self.busy_s, self.taken = self.busy_s + time.perf_counter() - begun, self.taken + 1
            if self.step == self.steps or self.step % first.evaluate_every == 0:
                self.look()
                if self.step == self.steps or self.is_stopped():
                    return
            if due:
                clock.time(self.save)

    def batches(self) -> Iterator[list[dict[str, Tensor]]]:
        """What each hosted member sees in every step from here on; members that read the same share it."""
        reads = [each.stream for each in self.trainings]
        streams = {}
        for key, training in zip(reads, self.trainings, strict=True):
            if key not in streams:
                streams[key] = training.batches()
        for batches in zip(*streams.values(), strict=True):
            by_stream = dict(zip(streams, batches, strict=True))
            yield [by_stream[key] for key in reads]

    def advance(self, batches: Sequence[dict[str, Tensor]], clock: Clock) -> bool:
        """One step of everyone; whether a checkpoint is due. Raises Diverged before any weight has moved."""
        step = self.step
        works = []
        for training, batch in zip(self.trainings, batches, strict=True):
            with within(training.run.key):
                works.append(training.stepper.begin(batch, step // training.run.membership.every, step))
        moving = [step % training.run.membership.every == 0 for training in self.trainings]
        for number in range(len(self.trainings[0].stepper.parts)):
            self.learn(works, batches, moving, number)
        due = self.agree_to_go_on(moving, clock)
        for training, work, moves in zip(self.trainings, works, moving, strict=True):
            training.took(training.stepper.end(work) if moves else None)
        return due

    def learn(
        self, works: Sequence[Work], batches: Sequence[dict[str, Tensor]], moving: Sequence[bool], number: int
    ) -> None:
        """Forward, exchange and backward of part `number` of the rows."""
        said = [self.say(*each, number) for each in zip(self.trainings, works, moving, strict=True)]
        everyone = self.exchange(said) if self.run.exchange and len(self.run.members) > 1 else []
        for each, work, batch, moves, own in zip(self.trainings, works, batches, moving, said, strict=True):
            if moves:
                with within(each.run.key):
                    part = each.stepper.parts[number]
                    heard = self.hear(each, usable_labels(batch)[part], everyone, own)
                    each.stepper.backward(work, number, own[0], heard)

    def say(self, training: Training, work: Work, moves: bool, number: int) -> Said:
        stepper = training.stepper
        with within(training.run.key):
            said = stepper.say(work, number) if moves else stepper.say_aside(work, number)
            stepper.check(said[0], stepper.parts[number])
        overflowed = 1 - said[0].detach().isfinite().all().float()
        self.overflowed[training.run.name] = self.overflowed.get(training.run.name, 0) + overflowed
        return said

    def hear(self, training: Training, labels: Tensor, everyone: Sequence[Said], own: Said) -> Heard:
        """What the others make of these rows, for one member."""
        if not everyone:
            return Heard()
        membership = training.run.membership
        logits = torch.stack([said[0] for said in everyone], 1).to(at_least_float32(own[0]).dtype)
        keywords = {"weights": self.weights} if membership.peer_rule == "general" else {}
        rule = PEER_RULES[training.stepper.space.answer][membership.peer_rule]
        peer = rule(logits, labels, membership.number, **keywords)
        maps: list[tuple[Tensor, Tensor]] = []
        if isinstance(training.stepper, FeatureStepper):
            maps = training.stepper.pairs(everyone)
        return Heard(peer, maps)

    def agree_to_go_on(self, moving: Sequence[bool], clock: Clock) -> bool:
        """One small sum over all ranks before any weight moves: who has a gradient that is not finite, and the clock."""
        members = len(self.run.members)
        flags = torch.zeros(2 * members + 1, device=self.session.device)
        for number, training, moves in zip(self.hosts, self.trainings, moving, strict=True):
            if moves:
                gradients = [p.grad for p in training.stepper.whole.parameters() if p.grad is not None]
                flags[number] = 1 - torch.nn.utils.get_total_norm(gradients).isfinite().float()
            flags[members + number] = self.overflowed.get(training.run.name, 0.0)
        self.overflowed.clear()
        if self.session.rank == 0:
            flags[-1] = float(clock.is_due())
        *bad, due = self.session.all_reduce_sum(flags).tolist()
        if any(bad):  # who heard another's overflow has a bad gradient too, and is not to blame
            blamed = bad[members:] if any(bad[members:]) else bad[:members]
            raise Diverged([number for number, count in enumerate(blamed) if count])
        return bool(due)

    def set_back(self, members: Sequence[int]) -> None:
        """Go to the last common checkpoint; those who diverged go on at half their rate."""
        rollbacks = [count + (number in members) for number, count in enumerate(self.rollbacks)]
        names, at = [self.run.members[number].name for number in members], self.step
        if too_often := [self.run.members[n].name for n in members if rollbacks[n] > self.run.config.max_rollbacks]:
            raise CollegiumError(
                f"{self.run.stage_name}: {', '.join(too_often)} diverged at step {at + 1}, after "
                f"{self.run.config.max_rollbacks} rollbacks; lower its train.learning_rate, or set train.clip"
            )
        for training in self.trainings:
            training.stepper.optimizer.zero_grad()
        if not self.resume(before=at):  # one of this very step has the weights that diverge at once
            self.trainings = self.make_trainings(self.data)  # there is none yet: everyone again from its seed
        self.slow_down(rollbacks)
        who = f"{self.run.stage_name}: {', '.join(names)}"
        log.warning("%s diverged at step %d; back to step %d, at half the learning rate", who, at + 1, self.step)
        self.save()

    def slow_down(self, rollbacks: Sequence[int]) -> None:
        self.rollbacks = [*rollbacks]
        for number, training in zip(self.hosts, self.trainings, strict=True):
            training.progress.rollbacks = rollbacks[number]
            training.stepper.rate_scale = 0.5**training.progress.rollbacks
        self.new_attempt()

    def new_attempt(self) -> None:
        name = self.session.agree(uuid4().hex)
        for training in self.trainings:
            training.attempt = Attempt(training.run, name, rollbacks=sum(self.rollbacks))

    def save(self) -> None:
        if self.own.rank == 0:
            for training in self.trainings:
                training.save()

    def resume(self, *, before: int | None = None) -> bool:
        """Go to the newest checkpoint that every member has, if there is one; `before`: of a step before that."""
        common = self.session.agree(newest_common(self.run.members, before=before) if self.session.rank == 0 else None)
        if common is None:
            return False
        for training in self.trainings:
            training.go_to(training.run.folder / "attempts" / common)
        counts = self.same_rows.everyone([training.progress.rollbacks for training in self.trainings])
        self.slow_down([count for of_rank in counts for count in of_rank])
        log.info("%s: %s goes on from step %d", self.run.stage_name, self.run.name, self.step)
        return True

    def look(self) -> None:
        """Every member looks at validation, and all at how far they agree."""
        for training in self.trainings:
            training.report_losses()
            training.stepper.share_batch_statistics()
            training.module.eval()
        meters, together = look_together(self.trainings, len(self.run.members), self.same_rows)
        for training, meter in zip(self.trainings, meters, strict=True):
            validation = training.data.validation
            training.module.train()
            training.saw(validation.figures(meter, self.own) if validation.num_labelled else None)
        self.keep(together.over(self.own))

    def keep(self, found: Together) -> None:
        """What the look said of all together: curves of the cohort, and the weights of the rule `general`."""
        if found.labelled:
            weights = general_weights(found.covariance()).tolist()
            for training in self.trainings:
                training.progress.peer_weights = weights
        if len(self.run.members) > 1 and self.run.exchange and found.rows:
            steps = max(self.taken, 1)
            values = found.figures() | {"step_ms": 1e3 * self.busy_s / steps} | self.exchange.taken(steps)
            self.busy_s, self.taken = 0.0, 0
            self.report({f"cohort.{key}": value for key, value in values.items()})

    def report(self, values: dict[str, float]) -> None:
        if self.session.rank == 0:
            now = time.time()
            records = [
                Record(stage=self.run.stage_name, run=self.run.name, step=self.step, key=key, value=value, time=now)
                for key, value in values.items()
            ]
            self.session.report(self.run, records)

    def is_stopped(self) -> bool:
        """When early stopping would stop each of them."""
        going = torch.tensor(float(sum(not each.is_stopped() for each in self.trainings)), device=self.session.device)
        return float(self.session.all_reduce_sum(going)) == 0

    def finish(self) -> list[RunResult]:
        """Seal every member's folder, then drop the checkpoints of all: none is needed before every seal is there."""
        if self.own.rank == 0:
            for training in self.trainings:
                training.publish()
        self.session.everyone(None)
        members = self.run.members
        sealed = self.session.agree([read_result(member) for member in members] if self.session.rank == 0 else [])
        if self.session.rank == 0:
            for member in members:
                drop_attempts(member)
        return [result for result in sealed if result]
