"""What everybody who teaches or learns would take: rows, bytes, seconds of a CPU and a GPU; and whether a teacher is cheaper cached or live.

Seconds are those of an earlier run in OUT, else of the batch that `--check` tried; where there is neither, nobody knows. Whole
stages are priced, also what is there already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from students.config.cohort import CohortCommon
from students.config.estimator import EstimatorStudent
from teachers.config.resources import Resources
from teachers.config.teacher import TeacherConfig
from teachers.config.training import TrainConfig

from ..building.estimates import bytes_of_an_answer
from ..building.works import Lengths
from ..cluster.capacity import request_of, workers_of
from ..cluster.gangs import GANGS
from ..recipe.model import Recipe, is_trained_here
from ..stages.trainings import kinds_of
from .budgets import Rows
from .outputs import Shapes, bytes_a_row
from .placement import Places, fitting
from .rehearsed import Timed

How = Literal["an earlier run", "a batch that was tried"]
WEIGHT_BYTES = 4
COPIES = 1 + 2 * 4
"""Of the weights of a training: what it delivers, and in each of two checkpoints they, the best ones and AdamW's two moments."""
TRIES = "`--check` times it"


@dataclass(frozen=True)
class Passes:
    """Answers about training rows: from a cache, in which each row of each view is answered once, or live, in every training."""

    cached: int
    live: int

    @property
    def factor(self) -> float:
        """Live for one that is cached."""
        return self.live / self.cached if self.cached else 0.0


@dataclass(frozen=True)
class Price:
    """Of a stage's work, in all. `cpu_s`, `gpu_s`: of what it asks for, as long as it has it; `wall_s`: with all that is side by side."""

    work: str
    wall_s: float | None = None
    cpu_s: float | None = None
    gpu_s: float | None = None
    how: How | None = None
    """Of whom the seconds are; None: nobody knows them."""
    why: str = ""
    """Why not."""


@dataclass(frozen=True)
class TeacherPrice(Price):
    rows: int | None = None
    """Answers that are asked for, of all views."""
    views: int = 1
    row_bytes: int | None = None
    bytes: int | None = None
    """Of its stores."""
    row_s: float | None = None
    replicas: int = 1
    """Side by side here, of those that the recipe has."""
    passes: Passes | None = None


@dataclass(frozen=True)
class LearnerPrice(Price):
    steps: int | None = None
    trainings: int = 0
    """With controls; of a search its trials, at most."""
    step_s: float | None = None
    bytes: int | None = None
    """Of networks and of the two checkpoints of each training that goes on, if all did at once."""


@dataclass(frozen=True)
class Prices:
    """Of a plan."""

    teachers: Sequence[TeacherPrice] = ()
    learners: Sequence[LearnerPrice] = ()

    def record(self) -> dict[str, Any]:
        teachers = [
            vars(each)
            | {"passes": None if each.passes is None else {**vars(each.passes), "factor": each.passes.factor}}
            for each in self.teachers
        ]
        return {"teachers": teachers, "learners": [{**vars(each)} for each in self.learners]}


@dataclass(frozen=True)
class Pricing:
    """What prices are made of. `names`: of classes or numbers, None while nobody knows; `timed`: by earlier runs; `tried`: by
    `--check`, as the number of `parameters` of networks."""

    recipe: Recipe
    nodes: Places
    rows: Rows | None
    names: Sequence[str] | None
    outputs: Shapes
    timed: Mapping[str, float]
    tried: Mapping[str, Timed]
    parameters: Mapping[str, int]

    @cached_property
    def lengths(self) -> Lengths:
        """Earlier runs know best; of who would have a GPU only what was tried on one counts."""
        found = {work: length for work, each in self.tried.items() if (length := self._length(work, each)) is not None}
        if self.rows is None:
            return Lengths(timed=found | dict(self.timed))
        return Lengths(self.rows.by_split["train"], self.rows.labelled["train"], found | dict(self.timed))

    def _length(self, work: str, tried: Timed) -> float | None:
        """As of `timed_in`."""
        kind, name = work.split("/")
        on_gpu = self._request(GANGS[kind](self.recipe, name)[0][2]).get("GPU", 0) > 0
        if on_gpu != (tried.device == "cuda") or (kind == "label" and self.rows is None):
            return None
        return tried.seconds * self._answers(name) / self._replicas(name) if kind == "label" else tried.seconds

    def _request(self, resources: Resources) -> dict[str, float]:
        return request_of([*self.nodes.values()], resources)

    def _places(self, resources: Resources) -> int:
        request = self._request(resources)
        return sum(fitting(request, node) for node in self.nodes.values())

    def all(self) -> Prices:
        trained = [name for name, each in self.recipe.teachers.items() if is_trained_here(each)]
        learners = [*map(self._training, trained), *map(self._learner, self.recipe.learners)]
        return Prices([*map(self._teacher, self.recipe.teachers)], learners)

    def _teacher(self, name: str) -> TeacherPrice:
        config, work = self.recipe.teachers[name], f"label/{name}"
        more = bytes_a_row(self.outputs.get(name, {}))
        a_row = bytes_of_an_answer(self.recipe, name, self.names, more) if self.names is not None else None
        about: dict[str, Any] = {"views": self._views, "row_bytes": a_row}
        if self.rows is None:
            return TeacherPrice(work, why="how many rows there are is known after `prepare`", **about)
        answers, wall_s, replicas = self._answers(name), self.lengths.timed.get(work), self._replicas(name)
        about |= {
            "rows": answers,
            "bytes": a_row and answers * a_row,
            "replicas": replicas,
            "passes": self._passes(name),
        }
        if wall_s is None:
            return TeacherPrice(work, why=self._or_elsewhere(work, _why(config)), **about)
        busy_s = wall_s * replicas
        return TeacherPrice(
            work, *self._took(work, wall_s, busy_s, config.resources), row_s=busy_s / max(answers, 1), **about
        )

    def _took(self, work: str, wall_s: float, busy_s: float, resources: Resources) -> tuple[float, float, float, How]:
        """`busy_s`: of all replicas or workers together."""
        request = self._request(resources)
        how: How = "an earlier run" if work in self.timed else "a batch that was tried"
        return wall_s, busy_s * request.get("CPU", 0), busy_s * request.get("GPU", 0), how

    def _or_elsewhere(self, work: str, why: str) -> str:
        tried = self.tried.get(work)
        return why if tried is None else f"tried on {tried.device}, where it will not run"

    @property
    def _views(self) -> int:
        return max(self.recipe.transfer_set.views, 1)

    def _answers(self, name: str) -> int:
        """About training rows in all views, and all others; of a live teacher about these alone."""
        assert self.rows is not None
        train = self.rows.by_split["train"]
        others = sum(self.rows.by_split.values()) - train
        return others + (self._views * train if self.recipe.teachers[name].mode == "cached" else 0)

    def _replicas(self, name: str) -> int:
        """That find room together, one at least: else nothing is labelled."""
        config = self.recipe.teachers[name]
        return max(1, min(config.labelled_by.max, self._places(config.resources)))

    def _passes(self, name: str) -> Passes | None:
        """None where nobody who takes steps hears it."""
        assert self.rows is not None
        train, live = self.rows.by_split["train"], 0
        for learner, config in self.recipe.learners.items():
            if name in config.teachers and not isinstance(config, EstimatorStudent):
                steps = self.lengths.steps(config.train, train)
                hearing = sum(kind != "control" for kind in kinds_of(config)) * len(config.train.seeds)
                live += (steps or 0) * config.train.batch_size * (hearing + self._trials(learner))
        return Passes(self._views * train, live) if live else None

    def _trials(self, learner: str) -> int:
        search = self.recipe.search
        return search.trials if search is not None and search.student == learner else 0

    def _learner(self, name: str) -> LearnerPrice:
        config = self.recipe.learners[name]
        trainings = len(config.train.seeds) * len(kinds_of(config)) + self._trials(name)
        why = TRIES
        if isinstance(config, EstimatorStudent):
            why = "how long an estimator takes, all rows tell"
        elif isinstance(config, CohortCommon):
            why = "what members take together, only a run tells"
        elif self.recipe.live_teachers(name):
            why = "its steps wait for live teachers"
        return self._trainings(f"distill/{name}", config, self.lengths.rows, trainings, why)

    def _training(self, name: str) -> LearnerPrice:
        config = self.recipe.teachers[name]
        folds = getattr(getattr(config, "train", None), "folds", None) or 0
        why = TRIES if config.kind == "module" else "how long an estimator takes, all rows tell"
        return self._trainings(f"train_teacher/{name}", config, self.lengths.labelled, max(folds, 1), why)

    def _trainings(self, work: str, config: Any, rows: int | None, trainings: int, why: str) -> LearnerPrice:
        takes_steps = isinstance(config.train, TrainConfig)
        steps = self.lengths.steps(config.train, rows) if takes_steps else None
        each = self.parameters.get(work)
        size = None if each is None else trainings * each * WEIGHT_BYTES * COPIES
        about: dict[str, Any] = {"steps": steps, "trainings": trainings, "bytes": size}
        took = self.lengths.timed.get(work)
        if took is None or (takes_steps and steps is None):
            return LearnerPrice(work, why=self._or_elsewhere(work, why), **about)
        alone_s, workers = took if steps is None else took * steps, workers_of(config)
        side_by_side = max(1, min(trainings, self._places(config.resources) // workers))
        wall_s, busy_s = alone_s * -(-trainings // side_by_side), alone_s * trainings * workers
        step_s = None if steps is None else took
        return LearnerPrice(work, *self._took(work, wall_s, busy_s, config.resources), step_s=step_s, **about)


def _why(config: TeacherConfig) -> str:
    if config.kind == "predictions":
        return "its answers are read from files"
    if config.kind == "endpoint":
        return "it is asked elsewhere"
    if config.kind == "sklearn" and config.weights is None:
        return "it is fitted first"
    return TRIES
