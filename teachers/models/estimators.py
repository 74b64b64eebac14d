"""scikit-learn estimators as teachers: fitted here on the labelled rows, kept as skops, whose types are checked.

Knows nothing of torch modules or of labelling. skops, and scikit-learn with it, is imported where it is used: every
replica imports this module, and few hold estimators.
"""

import inspect
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.teacher import SklearnTeacher
from ..errors import RecipeError, TeacherError
from ..storage import seal
from ..transfer_set.class_names import as_number, name_of, places_of
from ..transfer_set.columns import Column
from ..transfer_set.transfer_set import TransferSet
from ..users_code import imports
from ..users_code.calls import calling
from .foreign import not_skops
from .preprocess import Preprocessor

FORMAT = 1
MODEL = "model.skops"
ABOUT = "teacher.json"

CATEGORY_KEYWORDS = ("categorical_feature", "cat_features")
"""Of `fit`, by which LightGBM and CatBoost are told which features are categories."""

SKLEARN_TYPES = {
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
}
"""Parts of scikit-learn's own classifiers that skops leaves for its user to trust: they hold arrays and run nothing."""


def fit_sklearn(config: SklearnTeacher, transfer_set: TransferSet, folder: Path) -> None:
    """Fit `config.model` on the labelled training rows and write `model.skops` and `teacher.json` into `folder`.

    The same rows, arguments and seed give the same bytes, whatever the number of CPUs. Raises RecipeError when the
    estimator cannot be made, TeacherError when it has no `predict_proba` or holds types that nobody vouched for.
    """
    import skops.io

    if config.classes is not None:
        transfer_set = transfer_set.of_classes(config.classes)
    features, labels = _labelled_rows(config, transfer_set)
    present, numbers = np.unique(labels, return_inverse=True)  # 0 to K - 1 without a gap, as many estimators want them
    estimator = make_estimator(config)
    check_takes_nan(estimator, config, transfer_set.columns)
    told = categories_told(estimator, config, Preprocessor(config.preprocess, transfer_set.columns))
    with calling("model", str(config.model)):
        estimator = estimator.fit(features, numbers, **told)
    _check_fitted(estimator, str(config.model))
    _use_cpus(estimator, config, 1)  # how many there were is no part of what it has learnt
    payload = canonical_skops(skops.io.dumps(estimator))
    _check_types(skops.io.get_untrusted_types(data=payload), config.trusted, str(config.model))
    classes = [transfer_set.classes[present[number]] for number in estimator.classes_]
    folder.mkdir(parents=True, exist_ok=True)
    seal.publish(folder / MODEL, payload)
    seal.publish(folder / ABOUT, json.dumps({"format": FORMAT, "classes": classes}, indent=1).encode())


def load_estimator(path: Path, config: SklearnTeacher) -> Any:
    """The estimator in a skops file. Raises TeacherError that lists its types when they are not trusted."""
    import skops.io

    if wrong := not_skops(path):
        raise TeacherError(wrong)
    try:
        types = skops.io.get_untrusted_types(file=path)
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{path}: not readable as skops ({error})") from error
    _check_types(types, config.trusted, str(path))
    estimator = skops.io.load(path, trusted=types)
    _check_fitted(estimator, f"{path}: the {type(estimator).__name__} in it")
    _use_cpus(estimator, config, config.resources.cpus)
    return estimator


def fitted_classes(folder: Path) -> tuple[str, ...]:
    """Names of the classes that the estimator in `folder`, fitted here, has seen."""
    document = json.loads(seal.local(folder, ABOUT).read_bytes())
    seal.check_format(document, FORMAT, folder / ABOUT)
    return tuple(document["classes"])


def class_names(found: Sequence[Any], given: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of `classes_` of an estimator from elsewhere: as `given`, else what its values name.

    A number is a class of the transfer set with this number for a name or, where none of them is a number, the position
    of one. Raises TeacherError for numbers that are neither: positions among classes that are numbers would be a guess.
    """
    names = tuple(name_of(name) for name in found)
    if given is not None:
        if len(given) != len(names):
            raise TeacherError(f"`classes` has {len(given)} names, the estimator knows {len(names)} classes: {names}")
        return tuple(given)
    places = places_of(names, classes)
    if None in places and all(as_number(name) is not None for name in names):
        raise TeacherError(
            f"the estimator's classes {names} are neither names nor positions of the transfer set's "
            f"{len(classes)} classes; name them in `classes`, in this order"
        )
    return tuple(name if place is None else classes[place] for name, place in zip(names, places, strict=True))


def flat(preprocessor: Preprocessor, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What an estimator takes: f32 `[rows, features]`, the columns side by side."""
    tensors = preprocessor(inputs)
    parts = list(tensors.values()) if isinstance(tensors, dict) else [tensors]
    return np.concatenate([part.flatten(1).cpu().numpy() for part in parts], axis=1)


def canonical_skops(payload: bytes) -> bytes:
    """The same estimator with nothing of time or memory addresses in it, which skops names its parts by."""
    source = zipfile.ZipFile(io.BytesIO(payload))
    schema = json.loads(source.read("schema.json"))
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        if isinstance(name := node.get("file"), str):
            node["file"] = files.setdefault(name, f"{len(files)}{Path(name).suffix}")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        written.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
        for name, renamed in files.items():
            written.writestr(zipfile.ZipInfo(renamed), source.read(name))
    return target.getvalue()


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def check_says_probabilities(estimator: Any, name: str) -> None:
    """Raise TeacherError for an estimator, fitted or not, that gives no probabilities."""
    if not hasattr(estimator, "predict_proba"):
        raise TeacherError(f"{name} has no predict_proba; choose an estimator, or arguments, that give probabilities")


def _check_fitted(estimator: Any, name: str) -> None:
    check_says_probabilities(estimator, name)
    if not hasattr(estimator, "classes_"):
        raise TeacherError(f"{name} has no classes_: it is not fitted, or no classifier")


def make_estimator(config: SklearnTeacher) -> Any:
    """What `config.model` makes with its arguments, not fitted. Raises RecipeError when it cannot be made so."""
    assert config.model is not None
    make = imports.load(config.model)
    names = inspect.signature(make).parameters
    arguments = ({"random_state": config.seed} if "random_state" in names else {}) | config.arguments
    try:
        estimator = make(**arguments)
    except TypeError as error:
        raise RecipeError(f"{config.model} cannot be made with {sorted(arguments)}: {error}") from error
    if lacking := [name for name in ("fit", "get_params") if not hasattr(estimator, name)]:
        raise RecipeError(f"{config.model} gives a {type(estimator).__name__}, which is no estimator: no {lacking[0]}")
    _use_cpus(estimator, config, config.resources.cpus)
    return estimator


def check_takes_nan(estimator: Any, config: SklearnTeacher, columns: Sequence[Column]) -> None:
    """Raise RecipeError where an estimator would get NaN, and says of itself that it takes none."""
    from sklearn.utils import get_tags

    kept = config.preprocess.missing == "keep" and any(column.kind == "number" and column.missing for column in columns)
    native = config.preprocess.categories == "native" and any(column.kind == "category" for column in columns)
    if config.preprocess.function is not None or not (kept or native):
        return
    try:
        takes_nan = get_tags(estimator).input_tags.allow_nan
    except AttributeError:  # it says nothing
        return
    if not takes_nan:
        key, cure = ("missing: keep", "missing: mean") if kept else ("categories: native", "categories: one_hot")
        raise RecipeError(
            f"preprocess: `{key}` gives NaN, which {type(estimator).__name__} does not take; say `{cure}`, or choose an "
            f"estimator that does (HistGradientBoostingClassifier, LightGBM, XGBoost)"
        )


def categories_told(estimator: Any, config: SklearnTeacher, preprocessor: Preprocessor) -> dict[str, Any]:
    """Tell an estimator which of its features are categories; keywords of its `fit`, where it is told there.

    Raises RecipeError where `categories: native` asks for that and it takes no such list.
    """
    if config.preprocess.categories != "native" or not preprocessor.categorical_positions:
        return {}
    places = list(preprocessor.categorical_positions)
    if "categorical_features" in estimator.get_params(deep=False):
        estimator.set_params(categorical_features=places)
        return {}
    keyword = next((name for name in CATEGORY_KEYWORDS if name in inspect.signature(estimator.fit).parameters), None)
    if keyword is None:
        raise RecipeError(
            f"preprocess: `categories: native` is of estimators that are told which features are categories, and "
            f"{type(estimator).__name__} is not; say `ordinal` or `one_hot`"
        )
    return {keyword: places}


def _use_cpus(estimator: Any, config: SklearnTeacher, cpus: float) -> None:
    """Let the estimator use so many CPUs, unless the recipe's arguments say how many."""
    if "n_jobs" in estimator.get_params(deep=False) and "n_jobs" not in config.arguments:
        estimator.set_params(n_jobs=int(cpus) if cpus >= 2 else None)


def _labelled_rows(config: SklearnTeacher, transfer_set: TransferSet) -> tuple[np.ndarray, np.ndarray]:
    """Features f32 [rows, F] and labels i32 [rows] of the training rows whose label may be used, in the order of keys."""
    preprocessor = Preprocessor(config.preprocess, transfer_set.columns)
    features, labels, keys = [], [], []
    for segment in transfer_set.of("train"):
        rows = np.flatnonzero(transfer_set.labelled(segment))
        inputs = transfer_set.inputs(segment)
        features.append(flat(preprocessor, {name: column[rows] for name, column in inputs.items()}))
        labels.append(transfer_set.labels(segment)[rows])
        keys.append(transfer_set.keys(segment)[rows])
    if not sum(map(len, labels)):
        raise TeacherError(f"there is no labelled row to fit {config.model} on; set `label` in the transfer set")
    order = np.argsort(np.concatenate(keys), kind="stable")
    return np.concatenate(features)[order], np.concatenate(labels)[order]


def _check_types(types: Sequence[str], trusted: Sequence[str], source: str) -> None:
    if strange := sorted(set(types) - SKLEARN_TYPES - set(trusted)):
        raise TeacherError(
            f"{source} holds the types {', '.join(strange)}, which could run code when they are loaded; "
            f"if you know them, list them under `trusted`"
        )
