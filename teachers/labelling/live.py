"""Live teachers: replicas that answer while a student trains, and one rank's way to them.

Arrays pass through Ray's object store as NumPy, a batch once for all its teachers. An answer that is lost with its
replica is asked for again, of another one where there is one. Knows nothing of losses, nor of what was done to the rows.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import remove_placement_group

from ..errors import CollegiumError, EnvironmentUnfit, TeacherError, UsersCodeError
from ..process.log_lines import Carried
from ..resources.bundles import num_threads
from ..resources.reservation import Request, actor_options, num_gpus, reserved
from ..transfer_set.transfer_set import TransferSet
from .actor import ReplicaProcess
from .dispatch import first_line
from .endpoint import EndpointQuestioner
from .heard import LiveAnswer
from .questioner import Inputs, Questioner
from .shard import MAX_ATTEMPTS, TeacherSpec, questioner_of
from .stalls import PULSE, Stalls
from .texts import TextOfRows

log = logging.getLogger(__name__)

PAUSE_S = 0.5
"""Between two questions whether a lost replica is back."""
SIDE_BY_SIDE = 2
"""Calls that a replica takes: one is computed, the next one's arrays are there already."""


class LiveReplica(ReplicaProcess[Questioner | EndpointQuestioner]):
    """Answers about rows of the transfer set at `folder`, as students see them."""

    def __init__(self, folder: Path, *given: Any) -> None:
        super().__init__(*given)
        self.folder = folder

    def ask(self, inputs: Inputs, sample_key: np.ndarray) -> LiveAnswer:
        """Logits f32 `[rows, C]` of canonical inputs, to which text is added by the rows' keys, in the teacher's own classes;
        with its named outputs, where it has some."""
        with self.pulse.at_work():
            questioner, given = self.loaded(), {**inputs, **self.texts.of(sample_key)}
            if isinstance(questioner, EndpointQuestioner):
                return questioner.ask(given, sample_key)
            heard = questioner.answer(given, sample_key)
            return heard if heard.more else heard.logits

    def load(self, device: str) -> Questioner | EndpointQuestioner:
        transfer_set = TransferSet.open(self.folder)
        questioner = questioner_of(self.teacher, transfer_set, device)
        questioner.beat = self.pulse.beat
        self.texts = TextOfRows(transfer_set, questioner.teacher.text)
        return questioner


LiveActor = ray.remote(concurrency_groups={PULSE: 1})(LiveReplica)


@contextmanager
def live_replicas(
    teachers: Sequence[TeacherSpec], transfer_set: Path, beside: Sequence[Request], wait_s: float
) -> Iterator[dict[str, list[Any]]]:
    """The actors of each teacher by its name, reserved together with the room for `beside`; all is given back at the end.

    The room for `beside` is free again on entry: Ray Train reserves for its workers itself and takes no group of ours.
    Raises EnvironmentUnfit when there was no room for all of it at once within `wait_s`.
    """
    requests = [
        Request.of(f"replicas of live teacher {t.name!r}", t.config.resources, t.config.answered_by) for t in teachers
    ]
    actors: dict[str, list[Any]] = {}
    with reserved([*requests, *beside], wait_s) as groups, ExitStack() as watched:
        try:
            for teacher, group in zip(teachers, groups, strict=False):
                actors[teacher.name] = [
                    _started(teacher, transfer_set, group, number) for number in range(teacher.config.answered_by)
                ]
                who, timeout_s = f"live teacher {teacher.name!r}", teacher.config.stall_timeout_s
                watched.enter_context(Stalls(who, actors[teacher.name], timeout_s))
            for group in groups[len(teachers) :]:
                remove_placement_group(group)
            yield actors
        finally:
            watched.close()  # one that is killed here does not stand still
            for actor in (actor for each in actors.values() for actor in each):
                ray.kill(actor, no_restart=True)


def _started(teacher: TeacherSpec, transfer_set: Path, group: Any, number: int) -> Any:
    resources = teacher.config.resources
    options = actor_options(resources, group, number, max_concurrency=SIDE_BY_SIDE)
    given = (teacher.resolved(), num_threads(resources), num_gpus(resources), Carried.from_here())
    return LiveActor.options(**options).remote(transfer_set.resolve(), *given)


@dataclass(eq=False)
class Replica:
    """An actor as one rank sees it. It gets no batch before it has said that it is ready, and after it was lost."""

    teacher: str
    actor: Any
    ready: bool = False
    asked: bool = False
    ask_at: float = 0.0
    lost_at: float | None = None
    num_calls: int = 0
    alone: bool = False
    """With a call that was lost before: should it kill the replica, no other is blamed."""


@dataclass(eq=False)
class Call:
    """What one teacher is asked about one batch; `replica` has it in hand."""

    teacher: str
    inputs_ref: Any
    sample_key: np.ndarray
    attempts: int = 0
    replica: Replica | None = None
    lost_by: Replica | None = None
    answer: LiveAnswer | None = None
    error: CollegiumError | None = None

    @property
    def is_open(self) -> bool:
        return self.answer is None and self.error is None


class ReplicaClient:
    """All live teachers, as one rank asks them. `actors`: the replicas of each by its name.

    Whoever asks bounds how much is under way: a batch is held until it is answered.
    """

    def __init__(
        self,
        actors: Mapping[str, Sequence[Any]],
        *,
        rank: int = 0,
        max_attempts: int = MAX_ATTEMPTS,
        wait_s: float = 600.0,
    ) -> None:
        self.max_attempts, self.wait_s, self.num_retries = max_attempts, wait_s, 0
        self.replicas: dict[str, list[Replica]] = {}
        self.waiting: list[Call] = []
        self.last_loss = ""
        self.under_way: dict[Any, Call | Replica] = {}
        for name, given in actors.items():
            if not given:
                raise TeacherError(f"live teacher {name!r} has no replicas, so nobody answers; give it one or more")
            first = rank % len(given)  # so that the ranks do not all begin with the same one
            self.replicas[name] = [Replica(name, actor) for actor in (*given[first:], *given[:first])]

    def ask(self, teachers: Sequence[str], inputs: Inputs, sample_key: np.ndarray) -> list[Call]:
        """Send canonical inputs `{column: [rows, ...]}` to a replica of each of `teachers`; does not wait."""
        inputs_ref = ray.put({name: np.ascontiguousarray(column) for name, column in inputs.items()})
        calls = [Call(name, inputs_ref, sample_key) for name in teachers]
        self.waiting += calls
        self._turn(0.0)
        return calls

    def answers(self, calls: Sequence[Call]) -> dict[str, LiveAnswer]:
        """Logits f32 `[rows, C]` of each teacher, with its named outputs, read-only. Waits for them.

        Raises what a teacher raised, TeacherError when a batch was lost `max_attempts` times, EnvironmentUnfit when no
        replica of a teacher came back within `wait_s`.
        """
        for call in calls:
            while call.is_open:
                self._turn(PAUSE_S)
                self._check_that_somebody_is_left(call.teacher)
            if call.error is not None:
                raise call.error
        return {call.teacher: call.answer for call in calls if call.answer is not None}

    def _turn(self, timeout_s: float) -> None:
        """Send what can be sent, and take what has come within `timeout_s`."""
        self._send()
        if timeout_s and not self.under_way:
            time.sleep(timeout_s)
        refs = list(self.under_way)
        if timeout_s and refs:
            ray.wait(refs, timeout=timeout_s)
        done = ray.wait(refs, num_returns=len(refs), timeout=0)[0] if refs else []
        for ref in done:
            call = self.under_way.pop(ref)
            self._take_replica(ref, call) if isinstance(call, Replica) else self._take_answer(ref, call)

    def _send(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            replica = self._least_loaded(call)
            if replica is None:
                self.waiting.append(call)
            else:
                call.replica = replica
                replica.num_calls += 1
                replica.alone = call.attempts > 0
                self.under_way[replica.actor.ask.remote(call.inputs_ref, call.sample_key)] = call

    def _least_loaded(self, call: Call) -> Replica | None:
        replicas = self.replicas[call.teacher]
        for replica in replicas:
            if not replica.ready and not replica.asked and time.monotonic() >= replica.ask_at:
                replica.asked = True
                self.under_way[replica.actor.ready.remote()] = replica
        ready = [r for r in replicas if r.ready and not r.alone and not (call.attempts and r.num_calls)]
        others = [replica for replica in ready if replica is not call.lost_by]
        return min(others or ready, key=lambda replica: replica.num_calls, default=None)

    def _take_replica(self, ref: Any, replica: Replica) -> None:
        replica.asked = False
        try:
            ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, CollegiumError):
                raise error.cause from None
            raise TeacherError(f"teacher {replica.teacher!r} could not be loaded: {error.cause!r}") from error
        except RayError as error:
            self._lost(replica, error)
        else:
            replica.ready, replica.lost_at = True, None

    def _lost(self, replica: Replica, error: RayError) -> None:
        """The process or its node is gone, or out of reach: ask now and then whether it is back."""
        now = time.monotonic()
        if replica.lost_at is None:
            replica.lost_at = now
            log.warning("live teacher %s: a replica is lost, Ray starts it again", replica.teacher)
        replica.ready, replica.ask_at, self.last_loss = False, now + PAUSE_S, first_line(error)

    def _check_that_somebody_is_left(self, teacher: str) -> None:
        """A call to a replica whose node is gone, and that finds no other, is not answered at all."""
        since = [replica.lost_at for replica in self.replicas[teacher] if replica.lost_at is not None]
        if len(since) == len(self.replicas[teacher]) and time.monotonic() - max(since) > self.wait_s:
            raise EnvironmentUnfit(
                f"live teacher {teacher!r}: all replicas are lost, and none came back within {self.wait_s:g} s; Ray says: "
                f"{self.last_loss}. Checkpoints are kept: run the same command again once the cluster can hold them"
            )

    def _take_answer(self, ref: Any, call: Call) -> None:
        replica = call.replica
        assert replica is not None
        replica.num_calls, replica.alone = replica.num_calls - 1, False
        try:
            call.answer = ray.get(ref)
            call.inputs_ref = None  # frees the batch
        except RayTaskError as error:
            users_code = isinstance(error.cause, UsersCodeError)
            if isinstance(error.cause, CollegiumError) and not users_code:  # another try would say it again
                call.error = error.cause
            else:
                self._again(call, replica, error.cause)
        except RayError as error:
            self._lost(replica, error)
            self._again(call, replica, error)

    def _again(self, call: Call, replica: Replica, error: Exception) -> None:
        call.attempts += 1
        call.lost_by = replica
        if call.attempts < self.max_attempts:
            self.num_retries += 1
            self.waiting.append(call)
            return
        if isinstance(error, CollegiumError):
            call.error = error
            return
        keys = ", ".join(str(key) for key in call.sample_key[:5])
        call.error = TeacherError(
            f"live teacher {call.teacher!r} failed {call.attempts} times at a batch of {len(call.sample_key)} rows, "
            f"sample_key {keys} ...; the last time: {first_line(error)}. Look at these rows, and run the same command again"
        )
