"""Everybody who learns, tried on a batch of real rows and of what its teachers say, by one step of the engine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from students.config.cohort import CodistillationCohort, CohortCommon, CohortConfig
from students.config.estimator import EstimatorStudent
from students.config.hints import weighed_by_label
from students.config.student import StudentConfig
from teachers.config.teacher import CheckpointTeacher, ModuleTeacher
from teachers.errors import CollegiumError
from teachers.resources.bundles import num_threads
from teachers.users_code.imports import UserPath

from ..building.train import teacher_run
from ..cluster.capacity import workers_of
from ..recipe.model import Recipe
from ..recipe.space import applied, extremes, validated
from ..stages.trainings import kinds_of, views_of_learner
from .rehearsed import BATCH_SIZE, STEPS_TIMED, Rehearsed, device_of, note_idle

if TYPE_CHECKING:
    from students.fitting.rehearsal import Tried
    from students.runs.run import Run, Source
    from teachers.transfer_set.transfer_set import TransferSet

TRIED = ("model", "arguments", "preprocess", "objective", "hints", "hydra")
"""Parts of a student that a search may change, and a step of a training tells of."""


@dataclass
class Learning:
    """Those who learn, each tried."""

    recipe: Recipe
    few: "TransferSet"
    folder: Path
    user_path: UserPath
    found: Rehearsed
    sources: "dict[str, Source]"

    def student(self, name: str, config: StudentConfig | EstimatorStudent) -> None:
        for kind in kinds_of(config):
            if kind == "offline" or (kind == "control" and not self.few.num_labelled):
                continue
            before = len(self.found.problems)
            with self.found.told(f"students.{name}", config.resources):
                is_timed = kind == "student" and not self.recipe.live_teachers(name)
                tried = self._try(name, config, kind, num_threads(config.resources) if is_timed else None)
                note_idle(self.found, f"students.{name}", tried.idle if kind == "student" else [], workers_of(config))
                if is_timed and isinstance(config, StudentConfig):
                    self._time(name, config, tried)
            if len(self.found.problems) > before:
                return  # its control would tell the same

    def _try(
        self,
        name: str,
        config: StudentConfig | EstimatorStudent,
        kind: Literal["student", "control"],
        threads: int | None = None,
    ) -> "Tried":
        """One step; `threads`: timed with so many."""
        from students.fitting.rehearsal import rehearse, shortened
        from students.runs.of_student import student_run

        if isinstance(config, EstimatorStudent):
            run = student_run(kind, config, config.train.seeds[0], sources=self._heard(config), **self._common(name))
            return rehearse(run, device_of(config.resources))
        short = self._begins(name, config.model_copy(update={"train": shortened(config.train, BATCH_SIZE)}))
        run = student_run(kind, short, config.train.seeds[0], sources=self._heard(config), **self._common(name))
        return rehearse(run, device_of(config.resources), threads)

    def _time(self, name: str, config: StudentConfig, tried: "Tried") -> None:
        """A step of one worker: of its batch, where that does not take long, else as much as so many more rows."""
        from students.fitting.rehearsal import shortened
        from students.runs.of_student import student_run

        def run(share: int) -> "Run":
            short = self._begins(name, config.model_copy(update={"train": shortened(config.train, share, STEPS_TIMED)}))
            return student_run(
                "student", short, config.train.seeds[0], sources=self._heard(config), **self._common(name)
            )

        share = config.train.batch_size // workers_of(config)
        self.found.time_steps(f"distill/{name}", tried, share, config.resources, run)

    def _begins(self, name: str, config: StudentConfig) -> StudentConfig:
        """The student, with model folders of those whose weights it begins with or whose last layer it reads; where nobody can know
        what is in one yet, without `init` and with hints that count alike."""
        for teacher in config.reads_networks_of:
            folder = self._network(teacher, self.folder / "networks" / name / teacher)
            if folder is None:
                alike = [
                    hint.model_copy(update={"combine": None, "after_passes": None})
                    if weighed_by_label([hint])
                    else hint
                    for hint in config.hints
                ]
                return config.model_copy(update={"init": None, "hints": alike})
            self.sources[teacher] = replace(self.sources[teacher], network=folder)
        return config

    def _network(self, name: str, folder: Path) -> Path | None:
        """A model folder: the one that is brought, or what a training would make, with weights of chance."""
        from students.fitting.rehearsal import at_chance, shortened
        from students.runs.of_student import student_run

        brought, learner = self.recipe.teachers.get(name), self.recipe.students.get(name)
        if isinstance(brought, CheckpointTeacher):
            return Path(brought.path)
        if isinstance(brought, ModuleTeacher) and brought.train is not None and self.few.num_labelled:
            common = {key: value for key, value in self._common(name).items() if key not in ("stage", "stage_name")}
            run = teacher_run(name, brought, shortened(brought.train, BATCH_SIZE), **common)
            return at_chance(run, folder)
        if isinstance(learner, StudentConfig):
            short = learner.model_copy(update={"train": shortened(learner.train, BATCH_SIZE)})
            heard = self._heard(learner)
            run = student_run("student", short, learner.train.seeds[0], sources=heard, **self._common(name))
            return at_chance(run, folder)
        return None

    def cohort(self, name: str, config: CohortConfig) -> None:
        from students.fitting.rehearsal import STEPS, rehearse_together, shortened
        from students.runs.of_cohort import member_runs

        at_once = {"exchange_every": 1, "burn_in": 0} if isinstance(config, CodistillationCohort) else {}
        short = config.model_copy(update={"train": shortened(config.train, BATCH_SIZE, STEPS), **at_once})
        seed = config.train.seeds[0]
        with self.found.told(f"cohorts.{name}", config.resources):
            run = member_runs(name, short, seed, sources=self._heard(config), **self._common(name))
            rehearse_together(run, device_of(config.resources))

    def _heard(self, config: StudentConfig | EstimatorStudent | CohortCommon) -> "tuple[Source, ...]":
        return tuple(self.sources[teacher] for teacher in config.teachers)

    def _common(self, name: str) -> dict[str, Any]:
        folder, learner = self.folder / "students" / name, self.recipe.learners.get(name)
        return {
            "folder": folder,
            "stage": folder,
            "stage_name": f"distill/{name}",
            "transfer_set": self.few.folder,
            "views": None if learner is None else views_of_learner(self.recipe, learner),
            "user_path": self.user_path,
            "trust": self.recipe.trusted(),
        }

    def trials(self, name: str, config: StudentConfig | EstimatorStudent) -> None:
        """The first and the last value of each setting of a search, the others as they stand: what a trial would end with."""
        assert self.recipe.search is not None
        for path, entry in self.recipe.search.space.items():
            for value in extremes(entry) if path.startswith(TRIED) or path == "train.augment" else []:
                try:
                    changed = validated(config, applied(config.model_dump(mode="json"), {path: value}))
                    assert not isinstance(changed, CohortCommon)
                    self._try(name, changed, "student")
                except ValidationError:
                    continue  # it does not go with the others as they stand
                except CollegiumError as error:
                    self.found.notes.append(f"search.space.{path}: a trial with {value!r} would fail: {error}")
