"""What a recipe can say of teachers and of training a network; the transfer set's part is in source_config.

Knows nothing of torch, ray or any student: reading a recipe imports this and must stay quick.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .any_teacher import OutputKind, TeacherCommon
from .detecting import Detector
from .endpoint import EndpointTeacher
from .folds import EstimatorTrain, Folded
from .outputs import TorchTeacher
from .predictions import PredictionsTeacher
from .preprocess import HOW_IT_WAS_FED, Preprocess, of_a_network, of_an_estimator
from .published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from .strict import ImportString
from .training import TrainConfig

CombineName = Literal[
    "mean_probability",
    "mean_logits",
    "weighted",
    "fitted",
    "mean",
    "median",
    "inverse_variance",
    "vote",
    "confidence",
    "entropy",
    "correctness",
    "best",
    "experts",
    "learned",
    "confusion",
    "gradient",
    "route",
    "wbf",
    "nms",
    "soft_nms",
    "nmw",
]


class TeacherTrain(TrainConfig, Folded):
    """A teacher that is trained here, by hard labels on the labelled rows."""

    seed: int = Field(0, ge=0)
    """Of its initial weights and the order of rows."""


class ModuleTeacher(TorchTeacher):
    """A torch module: trained here, or with given weights."""

    kind: Literal["module"]
    model: ImportString
    """Function or class that makes the module; it is called with `arguments` and, as far as it takes them, `num_classes`, `input_shape`, `num_codes` and `vocabulary_size`."""
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


class CheckpointTeacher(TorchTeacher):
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


class CallableTeacher(TeacherCommon, Detector):
    """A function of yours: {column: array [rows, ...]} -> scores [rows, classes], or the boxes of each row."""

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
    ModuleTeacher
    | CheckpointTeacher
    | SklearnTeacher
    | CallableTeacher
    | PredictionsTeacher
    | EndpointTeacher
    | HuggingFaceTeacher
    | TimmTeacher
    | OnnxTeacher,
    Field(discriminator="kind"),
]

DECIDES_NOTHING = {"mode", "on_bad_row", "prefetch", "batch_size", "replicas", "resources", "stall_timeout_s", "require", "retries", "retry_pause_s", "device_map", "label", "max_missing", "url", "key", "key_header", "keep", "timeout_s", "max_attempts", "max_failed_share", "patience_s", "limits", "price", "budget", "rows_per_request", "licence"}  # fmt: skip
"""Fields of a teacher that cannot change what it says of a row: left out of stage keys."""
