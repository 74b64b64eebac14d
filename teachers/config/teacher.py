"""What a recipe can say of teachers and of training a network; the transfer set's part is in source_config.

Knows nothing of torch, ray or any student: reading a recipe imports this and must stay quick.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .bars import Bars
from .folds import EstimatorTrain, Folded
from .preprocess import HOW_IT_WAS_FED, Preprocess, of_a_network, of_an_estimator
from .resources import Resources
from .strict import Config, ImportString
from .training import TrainConfig

CombineName = Literal["mean_probability", "mean_logits", "weighted", "mean", "median", "inverse_variance"]
OutputKind = Literal["logits", "log_probabilities", "probabilities", "values"]
EncodingName = Literal["dense", "label"]
CalibrateName = Literal["temperature", "isotonic"]
TeacherMode = Literal["cached", "live"]


class TeacherTrain(TrainConfig, Folded):
    """A teacher that is trained here, by hard labels on the labelled rows."""

    seed: int = Field(0, ge=0)
    """Of its initial weights and the order of rows."""


class TeacherRequire(Bars):
    """Quality gate before students are trained: exit code 3 for a teacher that is not better than always giving the commonest answer (95 %) on the labelled validation rows, or that misses a bar of yours: a figure of the task by its key, at least so much, or at most where less is better."""


class TeacherCommon(Config):
    """What every teacher has, whatever its kind."""

    classes: list[str] | None = None
    """Names of what it scores, in its order; null: the transfer set's (a checkpoint's and an estimator's are known). Of a teacher that is trained here: those of the transfer set's classes that it learns, from their rows alone."""
    class_map: dict[str, str | None] | None = None
    """Teacher's class: transfer set's class, or null for one that takes no part. Needed when the names differ."""
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
    batch_size: int = Field(256, ge=1)
    """Rows of one forward; halves when a GPU runs out of memory."""
    replicas: int = Field(1, ge=1)
    """Actors that label, or answer, side by side."""
    resources: Resources = Resources()
    """Of one replica."""
    require: TeacherRequire | None = TeacherRequire()
    """Quality gate; null: students are trained from it whatever it is worth, which is meant."""
    stall_timeout_s: Annotated[float, Field(gt=0)] | None = 900.0
    """A replica that has neither finished a batch nor its loading for so many seconds is killed, and another takes its place; null: it is only told, every ten seconds."""

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


class ModuleTeacher(TeacherCommon):
    """A torch module: trained here, or with given weights."""

    kind: Literal["module"]
    model: ImportString
    """Function or class that makes the module; it is called with `arguments` and, as far as it takes them, `num_classes` and `input_shape`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the model; `${NAME}` in them is a variable of the environment."""
    files: list[str] = []
    """Files and folders that the model reads; they count by content, as does an argument that is a path."""
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

    @model_validator(mode="after")
    def is_told_how_it_was_fed(self) -> Self:
        of_a_network(self.preprocess)
        if self.weights is not None and not self.preprocess.is_stated:
            raise ValueError(f"`weights` are given, so say how they were fed when they were trained: {HOW_IT_WAS_FED}")
        return self


class CheckpointTeacher(TeacherCommon):
    """A Collegium model folder: yesterday's student teaches."""

    kind: Literal["checkpoint"]
    path: str
    """The folder."""
    files: list[str] = []
    """Files and folders that the code of its architecture reads; they count by content."""

    @model_validator(mode="after")
    def has_a_preprocess_of_its_own(self) -> Self:
        if self.preprocess != Preprocess():
            raise ValueError("the folder says how its network is fed: leave `preprocess` out")
        return self


class SklearnTeacher(TeacherCommon):
    """Any estimator with scikit-learn's interface and `predict_proba`, boosted trees of XGBoost, LightGBM and CatBoost too: trained here on the labelled rows, or loaded from its file."""

    kind: Literal["sklearn"]
    model: ImportString | None = None
    """Class of the estimator, trained here: `sklearn.ensemble:ExtraTreesClassifier`, `xgboost:XGBClassifier`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the estimator."""
    files: list[str] = []
    """Files and folders that the estimator reads; they count by content, as does an argument that is a path."""
    seed: int = Field(0, ge=0)
    """`random_state`, where the estimator has one; of folds and of the rows that early stopping looks at."""
    train: EstimatorTrain = EstimatorTrain()
    """Folds, early stopping."""
    weights: str | None = None
    """A `*.skops` file, or boosted trees in their library's own: `*.json` or `*.ubj` (XGBoost), `*.txt` (LightGBM), `*.cbm` or `*.json` (CatBoost)."""
    trusted: list[str] = []
    """Types beyond scikit-learn's own that the skops file may name."""

    @model_validator(mode="after")
    def has_an_estimator_from_somewhere(self) -> Self:
        if (self.model is None) == (self.weights is None):
            raise ValueError("give `model` (trained here) or `weights` (a skops file), one of them")
        if self.weights is not None and self.train != EstimatorTrain():
            raise ValueError(
                "`train` says how an estimator is fitted here, and `weights` are given: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def is_fed_as_it_was_made(self) -> Self:
        of_an_estimator(self.preprocess)
        if self.weights is not None and not self.preprocess.is_stated:
            object.__setattr__(self, "preprocess", self.preprocess.as_made())  # whether that will do, the file says
        return self

    @property
    def output(self) -> OutputKind:
        return "probabilities"


class CallableTeacher(TeacherCommon):
    """A function of yours: {column: array [rows, ...]} -> scores [rows, classes]."""

    kind: Literal["callable"]
    function: ImportString
    """`package.module:name`; gets canonical inputs, which it prepares itself: it has no `preprocess`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the function; `${NAME}` in them is a variable of the environment."""
    files: list[str] = []
    """Files and folders that the function reads; they count by content, as does an argument that is a path."""
    version: str | None = None
    """Of answers that come from elsewhere, which no digest of code and files decides: a function that opens a connection needs one. Another version, other labels."""
    output: OutputKind
    """What its numbers are."""
    retries: int = Field(5, ge=0)
    """Times that rows which it could not answer (`None` in place of their scores, `AskAgain`, an HTTP server that is away or too busy) are asked again, they alone."""
    retry_pause_s: float = Field(1.0, ge=0)
    """Before they are asked again the first time, in seconds; each further pause is twice as long, and what a server asks for counts too."""

    @model_validator(mode="after")
    def prepares_its_inputs_itself(self) -> Self:
        if self.preprocess != Preprocess():
            raise ValueError("a function gets canonical inputs and prepares them itself: leave `preprocess` out")
        return self


TeacherConfig = Annotated[
    ModuleTeacher | CheckpointTeacher | SklearnTeacher | CallableTeacher, Field(discriminator="kind")
]

DECIDES_NOTHING = {"mode", "prefetch", "batch_size", "replicas", "resources", "stall_timeout_s", "require", "retries", "retry_pause_s"}  # fmt: skip
"""Fields of a teacher that cannot change what it says of a row: left out of stage keys."""
