"""What a training is asked to do (`Run`), what comes of it (`RunResult`), and who does it (`Session`).

A session is a process or a group of them. The engine speaks to it alone and does not know whether Ray is behind it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar
from uuid import uuid4

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from teachers import prometheus
from teachers.config import Preprocess, TrainConfig
from teachers.storage import mirror
from teachers.storage.place import remote_of

from .cohort_config import CohortConfig
from .cohort_terms import CohortTerm
from .config import Term

T = TypeVar("T")
CURVES = "metrics"
WRITER = uuid4().hex
"""This process."""


@dataclass(frozen=True)
class Live:
    """Of a teacher that is asked while the student trains: what it scores, and how many batches ahead it is asked."""

    classes: tuple[str, ...]
    prefetch: int = 4


@dataclass(frozen=True)
class Source:
    """One teacher of a run: a complete store per train segment, and how its classes map to the transfer set's."""

    name: str
    stores: Mapping[str, Path]
    class_map: Mapping[str, str | None] | None = None
    probability_floor: float = 1e-3
    live: Live | None = None
    """Then it has no stores of train segments."""


@dataclass(frozen=True)
class Membership:
    """What a cohort makes of a member's training; `ALONE` for all others."""

    number: int = 0
    """Members draw their weights and dropout apart, and the same order of rows."""
    own_views: bool = False
    """Draw its own augmentation of the rows; else all members see the same."""
    every: int = 1
    """Steps of its cohort between two of its own."""
    peer_rule: str = "others"
    """Of `students.peer_targets.PEER_RULES`."""
    share_of_rows: tuple[int, int] = (0, 1)
    """(number, of how many): draw from this share of the rows."""
    layers: tuple[str, ...] = ()
    """Modules whose outputs are its stage maps."""
    keeps_canonical: bool = False
    """Its batches bring canonical inputs, for peers with another preprocess."""
    recipe_key: str = ""


ALONE = Membership()


@dataclass(frozen=True, eq=False)
class Run:
    """One training of one network; picklable, and itself alone.

    `train.steps` is what the pipeline resolved with the student's rows; the control's run gets the same.
    """

    name: str
    """Inside its stage: `student/seed-0`."""
    folder: Path
    """Becomes a model folder with `result.json` and a seal."""
    stage: Path
    """Folder of the stage; `metrics.jsonl` lies in it."""
    stage_name: str
    """`distill/small`."""
    model: str
    arguments: Mapping[str, Any]
    preprocess: Preprocess
    objective: tuple[Term | CohortTerm, ...]
    train: TrainConfig
    seed: int
    transfer_set: Path
    sources: tuple[Source, ...] = ()
    labelled_only: bool = False
    """Draw from the labelled rows only: controls and teachers."""
    user_path: Path = Path()
    trust: tuple[str, ...] = ()
    membership: Membership = ALONE
    """Of a cohort."""

    @property
    def key(self) -> str:
        """Of the recipe: `students.small`, `teachers.wide`, `cohorts.trio.members.a`."""
        kind, _, name = self.stage_name.partition("/")
        return self.membership.recipe_key or f"{'teachers' if kind == 'train_teacher' else 'students'}.{name}"

    @property
    def networks(self) -> tuple["Run", ...]:
        """What it trains: itself; a cohort's run has several."""
        return (self,)

    @property
    def view_seed(self) -> int:
        """Of augmentation."""
        return self.draw_seed if self.membership.own_views else self.seed

    @property
    def draw_seed(self) -> int:
        """Of initial weights and dropout; the first member's, and a student's, is the seed itself."""
        number = self.membership.number
        return xxhash.xxh3_64_intdigest(b"%d member %d" % (self.seed, number)) >> 1 if number else self.seed


@dataclass(frozen=True, eq=False)
class CohortRun:
    """One training of a cohort: its members take their steps together; picklable."""

    name: str
    """Inside its stage: `seed-0`, `control/seed-0`."""
    members: tuple[Run, ...]
    """With one folder each; their `train` differs in nothing but what a member may override."""
    config: CohortConfig
    exchange: bool = True
    """False: the members train beside each other and say nothing, as controls do."""

    @property
    def networks(self) -> tuple[Run, ...]:
        return self.members

    @property
    def stage(self) -> Path:
        return self.members[0].stage

    @property
    def stage_name(self) -> str:
        return self.members[0].stage_name

    @property
    def key(self) -> str:
        return self.members[0].key.rpartition(".members.")[0]


@dataclass(frozen=True)
class RunResult:
    """What a sealed run folder says of its training."""

    name: str
    folder: Path
    seed: int
    steps: int
    """Optimiser steps taken: the budget, or less when it stopped early."""
    best_step: int
    """Step whose weights were kept."""
    validation: Mapping[str, float] | None
    """`accuracy` and `nll` at `best_step`; None without a labelled validation row."""


SHOWN = {
    "train.loss": "collegium_training_loss",
    "validation.accuracy": "collegium_validation_accuracy",
    "validation.nll": "collegium_validation_nll",
}
"""Curves that Prometheus has too."""


class Record(TypedDict):
    """One point of a curve."""

    stage: str
    run: str
    step: int
    key: str
    value: float
    time: float


class LiveTeachers(Protocol):
    """Who answers for the live teachers; `teachers.live.ReplicaClient` on a Ray cluster."""

    def ask(self, teachers: Sequence[str], inputs: Mapping[str, np.ndarray], sample_key: np.ndarray) -> Any:
        """Ask all of `teachers` about canonical inputs; does not wait."""

    def answers(self, asked: Any) -> Mapping[str, np.ndarray]:
        """Logits f32 `[rows, C]` of each of them, in its own classes."""


class Session(Protocol):
    """A process among `world` that train the same network together."""

    rank: int
    world: int
    device: torch.device
    live: LiveTeachers | None

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        """Keep points of curves; called by rank 0, never waits."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward averages gradients over all ranks."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""

    def agree(self, value: T) -> T:
        """Rank 0's value, on every rank."""

    def everyone(self, value: T) -> list[T]:
        """The value of each rank, in order."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape, `[world, ...]`."""

    def part(self, groups: tuple[tuple[int, ...], ...]) -> "Session":
        """The session of the group that this rank is in; every rank calls it with the same groups of all ranks."""


def append_metrics(run: Run | CohortRun, records: Sequence[Record]) -> None:
    """Add points to the stage's `metrics.jsonl`, in one write; of two points for one (run, step, key) the last counts."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    file = metrics_file(run.stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(lines)


def metrics_file(stage: Path) -> Path:
    """Where this process adds points: in an object store, which cannot be appended to, each has a file of its own."""
    return stage / "metrics.jsonl" if remote_of(stage) is None else stage / CURVES / f"{WRITER}.jsonl"


def keep_metrics(stage: Path) -> None:
    """Let the storage have the points so far; before each checkpoint, so that what follows on it misses none."""
    if remote_of(stage) is not None and (file := metrics_file(stage)).exists():
        mirror.put(file)


def gather_metrics(stage: Path) -> None:
    """Add what all processes have left of curves to the stage's `metrics.jsonl`, once each."""
    if remote_of(stage) is None:
        return
    whole = stage / "metrics.jsonl"
    mirror.bring(whole)
    mirror.pull(stage / CURVES)
    known = set(whole.read_text("utf-8").splitlines()) if whole.exists() else set()
    found = [line for file in sorted((stage / CURVES).glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    with whole.open("a", encoding="utf-8") as opened:
        opened.write("".join(f"{line}\n" for line in found if line not in known))
    mirror.put(whole)


def deliver_records(mailbox: Any, run: Run | CohortRun, records: Sequence[Record]) -> None:
    """Keep points of curves in the stage's file, and send them to the tracker and to Prometheus if they are there."""
    append_metrics(run, records)
    shown = [record for record in records if record["key"] in SHOWN]
    for record in shown:
        prometheus.show(SHOWN[record["key"]], record["value"], stage=record["stage"], training=record["run"])
    for record in shown[:1]:
        prometheus.show("collegium_training_steps", record["step"], stage=record["stage"], training=record["run"])
    if mailbox is not None:
        mailbox.put.remote(list(records))


class PlainSession:
    """This process, alone. `mailbox` is an actor handle whose `put` takes points of curves, or None."""

    rank = 0
    world = 1

    def __init__(
        self, device: torch.device | str = "cpu", mailbox: Any = None, live: LiveTeachers | None = None
    ) -> None:
        self.device = torch.device(device)
        self.mailbox = mailbox
        self.live = live

    def report(self, run: Run | CohortRun, records: Sequence[Record]) -> None:
        deliver_records(self.mailbox, run, records)

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def agree(self, value: T) -> T:
        return value

    def everyone(self, value: T) -> list[T]:
        return [value]

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]

    def part(self, groups: tuple[tuple[int, ...], ...]) -> "Session":
        return self
