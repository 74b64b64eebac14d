"""Which file an estimator is kept in, and what else its library has of its own: a literal table.

Files hold numbers and run nothing: skops, whose types are checked, for scikit-learn and what is made like it; boosted trees
in their libraries' own formats. Knows nothing of recipes.
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RecipeError, TeacherError
from . import boosted
from .foreign import library_of, no_file, not_skops

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
"""Parts of scikit-learn's own estimators that skops leaves for its user to trust: they hold arrays and run nothing."""

StopEarly = Callable[[Any, int, Mapping[str, Any]], dict[str, Any]]
"""(estimator, rounds, rows that are looked at) -> keywords of `fit`."""


@dataclass(frozen=True)
class Format:
    """What a library has of its own. `dump`: the bytes of a fitted estimator, the same on any number of CPUs."""

    file: str
    dump: Callable[[Any], bytes]
    load: Callable[[Path], Any] | None
    """None: skops, which needs to be told whose types are trusted."""
    threads: str = "n_jobs"
    always: Mapping[str, Any] | None = None
    """Arguments that an estimator of it gets before the recipe's: quiet, and the same on any number of CPUs."""
    on_gpu: Mapping[str, Any] | None = None
    """Arguments with which it computes on a GPU; None: it has none, or its packages come without."""
    stop_early: StopEarly | None = None


def skops_bytes(estimator: Any) -> bytes:
    import skops.io

    return canonical_skops(skops.io.dumps(estimator))


SKOPS = Format("model.skops", skops_bytes, None)
FORMATS: dict[str, Format] = {
    "xgboost": Format(
        "model.json", boosted.xgboost_bytes, boosted.load_xgboost, on_gpu={"device": "cuda"}, stop_early=boosted.stop_xgboost
    ),
    "lightgbm": Format(
        "model.txt",
        boosted.lightgbm_bytes,
        boosted.load_lightgbm,
        always={"verbose": -1, "deterministic": True, "force_row_wise": True},
        stop_early=boosted.stop_lightgbm,
    ),
    "catboost": Format(
        "model.cbm",
        boosted.catboost_bytes,
        boosted.load_catboost,
        threads="thread_count",
        always={"verbose": False, "allow_writing_files": False},
        on_gpu={"task_type": "GPU"},
        stop_early=boosted.stop_catboost,
    ),
}  # fmt: skip
"""By the library that the estimator's class is of; `SKOPS` for all others."""


def format_of(kind: type) -> Format:
    """Of an estimator's class: its library's own, for who has added nothing to it."""
    return FORMATS.get(kind.__module__.partition(".")[0], SKOPS)


def load_file(path: Path, trusted: Sequence[str]) -> Any:
    """The estimator in a file. Raises TeacherError that lists the types of a skops file which are not trusted,
    RecipeError without the library that the file is of."""
    library = library_of(path)
    if library == "skops":
        return _load_skops(path, trusted)
    if wrong := no_file(path):
        raise TeacherError(wrong)
    load = FORMATS[library].load
    assert load is not None
    try:
        return load(path)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"{path} is a model of {library}, which is not installed here ({error}): pip install collegium[{library}]"
        ) from None


def _load_skops(path: Path, trusted: Sequence[str]) -> Any:
    import skops.io

    if wrong := not_skops(path):
        raise TeacherError(wrong)
    try:
        types = skops.io.get_untrusted_types(file=path)
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{path}: not readable as skops ({error})") from error
    check_types(types, trusted, str(path))
    return skops.io.load(path, trusted=types)


def kept(estimator: Any, trusted: Sequence[str], source: str) -> tuple[str, bytes]:
    """(file name, content) of a fitted estimator. Raises TeacherError that lists types which nobody vouched for."""
    found = format_of(type(estimator))
    payload = found.dump(estimator)
    if found is SKOPS:
        import skops.io

        check_types(skops.io.get_untrusted_types(data=payload), trusted, source)
    return found.file, payload


def num_numbers(estimator: Any) -> int:
    """How many numbers an estimator has learnt: of linear models their coefficients, of each node of a tree a feature and a
    threshold, of each leaf its values; 0 where nobody knows."""
    if hasattr(estimator, "num_numbers"):
        return int(estimator.num_numbers())
    if hasattr(estimator, "get_booster"):
        return boosted.numbers_of_xgboost(estimator)
    if hasattr(estimator, "steps"):
        return sum(num_numbers(step) for _, step in estimator.steps)
    if hasattr(estimator, "coef_"):
        return int(np.size(estimator.coef_) + np.size(estimator.intercept_))
    if hasattr(estimator, "tree_"):
        leaves = estimator.tree_.n_leaves
        return int(2 * (estimator.tree_.node_count - leaves) + leaves * np.prod(estimator.tree_.value.shape[1:]))
    parts = getattr(estimator, "estimators_", None)
    return sum(num_numbers(part) for part in np.ravel(np.asarray(parts, object))) if parts is not None else 0


def check_types(types: Sequence[str], trusted: Sequence[str], source: str) -> None:
    if strange := sorted(set(types) - SKLEARN_TYPES - set(trusted)):
        raise TeacherError(
            f"{source} holds the types {', '.join(strange)}, which could run code when they are loaded; "
            f"if you know them, list them under `trusted`"
        )


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
