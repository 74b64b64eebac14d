"""What a recipe can say of the transfer set, of teachers and of training a network.

Knows nothing of torch, ray or any student: reading a recipe imports this and must stay quick.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, model_validator

IMPORT_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
ImportString = Annotated[str, StringConstraints(pattern=IMPORT_PATTERN)]
"""`package.module:name`, the extension mechanism everywhere."""

CombineName = Literal["mean_probability", "mean_logits", "weighted"]
OutputKind = Literal["logits", "log_probabilities", "probabilities"]
EncodingName = Literal["dense", "label"]
AugmentName = Literal["affine"]
OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["one_cycle", "cosine", "constant"]
PrecisionName = Literal["float32", "bfloat16"]


class Config(BaseModel):
    """Frozen and strict: a misspelt key is an error, and the bound sits on the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class SklearnSource(Config):
    """A data set that ships inside scikit-learn."""

    kind: Literal["sklearn"]
    name: Literal["digits", "iris", "wine", "breast_cancer"]
    """`digits` has the columns `image` (uint8 [8, 8, 1], 0 to 16) and `digit`; the others `features` and `target`."""


class TableSource(Config):
    """Parquet or Arrow IPC files: one file, or a folder of them (read in the order of their names)."""

    kind: Literal["parquet", "arrow"]
    path: str
    """A file or a folder. Hugging Face image columns (`struct<bytes, path>`) and ClassLabel names are understood."""


class ImageFolderSource(Config):
    """One folder of images per class. Columns: `image` and `label`."""

    kind: Literal["image_folder"]
    path: str
    """The folder that holds the class folders."""


class TextTableSource(Config):
    """CSV (with a header) or JSON lines: numeric features, one record a row."""

    kind: Literal["csv", "jsonl"]
    path: str
    """A file or a folder."""


class NumpySource(Config):
    """An `.npz` file (its arrays are the columns) or a folder of `.npy` files (the file names are). Never unpickled."""

    kind: Literal["numpy"]
    path: str
    """The `.npz` file, or the folder of `.npy` files."""


class ImportSource(Config):
    """A function of yours that returns a `pyarrow.Table`, or an iterator of tables for data that does not fit memory."""

    kind: Literal["import"]
    function: ImportString
    """`package.module:name`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the function."""


Source = Annotated[
    SklearnSource | TableSource | ImageFolderSource | TextTableSource | NumpySource | ImportSource,
    Field(discriminator="kind"),
]


class SplitFiles(Config):
    """Files of each split; names inside `source.path`."""

    train: str
    """File or folder of the training rows."""
    validation: str | None = None
    """File or folder of the validation rows; null: `split.validation` is taken out of train."""
    test: str
    """File or folder of the test rows."""


class SplitConfig(Config):
    """Who is in which split: by a seeded hash of the row's key (or of `group_by`), or by given files."""

    train: float | None = Field(None, gt=0, lt=1)
    """Share of training rows; null: what the others leave."""
    validation: float | None = Field(None, gt=0, lt=1)
    """Share of validation rows (default 0.1); with `files` and no validation file a share of train."""
    test: float | None = Field(None, gt=0, lt=1)
    """Share of test rows (default 0.2); not with `files`."""
    seed: int = Field(0, ge=0)
    """Another seed, another split."""
    group_by: str | None = None
    """Column whose equal values always fall into the same split."""
    files: SplitFiles | None = None
    """Files that are the splits."""

    @model_validator(mode="after")
    def shares_add_up(self) -> Self:
        if self.files is not None:
            if self.train is not None or self.test is not None:
                raise ValueError("`files` gives train and test; of the shares only `validation` may stand beside it")
            if self.files.validation is not None and self.validation is not None:
                raise ValueError("give a validation file or a validation share, not both")
        else:
            total = (self.train or 0.0) + self.validation_share + self.test_share
            if total > 1 + 1e-9:
                raise ValueError(f"train, validation and test add up to {total:g}, more than 1")
            if self.train is None and total >= 1 - 1e-9:
                raise ValueError("validation and test leave nothing to train on")
        return self

    @property
    def validation_share(self) -> float:
        return 0.1 if self.validation is None else self.validation

    @property
    def test_share(self) -> float:
        return 0.2 if self.test is None else self.test


class TransferSetConfig(Config):
    """The inputs on which teachers are asked; labels are optional."""

    source: Source
    """Where the rows come from."""
    inputs: str | list[str]
    """Input column, or several; numeric scalar columns are joined into one column `features`."""
    label: str | None
    """Column of the class; null: no row has a label."""
    classes: list[str] | None = None
    """Class names in the order of the label's integers; null: from the source's metadata or its sorted values."""
    id: str | None = None
    """Column that names a row; null: its path and row number inside the file."""
    key_salt: str = ""
    """Put before every id when it is hashed; the cure for a collision of keys."""
    split: SplitConfig = SplitConfig()
    """Who trains, who chooses, who tests."""
    labelled: int | None = Field(None, ge=1)
    """Stratified training rows whose label may be used, the others are transfer data only; null: all."""
    limit: int | None = Field(None, ge=1)
    """At most so many rows of each split, the first in key order; for short runs."""
    image_size: int | None = Field(None, ge=1, le=4096)
    """Edge in pixels that images are stored at; null: their own size, which must then be equal."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be used ends the run, or is dropped and counted in the report."""
    views: Literal[0] = 0
    """Replayable augmentations of every training row; view 0 is the row itself."""


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
    augment: AugmentName | ImportString | None = None
    """Fresh random augmentation of every batch: `affine`, or a function (inputs, generator) -> inputs."""
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
    batch_size: int = Field(256, ge=1)
    """Rows of one forward; halves when a GPU runs out of memory."""
    replicas: int = Field(1, ge=1)
    """Actors that label side by side."""
    resources: Resources = Resources()
    """Of one replica."""


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

DECIDES_NOTHING = {"batch_size", "replicas", "resources"}
"""Fields of a teacher that cannot change what it says: left out of stage keys."""


def tag_or(names: tuple[str, ...], field: str, otherwise: str) -> Discriminator:
    """Choose a union's member by `field`: itself when it is one of `names`, else `otherwise` (an import string)."""

    def choose(value: Any) -> str:
        found = value.get(field) if isinstance(value, dict) else getattr(value, field, None)
        return found if found in names else otherwise

    return Discriminator(choose)
