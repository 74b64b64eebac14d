"""All that a training reads, opened once for all runs that read the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from teachers.models.preprocess import Preprocessor
from teachers.transfer_set.own_rows import of_teachers
from teachers.transfer_set.transfer_set import TransferSet

from ..objective.scale import with_scale
from ..runs.run import Run
from ..runs.session import Session
from .memory import memory_for
from .rows import TrainingRows, load_rows
from .validation import Validation


@dataclass
class Data:
    """All that a training reads."""

    transfer_set: TransferSet
    preprocessor: Preprocessor
    rows: TrainingRows
    validation: Validation


class SharedData:
    """The data of the run before, for the next one that reads the same: the seeds of a student, a cohort's members.

    `at_once`: processes beside this one's group, it included, that may share the machine's memory.
    """

    def __init__(self, memory_bytes: int | None = None, *, at_once: int = 1) -> None:
        self.memory_bytes, self.at_once = memory_bytes, at_once
        self.held: list[tuple[Any, Data]] = []

    def of(self, runs: Sequence[Run], session: Session, workers: int | None = None) -> list[Data]:
        """What each of `runs` reads, of one budget; `workers`: those that share the memory, by default the session's."""
        keys = [reads(run) for run in runs]
        self.held = [(key, data) for key, data in self.held if key in keys]  # frees memory first
        for run, key in zip(runs, keys, strict=True):
            if key not in [held for held, _ in self.held]:
                sharers = (workers or session.world) * self.at_once
                memory_bytes = self.memory_bytes or memory_for(run.train, session.device.type, sharers)
                memory_bytes //= len(runs)
                self.held.append((key, open_data(run, session, memory_bytes)))
        return [next(data for held, data in self.held if held == key) for key in keys]


def reads(run: Run) -> tuple[Any, ...]:
    """Runs that agree on this read the same data."""
    augment, member = run.train.augment, run.membership
    asked = (
        run.objective,
        run.hints,
        run.hydra is not None,
        run.energy,
        run.sources,
        run.follow,
        run.labelled_only,
        run.teaches,
        run.classes,
        run.train.class_weights,
        member.peer_rule,
    )
    return run.transfer_set, run.views, run.preprocess, augment, run.train.mix, member.keeps_canonical, run.part, *asked


def open_data(run: Run, session: Session, memory_bytes: int) -> Data:
    transfer_set = with_scale(TransferSet.open(run.transfer_set), run.sources).viewing(run.views)
    if run.teaches:
        transfer_set = of_teachers(transfer_set)
    if run.classes:
        transfer_set = transfer_set.of_classes(run.classes)
    preprocessor = Preprocessor(run.preprocess, transfer_set.columns)
    _ = preprocessor.input_shape  # is refused of text that nothing is made of
    transfer_set = transfer_set.seen(preprocessor.sees).deriving(preprocessor.text)
    rows = load_rows(run, transfer_set, preprocessor, memory_bytes, session.world)
    validation = Validation(transfer_set, preprocessor, session, is_held=rows.division.validation)
    return Data(transfer_set, preprocessor, rows, validation)
