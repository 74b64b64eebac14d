"""Batches for a student with live teachers: augmented and asked about some steps before they are used.

What a batch becomes is a function of (seed, step, place in the batch), so neither the look-ahead nor a resumed run changes it. Knows
nothing of Ray: the session says who answers.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachers.labelling.heard import Heard, LiveAnswer

from ..data.draws import PLACE, equal_parts
from ..data.inputs import INPUT, KEY
from ..data.rows import LiveRows
from ..objective.features import feature_column
from ..objective.voices import live_column
from ..runs.run import Run
from ..runs.session import Session
from .steps import views_of


class LookAhead:
    """The batches of `steps`, each with its canonical inputs after augmentation and what all live teachers say: logits, and
    features f32 `[rows, *shape]`.

    At most `prefetch` batches after the one in use have been asked about, which bounds what waits at the replicas.
    """

    def __init__(
        self, batches: Iterator[dict[str, Tensor]], rows: LiveRows, run: Run, session: Session, steps: range
    ) -> None:
        assert session.live is not None, f"{run.name} has live teachers, its session has nobody who answers for them"
        self.batches, self.rows, self.run, self.session, self.live = batches, rows, run, session, session.live
        self.steps = iter(steps)
        self.generator = torch.Generator(session.device)
        self.asked: deque[tuple[dict[str, Tensor], Any]] = deque()
        self.waits_s: list[float] = []

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        while len(self.asked) <= self.rows.prefetch and (step := next(self.steps, None)) is not None:
            self.asked.append(self._asked(next(self.batches), step))
        if not self.asked:
            raise StopIteration
        batch, asked = self.asked.popleft()
        start_s = time.perf_counter()
        answers = self.live.answers(asked)
        self.waits_s.append(time.perf_counter() - start_s)
        return batch | {name: torch.tensor(values, device=self.session.device) for name, values in columns_of(answers)}

    def _asked(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], Any]:
        parts = equal_parts(len(batch[PLACE]), self.run.train.accumulate)
        inputs = self.rows.augmented(batch, views_of(self.run, self.session, batch, step, self.generator, parts))
        derived = self.rows.derived
        told = {name: column.cpu().numpy() for name, column in inputs.items() if name not in derived}
        sample_key = batch[KEY].cpu().numpy().view(np.uint64)
        asked = self.live.ask(self.rows.teachers, told, sample_key)
        return batch | {INPUT + name: column for name, column in inputs.items()}, asked

    def take_wait_s(self) -> float:
        """Mean seconds that a step has waited for answers, since this was last asked."""
        waits_s, self.waits_s = self.waits_s, []
        return sum(waits_s) / max(len(waits_s), 1)


def columns_of(answers: Mapping[str, LiveAnswer]) -> Iterator[tuple[str, np.ndarray]]:
    """(column of a batch, what is in it)."""
    for name, answer in answers.items():
        heard = answer if isinstance(answer, Heard) else Heard(answer, {})
        yield live_column(name), heard.logits
        for output, features in heard.more.items():
            yield feature_column(name, output), features
