"""What a training is asked to do (`Run`, `CohortRun`), and what comes of it (`RunResult`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import xxhash

from teachers.config.any_teacher import CalibrateName
from teachers.config.outputs import NamedOutput
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.soft_targets.class_map import ClassMap
from teachers.transfer_set.folds import Folds
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.imports import UserPath

from ..config.cohort import CohortConfig
from ..config.cohort_terms import CohortTerm
from ..config.energy import Energy
from ..config.hints import Hint
from ..config.hydra import Hydra
from ..config.init import Init
from ..config.terms import Term

T = TypeVar("T")


@dataclass(frozen=True)
class Live:
    """Of a teacher that is asked while the student trains: what it scores, and how many batches ahead it is asked."""

    classes: tuple[str, ...]
    prefetch: int = 4


@dataclass(frozen=True)
class Source:
    """One teacher of a run: a store per train segment, complete unless the run follows, and how its classes map to the transfer set's."""

    name: str
    stores: Mapping[str, Path]
    class_map: ClassMap | None = None
    probability_floor: float = 1e-3
    live: Live | None = None
    """Then it has no stores of train segments."""
    calibrate: CalibrateName | None = None
    """By labelled validation rows, whose stores it then has too; where there are none, by the training rows of who labels
    these out of fold."""
    out_of_fold: bool = False
    """No row is labelled by who has learnt it."""
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """What it gives besides its answer, by name: the shape of a row."""
    layers: Mapping[str, NamedOutput] = field(default_factory=dict)
    """Of the same, which layer of its network each is."""
    network: Path | None = None
    """Its model folder, where it has one: for who begins with its weights, or reads its last layer."""


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
    """Of `students.objective.peer_targets.PEER_RULES`."""
    share_of_rows: tuple[int, int] = (0, 1)
    """(number, of how many): draw from this share of the rows."""
    layers: tuple[str, ...] = ()
    """Modules whose outputs are its stage maps."""
    keeps_canonical: bool = False
    """Its batches bring canonical inputs, for peers with another preprocess."""
    recipe_key: str = ""


ALONE = Membership()


@dataclass(frozen=True)
class Estimator:
    """Of a run that fits an estimator at once: how it takes what it is taught."""

    learns: Literal["probabilities", "logits"]
    least_weight: float
    probability_floor: float
    trusted: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """One training of one network, or estimator; picklable, and itself alone.

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
    teaches: bool = False
    """Of a teacher: the rows that teachers have for themselves are its, too."""
    classes: tuple[str, ...] = ()
    """What it learns to tell apart, of the transfer set's classes; empty: all of them, in their order."""
    user_path: UserPath = Path()
    trust: tuple[str, ...] = ()
    membership: Membership = ALONE
    """Of a cohort."""
    estimator: Estimator | None = None
    """Then it takes one step, and of `train` class weights alone count. None: a network."""
    hints: tuple[Hint, ...] = ()
    """Of a student."""
    hydra: Hydra | None = None
    """Of a student with a head for each of `sources`; None: it has one."""
    energy: Energy | None = None
    """Which unlabelled rows count, by a teacher's logits; None: all."""
    init: Init | None = None
    """With whose weights it begins, one of `sources`; None: with weights of chance."""
    views: Viewing | None = None
    """In which training rows are seen; None: as they are, as teachers see them that are trained here."""
    follow: bool = False
    """Learn while the teachers label, from the rows that all of them have labelled."""
    part: tuple[Folds, int] | None = None
    """Of a teacher in folds: how its rows are divided, and the number of the part, which learns all but its own fold."""

    @property
    def by_name(self) -> dict[str, "Source"]:
        """Its sources."""
        return {source.name: source for source in self.sources}

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
    validation: Mapping[str, float | None] | None
    """What the look at `best_step` found, by key: `LOOKS` of the task; None without a labelled validation row."""
