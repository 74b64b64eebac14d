"""What a recipe can say of teachers and of training a network; the transfer set's part is in source_config.

Knows nothing of torch, ray or any student: reading a recipe imports this and must stay quick.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from .source_config import (
    ImageFolderSource as ImageFolderSource,
)
from .source_config import (
    ImportSource as ImportSource,
)
from .source_config import (
    NumpySource as NumpySource,
)
from .source_config import (
    SklearnSource as SklearnSource,
)
from .source_config import (
    Source as Source,
)
from .source_config import (
    SplitConfig as SplitConfig,
)
from .source_config import (
    SplitFiles as SplitFiles,
)
from .source_config import (
    TableSource as TableSource,
)
from .source_config import (
    TextTableSource as TextTableSource,
)
from .source_config import (
    TransferSetConfig as TransferSetConfig,
)
from .strict import IMPORT_PATTERN as IMPORT_PATTERN
from .strict import Config as Config
from .strict import ImportString as ImportString
from .strict import tag_or as tag_or

CombineName = Literal["mean_probability", "mean_logits", "weighted"]
OutputKind = Literal["logits", "log_probabilities", "probabilities"]
EncodingName = Literal["dense", "label"]
TeacherMode = Literal["cached", "live"]
TransformName = Literal["flip", "pad_and_crop", "cutout", "noise"]
AugmentName = Literal["affine", TransformName]
AugmentStep = AugmentName | ImportString
Augment = Annotated[
    Annotated[AugmentStep, Tag("one")] | Annotated[list[AugmentStep], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
]
OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]
PrecisionName = Literal["float32", "bfloat16"]


class Normalise(Config):
    """(value / 255 for images) - mean, over std, per channel or feature."""

    mean: list[float]
    """One a channel or feature."""
    std: list[Annotated[float, Field(gt=0)]]
    """One a channel or feature."""

    @model_validator(mode="after")
    def as_long_as_each_other(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} values, std has {len(self.std)}")
        return self


class Preprocess(Config):
    """From canonical inputs to what one network takes; each teacher and each student has its own."""

    resize: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels, bilinear with antialiasing; null: as stored."""
    normalise: Literal["auto"] | Normalise | None = "auto"
    """`auto`: mean and standard deviation of the training rows; null: images as value / 255, numbers as they are."""
    function: ImportString | None = None
    """Instead of all that: a function from {column: array [rows, ...]} to the network's input."""


class Resources(Config):
    """What one replica or worker reserves on the Ray cluster."""

    cpus: float = Field(1, gt=0)
    """CPU cores; torch gets as many threads."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs, fractions too; `auto`: 1 if the cluster has any, else 0."""
    accelerator_type: str | None = None
    """For example `A100`."""
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Custom Ray resources."""


OF_A_TYPE = "accelerator_type:"
"""Begins the name of what Ray gives to nodes with GPUs of one type; who asks for a type asks for a crumb of it."""


def in_words(request: Mapping[str, float]) -> str:
    """By Ray's names, what is asked for on one node: `1 CPU, 0.5 GPU, accelerator_type:A100`."""
    return ", ".join(name if name.startswith(OF_A_TYPE) else f"{amount:g} {name}" for name, amount in request.items())


class EarlyStopping(Config):
    """Stop when validation has not improved; the best weights are restored, the schedule is never shortened."""

    patience: int = Field(ge=1)
    """Looks at validation without a better one."""


class TrainConfig(Config):
    """How a network is trained; the same engine trains students, controls and teachers."""

    steps: int | None = Field(None, ge=1)
    """Optimiser steps."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the rows that the student draws from; converted to steps once."""
    batch_size: int = Field(64, ge=1)
    """Rows of one optimiser step, over all workers; divisible by `workers * accumulate`."""
    learning_rate: float = Field(5e-3, gt=0)
    """The peak of the schedule."""
    optimizer: OptimizerName = "adamw"
    """`adamw` or `sgd` (Nesterov when `momentum` is above 0)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled for `adamw`."""
    schedule: ScheduleName = "one_cycle"
    """Of the learning rate, over all steps."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient; null: as it is."""
    accumulate: int = Field(1, ge=1)
    """Parts that a step's batch is computed in, to save memory."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between two looks at validation; null: a twentieth of all steps."""
    early_stopping: EarlyStopping | None = None
    """Null: train to the end and keep the best weights."""
    augment: Augment | None = None
    """Fresh random augmentation of every batch: a name, a function (inputs, generator) -> inputs, or a list of these, applied in order."""
    labelled_fraction: float | None = Field(None, gt=0, lt=1)
    """Share of labelled rows in every batch; null: as they come."""
    shuffle_window: int | None = Field(None, ge=1)
    """Rows that are shuffled together, for data that does not fit memory; null: all."""
    workers: int = Field(1, ge=1)
    """Data-parallel Ray Train workers."""
    precision: PrecisionName = "float32"
    """`bfloat16`: autocast."""
    compile: bool = False
    """Through torch.compile."""

    @property
    def augments(self) -> list[str]:
        """The steps of `augment`, in order."""
        return self.augment if isinstance(self.augment, list) else [] if self.augment is None else [self.augment]

    @model_validator(mode="after")
    def has_one_budget(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both")
        if self.batch_size % (self.workers * self.accumulate):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by workers * accumulate = {self.workers * self.accumulate}"
            )
        return self


class TeacherTrain(TrainConfig):
    """A teacher that is trained here, by hard labels on the labelled rows."""

    seed: int = Field(0, ge=0)
    """Of its initial weights and the order of rows."""


class TeacherCommon(Config):
    """What every teacher has, whatever its kind."""

    classes: list[str] | None = None
    """Names of what it scores, in its order; null: the transfer set's (a checkpoint's and an estimator's are known)."""
    class_map: dict[str, str | None] | None = None
    """Teacher's class: transfer set's class, or null for one that takes no part. Needed when the names differ."""
    probability_floor: float = Field(1e-3, gt=0, lt=1)
    """E: probabilities become log((1 - E) p + E / C). A forest says exactly 0 and 1; the floor decides what that means at T = 4."""
    encoding: EncodingName = "dense"
    """`dense`: scores of all classes, exact at any temperature; `label`: the class only."""
    preprocess: Preprocess = Preprocess()
    """From canonical inputs to what this teacher takes."""
    mode: TeacherMode = "cached"
    """`cached`: labels every row once, into a store; `live`: no store of training rows, asked during training about each batch as the student sees it, freshly augmented."""
    prefetch: int = Field(4, ge=1)
    """Batches of each worker that a live teacher is asked about ahead of the step that needs them."""
    batch_size: int = Field(256, ge=1)
    """Rows of one forward; halves when a GPU runs out of memory."""
    replicas: int = Field(1, ge=1)
    """Actors that label, or answer, side by side."""
    resources: Resources = Resources()
    """Of one replica."""

    @model_validator(mode="after")
    def keeps_labels_in_a_store_only(self) -> Self:
        if self.mode == "live" and self.encoding == "label":
            raise ValueError(
                "`encoding: label` is how a store keeps what is said; a teacher with `mode: live` has none"
            )
        return self


class ModuleTeacher(TeacherCommon):
    """A torch module: trained here, or with given weights."""

    kind: Literal["module"]
    model: ImportString
    """Function or class that makes the module; it is called with `arguments` and, as far as it takes them, `num_classes` and `input_shape`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the model."""
    train: TeacherTrain | None = None
    """Train it here, by hard labels."""
    weights: str | None = None
    """`*.safetensors`, or `*.pt` (read with weights_only=True)."""
    strip_prefix: str | None = None
    """Taken off the front of every tensor's name, for example `module.`."""
    allow_pickle: bool = False
    """Unpickle a `.pt` that holds more than tensors. This runs whatever code is in the file."""
    output: OutputKind = "logits"
    """What its numbers are."""

    @model_validator(mode="after")
    def has_weights_from_somewhere(self) -> Self:
        if (self.train is None) == (self.weights is None):
            raise ValueError("give `train` (trained here) or `weights` (a file), one of them")
        return self


class CheckpointTeacher(TeacherCommon):
    """A Collegium model folder: yesterday's student teaches."""

    kind: Literal["checkpoint"]
    path: str
    """The folder."""


class SklearnTeacher(TeacherCommon):
    """Any estimator with `predict_proba`: trained here on the labelled rows, or loaded from skops."""

    kind: Literal["sklearn"]
    model: ImportString | None = None
    """Class of the estimator, trained here."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the estimator."""
    seed: int = Field(0, ge=0)
    """`random_state`, where the estimator has one."""
    weights: str | None = None
    """A `*.skops` file."""
    trusted: list[str] = []
    """Types beyond scikit-learn's own that the skops file may name."""

    @model_validator(mode="after")
    def has_an_estimator_from_somewhere(self) -> Self:
        if (self.model is None) == (self.weights is None):
            raise ValueError("give `model` (trained here) or `weights` (a skops file), one of them")
        return self

    @property
    def output(self) -> OutputKind:
        return "probabilities"


class CallableTeacher(TeacherCommon):
    """A function of yours: {column: array [rows, ...]} -> scores [rows, classes]."""

    kind: Literal["callable"]
    function: ImportString
    """`package.module:name`; gets canonical inputs, so `preprocess` is not used."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the function."""
    output: OutputKind
    """What its numbers are."""


TeacherConfig = Annotated[
    ModuleTeacher | CheckpointTeacher | SklearnTeacher | CallableTeacher, Field(discriminator="kind")
]

DECIDES_NOTHING = {"mode", "prefetch", "batch_size", "replicas", "resources"}
"""Fields of a teacher that cannot change what it says of a row: left out of stage keys."""
