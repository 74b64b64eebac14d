"""One shard: its rows read, a teacher asked, what it says committed. Needs no Ray.

Knows nothing of stages, of replicas or of who reads the stores; it does not seal them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ..config.endpoint import EndpointTeacher
from ..config.teacher import TeacherConfig
from ..errors import CollegiumError, StoreError, TeacherError, UsersCodeError
from ..models.adapters import absolute, check_features, check_scores, load_teacher
from ..models.folded import Answer, FoldedTeacher, Said, said_of
from ..models.scores import to_logits
from ..models.teacher import Teacher
from ..models.truncation import counting
from ..process import prometheus
from ..process.log_lines import with_ids
from ..soft_targets.schema import Commit
from ..soft_targets.store import SoftTargetStore
from ..transfer_set.transfer_set import Segment, TransferSet
from ..transfer_set.viewing import Viewing
from ..users_code.calls import within
from ..users_code.imports import UserPath
from .bad_rows import BLAMED, answered_around
from .endpoint import EndpointQuestioner
from .heard import Heard

log = logging.getLogger(__name__)
Inputs = Mapping[str, np.ndarray]

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


def _put_back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows that were asked about in `order`, as they came."""
    found = np.empty_like(values)
    found[order] = values
    return found


class Questioner:
    """Asks a teacher in batches, all in one thread of its own, whoever calls."""

    def __init__(self, teacher: Teacher, name: str, config: TeacherConfig) -> None:
        self.teacher = teacher
        self.name = name
        self.probability_floor = config.probability_floor
        self.batch_size = config.batch_size
        self.skips = config.on_bad_row == "skip"
        self.beat: Callable[[], None] = lambda: None
        """Is called when a batch is done."""
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="teacher")

    def ask(self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
        """The logits of `answer`."""
        return self.answer(inputs, sample_key, fold).logits

    def answer(self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None = None) -> Heard:
        """What it says of canonical inputs. Raises TeacherError for what no teacher may say.

        `fold`: i16 `[rows]`, of a teacher in folds, for rows that its parts have learnt.
        """
        with within(f"teachers.{self.name}"):  # here, while the teacher's own thread computes what came before
            ready, order = self.teacher.prepare(inputs)
        if order is None:
            return self.thread.submit(with_ids(self._counted), ready, sample_key, fold).result()
        ready = {name: column[order] for name, column in ready.items()}
        said = self.thread.submit(with_ids(self._counted), ready, sample_key[order], fold).result()
        return Heard(_put_back(said.logits, order), {name: _put_back(it, order) for name, it in said.more.items()})

    def _counted(self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None) -> Heard:
        with prometheus.timed("collegium_teacher_seconds", teacher=self.name, phase="compute"):
            heard = self._ask(inputs, sample_key, fold)
        prometheus.add("collegium_answered_rows", len(sample_key), teacher=self.name)
        return heard

    def _ask(self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None) -> Heard:
        logits = torch.empty(len(sample_key), self.teacher.width)
        more: dict[str, np.ndarray] = {}
        first = 0
        while first < len(sample_key):
            rows = slice(first, first + self.batch_size)
            try:
                with within(f"teachers.{self.name}"):
                    said = self._said({name: column[rows] for name, column in inputs.items()}, rows, fold)
            except torch.cuda.OutOfMemoryError as error:
                self._halve(error)
                continue
            checked = check_scores(said.scores, self.teacher, self.name, sample_key[rows])
            logits[rows] = to_logits(checked, self.teacher.output, self.probability_floor, self.teacher.answer)
            for name, values in said.more.items():
                features = check_features(values, name, self.name, sample_key[rows])
                out = more.setdefault(name, np.empty((len(sample_key), *features.shape[1:]), np.float32))
                out[rows] = features
            first = rows.stop
            self.beat()
        return Heard(logits.numpy(), more)

    def _said(self, inputs: Inputs, rows: slice, fold: np.ndarray | None) -> Said:
        answer: Answer
        if fold is None:
            answer = self.teacher(inputs)
        else:
            assert isinstance(self.teacher, FoldedTeacher)
            answer = self.teacher.out_of_fold(inputs, fold[rows])
        return said_of(answer)

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
    return Questioner(found, teacher.name, teacher.config)


def questioner_of(
    teacher: TeacherSpec, transfer_set: TransferSet, device: str, stores: Sequence[SoftTargetStore] = ()
) -> Questioner | EndpointQuestioner:
    """Whoever asks it, wherever it answers. `stores`: that are filled; none: it is asked about rows as they are seen."""
    if not isinstance(teacher.config, EndpointTeacher):
        return loaded(teacher, transfer_set, device)
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
