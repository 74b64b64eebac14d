"""Looks at validation while a network trains. Opens validation rows only; test rows are the evaluation's."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from teachers.config.task import TaskName
from teachers.models.preprocess import Preprocessor
from teachers.tasks.labels import has_label
from teachers.tasks.said import said_by
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet

from ..objective.units import Units
from ..runs.session import Session
from ..tasks.figure import LOOKS, rank
from ..tasks.task import Meter
from ..tasks.tasks import TASKS
from .inputs import Network, in_order

ROWS = 512
VALUES = 1 << 24
"""Of inputs at once: large images come in fewer rows."""
Look = dict[str, float | None]
"""`LOOKS` of the task, by key; None for a figure that its labels do not define."""


class Validation:
    """The labelled validation rows; each rank looks at every `world`-th chunk of them. `is_held`: they stay in memory."""

    def __init__(
        self, transfer_set: TransferSet, preprocessor: Preprocessor, session: Session, *, is_held: bool
    ) -> None:
        self.split, self.preprocessor, self.session = MergedSplit(transfer_set, "validation"), preprocessor, session
        self.space = transfer_set.space
        self.units = Units(self.space)
        self.num_labelled = int(has_label(self.split.usable_labels()).sum())
        self.num_rows = self.split.num_rows if self.num_labelled else 0
        """That a look reads: without a label there is none."""
        self.held: list[tuple[Network, Tensor]] | None = None
        if is_held:
            self.held = list(self._read())

    def look(self, module: nn.Module) -> Look | None:
        """What `module` is worth, the same on every rank; None without a labelled row."""
        meter = self.measured(module)
        return None if meter is None else meter.figures(keys=LOOKS[self.space.task])

    def measured(self, module: nn.Module) -> Meter | None:
        """What it says of the rows of all ranks; None without a labelled row."""
        if not self.num_labelled:
            return None
        meter = self.meter()
        module.eval()
        with torch.inference_mode():
            for inputs, labels in self.chunks():
                self.judge(meter, said_by(module(inputs), self.space), labels)
        module.train()
        return self.of_all(meter, self.session)

    def meter(self) -> Meter:
        return TASKS[self.space.task].meter(self.space)

    def judge(self, meter: Meter, said: Tensor, labels: Tensor) -> None:
        """Some rows more: what a network says of them, f32 `[rows, width]`, and labels as `chunks` has them."""
        meter.update(self.units.of_label(said), labels)

    def figures(self, meter: Meter, session: Session) -> Look:
        """Of this rank's rows in `meter` and those of all others."""
        return self.of_all(meter, session).figures(keys=LOOKS[self.space.task])

    def of_all(self, meter: Meter, session: Session) -> Meter:
        """This rank's rows in `meter` and those of all others, in the order of ranks."""
        if session.world == 1:
            return meter
        whole = self.meter()
        for parts in session.everyone(meter.parts()):
            whole.join(parts)
        return whole

    def chunks(self) -> Iterator[tuple[Network, Tensor]]:
        """This rank's rows, some at a time: inputs, and labels as a transfer set has them, none where none may be used."""
        yield from self.held or self._read()

    def _read(self) -> Iterator[tuple[Network, Tensor]]:
        labels = torch.from_numpy(self.split.usable_labels())
        rows = max(1, min(ROWS, VALUES // max(1, self.preprocessor.bytes_per_row // 4)))
        chunks = in_order(self.split, self.preprocessor, self.session.device, rows=rows)
        for number, inputs in enumerate(chunks):
            if number % self.session.world == self.session.rank:
                yield inputs, labels[number * rows : (number + 1) * rows].to(self.session.device)


def is_better(task: TaskName, found: Mapping[str, float | None], best: Mapping[str, float | None] | None) -> bool:
    """By the first of `LOOKS` in which two looks differ."""
    return best is None or rank(task, found) > rank(task, best)
