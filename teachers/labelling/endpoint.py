"""An endpoint as a teacher: shards are asked about side by side in one event loop, every answer is kept as it comes.

Knows nothing of Ray.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

from ..config.endpoint import EndpointTeacher
from ..errors import BudgetSpent, RecipeError, TeacherError
from ..models.checked import check_scores
from ..models.endpoint.apis import Question
from ..models.endpoint.asked import Asked
from ..models.endpoint.client import Client
from ..models.endpoint.purse import Purse, Spent
from ..models.endpoint.rows import Fields
from ..models.scores import to_logits
from ..models.teacher import LoadedTeacher
from ..process import prometheus
from ..soft_targets.schema import Commit
from ..soft_targets.store import SoftTargetStore
from ..transfer_set.transfer_set import TransferSet
from .journal import Answers, Journal, journal_of, num_answered, spent_in, unknown_in, write_texts

log = logging.getLogger(__name__)

NAMED = 5
LISTED = 100
"""Rows that stay unknown, by their keys, in the report."""


def told_of(config: EndpointTeacher, folders: Sequence[Path]) -> dict[str, Any]:
    """What all labelling has cost, and who is unknown, for a report."""
    spent = sum(map(spent_in, folders), Spent())
    stores = map(SoftTargetStore.open, folders)
    unknown = {f"{key:016x}": why for store in stores for key, why in unknown_in(store).items()}
    told = {"requests": spent.requests, "input_tokens": spent.input, "output_tokens": spent.output}
    return {
        "spent": {**told, "money": round(spent.money(config.price), 6)},
        "unanswered": dict(list(unknown.items())[:LISTED]),
    }


class EndpointQuestioner:
    """Asks one server, whoever calls, from a thread of its own.

    `stores`: those that are filled; none: of a live teacher. `beside`: those of the same teacher that are whole, which count where
    its budget and its unknown rows are counted.
    """

    def __init__(
        self,
        name: str,
        config: EndpointTeacher,
        transfer_set: TransferSet,
        stores: Sequence[SoftTargetStore] = (),
        beside: Sequence[Path] = (),
    ) -> None:
        space = transfer_set.space
        fields = Fields.of(transfer_set.columns, transfer_set.made_of)
        self.name, self.config = name, config
        self.question = Question.of(config, tuple(config.classes or space.names), fields.names, space.answer)
        self.teacher = LoadedTeacher(self.question.classes, config.output, self._say, space.answer)
        self.stores = [*stores, *map(SoftTargetStore.open, beside)]
        folders = [store.folder for store in self.stores]
        spent = sum(map(spent_in, folders), Spent())
        num_rows = sum(store.spec.num_rows for store in self.stores) if stores else None
        num_failed = sum(len(unknown_in(store)) for store in self.stores)
        digest = stores[0].spec.teacher_digest if stores else ""
        self.client = Client(
            self.question, fields, digest, Purse(config.budget, config.price, spent), num_rows, num_failed
        )
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True, name="endpoint").start()

    @property
    def beat(self) -> Callable[[], None]:
        """Is called when an answer has come."""
        return self.client.beat

    @beat.setter
    def beat(self, beat: Callable[[], None]) -> None:
        self.client.beat = beat

    def ask(
        self, inputs: Mapping[str, NDArray[Any]], sample_key: NDArray[np.uint64], fold: NDArray[np.int16] | None = None
    ) -> NDArray[np.float32]:
        """Logits f32 [rows, C] of rows as they are seen; nothing is kept, a row that is not answered is NaN."""
        assert fold is None
        return self._logits(self._say(inputs), sample_key)

    def _say(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        answers = Answers(len(self.question.classes), self._votes)
        places = np.arange(len(next(iter(inputs.values()))), dtype=np.uint64)  # a row may stand there twice
        keys = places + np.uint64(uuid4().int >> 66)  # no server takes it for what was asked before
        self._until_answered(Asked(inputs, keys, answers))
        return answers.of(keys)

    def label(
        self, store: SoftTargetStore, number: int, sample_key: NDArray[np.uint64], inputs: Mapping[str, NDArray[Any]]
    ) -> Commit:
        """One shard: ask for what its journal does not hold, and commit. Raises BudgetSpent, TeacherError."""
        digest, width = store.spec.teacher_digest, len(self.question.classes)
        path, with_text = journal_of(store.folder, number), self.config.keep == "text"
        with Journal(path, digest, width, self._votes, with_text=with_text) as journal:
            if store.has(number):  # whoever had the journal before has done it
                return store.record(number)
            asked = Asked(inputs, sample_key, journal)
            self._until_answered(asked)
            logits = self._logits(journal.of(sample_key), sample_key)
            if with_text:
                write_texts(store.folder, number, journal)
            unknown = {int(sample_key[place]): why for place, why in asked.unknown.items()}
            journal.note_unknown(unknown)
            record = store.commit(number, sample_key, {store.spec.named[0]: logits})
            journal.finish(unknown)
        return record

    @property
    def _votes(self) -> int:
        return self.config.votes if self.config.answer == "votes" and self.config.api != "json" else 0

    def _until_answered(self, asked: Asked) -> None:
        with prometheus.timed("collegium_teacher_seconds", teacher=self.name, phase="compute"):
            try:
                asyncio.run_coroutine_threadsafe(self.client.ask(asked), self.loop).result()
            except BudgetSpent as error:
                raise BudgetSpent(f"teachers.{self.name}: {error}; {self._how_far()}") from None
            except TeacherError as error:
                raise TeacherError(f"teachers.{self.name}: {error}") from error
            except RecipeError as error:
                raise RecipeError(f"teachers.{self.name}.{error}") from error
        prometheus.add("collegium_answered_rows", len(asked.keys) - len(asked.unknown), teacher=self.name)
        for place, why in list(asked.unknown.items())[:NAMED]:
            log.warning("teacher %s: row %016x is unknown: %s", self.name, int(asked.keys[place]), why)

    def _logits(self, scores: NDArray[np.float32], sample_key: NDArray[np.uint64]) -> NDArray[np.float32]:
        teacher = self.teacher
        checked = check_scores(torch.from_numpy(scores), teacher, self.name, sample_key)
        said: NDArray[np.float32] = to_logits(
            checked, teacher.output, self.config.probability_floor, teacher.answer
        ).numpy()
        return said

    def _how_far(self) -> str:
        done = sum(map(num_answered, self.stores))
        total = sum(store.spec.num_rows for store in self.stores)
        return f"{done:,} of {total:,} rows are answered, and kept: a higher `budget` goes on from there"
