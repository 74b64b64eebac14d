"""Labelling: the shards that stores still miss, spread over a teacher's replicas."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..process import prometheus
from ..soft_targets.store import SoftTargetStore
from ..storage.manifest import Run, in_threads
from .dispatch import Dispatcher
from .hands import Waiting
from .replicas import Seats, replicas
from .shard import MAX_ATTEMPTS, LabelTask, TeacherSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One more shard of `store` is committed: `rows` of its `num_rows` now are. `rows_per_s` is of all stores together.

    `num_ready` of the `num_replicas` that there are now are at work.
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


def label(
    teacher: TeacherSpec,
    tasks: Sequence[LabelTask],
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
    max_attempts: int = MAX_ATTEMPTS,
    wait_s: float = 600.0,
    run: Run = in_threads,
    seats: Seats | None = None,
) -> LabelReport:
    """Fill what is missing in the tasks' stores, by `config.replicas` Ray actors. Ray must be running.

    `seats` says when there may be more than the fewest of them; None: whenever the cluster has room. Raises TeacherError
    when the teacher cannot be loaded, says what it must not, or fails at a shard `max_attempts` times; EnvironmentUnfit when the
    cluster has had no room for the fewest replicas for `wait_s`. Whatever was committed stays, once `run` has found every byte
    of it whole.
    """
    given = [task.store for task in tasks]
    teacher, tasks = teacher.resolved(), [_resolved_task(task) for task in tasks]
    stores = [SoftTargetStore.open(task.store) for task in tasks]
    numbers = [store.missing(hashes=True, run=run) for store in stores]
    if not (shards := Waiting(dict(enumerate(zip(stores, numbers, strict=True))))):
        return LabelReport(rows=0, seconds=0.0, start_s=0.0, num_retries=0, stores={})
    missing = [store.spec.rows_of(which) for store, which in zip(stores, numbers, strict=True)]
    done = [store.spec.num_rows - rows for store, rows in zip(stores, missing, strict=True)]
    began = time.monotonic()
    several = teacher.config.labelled_by
    with replicas(teacher, tasks, min(several.min, len(shards)), wait_s, seats) as actors:
        most = min(several.max, len(shards))
        dispatcher = Dispatcher(actors, shards, teacher, tasks, max_attempts=max_attempts, wait_s=wait_s, most=most)
        crew, ready, rows = dispatcher.crew, began, 0
        for shard in dispatcher.run():
            ready = crew.first_ready or began
            if shard.record is not None:
                stores[shard.task].note(shard.record)
            rows += shard.num_rows
            done[shard.task] += shard.num_rows
            rate = rows / max(time.monotonic() - ready, 1e-9)
            _count(teacher.name, tasks[shard.task].segment, shard.num_rows, crew.num_ready)
            now = Progress(
                given[shard.task],
                done[shard.task],
                stores[shard.task].spec.num_rows,
                rate,
                crew.num_ready,
                len(crew.replicas),
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
