"""One shard: its rows read, a teacher asked, what it says committed. Needs no Ray.

Knows nothing of stages, of replicas or of who reads the stores; it does not seal them.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ..config.endpoint import EndpointTeacher
from ..config.teacher import TeacherConfig
from ..errors import CollegiumError, StoreError, UsersCodeError
from ..models.adapters import absolute, load_teacher
from ..models.folded import FoldedTeacher
from ..models.truncation import counting
from ..process import prometheus
from ..soft_targets.schema import Commit
from ..soft_targets.store import SoftTargetStore
from ..transfer_set.transfer_set import Segment, TransferSet
from ..transfer_set.viewing import Viewing
from ..users_code.calls import within
from ..users_code.imports import UserPath
from .bad_rows import BLAMED, answered_around
from .batch_size import BatchSize
from .endpoint import EndpointQuestioner
from .heard import Heard
from .questioner import Inputs, Questioner

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Times that a shard is tried before its rows are blamed."""


@dataclass(frozen=True)
class LabelTask:
    """A store that is to be filled, which exists already, and the segment whose rows it is about."""

    transfer_set: Path
    segment: str
    store: Path
    views: Viewing | None = None
    """In which training rows are seen."""


@dataclass(frozen=True)
class TeacherSpec:
    """All that a replica needs to load its teacher. `trained`: the folder that it was trained into, here."""

    name: str
    config: TeacherConfig
    trained: Path | None
    trust: tuple[str, ...]
    user_path: UserPath
    beside: tuple[Path, ...] = ()
    """Its stores that are whole: of an endpoint, what they have cost counts."""

    def resolved(self) -> Self:
        """The same for a process with another working directory."""
        trained = None if self.trained is None else self.trained.resolve()
        beside = tuple(folder.resolve() for folder in self.beside)
        return replace(
            self, config=absolute(self.config), trained=trained, user_path=self.user_path.resolve(), beside=beside
        )


@dataclass(frozen=True)
class OpenTask:
    """A task with its files open."""

    transfer_set: TransferSet
    segment: Segment
    store: SoftTargetStore
    fold: np.ndarray | None = None
    """i16 [rows]: of a teacher in folds, the one that has not seen each row."""

    @classmethod
    def open(cls, task: LabelTask) -> Self:
        """Raises StoreError when the store is about other rows than the segment's."""
        transfer_set = TransferSet.open(task.transfer_set).viewing(task.views)
        segment = transfer_set.segment(task.segment)
        store = SoftTargetStore.open(task.store)
        if store.spec.segment_digest != segment.digest:
            raise StoreError(
                f"{task.store} is about segment {store.spec.segment} {store.spec.segment_digest[:12]}, "
                f"the transfer set has {segment.name} {segment.digest[:12]}; take another folder for these rows"
            )
        return cls(transfer_set, segment, store)

    def keys(self, first_row: int = 0, num_rows: int | None = None) -> np.ndarray:
        """`sample_key` of these rows; of others none is read."""
        return self.transfer_set.keys(self.segment, first_row, num_rows)

    def read(self, first_row: int, num_rows: int, *, as_stored: bool = False) -> dict[str, np.ndarray]:
        """An owned copy of these rows: what is read here is not read while the teacher computes. `as_stored`: of encoded images
        their `bytes`."""
        mapped = self.transfer_set.inputs(self.segment, first_row, num_rows, as_stored=as_stored)
        return {name: np.array(column) for name, column in mapped.items()}


def loaded(
    teacher: TeacherSpec, transfer_set: TransferSet, device: str, stores: Sequence[SoftTargetStore] = ()
) -> Questioner:
    """Of a teacher that computes here. Raises TeacherError, StoreError or RecipeError, naming it, when it cannot be loaded."""
    with within(f"teachers.{teacher.name}"):
        found = load_teacher(
            teacher.config,
            columns=transfer_set.columns,
            space=transfer_set.space,
            trained=teacher.trained,
            trust=teacher.trust,
            device=device,
            user_path=teacher.user_path,
        )
    where = torch.cuda.get_device_name() if device == "cuda" else device
    folders = [store.folder for store in stores], teacher.beside
    return Questioner(
        found, teacher.name, teacher.config, BatchSize(teacher.config.batch_size, teacher.name, where, *folders)
    )


def questioner_of(
    teacher: TeacherSpec, transfer_set: TransferSet, device: str, stores: Sequence[SoftTargetStore] = ()
) -> Questioner | EndpointQuestioner:
    """Whoever asks it, wherever it answers. `stores`: that are filled; none: it is asked about rows as they are seen."""
    if not isinstance(teacher.config, EndpointTeacher):
        return loaded(teacher, transfer_set, device, stores)
    with within(f"teachers.{teacher.name}"):
        return EndpointQuestioner(teacher.name, teacher.config, transfer_set, stores, teacher.beside)


def label_shard(
    questioner: Questioner | EndpointQuestioner, task: OpenTask, number: int, *, last_try: bool = True
) -> Commit:
    """Read one shard's rows, ask the teacher and commit what it says; batches start where the shard starts.

    In the last try a failure of the user's code is looked for row by row, for it may be one row's; what a teacher must not say, at once
    where it may leave rows unknown.
    """
    first_row, num_rows = task.store.shard_rows(number)
    sample_key = task.keys(first_row, num_rows)
    timed = partial(prometheus.timed, "collegium_teacher_seconds", teacher=questioner.name)
    with timed(phase="read"):
        as_stored = isinstance(questioner, Questioner) and questioner.teacher.as_stored
        inputs = task.read(first_row, num_rows, as_stored=as_stored)
    if isinstance(questioner, EndpointQuestioner):
        return questioner.label(task.store, number, sample_key, inputs)
    fold = None if task.fold is None else task.fold[first_row : first_row + num_rows]
    with counting() as cut:
        try:
            heard = questioner.answer(inputs, sample_key, fold)
        except BLAMED as error:
            if not (last_try if isinstance(error, UsersCodeError) else questioner.skips):
                raise
            heard = _around_bad_rows(questioner, task, first_row, inputs, fold, error)
    with timed(phase="write"):
        said = {task.store.spec.named[0]: heard.logits, **heard.more}
        record = task.store.commit(number, sample_key, said, cut_off=cut.texts)
    log.debug("labelled rows %d to %d", first_row, first_row + num_rows - 1)
    return record


def _around_bad_rows(
    questioner: Questioner,
    task: OpenTask,
    first_row: int,
    inputs: Inputs,
    fold: np.ndarray | None,
    error: CollegiumError,
) -> Heard:
    """What can be said of a shard's rows, of which some could not be answered."""
    rows = len(next(iter(inputs.values())))
    keys, ids = task.keys(first_row, rows), task.transfer_set.ids(task.segment, first_row, rows)

    def ask(part: slice) -> Heard:
        mine = None if fold is None else fold[part]
        return questioner.answer({name: column[part] for name, column in inputs.items()}, keys[part], mine)

    def named(row: int) -> str:
        return f"{ids[row]} of segment {task.segment.name}"

    return answered_around(ask, rows, error, questioner.name, named, skip=questioner.skips)


class Labeller:
    """One replica: a loaded teacher, and the tasks whose shards it may be asked for. Safe to call from many threads."""

    def __init__(self, teacher: TeacherSpec, tasks: Sequence[LabelTask], device: str) -> None:
        self.tasks = [OpenTask.open(task) for task in tasks]
        stores = [task.store for task in self.tasks]
        self.questioner = questioner_of(teacher, self.tasks[0].transfer_set, device, stores)
        classes = self.questioner.teacher.classes
        for task in self.tasks:
            if classes != task.store.spec.names:
                raise StoreError(
                    f"{task.store.folder} holds what is said of {task.store.spec.names}, "
                    f"teacher {teacher.name!r} knows {classes}; take another folder for this teacher"
                )
        text, sees = self.questioner.teacher.text, self.questioner.teacher.sees
        self.tasks = [replace(task, transfer_set=task.transfer_set.seen(sees).deriving(text)) for task in self.tasks]
        if isinstance(folded := self.questioner.teacher, FoldedTeacher):
            self.tasks = [replace(task, fold=folded.fold_of(task.transfer_set, task.segment)) for task in self.tasks]

    def label(self, task: int, number: int, last_try: bool = True) -> Commit:
        return label_shard(self.questioner, self.tasks[task], number, last_try=last_try)
