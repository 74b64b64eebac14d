"""A replica of a teacher as a Ray actor: a thin shell around what answers."""

import os
import threading
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import ray
import torch

from ..process.log_lines import Carried, working_on
from ..resources.device import device_of
from ..soft_targets.schema import Commit
from ..users_code import imports
from .shard import Labeller, LabelTask, TeacherSpec
from .stalls import PULSE, Pulse

Loaded = TypeVar("Loaded")
NETWORKS = ("module", "checkpoint", "huggingface", "timm")
"""Kinds of teachers that torch computes; the others do what they want with a GPU."""


def device_of_replica(teacher: TeacherSpec, num_threads: int, num_gpus: float) -> str:
    """Make this process ready to compute; says on what. Raises EnvironmentUnfit for a GPU that is not there."""
    imports.check_own_packages()
    torch.set_num_threads(num_threads)  # Ray leaves one
    gpus = num_gpus if teacher.config.kind in NETWORKS else 0.0
    return device_of(f"a replica of teacher {teacher.name!r}", gpus)


class ReplicaProcess(Generic[Loaded]):
    """Loads its teacher when first asked, so that what goes wrong there comes back as the answer of a call."""

    def __init__(self, teacher: TeacherSpec, num_threads: int, num_gpus: float, log_as: Carried) -> None:
        log_as.take_up()
        self.teacher, self.num_threads, self.num_gpus = teacher, num_threads, num_gpus
        self.pulse = Pulse()
        self._loading = threading.Lock()
        self._held: Loaded | None = None

    @ray.method(concurrency_group=PULSE)  # type: ignore[untyped-decorator]
    def still_s(self) -> float:
        return self.pulse.still_s()

    def ready(self) -> int:
        """Load the teacher; the process id."""
        with self.pulse.at_work():
            self.loaded()
        return os.getpid()

    def loaded(self) -> Loaded:
        with self._loading:
            if self._held is None:
                self._held = self.load(device_of_replica(self.teacher, self.num_threads, self.num_gpus))
        return self._held

    def load(self, device: str) -> Loaded:
        """What answers; called once."""
        raise NotImplementedError


class TeacherReplica(ReplicaProcess[Labeller]):
    """Labels shards of the stores of `tasks`."""

    def __init__(self, tasks: Sequence[LabelTask], *given: Any) -> None:
        super().__init__(*given)
        self.tasks = tasks

    def label(self, task: int, number: int, last_try: bool) -> Commit:
        stage = f"label/{self.teacher.name}/{self.tasks[task].segment}"
        with self.pulse.at_work(), working_on(stage=stage, shard=number):
            return self.loaded().label(task, number, last_try)

    def load(self, device: str) -> Labeller:
        labeller = Labeller(self.teacher, self.tasks, device)
        labeller.questioner.beat = self.pulse.beat
        return labeller


TeacherActor = ray.remote(concurrency_groups={PULSE: 1})(TeacherReplica)
