"""One batch of real rows through everybody who teaches or learns, by the engine's own code: what `plan --check` does.

Who is brought is loaded and asked; an estimator is fitted on some rows; a network takes a step's forward, objective and
backward. What teachers that are trained here would say is made up. Everything lies in a folder that is gone afterwards.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.cohort import CodistillationCohort, CohortCommon, CohortConfig
from students.config.student import StudentConfig
from teachers.config.resources import Resources
from teachers.config.teacher import CheckpointTeacher, ModuleTeacher, SklearnTeacher, TeacherConfig
from teachers.errors import CollegiumError, EnvironmentUnfit, UsersCodeError
from teachers.users_code.calls import KEY
from teachers.users_code.imports import UserPath

from ..building.train import teacher_run
from ..cluster.capacity import workers_of
from ..recipe.model import Recipe, is_trained_here
from ..stages import keys
from ..stages.trainings import kinds_of
from .memory import in_units

if TYPE_CHECKING:
    import numpy as np

    from students.runs.run import Source
    from teachers.preparing.sample import Sample
    from teachers.transfer_set.transfer_set import TransferSet

ASKED_ROWS = 16
FITTED_ROWS = 512
"""On which an estimator is tried."""
BATCH_SIZE = 8
WHATEVER_THE_ROWS = ("InvalidParameterError", "TypeError", "AttributeError", "ImportError")
"""What an estimator complains of on any rows; else it may be of the few that it is tried on."""
PARAMETERS_NAMED = 3
TIMES_ITS_SIZE = 3
"""Of a file of weights: itself, the network, what it computes."""


@dataclass
class Rehearsed:
    """What would end a run, and what is worth knowing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def told(self, where: str, resources: Resources) -> Iterator[None]:
        """What goes wrong inside is a problem of the part of the recipe that is called `where`.

        Of who asks for a GPU, where there is none, it is a note: the code may need one.
        """
        try:
            yield
        except EnvironmentUnfit:
            raise
        except CollegiumError as error:
            said = str(error).strip()
            joint = "." if KEY.match(said) else ": "
            told = said if said.startswith(where) else f"{where}{joint}{said}"
            if isinstance(error, UsersCodeError) and wants_gpu(resources) and device_of(resources) == "cpu":
                self.notes.append(f"could not be tried without a GPU: {told}")
            else:
                self.problems.append(told)


def wants_gpu(resources: Resources) -> bool:
    return resources.gpus != "auto" and resources.gpus > 0


def device_of(resources: Resources) -> str:
    """A GPU for who asks for one by number, where this machine has one."""
    import torch

    return "cuda" if wants_gpu(resources) and torch.cuda.is_available() else "cpu"


def rehearse(recipe: Recipe, rows: "Sample", user_path: UserPath) -> Rehearsed:
    """Try everybody on `rows`. Raises EnvironmentUnfit for what this machine lacks."""
    from teachers.preparing.sample import as_transfer_set

    found = Rehearsed()
    with tempfile.TemporaryDirectory(prefix="collegium-check-") as folder:
        some = recipe.transfer_set.labelled is not None
        few = as_transfer_set(rows.take(ASKED_ROWS), Path(folder) / "few", some_unlabelled=some)
        teaching = _Teaching(recipe, few, rows, Path(folder), user_path, found)
        sources = {name: teaching.source(name, config) for name, config in recipe.teachers.items()}
        for name in recipe.assistants():
            sources[name] = teaching.made_up(name, keys.assistant_as_teacher(recipe, name, ""), few.classes)
        learning = _Learning(recipe, few, Path(folder), user_path, found, sources)
        for name, student in recipe.students.items():
            learning.student(name, student)
        for name, cohort in recipe.cohorts.items():
            learning.cohort(name, cohort)
    return found


@dataclass
class _Teaching:
    """Those who teach, each tried."""

    recipe: Recipe
    few: "TransferSet"
    rows: "Sample"
    folder: Path
    user_path: UserPath
    found: Rehearsed

    def source(self, name: str, config: TeacherConfig) -> "Source":
        """What a student hears: the teacher's own answers, or made up ones of who has none yet."""
        anything = config.model_copy(update={"class_map": None})
        if size := too_large(config):
            self.found.notes.append(f"teachers.{name}: not tried, this machine has no room for its weights of {size}")
            return self.made_up(name, anything, self.few.classes)
        with self.found.told(f"teachers.{name}", config.resources):
            if not is_trained_here(config):
                classes, logits = self._asked(name, config, None)
                return self._store(name, config, classes, logits)
            own = tuple(config.classes or self.few.classes)
            if isinstance(config, ModuleTeacher):
                self._trained(name, config)
            elif isinstance(config, SklearnTeacher):
                self._fitted(name, config)
            return self.made_up(name, config, own)
        return self.made_up(name, anything, self.few.classes)

    def _asked(self, name: str, config: TeacherConfig, trained: Path | None) -> "tuple[tuple[str, ...], np.ndarray]":
        """Its classes, and what it says of the rows, as a replica asks it."""
        from teachers.labelling.shard import TeacherSpec, loaded
        from teachers.models.adapters import look_like_probabilities
        from teachers.soft_targets.combine.class_scores import align

        spec = TeacherSpec(name, config, trained, self.recipe.trusted(), self.user_path)
        questioner = loaded(spec, self.few, device_of(config.resources))
        classes = questioner.teacher.classes
        if trained is None:
            align(classes, self.few.classes, config.class_map)
        segment = self.few.of("train")[0]
        logits = questioner.ask(self.few.inputs(segment), self.few.keys(segment))
        questioner.thread.shutdown()
        if questioner.teacher.output == "logits" and look_like_probabilities(logits):
            self.found.notes.append(
                f"teachers.{name}: its logits are 0 to 1 and sum to 1 in every row, as probabilities do; if they are, say "
                f"`output: probabilities`"
            )
        return classes, logits

    def _trained(self, name: str, config: ModuleTeacher) -> None:
        from students.fitting.rehearsal import rehearse, shortened

        assert config.train is not None
        if self.few.num_labelled:
            common = {"transfer_set": self.few.folder, "user_path": self.user_path, "trust": self.recipe.trusted()}
            train = shortened(config.train, BATCH_SIZE)
            run = teacher_run(name, config, train, folder=self.folder / "teachers" / name, **common)
            idle = rehearse(run, device_of(config.resources))
            _note_idle(self.found, f"teachers.{name}", idle, config.train.workers)

    def _fitted(self, name: str, config: SklearnTeacher) -> None:
        from teachers.models.estimators import check_says_probabilities, fit_sklearn, make_estimator
        from teachers.preparing.sample import as_transfer_set

        estimator = make_estimator(config)
        check_says_probabilities(estimator, str(config.model))
        folder = self.folder / "teachers" / name
        many = as_transfer_set(self.rows, folder / "rows")
        if not many.num_labelled:
            return
        try:
            fit_sklearn(config, many, folder)
            self._asked(name, config, folder)
        except UsersCodeError as error:
            if type(error.__cause__).__name__ in WHATEVER_THE_ROWS:
                raise
            self.found.notes.append(
                f"teachers.{name}: could not be tried on {self.rows.num_rows} rows, which may be too few for it: {error}"
            )

    def made_up(self, name: str, config: TeacherConfig, classes: tuple[str, ...]) -> "Source":
        """What a student hears, of one whose answers nobody knows yet."""
        import numpy as np

        rows = self.few.of("train")[0].num_rows
        said = np.random.default_rng(0).standard_normal((rows, len(classes)))
        return self._store(name, config, classes, said.astype(np.float32))

    def _store(self, name: str, config: TeacherConfig, classes: tuple[str, ...], logits: "np.ndarray") -> "Source":
        from students.runs.run import Source
        from teachers.soft_targets.schema import Spec
        from teachers.soft_targets.store import SoftTargetStore

        segment = self.few.of("train")[0]
        rows = segment.num_rows
        spec = Spec(name, "rehearsal", segment.name, segment.digest, config.encoding, classes, rows, rows)
        store = SoftTargetStore.create(self.folder / "soft_targets" / name, spec)
        store.commit(0, self.few.keys(segment), {"logits": logits})
        store.seal()
        return Source(
            name,
            {segment.name: store.folder},
            class_map=config.class_map,
            probability_floor=config.probability_floor,
        )


@dataclass
class _Learning:
    """Those who learn, each tried."""

    recipe: Recipe
    few: "TransferSet"
    folder: Path
    user_path: UserPath
    found: Rehearsed
    sources: "dict[str, Source]"

    def student(self, name: str, config: StudentConfig) -> None:
        from students.fitting.rehearsal import rehearse, shortened
        from students.runs.of_student import student_run

        short = config.model_copy(update={"train": shortened(config.train, BATCH_SIZE)})
        for kind in kinds_of(config):
            if kind == "offline" or (kind == "control" and not self.few.num_labelled):
                continue
            run = student_run(kind, short, config.train.seeds[0], sources=self._heard(config), **self._common(name))
            before = len(self.found.problems)
            with self.found.told(f"students.{name}", config.resources):
                idle = rehearse(run, device_of(config.resources))
                _note_idle(self.found, f"students.{name}", idle if kind == "student" else [], workers_of(config))
            if len(self.found.problems) > before:
                return  # its control would tell the same

    def cohort(self, name: str, config: CohortConfig) -> None:
        from students.fitting.rehearsal import STEPS, rehearse_together, shortened
        from students.runs.of_cohort import member_runs

        at_once = {"exchange_every": 1, "burn_in": 0} if isinstance(config, CodistillationCohort) else {}
        short = config.model_copy(update={"train": shortened(config.train, BATCH_SIZE, STEPS), **at_once})
        seed = config.train.seeds[0]
        with self.found.told(f"cohorts.{name}", config.resources):
            run = member_runs(name, short, seed, sources=self._heard(config), **self._common(name))
            rehearse_together(run, device_of(config.resources))

    def _heard(self, config: StudentConfig | CohortCommon) -> "tuple[Source, ...]":
        return tuple(self.sources[teacher] for teacher in config.teachers)

    def _common(self, name: str) -> dict[str, Any]:
        folder = self.folder / "students" / name
        return {
            "folder": folder,
            "stage": folder,
            "stage_name": f"distill/{name}",
            "transfer_set": self.few.folder,
            "user_path": self.user_path,
            "trust": self.recipe.trusted(),
        }


def too_large(config: TeacherConfig) -> str:
    """How large the weights of a teacher are that is brought, where this machine has no room for them; else empty."""
    import psutil

    files = [Path(config.weights)] if isinstance(config, ModuleTeacher | SklearnTeacher) and config.weights else []
    if isinstance(config, CheckpointTeacher):
        files = [*Path(config.path).glob("*.safetensors")]
    size = sum(file.stat().st_size for file in files)
    return in_units(size) if TIMES_ITS_SIZE * size > psutil.virtual_memory().available else ""


def _note_idle(found: Rehearsed, where: str, idle: list[str], workers: int) -> None:
    """Parameters without a gradient, which workers have to look for in every step."""
    if idle and workers > 1:
        named = ", ".join(idle[:PARAMETERS_NAMED]) + " ..." * (len(idle) > PARAMETERS_NAMED)
        found.notes.append(
            f"{where}: {len(idle)} parameters have no part in what the network gives ({named}), which its {workers} workers "
            f"look for in every step; a network without them trains faster"
        )
