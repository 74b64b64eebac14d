"""Labelling: what a teacher says of the rows of segments, written into stores shard by shard.

The unit of work is a shard, and everything that happens to one is here and needs no Ray; `label` spreads the shards
over a teacher's replicas. Knows nothing of stages or of who reads the stores; it does not seal them.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from . import prometheus
from .adapters import Teacher, absolute, check_scores, load_teacher, to_logits
from .config import TeacherConfig
from .errors import StoreError, TeacherError
from .log_lines import with_ids
from .soft_targets.schema import Commit
from .soft_targets.store import SoftTargetStore
from .transfer_set import Segment, TransferSet
from .users_code import within

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Times that a shard is tried before its rows are blamed."""


@dataclass(frozen=True)
class LabelTask:
    """A store that is to be filled, which exists already, and the segment whose rows it is about."""

    transfer_set: Path
    segment: str
    store: Path


@dataclass(frozen=True)
class TeacherSpec:
    """All that a replica needs to load its teacher. `trained`: the folder that it was trained into, here."""

    name: str
    config: TeacherConfig
    trained: Path | None
    trust: tuple[str, ...]
    user_path: Path

    def resolved(self) -> Self:
        """The same for a process with another working directory."""
        trained = None if self.trained is None else self.trained.resolve()
        return replace(self, config=absolute(self.config), trained=trained, user_path=self.user_path.resolve())


@dataclass(frozen=True)
class Progress:
    """One more shard of `store` is committed: `rows` of its `num_rows` now are. `rows_per_s` is of all stores together.

    `num_ready` of `num_replicas` are at work.
    """

    store: Path
    rows: int
    num_rows: int
    rows_per_s: float
    num_ready: int
    num_replicas: int


@dataclass(frozen=True)
class LabelReport:
    """What was done. `rows` were labelled in `seconds` after the first replica was ready, which took `start_s`."""

    rows: int
    seconds: float
    start_s: float
    num_retries: int
    stores: Mapping[Path, int]

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class OpenTask:
    """A task with its files open."""

    transfer_set: TransferSet
    segment: Segment
    keys: np.ndarray
    store: SoftTargetStore

    @classmethod
    def open(cls, task: LabelTask) -> Self:
        """Raises StoreError when the store is about other rows than the segment's."""
        transfer_set = TransferSet.open(task.transfer_set)
        segment = transfer_set.segment(task.segment)
        store = SoftTargetStore.open(task.store)
        if (store.spec.segment, store.spec.segment_digest) != (segment.name, segment.digest):
            raise StoreError(
                f"{task.store} is about segment {store.spec.segment} {store.spec.segment_digest[:12]}, "
                f"the transfer set has {segment.name} {segment.digest[:12]}; take another folder for these rows"
            )
        return cls(transfer_set, segment, transfer_set.keys(segment), store)

    def read(self, first_row: int, num_rows: int) -> dict[str, np.ndarray]:
        """An owned copy of these rows: what is read here is not read while the teacher computes."""
        mapped = self.transfer_set.inputs(self.segment, first_row, num_rows)
        return {name: np.array(column) for name, column in mapped.items()}


class Questioner:
    """Asks a teacher in batches, all in one thread of its own, whoever calls."""

    def __init__(self, teacher: Teacher, name: str, config: TeacherConfig) -> None:
        self.teacher = teacher
        self.name = name
        self.probability_floor = config.probability_floor
        self.batch_size = config.batch_size
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="teacher")

    def ask(self, inputs: Mapping[str, np.ndarray], sample_key: np.ndarray) -> np.ndarray:
        """Logits f32 `[rows, C]`. Raises TeacherError for scores of another shape or kind, or not finite."""
        return self.thread.submit(with_ids(self._counted), inputs, sample_key).result()

    def _counted(self, inputs: Mapping[str, np.ndarray], sample_key: np.ndarray) -> np.ndarray:
        with prometheus.timed("collegium_teacher_seconds", teacher=self.name, phase="compute"):
            logits = self._ask(inputs, sample_key)
        prometheus.add("collegium_answered_rows", len(sample_key), teacher=self.name)
        return logits

    def _ask(self, inputs: Mapping[str, np.ndarray], sample_key: np.ndarray) -> np.ndarray:
        logits = torch.empty(len(sample_key), len(self.teacher.classes))
        first = 0
        while first < len(sample_key):
            rows = slice(first, first + self.batch_size)
            try:
                with within(f"teachers.{self.name}"):
                    scores = self.teacher({name: column[rows] for name, column in inputs.items()})
            except torch.cuda.OutOfMemoryError as error:
                self._halve(error)
                continue
            checked = check_scores(scores, self.teacher, self.name, sample_key[rows])
            logits[rows] = to_logits(checked, self.teacher.output, self.probability_floor)
            first = rows.stop
        return logits.numpy()

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise TeacherError(
                f"teacher {self.name!r} runs out of GPU memory on a single row; give it a larger share in "
                f"`resources.gpus`, or a smaller model"
            ) from error
        self.batch_size //= 2
        log.warning("teacher %s: out of GPU memory, the batch size is now %d", self.name, self.batch_size)
        torch.cuda.empty_cache()


def loaded(teacher: TeacherSpec, transfer_set: TransferSet, device: str) -> Questioner:
    """Raises TeacherError, StoreError or RecipeError, naming the teacher, when it cannot be loaded."""
    with within(f"teachers.{teacher.name}"):
        found = load_teacher(
            teacher.config,
            columns=transfer_set.columns,
            classes=transfer_set.classes,
            trained=teacher.trained,
            trust=teacher.trust,
            device=device,
            user_path=teacher.user_path,
        )
    return Questioner(found, teacher.name, teacher.config)


def label_shard(questioner: Questioner, task: OpenTask, number: int) -> Commit:
    """Read one shard's rows, ask the teacher and commit what it says; batches start where the shard starts."""
    first_row, num_rows = task.store.shard_rows(number)
    sample_key = task.keys[first_row : first_row + num_rows]
    timed = partial(prometheus.timed, "collegium_teacher_seconds", teacher=questioner.name)
    with timed(phase="read"):
        inputs = task.read(first_row, num_rows)
    logits = questioner.ask(inputs, sample_key)
    with timed(phase="write"):
        record = task.store.commit(number, sample_key, {"logits": logits})
    log.debug("labelled rows %d to %d", first_row, first_row + num_rows - 1)
    return record


class Labeller:
    """One replica: a loaded teacher, and the tasks whose shards it may be asked for. Safe to call from many threads."""

    def __init__(self, teacher: TeacherSpec, tasks: Sequence[LabelTask], device: str) -> None:
        self.tasks = [OpenTask.open(task) for task in tasks]
        self.questioner = loaded(teacher, self.tasks[0].transfer_set, device)
        classes = self.questioner.teacher.classes
        for task in self.tasks:
            if classes != task.store.spec.classes:
                raise StoreError(
                    f"{task.store.folder} holds scores of the classes {task.store.spec.classes}, "
                    f"teacher {teacher.name!r} knows {classes}; take another folder for this teacher"
                )

    def label(self, task: int, number: int) -> Commit:
        return label_shard(self.questioner, self.tasks[task], number)


def label(
    teacher: TeacherSpec,
    tasks: Sequence[LabelTask],
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
    max_attempts: int = MAX_ATTEMPTS,
    wait_s: float = 600.0,
) -> LabelReport:
    """Fill what is missing in the tasks' stores, by `config.replicas` Ray actors. Ray must be running.

    Raises TeacherError when the teacher cannot be loaded, says what it must not, or fails at a shard `max_attempts`
    times; EnvironmentUnfit when the cluster has had no room for its replicas for `wait_s`. Whatever was committed stays.
    """
    from .dispatch import Dispatcher, Shard, replicas

    given = [task.store for task in tasks]
    teacher, tasks = teacher.resolved(), [_resolved_task(task) for task in tasks]
    stores = [SoftTargetStore.open(task.store) for task in tasks]
    shards = [
        Shard(task, number, *store.shard_rows(number))
        for task, store in enumerate(stores)
        for number in store.missing(hashes=True)
    ]
    if not shards:
        return LabelReport(rows=0, seconds=0.0, start_s=0.0, num_retries=0, stores={})
    missing = [sum(shard.num_rows for shard in shards if shard.task == task) for task in range(len(tasks))]
    done = [store.spec.num_rows - rows for store, rows in zip(stores, missing, strict=True)]
    began = time.monotonic()
    with replicas(teacher, tasks, min(teacher.config.replicas, len(shards)), wait_s) as actors:
        dispatcher = Dispatcher(actors, shards, teacher, tasks, max_attempts=max_attempts, wait_s=wait_s)
        ready, rows = began, 0
        for shard in dispatcher.run():
            ready = dispatcher.first_ready or began
            rows += shard.num_rows
            done[shard.task] += shard.num_rows
            rate = rows / max(time.monotonic() - ready, 1e-9)
            _count(teacher.name, tasks[shard.task].segment, shard.num_rows, dispatcher.num_ready)
            now = Progress(
                given[shard.task],
                done[shard.task],
                stores[shard.task].spec.num_rows,
                rate,
                dispatcher.num_ready,
                len(actors),
            )
            progress(now)
        seconds = time.monotonic() - ready
    return LabelReport(rows, seconds, ready - began, dispatcher.num_retries, dict(zip(given, missing, strict=True)))


def _count(teacher: str, segment: str, rows: int, num_ready: int) -> None:
    prometheus.add("collegium_labelled_rows", rows, teacher=teacher, segment=segment)
    prometheus.add("collegium_committed_shards", 1, teacher=teacher, segment=segment)
    prometheus.show("collegium_ready_replicas", num_ready, teacher=teacher)


def _resolved_task(task: LabelTask) -> LabelTask:
    return replace(task, transfer_set=task.transfer_set.resolve(), store=task.store.resolve())
