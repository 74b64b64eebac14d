"""One trial of a search: a run of the engine whose looks at validation are told as they come, and of which nothing stays.

Knows nothing of Ray Tune or Optuna, nor of what is searched for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from teachers.models.folder import load_model, seen_in
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import within

from ..config.hydra import single_steps
from ..data.shared import SharedData
from ..data.validation import is_better
from ..measuring.footprint import footprint
from ..measuring.judged import Voice, figures_of
from ..measuring.labelled import Labelled, ask
from ..measuring.thresholds import chosen_by
from ..runs.curves import Record
from ..runs.run import CohortRun, Run, RunResult
from ..runs.session import PlainSession
from ..tasks.figure import FIGURES
from ..training.train import Training
from .fit import fit

Figures = dict[str, float]
"""Of a look at validation, by their curves: `validation.accuracy` and so on."""
Tell = Callable[[int, Figures], None]
"""Takes a step and the best figures so far; may raise SystemExit, which ends the trial."""
ROWS = 32


class Looks:
    """What the networks of a run say at each look at validation; of a cohort the best member counts, or a named one."""

    def __init__(self, run: Run | CohortRun, tell: Tell, member: str | None = None) -> None:
        self.waiting_for = {network.name for network in run.networks if member in (None, network.name.split("/")[0])}
        self.task = TransferSet.open(run.networks[0].transfer_set).space.task
        self.tell = tell
        self.found: dict[int, dict[str, Figures]] = {}
        """By step and network."""
        self.best: Figures | None = None
        self.best_of = ""
        """The network whose best look it was."""
        self.num = 0
        self.first_kept = max(map(_first_kept, run.networks))
        """Up to this step no look counts in the end; after it those before are forgotten."""

    def take(self, records: Sequence[Record]) -> None:
        """`records` are of one network, and all of a look come at once."""
        for record in records:
            if record["key"].startswith("validation.") and record["run"] in self.waiting_for:
                self.found.setdefault(record["step"], {}).setdefault(record["run"], {})[record["key"]] = record["value"]
        for step in sorted(self.found):
            if self.found[step].keys() >= self.waiting_for:
                self._look(step, self.found.pop(step))

    def settle(self, result: RunResult) -> None:
        """What counts in the end: of a training that came from elsewhere the best look may have been another's."""
        if result.validation is not None:
            self.best, self.best_of = (
                {f"validation.{key}": value for key, value in result.validation.items() if value is not None},
                result.name,
            )

    def _look(self, step: int, found: Mapping[str, Figures]) -> None:
        if step > self.first_kept > 0:
            self.first_kept, self.best = 0, None
        for name, figures in found.items():
            if self.best is None or is_better(self.task, _short(figures), _short(self.best)):
                self.best, self.best_of = figures, name
        self.num += 1
        assert self.best is not None
        self.tell(step, self.best)


def _first_kept(run: Run) -> int:
    """Of a student with a head for each teacher the last step of its first phase."""
    return 0 if run.hydra is None or run.train.steps is None else single_steps(run.hydra, run.train.steps)


def _short(figures: Figures) -> dict[str, float]:
    return {key.removeprefix("validation."): value for key, value in figures.items()}


class TrialSession(PlainSession):
    """This process; points of curves go to `looks` and to no file."""

    def __init__(self, device: torch.device | str, looks: Looks) -> None:
        super().__init__(device)
        self.looks = looks

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        self.looks.take(records)


def train_trial(run: Run | CohortRun, looks: Looks, device: torch.device | str) -> None:
    """Train `run` in this process; its folder becomes a model folder."""
    fit([run], TrialSession(device, looks), checkpoint_every_s=float("inf"))


def train_in_population(
    run: Run, looks: Looks, device: torch.device | str, come_from: Path | None, own: Callable[[Training], None]
) -> None:
    """The same from a checkpoint of another trial's, if there is one: its weights and optimiser, this one's setting.

    `own` is given the training before its first step, so that whoever is told of a look can save it.
    """
    session = TrialSession(device, looks)
    run.folder.mkdir(parents=True)
    with within(run.key):
        training = Training(run, session, SharedData().of([run], session)[0])
        if come_from is not None:
            training.go_to(come_from)
        own(training)
        if training.progress.step < training.steps:
            training.train(checkpoint_every_s=float("inf"))
        looks.settle(training.finish())


def measured(folder: Path, transfer_set: Path, trust: Sequence[str], threads: int) -> Figures:
    """`parameters`, `bytes` and `latency_ms` (p50 of one row) of a model folder, asked with rows of validation; and every
    figure of the task there, `validation.<key>`."""
    opened = TransferSet.open(transfer_set)
    segment = next(segment for segment in opened.of("validation") if segment.num_rows)
    inputs = seen_in(folder, opened).inputs(segment, 0, min(ROWS, segment.num_rows))
    found: dict[str, Any] = footprint(folder, inputs, trust=trust, threads=threads)
    rows = Labelled.of(opened, "validation")
    said = ask(load_model(folder, trust=trust), rows)
    figures = figures_of(rows, Voice(said, thresholds=chosen_by(rows, lambda: said)))
    known = (figure.key for figure in FIGURES[rows.space.task])
    return {f"validation.{key}": figures[key] for key in known if figures[key] is not None} | {
        "parameters": float(found["parameters"]),
        "bytes": float(found["bytes"]),
        "latency_ms": found["latency"]["batch_1"]["p50_ms"],
    }


@contextmanager
def scratch(beside: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards: of this machine, or in `beside`, where workers on other machines see it too."""
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="collegium-trial-", dir=beside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
