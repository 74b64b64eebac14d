"""What a recipe can say of students: networks and how they are trained. Knows nothing of torch or ray."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from teachers.config.bars import Bars
from teachers.config.preprocess import NetworkPreprocess, Preprocess
from teachers.config.resources import Resources
from teachers.config.strict import Config, ImportString
from teachers.config.training import Augment, OptimizerName, PrecisionName, ScheduleName, TrainConfig, transforms_of

from .energy import Energy, check_energy
from .hints import Hint, check_hints, first_stage, weighed_by_label
from .hydra import Hydra, check_hydra
from .init import Init
from .lfme_term import check_lfme
from .own_terms import OwnTerm, check_own_terms
from .terms import TAUGHT, Term, check_ramps, check_teachers

PRUNED = "students.models:pruned"
"""The network that is a teacher's with fewer filters: `arguments: {of: TEACHER, ratio: 0.5}`."""

OF_SEVERAL = ("teachers", "teacher_weights", "drop", "experts", "column", "box")
"""Keys of a term that name its teachers, or that one teacher alone cannot have."""


class StudentTrain(TrainConfig):
    """How a student, and its control with the same budget, is trained."""

    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2], min_length=1)
    """One student and one control is trained for each."""

    @model_validator(mode="after")
    def seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} name one twice")
        return self


class TrainOverride(Config):
    """What somebody trains otherwise; rows, batches and the budget stay what they are."""

    learning_rate: float | None = Field(None, gt=0)
    """The peak of the schedule."""
    optimizer: OptimizerName | None = None
    """`adamw` or `sgd`."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: float | None = Field(None, ge=0)
    """Decoupled for `adamw`."""
    schedule: ScheduleName | None = None
    """Of the learning rate."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient."""
    precision: PrecisionName | None = None
    """`bfloat16`: autocast."""

    def on(self, train: StudentTrain) -> StudentTrain:
        """`train` with what is said here."""
        return train.model_copy(update=self.model_dump(exclude_none=True))


class ControlTrain(TrainOverride):
    """What the control trains otherwise than its student: a control that was tuned for itself is the fairer rival."""

    augment: Augment | None = None
    """Fresh random augmentation of the control's batches, as under `train`; null: the student's. Teachers that were trained with one have learnt from more than the labels: a control with theirs shows what they bring beyond it."""
    files: list[str] | None = None
    """Files and folders that functions of its `augment` read; they count by content. Null: the student's."""

    @property
    def augments(self) -> list[str]:
        """The steps of `augment`, in order."""
        return transforms_of(self.augment)


Control = Annotated[
    Annotated[bool, Tag("whether")] | Annotated[ControlTrain, Tag("how")],
    Discriminator(lambda value: "how" if isinstance(value, dict | ControlTrain) else "whether"),
]


def control_train(control: bool | ControlTrain, train: StudentTrain) -> StudentTrain:
    """How the control of a student that is trained by `train` is trained."""
    return control.on(train) if isinstance(control, ControlTrain) else train


class Require(Bars):
    """Quality gates, on the test split: exit code 3 for what misses one. Besides `gain`, any figure of the task by its key, the mean over seeds: at least so much, or at most where less is better."""

    gain: float | None = None
    """How much better the student's headline is than its control's, in the units of that figure: the lower end of the 95% interval, so it needs a control and two seeds."""


class StudentCommon(Config):
    """What every student has, network or estimator."""

    model: ImportString
    """What makes it: a function or class that is called with `arguments`. Of a network it returns the module, and gets `num_classes`, `input_shape`, `num_codes` and `vocabulary_size` as far as it takes them; of an estimator: `sklearn.tree:DecisionTreeClassifier`, `xgboost:XGBClassifier`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the model; of a network `${NAME}` in them is a variable of the environment."""
    files: list[str] = []
    """Files and folders that the model reads; they count by content, as does an argument that is a path."""
    teachers: list[str] = Field(min_length=1)
    """Teachers, or other students: then those are its assistants."""
    resources: Resources = Resources()
    """Of one worker, or of one fit."""
    require: Require | None = Require()
    """Quality gates; null: none, and as an assistant it teaches whatever it is worth."""


class TakesNoHints(Config):
    """Who is no student with layers of its own."""

    @model_validator(mode="before")
    @classmethod
    def has_no_hints(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("hydra") is not None:
            raise ValueError(
                "hydra is of students that are networks: an estimator has no last layer of which there could be several, and a cohort's "
                "members teach each other while they train; remove it"
            )
        if isinstance(value, Mapping) and value.get("follow"):
            raise ValueError(
                "follow is of students that are networks: an estimator is fitted on all rows at once, and a cohort's members see each "
                "batch together; remove it"
            )
        if isinstance(value, Mapping) and "hints" in value:
            raise ValueError(
                "hints are of students that are networks: an estimator has no layers, and a cohort's members follow each other's "
                "(`feature_exchange`); remove them"
            )
        return value


class StudentConfig(StudentCommon):
    """The small network, who teaches it, and how."""

    teachers: list[str] = []
    """Teachers, or other students: then those are its assistants. None where it learns from itself alone (`ps_kd`, `mean_teacher`)."""
    init: Init | None = Field(None, exclude_if=lambda value: value is None)
    """Begin with a teacher's weights; null: with weights of chance, as the control does. A `students.models:pruned` begins with those of the teacher it is made of, unless null is said."""
    generations: int | None = Field(None, ge=2, exclude_if=lambda value: value is None)
    """Born again (Furlanello et al., 2018): the first of so many learns from `teachers`, each further one from the one before, `NAME-1`, `NAME-2` and so on; the last has the student's name."""
    hydra: Hydra | None = Field(None, exclude_if=lambda value: value is None)
    """A head for each teacher on one body; `{}`: as its defaults have it. Null: one head. The control has one."""
    energy: Energy | None = Field(None, exclude_if=lambda value: value is None)
    """Leave out, or weigh less, unlabelled rows that a teacher finds unlike those that it knows; null: all count."""
    follow: bool = Field(False, exclude_if=lambda value: not value)
    """Begin as soon as the first rows are labelled, by all of its teachers, and draw from those that are until all are. The order of rows then depends on how fast the teachers label, so such a student is another one, with a key of its own. `collegium tune` and `compare` leave it out: what is compared learns from the same rows."""
    preprocess: NetworkPreprocess = Preprocess()
    """From canonical inputs to what this student takes."""
    objective: list[Term] = Field([*TAUGHT], min_length=1)
    """A weighted sum of terms; reads like the paper's formula."""
    hints: list[Hint] = []
    """Layers of teachers that layers of the student are compared with: further terms of the objective. The control has none."""
    train: StudentTrain = StudentTrain()
    """Budget, optimiser, seeds."""
    control: Control = True
    """Train the same student without teachers as well: same seeds, same steps, hard labels only; a mapping: by settings of its own."""

    @model_serializer(mode="wrap")
    def without_no_hints(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where there are none, that is not said: keys of stages stay what they were."""
        return {name: value for name, value in write(self).items() if value or name != "hints"}

    @model_validator(mode="after")
    def terms_fit(self) -> Self:
        if not self.teachers and not any(isinstance(term, OwnTerm) for term in self.objective):
            raise ValueError(
                "`teachers` names nobody; name a teacher or another student, or let it learn from itself (`loss: ps_kd`, "
                "`loss: mean_teacher`)"
            )
        check_own_terms(self.objective)
        check_energy(self.energy, self.teachers)
        if self.energy is not None and self.energy.rows == "weigh" and self.hints:
            raise ValueError("energy.rows: hints compare whole batches, and no row of them weighs less; say `drop`")
        if self.init is not None and self.init.from_ not in self.teachers:
            raise ValueError(
                f"init.from is {self.init.from_!r}, which is not among the teachers {self.teachers}; name one of them"
            )
        check_teachers(
            self.objective, self.teachers, may_be_silent=bool(self.hints) or self.init is not None or self.is_pruned
        )
        check_lfme(
            self.objective, self.teachers, {"hydra": self.hydra, "energy": self.energy, "train.mix": self.train.mix}
        )
        check_ramps(self.objective, self.train, first_stage=first_stage(self.hints))
        check_hints(self.hints, self.teachers, self.train)
        self._check_pruned()
        if self.hydra is not None:
            check_hydra(self.hydra, self.teachers, self.objective, self.hints, self.generations)
        self._check_generations()
        return self

    @property
    def reads_networks_of(self) -> list[str]:
        """Teachers of whom its training takes more than what they say: weights to begin with, or a last layer."""
        begins = [] if self.init is None else [self.init.from_]
        return [*dict.fromkeys([*begins, *(hint.teacher for hint in weighed_by_label(self.hints))])]

    @property
    def is_pruned(self) -> bool:
        return self.model == PRUNED

    def _check_pruned(self) -> None:
        of = self.arguments.get("of")
        if self.is_pruned and isinstance(of, str) and of not in self.teachers and "init" not in self.model_fields_set:
            raise ValueError(
                f"arguments.of: it begins with the weights of {of!r}, which is not among the teachers {self.teachers}; add it, "
                f"or say `init: null` for weights of chance"
            )

    def _check_generations(self) -> None:
        if not self.generations:
            return
        if not self.teachers:
            raise ValueError("generations: the first has nobody to learn from; name its `teachers`")
        for number, term in enumerate(self.objective):
            if said := next((key for key in OF_SEVERAL if getattr(term, key, None) is not None), None):
                raise ValueError(
                    f"objective.{number}.{said}: each of the `generations` but the first has one teacher, the one before; "
                    f"remove it, or write the chain out, a student each"
                )
        if self.hints:
            raise ValueError(
                f"hints.0.teacher: {self.hints[0].teacher!r} teaches the first of the `generations`, and each further one is taught by the "
                f"one before; remove the hints, or write the chain out, a student each"
            )
        if self.init is not None or self.is_pruned:
            raise ValueError("generations: all of them begin with weights of chance; remove `init`, or `generations`")
