"""Foreign models as teachers: one `Teacher` for every kind that a recipe can name.

Knows nothing of Ray, of stores, or of where the rows come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.any_teacher import OutputKind
from ..config.outputs import NetworkTeacher, TorchTeacher
from ..config.predictions import PredictionsTeacher
from ..config.preprocess import Preprocess
from ..config.published import HuggingFaceTeacher, OnnxTeacher, TimmTeacher
from ..config.task import AnswerName
from ..config.teacher import CallableTeacher, CheckpointTeacher, ModuleTeacher, SklearnTeacher, TeacherConfig
from ..errors import RecipeError
from ..process.variables import resolved
from ..tasks.places import resized
from ..tasks.space import Space
from ..transfer_set.columns import Column
from ..transfer_set.folds import PARTS, Folds
from ..users_code import imports
from ..users_code.calls import calling
from . import estimators, huggingface, networks, onnx_teacher, published_files, timm_teacher
from .asking import asked_until_answered, with_unknown
from .detectors.answers import Answers
from .detectors.flips import with_flips
from .detectors.said import Keeping
from .estimator_answers import ESTIMATOR_ANSWERS
from .estimator_columns import check_takes_nan
from .folded import Answer, Batch, FoldedTeacher, Said, Scores, said_of
from .folder import load_model, read_config
from .outputs import with_outputs
from .predicted_boxes import box_classes
from .predictions import Predictions
from .preprocess import Preprocessor
from .scores import tensor_of
from .teacher import LoadedTeacher, Teacher

OUTPUTS: dict[AnswerName, OutputKind] = {"values": "values", "boxes": "boxes"}
"""What is said, whoever says it, of answers that are one thing only."""


def load_teacher(
    config: TeacherConfig,
    *,
    columns: Sequence[Column],
    space: Space,
    trained: Path | None,
    trust: Sequence[str],
    device: str | torch.device,
    user_path: imports.UserPath,
) -> Teacher:
    """Load what `config` names.

    `columns` and `space` are the transfer set's; `trained` is the folder of a teacher that was trained here, or of an
    assistant. Raises TeacherError (weights), StoreError (a model folder) or RecipeError (an import string).
    """
    imports.use_user_path(user_path)
    load = partial(_load, config, columns, space, trust=trust, device=device)
    folds = folds_of(config)
    if folds is None or trained is None:
        return load(trained)
    parts = [load(trained / PARTS / name) for name in folds.parts]
    first = parts[0].classes
    asked = [_in_order(part, first) for part in parts]
    about = asked, space.answer, False, parts[0].text, space.max_boxes, parts[0].sees
    return FoldedTeacher(first, parts[0].output, folds, trained, *about)


def _load(
    config: TeacherConfig,
    columns: Sequence[Column],
    space: Space,
    trained: Path | None,
    *,
    trust: Sequence[str],
    device: str | torch.device,
) -> LoadedTeacher:
    if isinstance(config, ModuleTeacher):
        found = networks.of_weights(config, columns, space, trained, trust, device)
    elif isinstance(config, CheckpointTeacher):
        found = networks.of_folder(load_model(trained or Path(config.path), trust=trust, device=device), columns)
    elif isinstance(config, SklearnTeacher):
        found = _sklearn(config, columns, space, trained)
    elif isinstance(config, HuggingFaceTeacher):
        found = huggingface.load(config, columns, space, device)
    elif isinstance(config, TimmTeacher):
        found = timm_teacher.load(config, columns, space, device)
    elif isinstance(config, OnnxTeacher):
        found = onnx_teacher.load(config, columns, space)
    else:
        assert isinstance(config, CallableTeacher), "files are read and endpoints are asked without being loaded"
        found = _callable(config, space, columns)
    if isinstance(config, NetworkTeacher) and not found.gives_outputs:
        found = with_outputs(found, config.outputs)
    if isinstance(config, TorchTeacher):
        found = computed(found, config, torch.device(device).type)
    if space.max_boxes:
        found = replace(found, forward=with_room(found.forward, space.max_boxes))
    output = OUTPUTS.get(space.answer, found.output)
    found = replace(found, answer=space.answer, output=output, max_boxes=space.max_boxes)
    return with_flips(found, config, [column.name for column in columns if column.kind == "image"])


def computed(teacher: LoadedTeacher, config: TorchTeacher, device_type: str) -> LoadedTeacher:
    """The same as the recipe has it computed: in bfloat16, compiled."""
    if config.compile and teacher.network is not None:
        teacher.network.compile(dynamic=True)
    if config.precision == "float32":
        return teacher
    forward = teacher.forward

    def in_bfloat16(batch: Batch) -> Answer:
        with torch.autocast(device_type, torch.bfloat16):
            return forward(batch)

    return replace(teacher, forward=in_bfloat16)


def with_room(ask: Callable[[Batch], Answer], max_boxes: int) -> Callable[[Batch], Answer]:
    """The same with room for so many boxes a row, whatever it has itself."""

    def asked(batch: Batch) -> Said:
        said = said_of(ask(batch))
        return said._replace(scores=resized(tensor_of(said.scores), max_boxes))

    return asked


def folds_of(config: TeacherConfig) -> Folds | None:
    """How the rows are divided that a teacher learns here; None where it learns all of them at once."""
    if isinstance(config, ModuleTeacher):
        return Folds.of_config(config.train, config.train.seed) if config.train is not None else None
    return Folds.of_config(config.train, config.seed) if isinstance(config, SklearnTeacher) else None


def _in_order(part: Teacher, classes: tuple[str, ...]) -> Callable[[Batch], Answer]:
    """The part with its columns in this order."""
    if part.classes == classes:
        return part
    places = [part.classes.index(name) for name in classes]

    def ordered(batch: Batch) -> Said:
        said = said_of(part(batch))
        return said._replace(scores=said.scores[:, places])

    return ordered


def teacher_classes(config: TeacherConfig, space: Space, trained: Path | None) -> tuple[str, ...]:
    """What a teacher scores, in its order, without loading it where its files say so. `space`: the transfer set's."""
    if isinstance(config, CheckpointTeacher):
        return read_config(trained or Path(config.path)).classes
    if isinstance(config, SklearnTeacher):
        if trained is not None:
            folds = folds_of(config)
            return estimators.fitted_classes(trained if folds is None else trained / PARTS / folds.parts[0])
        return _names_of(estimators.load_estimator(Path(config.weights or ""), config, space.answer), config, space)
    if isinstance(config, HuggingFaceTeacher | TimmTeacher | OnnxTeacher):
        return published_files.classes_of(config, space)
    if isinstance(config, PredictionsTeacher):
        return box_classes(config, space) if config.format is not None else Predictions.open(config, space).classes
    return tuple(config.classes or space.names)


def absolute(config: TeacherConfig) -> TeacherConfig:
    """The same teacher for a process with another working directory."""
    given = {name: getattr(config, name, None) for name in ("weights", "path")}
    update: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in given.items() if path}
    if examples := getattr(config, "examples", None):
        update["examples"] = {name: [str(Path(file).resolve()) for file in files] for name, files in examples.items()}
    preprocess: Preprocess | None = getattr(config, "preprocess", None)
    return config.model_copy(update=update | ({"preprocess": preprocess.absolute()} if preprocess else {}))


def look_like_probabilities(logits: np.ndarray | Tensor) -> bool:
    """Whether scores `[rows, C]` that are called logits are nowhere below 0 and sum to 1 in every row."""
    scores = tensor_of(logits)
    if not len(scores) or scores.shape[1] < 2:
        return False
    return bool((scores > -1e-3).all()) and bool(((scores.sum(1) - 1).abs() < 1e-2).all())


def _sklearn(config: SklearnTeacher, columns: Sequence[Column], space: Space, trained: Path | None) -> LoadedTeacher:
    if trained is not None:
        estimator, names = estimators.load_fitted(trained, config, space.answer), estimators.fitted_classes(trained)
    else:
        estimator = estimators.load_estimator(Path(config.weights or ""), config, space.answer)
        names = _names_of(estimator, config, space)
    preprocessor = Preprocessor(config.preprocess, columns)
    check_takes_nan(estimator, config, columns)

    def forward(batch: Batch) -> Scores:
        features = estimators.flat(preprocessor, batch)
        with calling("model" if trained is not None else "weights", str(config.model or config.weights)):
            return ESTIMATOR_ANSWERS[space.answer].ask(estimator, features)

    text, sees = preprocessor.text, preprocessor.sees
    return LoadedTeacher(names, config.output, forward, may_not_know=False, text=text, sees=sees)


def _names_of(estimator: Any, config: SklearnTeacher, space: Space) -> tuple[str, ...]:
    """Of an estimator from elsewhere: its classes say which they are, classes of a set and numbers are in the recipe's order."""
    if space.answer == "class_axis":
        return estimators.class_names(estimator.classes_, config.classes, space.names)
    return tuple(config.classes or space.names)


def _callable(config: CallableTeacher, space: Space, columns: Sequence[Column]) -> LoadedTeacher:
    function, arguments = imports.load(config.function), resolved(config.arguments)
    if not callable(function):
        raise RecipeError(f"{config.function} is a {type(function).__name__}, expected a function")
    names = tuple(config.classes or space.names)  # what it scores; its columns say what codes of categories mean
    keeping = Keeping.of(config, space.max_boxes)
    boxes = Answers(config.function, names, keeping) if space.answer == "boxes" else None
    arguments = imports.asked_for(function, {"columns": tuple(columns), "classes": names}) | arguments

    def ask(batch: Batch) -> Scores:
        with calling("function", config.function):
            said = function(batch, **arguments)
            scores: Scores = boxes(said) if boxes is not None else with_unknown(said, config.function)
        return scores

    def forward(batch: Batch) -> Scores:
        return asked_until_answered(ask, batch, config.function, retries=config.retries, pause_s=config.retry_pause_s)

    return LoadedTeacher(names, config.output, forward)
