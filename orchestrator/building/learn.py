"""How students and cohorts learn: every training in a turn of its own as soon as what it hears is there, sealed when it ends.

Trainings of one key are one, whoever asks for it: two students may share a control.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from students.config.cohort import CohortCommon
from teachers.process.waiting import SideBySide, outcome
from teachers.storage.seal import Seal, digest_of

from ..stages.stages import Built, Stage
from ..stages.trainings import Kind, training_stages
from .cohorts import run_of_cohort
from .context import Begun, Context, Facts, Taught, networks_read, segments_heard, sources
from .fit import budgets_of, fit_runs, live_teachers, seal_all, starts_alone
from .follow import follow, warn_of_other_labels
from .learned import Learned
from .train import needs, training_of
from .turns import Turn, Turns
from .works import gang_of

if TYPE_CHECKING:
    from students.runs.run import CohortRun, Run, Source


@dataclass(frozen=True, eq=False)
class Training:
    """One stage that is to be trained: of whom, and how its run is made in the stage's folder."""

    stage: Stage
    learner: str
    live: bool
    """Whether it asks live teachers."""
    taught: Mapping[str, Future[Taught]] | None
    """Of one that follows its teachers: these, when they have labelled and are judged."""
    make: "Callable[[Path], Run | CohortRun]"


class Learners:
    """All students and cohorts of a run. Safe to use from several threads."""

    def __init__(self, context: Context, turns: Turns, threads: SideBySide, prepared: Built) -> None:
        self.context, self.turns, self.threads, self.prepared = context, turns, threads, prepared
        self.taught: dict[str, Taught] = {}
        """Who has labelled, of those whom somebody hears who waited for them."""
        self._lock = Lock()
        self._asked: dict[str, Future[Built]] = {}
        """By the stage's key."""

    def learn(
        self, name: str, taught: Mapping[str, Future[Taught]], begun: Mapping[str, Future[Begun]] | None = None
    ) -> Learned:
        """Train one, and its controls, which hear nobody. `taught`: its teachers, when they have labelled and are judged; `begun`:
        of one that follows them, when their first labels are there."""
        recipe, prepared = self.context.recipe, self.prepared
        config = recipe.learners[name]
        alone = training_stages(recipe, name, prepared.digest, None) if config.teachers else {}
        waiting = {training: self._start(name, *training, stage, ()) for training, stage in alone.items()}
        heard: dict[str, Taught | Begun]
        if begun is None:
            self.taught |= (all_said := {teacher: outcome(future) for teacher, future in taught.items()})
            heard = {**all_said}
        else:
            heard = {teacher: outcome(future) for teacher, future in begun.items()}
        segments = segments_heard(recipe, prepared, config)
        labels = {teacher: each.digests(segments) for teacher, each in heard.items()}
        stages = training_stages(recipe, name, prepared.digest, labels, networks_read(config, heard))
        said = sources(recipe, config, heard, segments)
        for training, stage in stages.items():
            if training not in waiting:
                waiting[training] = self._start(name, *training, stage, said, None if begun is None else taught)
        built = {training: self._shared(stage, outcome(waiting[training])) for training, stage in stages.items()}
        if begun is not None:
            digests = [outcome(each).digests(segments) for each in taught.values()]
            for training, each in built.items():
                if training not in alone:
                    warn_of_other_labels(each, digests)
        if not all(each.reused for each in built.values()):
            self.context.tracker.stage_done(f"distill/{name}")
        return Learned(built)

    def in_order(self, learnt: Mapping[str, Learned]) -> dict[str, Learned]:
        """The same, as if they had been trained one after the other: of those with one key the first one's was built."""
        firsts, found = dict[str, Built](), dict[str, Learned]()
        for name, learned in learnt.items():
            trainings = {}
            for training, built in learned.trainings.items():
                mine = replace(self._asked[built.stage.key].result(), stage=built.stage)
                first = firsts.setdefault(built.stage.key, mine)
                trainings[training] = mine if first is mine or mine.reused else first.shared(built.stage)
            found[name] = Learned(trainings)
        return found

    def _shared(self, stage: Stage, built: Built) -> Built:
        """Of a stage whose key was another's, too, that was asked for before."""
        return built if built.stage.title == stage.title else self.context.stages.shared(stage, built)

    def _start(
        self,
        name: str,
        kind: Kind,
        seed: int,
        stage: Stage,
        heard: "tuple[Source, ...]",
        taught: Mapping[str, Future[Taught]] | None = None,
    ) -> "Future[Built]":
        recipe, live = self.context.recipe, kind != "control" and bool(self.context.recipe.live_teachers(name))
        make = run_of_cohort if name in recipe.cohorts else training_of
        wanted = Training(stage, name, live, taught, partial(self._made, make, name, kind, seed, heard))
        with self._lock:
            if stage.key not in self._asked:
                self._asked[stage.key] = self._trained(wanted, kind)
            return self._asked[stage.key]

    def _made(self, make: Any, name: str, kind: Kind, seed: int, heard: Any, folder: Path) -> "Run | CohortRun":
        made: Run | CohortRun = make(self.context, name, kind, seed, self.prepared, folder, heard)
        return made

    def _trained(self, wanted: Training, kind: Kind) -> "Future[Built]":
        context = self.context
        if context.stages.is_there(wanted.stage):
            there: Future[Built] = Future()
            there.set_result(context.stages.build(wanted.stage, _nothing))
            return there
        folder = context.stages.folder(wanted.stage)
        context.journal.waits(wanted.stage, folder)
        context.journal.work(f"distill/{wanted.learner}", trainings=budgets_of(wanted.make(folder)))
        gang = gang_of(context.recipe, wanted.learner, kind, context.cluster.in_reach)
        if wanted.taught is not None:
            context.journal.work(f"distill/{wanted.learner}", follows=[*wanted.taught])
            return self.threads.start(follow, context, self.turns, gang, self.prepared, wanted)
        return self.turns.start(wanted.stage.title, gang, self._train, wanted, self._group(wanted))

    def _group(self, wanted: Training) -> str:
        """Those with equal needs that hear the same live teachers share them and a group of workers; a cohort has its own."""
        recipe, config = self.context.recipe, self.context.recipe.learners[wanted.learner]
        if starts_alone(config) and not wanted.live:
            return ""
        own = wanted.learner if isinstance(config, CohortCommon) else needs(config)
        return digest_of([own, recipe.live_teachers(wanted.learner) if wanted.live else []])

    def _train(self, wanted: Sequence[Training], turn: Turn) -> list[Built]:
        mine = {each.stage: each for each in wanted}
        built = self.context.stages.build_together([*mine], partial(self._fit, mine, turn))
        return [built[stage] for stage in mine]

    def _fit(
        self, mine: Mapping[Stage, Training], turn: Turn, folders: Mapping[Stage, Path]
    ) -> dict[Stage, tuple[Seal, Facts]]:
        began = time.time()
        runs = {stage: training.make(folders[stage]) for stage, training in mine.items() if stage in folders}
        learners = list(dict.fromkeys(mine[stage].learner for stage in runs))
        live = any(mine[stage].live for stage in runs)
        asking = live_teachers(self.context, self.prepared, self.taught, learners) if live else nullcontext()
        with asking as replicas:
            config = self.context.recipe.learners[learners[0]]
            results = fit_runs(self.context, [*runs.values()], config, turn, replicas)
        trained = {stage: [results[network.folder] for network in run.networks] for stage, run in runs.items()}
        return seal_all(folders, trained, began, turn.on)


def _nothing(folder: Path) -> tuple[Seal, Facts]:
    raise AssertionError(f"{folder} was sealed a moment ago")
