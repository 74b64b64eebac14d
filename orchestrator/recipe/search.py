"""What a recipe can say of a search over settings. Knows nothing of torch, ray or optuna."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.json_schema import SkipJsonSchema

from students.tasks.figure import FIGURES, LOOKS, headline
from teachers.config.strict import Config
from teachers.config.task import DEFAULT_TASK, TaskName

from .file import nearest

Direction = Literal["max", "min"]
OF_THE_NETWORK = ("latency_ms", "parameters", "bytes")
"""Measured of it when a trial ends, the less the better."""


def metrics_of(task: TaskName) -> dict[str, Direction]:
    """What a trial can be best in, and which end of it is."""
    found: dict[str, Direction] = {f"validation.{figure.key}": figure.better for figure in FIGURES[task]}
    return found | dict.fromkeys(OF_THE_NETWORK, "min")


def while_training(task: TaskName) -> set[str]:
    """Known at every look at validation; the others are measured when a trial ends."""
    return {f"validation.{key}" for key in LOOKS[task]}


AlgorithmName = Literal["optuna", "random", "grid", "pbt"]
SchedulerName = Literal["asha", "median", "none"]
LARGEST_GRID = 10_000


class Uniform(Config):
    """A number between two."""

    uniform: tuple[float, float]
    """Lowest and highest."""

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        _check_range("uniform", *self.uniform)
        return self


class LogUniform(Config):
    """A number between two, every factor as likely as every other."""

    log_uniform: tuple[float, float]
    """Lowest, above 0, and highest."""

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        low, high = self.log_uniform
        if low <= 0:
            raise ValueError(f"log_uniform [{low:g}, {high:g}] reaches 0 or below, where there is no logarithm")
        _check_range("log_uniform", low, high)
        return self


class Integer(Config):
    """A whole number between two."""

    integer: tuple[int, int]
    """Lowest and highest, both of which may be drawn."""

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        _check_range("integer", *self.integer)
        return self


class Choice(Config):
    """One of some values."""

    choice: list[Any] = Field(min_length=1)
    """Anything that the key takes."""


class SubsetOf(Config):
    """Some of these names."""

    of: list[str] = Field(min_length=1)
    """Who can be among them."""
    at_least: int = Field(1, ge=1)
    """How many are."""

    @model_validator(mode="after")
    def can_be_met(self) -> Self:
        if len(set(self.of)) != len(self.of):
            raise ValueError(f"of {self.of} names one twice")
        if self.at_least > len(self.of):
            raise ValueError(f"at_least is {self.at_least}, and there are only {len(self.of)}")
        return self


class Subset(Config):
    """Some of a list of names: which teachers to believe."""

    subset: SubsetOf
    """Of whom, and how many at least."""


KINDS = ("uniform", "log_uniform", "integer", "choice", "subset")


def _kind_of(value: Any) -> str | None:
    """The tag of an entry, which must not look like one of its keys; None for what has no kind, or two."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Config) else ()
    found = [kind for kind in KINDS if kind in keys]
    return f"of {found[0]}" if len(found) == 1 else None


Entry = Annotated[
    Annotated[Uniform, Tag("of uniform")]
    | Annotated[LogUniform, Tag("of log_uniform")]
    | Annotated[Integer, Tag("of integer")]
    | Annotated[Choice, Tag("of choice")]
    | Annotated[Subset, Tag("of subset")],
    Discriminator(
        _kind_of,
        custom_error_type="kind_of_values",
        custom_error_message=f"expected one of {', '.join(KINDS)}, for example {{uniform: [0, 1]}}",
    ),
]
"""Values that one key of a recipe can have."""


class SearchConfig(Config):
    """Which settings of a student or cohort `collegium tune` tries, and what it looks for."""

    student: str
    """A student, or a cohort."""
    space: dict[str, Entry] = Field(min_length=1)
    """By the path of a key below the student: `objective.0.temperature`, `train.learning_rate`, `teachers`."""
    metric: Annotated[str, Tag("one")] | Annotated[dict[str, Direction], Tag("several")] = Field(
        f"validation.{headline(DEFAULT_TASK).key}",
        discriminator=Discriminator(lambda value: "several" if isinstance(value, dict) else "one"),
    )
    """What the best trial is best in: `validation.` and a figure of the task (by default its headline), `latency_ms`, `parameters` or `bytes`; several with their directions: a Pareto front. Never of the test split."""
    algorithm: AlgorithmName = "optuna"
    """`optuna`: TPE, for several metrics NSGA-II; `random`; `grid`: every combination of choices; `pbt`: population-based training."""
    scheduler: SchedulerName = "asha"
    """Who ends trials that fall behind: `asha`, `median`, or `none`."""
    trials: int = Field(50, ge=1)
    """Of the student; its control has half as many for itself."""
    max_concurrent: int | None = Field(None, ge=1)
    """Trials at a time; null: as many as the cluster has room for."""
    seeds_for_best: int = Field(5, ge=1)
    """With so many fresh seeds the best is trained again, and shown on the test split."""
    seed: int = Field(0, ge=0)
    """Of what the algorithm draws."""
    task: SkipJsonSchema[TaskName] = Field(DEFAULT_TASK, exclude=True, repr=False)
    """Whose figures `metric` names: the recipe's `task`."""

    @model_validator(mode="before")
    @classmethod
    def looks_for_the_headline(cls, value: Any) -> Any:
        """Where nobody says otherwise."""
        if not isinstance(value, dict) or "metric" in value:
            return value
        return {**value, "metric": f"validation.{headline(value.get('task', DEFAULT_TASK)).key}"}

    @property
    def metrics(self) -> dict[str, Direction]:
        return dict(self.metric) if isinstance(self.metric, dict) else {self.metric: metrics_of(self.task)[self.metric]}

    @property
    def is_known_while_training(self) -> bool:
        return set(self.metrics) <= while_training(self.task)

    @model_validator(mode="after")
    def parts_fit(self) -> Self:
        self._check_metrics()
        several = len(self.metrics) > 1
        if self.scheduler != "none" and (several or not self.is_known_while_training):
            told = ", ".join(self.metrics)
            raise ValueError(
                f"scheduler: {self.scheduler} compares trials while they train, by one figure of validation; with "
                f"`metric` {told} set `scheduler: none`"
            )
        if self.algorithm == "pbt" and self.scheduler != "none":
            raise ValueError("algorithm: pbt is a scheduler itself; set `scheduler: none`")
        if self.algorithm == "pbt" and (several or not self.is_known_while_training):
            raise ValueError(
                f"algorithm: pbt compares trials while they train, by one figure of validation; with `metric` "
                f"{', '.join(self.metrics)} take another algorithm"
            )
        if self.algorithm == "grid":
            self._check_grid()
        return self

    def _check_metrics(self) -> None:
        known = metrics_of(self.task)
        if not self.metric:
            raise ValueError(f"metric is empty; expected one or more of {', '.join(known)}")
        for name in self.metric if isinstance(self.metric, dict) else [self.metric]:
            if name not in known:
                raise ValueError(f"metric {name!r} is none that `task: {self.task}` has{nearest(name, [*known])}")

    def _check_grid(self) -> None:
        size = 1
        for path, entry in self.space.items():
            if isinstance(entry, Uniform | LogUniform):
                raise ValueError(f"algorithm: grid takes `choice`, `integer` and `subset`; space.{path} is a range")
            many = len(entry.choice) if isinstance(entry, Choice) else 0
            if isinstance(entry, Integer):
                many = entry.integer[1] - entry.integer[0] + 1
            size *= many or 2 ** len(entry.subset.of)  # type: ignore[union-attr]
        if size > LARGEST_GRID:
            raise ValueError(
                f"algorithm: grid would have up to {size:,} points, more than {LARGEST_GRID:,}; use random"
            )


def _check_range(kind: str, low: float, high: float) -> None:
    if low >= high:
        raise ValueError(f"{kind} [{low:g}, {high:g}] is empty: expected [lowest, highest]")
