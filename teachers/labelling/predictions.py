"""Predictions that exist, put where they belong: no actor is started, the file is read once and its rows go to their stores.

What is said waits in a file without a name beside its store until all of it is known to fit.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..config.predictions import PredictionsTeacher
from ..config.transfer_set import TransferSetConfig
from ..models.predictions import Predictions
from ..users_code.calls import within
from .joined import Found, Joining, Rows, check_missing
from .label import LabelReport, Progress
from .predicted_boxes import Matched
from .shard import LabelTask, OpenTask

log = logging.getLogger(__name__)


def fill(
    name: str,
    config: PredictionsTeacher,
    tasks: Sequence[LabelTask],
    made: TransferSetConfig,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> LabelReport:
    """Fill what is missing in the tasks' stores with what the file says, NaN for rows of which it says nothing.

    `made`: how the transfer set was. Raises TeacherError for what does not fit, before anything is written.
    """
    began = time.monotonic()
    opened = [OpenTask.open(task) for task in tasks]
    with within(f"teachers.{name}"):
        rows = _boxes(config, opened) if config.format is not None else _scores(name, config, opened, made)
        labelled: dict[Path, int] = {}
        for given, task, said in zip(tasks, opened, rows, strict=True):
            missing = task.store.missing(hashes=True)
            done = task.store.spec.num_rows - sum(task.store.shard_rows(number)[1] for number in missing)
            for number in missing:
                num_rows = _commit(task, said, number)
                done, labelled[given.store] = done + num_rows, labelled.get(given.store, 0) + num_rows
                rate = sum(labelled.values()) / max(time.monotonic() - began, 1e-9)
                progress(Progress(given.store, done, task.store.spec.num_rows, rate, 0, 0))
    return LabelReport(sum(labelled.values()), time.monotonic() - began, 0.0, 0, labelled)


def _scores(name: str, config: PredictionsTeacher, opened: Sequence[OpenTask], made: TransferSetConfig) -> list[Rows]:
    joining = Joining(predictions := Predictions.open(config, opened[0].transfer_set.space), made)
    rows = [_rows(task, joining) for task in opened]
    found = joining.read_into(rows)
    check_missing(found, predictions)
    _tell(name, config.path, found)
    return rows


def _boxes(config: PredictionsTeacher, opened: Sequence[OpenTask]) -> list[Rows]:
    space = opened[0].transfer_set.space
    ids = [task.transfer_set.ids(task.segment).to_pylist() for task in opened]
    matched = Matched.of(config, space, [name for names in ids for name in names])
    matched.check_missing()
    matched.tell(space.max_boxes)
    said, first, found = matched.rows(space), 0, []
    for task, names in zip(opened, ids, strict=True):
        own = Rows(task.keys(), names.__getitem__, None, said[first : first + len(names)])
        own.seen[:] = ~np.isnan(said[first : first + len(names)]).all(1)
        first += len(names)
        found.append(own)
    return found


def _rows(task: OpenTask, joining: Joining) -> Rows:
    with tempfile.TemporaryFile(dir=task.store.folder) as file:  # mapped, it lives on without a name
        said = np.memmap(file, np.float32, "w+", shape=(task.segment.num_rows, len(joining.predictions.classes)))
    ids = task.transfer_set.ids(task.segment)
    labels = None if joining.predictions.config.label is None else task.transfer_set.labels(task.segment)
    return Rows(task.keys(), lambda row: str(ids[row]), labels, said)


def _commit(task: OpenTask, rows: Rows, number: int) -> int:
    first, num_rows = task.store.shard_rows(number)
    mine = slice(first, first + num_rows)
    assert rows.said is not None
    said = np.where(rows.seen[mine, None], rows.said[mine], np.float32(np.nan))
    task.store.commit(number, task.keys(first, num_rows), {task.store.spec.named[0]: said})
    return num_rows


def _tell(name: str, path: str, found: Found) -> None:
    if found.num_strange:
        log.info("teacher %s: %d rows of %s are none of the transfer set's", name, found.num_strange, path)
    if found.num_missing:
        told = "teacher %s: %s says nothing of %d of %d rows, in which it takes no part; the first: %s"
        log.warning(told, name, path, found.num_missing, found.num_rows, ", ".join(found.first_missing))
