"""The recipe: what a user writes. Reading one imports neither torch nor ray nor mlflow.

Every error names file, line, column and path, and all errors are told at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from students.config.cohort import CohortConfig
from students.config.estimator import EstimatorStudent, Student
from students.config.student import StudentConfig
from teachers.config.named import models_within
from teachers.config.secrets import looks_like, without_password
from teachers.config.strict import Config, ImportString, Name
from teachers.config.task import DEFAULT_TASK, TaskName
from teachers.config.teacher import TeacherConfig
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError

from .beginning import beginning_problems
from .circles import circle_problems
from .circles import learner_of as learner_of
from .energies import energy_problems
from .errors import told
from .file import Loc, nearest
from .following import following_problems
from .from_python import plain
from .losses import loss_problems
from .mixing import mix_problems
from .search import SearchConfig
from .secrets import kept_problems, secret_problems, variables
from .space import search_problems
from .tasks import task_problems
from .viewing import viewing_problems
from .written_out import written_out

Learner = StudentConfig | EstimatorStudent | CohortConfig
RESERVED = {"teachers", "ensemble", "control", "offline", "student"}


class Tracking(Config):
    """Where MLflow keeps the curves."""

    uri: str | None = None
    """Null: MLFLOW_TRACKING_URI if set, else SQLite under `--out`; `http(s)://...` on a cluster. `${NAME}` is a variable."""
    experiment: str | None = Field(None, max_length=500)
    """Null: the recipe's name."""
    register_models: bool = True
    """Each student that is exported becomes a version in MLflow's registry; a `--smoke` run registers none."""
    system_metrics: bool = False
    """Also keep CPU, memory, network and GPUs of every node, as `system/<node>/...`."""


class Recipe(Config):
    """Which transfer set, which teachers, which students and cohorts."""

    format: Literal[1]
    """Of this file."""
    name: Name
    """Of the experiment, of the registered model and in reports."""
    task: TaskName = DEFAULT_TASK
    """What is learnt of a row: one class of many, classes that each hold or not, or numbers. It decides what the label means, the losses, and the figures."""
    transfer_set: TransferSetConfig
    """The inputs on which teachers are asked."""
    teachers: dict[Name, TeacherConfig] = {}
    """By name; a recipe of cohorts needs none."""
    students: dict[Name, Student] = {}
    """By name."""
    cohorts: dict[Name, CohortConfig] = {}
    """By name: students that teach each other while they train."""
    search: SearchConfig | None = None
    """Settings that `collegium tune` tries; `collegium run` leaves them as they stand."""
    tracking: Tracking = Tracking()
    """Where MLflow keeps the curves."""
    trust: list[ImportString] = []
    """Architectures that a model folder from elsewhere may name, beside ours."""

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """A checked recipe from a mapping as in its file.

        Paths, tuples, numbers of NumPy, functions and classes (by name) may stand in it too. Raises RecipeError with all
        that is wrong, by key.
        """
        value = plain(document)
        try:
            recipe = cls.model_validate(value)
            problems = recipe.problems()
        except ValidationError as error:
            problems = [*told(cls, value, error)]
        if problems:
            raise RecipeError(by_key(problems))
        return recipe

    @model_validator(mode="before")
    @classmethod
    def tells_what_the_label_means(cls, value: Any) -> Any:
        """The task is known where labels are read."""
        if not isinstance(value, Mapping) or not isinstance(rows := value.get("transfer_set"), Mapping):
            return value
        if "task" in rows:
            raise ValueError("`task` stands at the top of the recipe, not in `transfer_set`")
        task = value.get("task", DEFAULT_TASK)
        if task not in get_args(TaskName):
            return value
        told = {**value, "transfer_set": {**rows, "task": task}}
        return told | ({"search": {**told["search"], "task": task}} if isinstance(told.get("search"), Mapping) else {})

    @field_validator("students")
    @classmethod
    def are_written_out(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """One word for several students, or for a whole network."""
        return written_out(value, info.data.get("teachers", {}))

    def problems(self) -> list[tuple[Loc, str]]:
        """What is wrong between the parts of the recipe: (path, message)."""
        document = self.model_dump(mode="json")
        found = [*secret_problems(document), *kept_problems(document)]
        found += [
            *task_problems(self),
            *self._name_problems(),
            *self._teacher_problems(),
            *loss_problems(self),
            *mix_problems(self),
            *energy_problems(self),
            *following_problems(self),
            *viewing_problems(self),
            *circle_problems(self.learners, [*self.students]),
            *beginning_problems(self),
            *self._gate_problems(),
        ]
        return found if found or self.search is None else [*search_problems(self)]

    @property
    def learners(self) -> dict[str, Learner]:
        """Students and cohorts, by name."""
        return {**self.students, **self.cohorts}

    def variables(self) -> list[tuple[Loc, str]]:
        """Variables of the environment that it names, and where: (path, name)."""
        return variables(self.model_dump(mode="json"))

    def who_teaches(self) -> list[str]:
        """Every name that may stand in a `teachers` list: teachers, students, and `cohort.member`."""
        return [*self.teachers, *self.students, *self.members()]

    def members(self) -> list[str]:
        return [f"{name}.{member}" for name, cohort in self.cohorts.items() for member in cohort.members]

    def _name_problems(self) -> Iterator[tuple[Loc, str]]:
        taken: dict[str, str] = {}
        for kind, names in (("teachers", self.teachers), ("students", self.students), ("cohorts", self.cohorts)):
            for name in names:
                if name in RESERVED:
                    yield (kind, name), f"the name {name!r} is taken by the report; choose another"
                if name in taken:
                    yield (
                        (kind, name),
                        f"{taken[name]} has the name {name!r} too; everything that teaches needs its own",
                    )
                taken[name] = f"one of the {kind}"
        for name, cohort in self.cohorts.items():
            for member in RESERVED & set(cohort.members):
                yield (
                    ("cohorts", name, "members", member),
                    f"the name {member!r} is taken by the report; choose another",
                )
        if not self.learners and not self.teachers:
            yield (
                ("students",),
                "there is nobody to ask or to train; add teachers, a student, or a cohort under `cohorts`",
            )
        if self.transfer_set.label is None:
            yield from self._label_problems()

    def _label_problems(self) -> Iterator[tuple[Loc, str]]:
        """Of a recipe whose rows have no label: what cannot be learnt or required without."""
        if self.transfer_set.labelled is not None:
            yield ("transfer_set", "labelled"), "there are no labels to keep: `label` is null"
        if self.transfer_set.split.stratify:
            yield ("transfer_set", "split", "stratify"), "there are no classes to divide: `label` is null"
        for name, teacher in self.teachers.items():
            if is_trained_here(teacher):
                yield ("teachers", name), "there are no labels to train it with: `transfer_set.label` is null"
        for name, learner in self.learners.items():
            where = "students" if name in self.students else "cohorts"
            if learner.control:
                cure = "`transfer_set.label` is null; say `control: false`"
                yield (where, name, "control"), f"there are no labels to train a control with: {cure}"
            require = learner.require
            if require is not None and (require.bars or require.gain is not None):
                yield (where, name, "require"), "nothing can be judged without labels: `transfer_set.label` is null"

    def _teacher_problems(self) -> Iterator[tuple[Loc, str]]:
        known = self.who_teaches()
        for learner, config in self.learners.items():
            where = ("students" if learner in self.students else "cohorts", learner)
            for number, name in enumerate(config.teachers):
                if name not in known:
                    yield (
                        (*where, "teachers", number),
                        f"no teacher or student is called {name!r}{nearest(name, known)}",
                    )

    def _gate_problems(self) -> Iterator[tuple[Loc, str]]:
        """Gates that every run would miss, after all its work."""
        for learner, config in self.learners.items():
            if config.require is None or config.require.gain is None:
                continue
            if not config.control or len(config.train.seeds) < 2:
                lacking = "control" if not config.control else "second seed"
                where = ("students" if learner in self.students else "cohorts", learner, "require", "gain")
                yield where, f"a gain is known with a control and two seeds or more; here there is no {lacking}"

    def learners_in_order(self) -> list[list[str]]:
        """Students and cohorts in generations: an assistant comes before those whom it teaches."""
        done: list[list[str]] = []
        left = self.learners
        while left:
            ready = [name for name, c in left.items() if not any(learner_of(teacher) in left for teacher in c.teachers)]
            assert ready, "cycles are refused before"
            done.append(ready)
            for name in ready:
                del left[name]
        return done

    def before(self, learner: str) -> list[list[str]]:
        """The students and cohorts that have to be trained before `learner` can be taught, in generations."""
        needed: set[str] = set()
        waiting = [learner]
        while waiting:
            found = {learner_of(teacher) for teacher in self.learners[waiting.pop()].teachers} & set(self.learners)
            waiting += found - needed
            needed |= found
        generations = [[name for name in names if name in needed] for names in self.learners_in_order()]
        return [names for names in generations if names]

    def assistants(self) -> list[str]:
        """Students, and members of cohorts, that teach another student."""
        taught_by = {teacher for config in self.learners.values() for teacher in config.teachers}
        return [name for name in (*self.students, *self.members()) if name in taught_by]

    def live_teachers(self, learner: str) -> list[str]:
        """Teachers that are asked while this student or cohort trains."""
        heard = self.learners[learner].teachers
        return [name for name in heard if name in self.teachers and self.teachers[name].mode == "live"]

    def trusted(self) -> tuple[str, ...]:
        """Every architecture and function that the recipe itself names: who wrote it vouches for them."""
        members = [member for cohort in self.cohorts.values() for member in cohort.members.values()]
        own = []
        for config in (*self.teachers.values(), *self.students.values(), *members):
            named = (getattr(config, "model", None), getattr(config, "function", None), config.preprocess.function)
            own += [*named, *models_within(getattr(config, "arguments", {})), *getattr(config, "trusted", ())]
        return tuple(sorted({*(name for name in own if name), *self.trust}))


def by_key(problems: Iterable[tuple[Loc, str]]) -> str:
    """One line a problem, of a recipe that has no file: `students.small.steps: unknown key`."""
    return "\n".join(dict.fromkeys(f"{'.'.join(map(str, at)) or 'recipe'}: {what}" for at, what in problems))


def public(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as JSON, without secrets: what copies, reports and MLflow get."""
    document: dict[str, Any] = recipe.model_dump(mode="json")
    if (uri := recipe.tracking.uri) and looks_like(uri):  # of a recipe that nobody has checked
        document["tracking"]["uri"] = without_password(uri)
    return document


def is_trained_here(teacher: TeacherConfig) -> bool:
    return (teacher.kind == "module" and teacher.train is not None) or (
        teacher.kind == "sklearn" and teacher.weights is None
    )


def name_in_recipe(recipe: Recipe, name: str) -> str:
    return f"{'students' if name in recipe.students else 'cohorts'}.{name}"
