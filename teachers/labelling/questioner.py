"""Who asks one loaded teacher, in batches that fit its memory. Knows nothing of stores or of where rows come from."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..config.any_teacher import TeacherCommon
from ..errors import CollegiumError
from ..models.checked import check_features, check_scores
from ..models.folded import Answer, FoldedTeacher, Said, said_of
from ..models.scores import to_logits
from ..models.teacher import Teacher
from ..process import prometheus
from ..process.log_lines import with_ids
from ..process.out_of_memory import is_out_of_memory
from ..users_code.calls import within
from .bad_rows import BLAMED
from .batch_size import BatchSize
from .heard import Heard
from .lane import Lane

Inputs = Mapping[str, np.ndarray]
NO_ROOM = (MemoryError, RuntimeError, CollegiumError)
"""As which it is told that memory has run out, among much else."""


def _put_back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows that were asked about in `order`, as they came."""
    found = np.empty_like(values)
    found[order] = values
    return found


class Checked(NamedTuple):
    """Of some rows: scores f32 `[rows, width]` on the CPU that a teacher may say, and what its layers give, wherever that is."""

    scores: Tensor
    more: Mapping[str, Tensor]


class Questioner:
    """Asks a teacher in batches, all in one thread of its own, whoever calls."""

    def __init__(self, teacher: Teacher, name: str, config: TeacherCommon, batches: BatchSize | None = None) -> None:
        self.teacher = teacher
        self.name = name
        self.probability_floor = config.probability_floor
        self.lane = Lane(teacher.device)
        self.batches = batches or BatchSize(config.batch_size, name)
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
        with suppress(
            *BLAMED, MemoryError
        ):  # a row is to blame, perhaps, or fewer fit: whoever asks in earnest finds out
            self.batches.search(lambda rows: self._tried(inputs, sample_key, fold, rows), len(sample_key))
        logits = torch.empty(len(sample_key), self.teacher.width)
        more: dict[str, np.ndarray] = {}
        for rows, said in self._in_batches(inputs, sample_key, fold):
            logits[rows] = to_logits(said.scores, self.teacher.output, self.probability_floor, self.teacher.answer)
            for name, values in said.more.items():
                shape = more[name].shape[1:] if name in more else None
                features = check_features(values, name, self.name, sample_key[rows], shape)
                out = more.setdefault(name, np.empty((len(sample_key), *features.shape[1:]), np.float32))
                out[rows] = features
            self.beat()
        return Heard(logits.numpy(), more)

    def _in_batches(
        self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None
    ) -> Iterator[tuple[slice, Checked]]:
        """What it says of all rows in turn, while it computes what comes next. Where memory runs out, who has not answered yet is asked
        again, fewer at a time."""
        asked = done = 0
        waiting: deque[tuple[slice, Callable[[], Said]]] = deque()
        while done < len(sample_key):
            try:
                while asked < len(sample_key) and len(waiting) <= self.lane.ahead:
                    rows = slice(asked, asked + self.batches.rows)
                    waiting.append((rows, self._asked(inputs, fold, rows)))
                    asked = rows.stop
                rows, arrived = waiting[0]
                said = self._checked(arrived, sample_key[rows])
            except NO_ROOM as error:
                if not is_out_of_memory(error):
                    raise
                waiting.clear()
                asked = done
                self.batches.halve(error)
                torch.cuda.empty_cache()
                continue
            waiting.popleft()
            yield rows, said
            done = rows.stop

    def _asked(self, inputs: Inputs, fold: np.ndarray | None, rows: slice) -> Callable[[], Said]:
        """Ask about some of the rows; what it says is there when that is called."""
        answer: Answer
        asked = self.lane.send({name: column[rows] for name, column in inputs.items()})
        with within(f"teachers.{self.name}"):
            if fold is None:
                answer = self.teacher(asked)
            else:
                assert isinstance(self.teacher, FoldedTeacher)
                answer = self.teacher.out_of_fold(asked, fold[rows])
        return self.lane.fetch(said_of(answer))

    def _checked(self, arrived: Callable[[], Said], sample_key: np.ndarray) -> Checked:
        scores, more = arrived()
        return Checked(check_scores(scores, self.teacher, self.name, sample_key), more)

    def _tried(self, inputs: Inputs, sample_key: np.ndarray, fold: np.ndarray | None, rows: slice) -> None:
        """Ask for the time that it takes. Raises MemoryError, whatever it is told as."""
        try:
            self._checked(self._asked(inputs, fold, rows), sample_key[rows])
        except NO_ROOM as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            raise MemoryError from error
        self.beat()
