"""What every teacher has, whatever its kind: how it is heard, where it runs, what is required of it. Imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .bars import Bars
from .preprocess import Preprocess
from .resources import Resources
from .strict import Config

OutputKind = Literal["logits", "log_probabilities", "probabilities", "values", "boxes"]
EncodingName = Literal["dense", "label"]
CalibrateName = Literal["temperature", "isotonic"]
TeacherMode = Literal["cached", "live"]


class TeacherRequire(Bars):
    """Quality gate before students are trained: exit code 3 for a teacher that is not better than always giving the commonest answer (95 %) on the labelled validation rows, or that misses a bar of yours: a figure of the task by its key, at least so much, or at most where less is better."""


class Replicas(Config):
    """From `min` to `max` actors that label side by side: more as room comes, fewer where no shard is left for them."""

    min: int = Field(1, ge=1)
    """Reserved together; labelling begins with these. Of a live teacher, while a student trains, they are all that there are."""
    max: int = Field(ge=1)
    """No more than so many at once."""

    @model_validator(mode="after")
    def is_no_empty_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"`min` is {self.min} and `max` {self.max}: give a `min` that is not above `max`")
        return self


class TeacherCommon(Config):
    """What every teacher has, whatever its kind."""

    classes: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of what it scores, in its order; null: the transfer set's (a checkpoint's and an estimator's are known). Of a teacher that is trained here: those of the transfer set's classes that it learns, from their rows alone."""
    class_map: dict[str, str | None] | None = None
    """Teacher's class: transfer set's class, or null for one that takes no part. Needed when the names differ; several may be mapped to one, whose probabilities then add up. Two words are no classes: `file: NAME.csv` has further such lines, of which those count that lead to a class of the transfer set; `others: null` says that all classes which no line names and the transfer set does not have take no part."""
    licence: str | None = Field(None, min_length=1, exclude_if=lambda value: value is None)
    """Under which what it says may be used, in your words: told in the model card and the manifest of what learns from it, and decides nothing."""
    probability_floor: float = Field(1e-3, gt=0, lt=1)
    """E: probabilities become log((1 - E) p + E / C). A forest says exactly 0 and 1; the floor decides what that means at T = 4."""
    encoding: EncodingName = "dense"
    """`dense`: scores of all classes, exact at any temperature; `label`: the class only."""
    calibrate: CalibrateName | None = None
    """Of its probabilities, learnt from labelled validation rows (where there are none, from the training rows of a teacher in `folds`) and applied when a target is made: `temperature` divides its logits by one number, `isotonic` takes each class through a rising function. The store keeps what it said."""
    preprocess: Preprocess = Preprocess()
    """From canonical inputs to what this teacher takes."""
    mode: TeacherMode = "cached"
    """`cached`: labels every row once, into a store; `live`: no store of training rows, asked during training about each batch as the student sees it, freshly augmented."""
    prefetch: int = Field(4, ge=1)
    """Batches of each worker that a live teacher is asked about ahead of the step that needs them."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 256
    """Rows of one forward; halves when memory runs out. `auto` begins with 16 and doubles while that is worthwhile (more than 5 % faster, measured on the first rows, which are asked about several times), up to 4,096."""
    replicas: Annotated[
        Annotated[int, Field(ge=1), Tag("number")] | Annotated[Replicas, Tag("range")],
        Discriminator(lambda value: "range" if isinstance(value, dict | Replicas) else "number"),
    ] = 1
    """Actors that label, or answer, side by side. A number is the most that label: `6` is `{min: 1, max: 6}`; of a live teacher, while a student trains, just so many answer."""
    resources: Resources = Resources()
    """Of one replica."""
    on_bad_row: Literal["stop", "skip"] = Field("stop", exclude_if=lambda value: value == "stop")
    """A row that it cannot answer, even alone, ends labelling with the row's name, or is left unknown and counted."""
    require: TeacherRequire | None = TeacherRequire()
    """Quality gate; null: students are trained from it whatever it is worth, which is meant."""
    stall_timeout_s: Annotated[float, Field(gt=0)] | None = 900.0
    """A replica that has neither finished a batch nor its loading for so many seconds is killed, and another takes its place; null: it is only told, every ten seconds."""

    @property
    def labelled_by(self) -> Replicas:
        """How many replicas label."""
        return self.replicas if isinstance(self.replicas, Replicas) else Replicas(max=self.replicas)

    @property
    def answered_by(self) -> int:
        """How many replicas answer while a student trains."""
        return self.replicas.min if isinstance(self.replicas, Replicas) else self.replicas

    @model_validator(mode="before")
    @classmethod
    def has_layers_where_outputs_are_asked_for(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "outputs" in value and "outputs" not in cls.model_fields:
            raise ValueError(
                "`outputs` are of layers, which only `module`, `checkpoint`, `huggingface`, `timm` and `onnx` have; leave it out"
            )
        return value

    @model_validator(mode="after")
    def may_leave_rows_unknown(self) -> Self:
        if self.on_bad_row == "skip" and (self.mode == "live" or getattr(self, "outputs", None)):
            why = (
                "`mode: live`, which answers batches of rows"
                if self.mode == "live"
                else "`outputs`, which every row has"
            )
            raise ValueError(f"on_bad_row: `skip` leaves rows of a store unknown, and there is {why}; leave it out")
        return self

    @model_validator(mode="after")
    def keeps_labels_in_a_store_only(self) -> Self:
        if self.mode == "live" and self.encoding == "label":
            raise ValueError(
                "`encoding: label` is how a store keeps what is said; a teacher with `mode: live` has none"
            )
        return self

    @model_validator(mode="after")
    def is_asked_about_stored_rows_out_of_fold(self) -> Self:
        train = getattr(self, "train", None)
        if self.mode == "live" and train is not None and train.folds is not None:
            raise ValueError(
                "`train.folds` labels stored rows, each by the fold that did not see it; a teacher with `mode: live` is "
                "asked about rows as they are augmented: leave one of the two out"
            )
        return self
