"""What a recipe can say of a search over settings. Knows nothing of torch, ray or optuna."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from teachers.config.strict import Config

Direction = Literal["max", "min"]
MetricName = Literal["validation.accuracy", "validation.nll", "latency_ms", "parameters", "bytes"]
DIRECTIONS: dict[MetricName, Direction] = {
    "validation.accuracy": "max",
    "validation.nll": "min",
    "latency_ms": "min",
    "parameters": "min",
    "bytes": "min",
}
WHILE_TRAINING = {"validation.accuracy", "validation.nll"}
"""Known at every look at validation; the others are measured of the network when a trial ends."""
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
    metric: Annotated[MetricName, Tag("one")] | Annotated[dict[MetricName, Direction], Tag("several")] = Field(
        "validation.accuracy",
        discriminator=Discriminator(lambda value: "several" if isinstance(value, dict) else "one"),
    )
    """What the best trial is best in; several with their directions: a Pareto front. Never of the test split."""
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

    @property
    def metrics(self) -> dict[str, Direction]:
        given = self.metric if isinstance(self.metric, dict) else {self.metric: DIRECTIONS[self.metric]}
        return {name: direction for name, direction in given.items()}

    @model_validator(mode="after")
    def parts_fit(self) -> Self:
        several = len(self.metrics) > 1
        if not self.metrics:
            raise ValueError(f"metric is empty; expected one or more of {', '.join(get_args(MetricName))}")
        if self.scheduler != "none" and (several or not set(self.metrics) <= WHILE_TRAINING):
            told = ", ".join(self.metrics)
            raise ValueError(
                f"scheduler: {self.scheduler} compares trials while they train, by one figure of validation; with "
                f"`metric` {told} set `scheduler: none`"
            )
        if self.algorithm == "pbt" and self.scheduler != "none":
            raise ValueError("algorithm: pbt is a scheduler itself; set `scheduler: none`")
        if self.algorithm == "pbt" and (several or not set(self.metrics) <= WHILE_TRAINING):
            raise ValueError(
                f"algorithm: pbt compares trials while they train, by one figure of validation; with `metric` "
                f"{', '.join(self.metrics)} take another algorithm"
            )
        if self.algorithm == "grid":
            self._check_grid()
        return self

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
