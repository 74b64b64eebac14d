"""Boosted trees of XGBoost, LightGBM and CatBoost in the files of their own libraries, which hold numbers and run nothing.

Knows nothing of recipes. Each library is imported where it is used: it comes by an extra of its own.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import TeacherError

Floats = NDArray[np.floating[Any]]


def xgboost_bytes(estimator: Any) -> bytes:
    """JSON. How many threads grew the trees, and on what device, is not in it."""
    return bytes(estimator.get_booster().save_raw("json"))


def load_xgboost(path: Path) -> Any:
    """An XGBClassifier or XGBRegressor, as its objective says; classes are their numbers from 0 on."""
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(path)
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    except (xgboost.core.XGBoostError, KeyError, ValueError) as error:
        raise TeacherError(f"{path}: not readable as a model of XGBoost ({_first_line(error)})") from error
    kind = xgboost.XGBClassifier if objective.startswith(("binary:", "multi:")) else xgboost.XGBRegressor
    loaded = kind()
    loaded.load_model(path)
    return loaded


def numbers_of_xgboost(estimator: Any) -> int:
    """Of each split a feature and a threshold, of each leaf a value."""
    learner = json.loads(xgboost_bytes(estimator))["learner"]
    trees = learner["gradient_booster"].get("model", {}).get("trees", [])
    leaves = [sum(child < 0 for child in tree["left_children"]) for tree in trees]
    return sum(2 * (len(tree["left_children"]) - num) + num for tree, num in zip(trees, leaves, strict=True))


def lightgbm_bytes(estimator: Any) -> bytes:
    """Text, up to the best iteration; of how many threads grew the trees it says nothing any more."""
    text: str = estimator.booster_.model_to_string()
    return re.sub(r"^\[num_threads: .*\]$", "[num_threads: 0]", text, flags=re.MULTILINE).encode()


def load_lightgbm(path: Path) -> "LightGBM":
    import lightgbm

    try:
        return LightGBM(lightgbm.Booster(model_file=str(path)))
    except (lightgbm.basic.LightGBMError, OSError) as error:
        raise TeacherError(f"{path}: not readable as a model of LightGBM ({_first_line(error)})") from error


class Asked:
    """A model from a file with scikit-learn's interface, asked with so many threads as `n_jobs` says."""

    n_jobs = 1

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"n_jobs": self.n_jobs}

    def set_params(self, *, n_jobs: int | None) -> Self:
        self.n_jobs = n_jobs or 1
        return self


class LightGBM(Asked):
    """A booster of LightGBM, whose own estimators cannot be made of one. A classifier, if its objective is one."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        found = re.search(r"^objective=(\S+)", booster.model_to_string(num_iteration=1), re.MULTILINE)
        if found and found[1].startswith(("binary", "multiclass")):
            self.classes_ = np.arange(max(2, booster.num_model_per_iteration()))

    def num_numbers(self) -> int:
        """Of each split a feature and a threshold, of each leaf a value."""
        leaves = map(int, re.findall(r"^num_leaves=(\d+)", self.booster.model_to_string(), re.MULTILINE))
        return sum(2 * (num - 1) + num for num in leaves)

    def predict_proba(self, features: Floats) -> Floats:
        """f64 `[rows, classes]`."""
        said = self.predict(features)
        return np.stack([1 - said, said], axis=1) if said.ndim == 1 else said

    def predict(self, features: Floats) -> Floats:
        """What the booster says: of one value f64 `[rows]`, of several classes `[rows, classes]`."""
        said: Floats = self.booster.predict(features, num_threads=self.n_jobs)
        return said


KEPT_OF_CATBOOST = ("class_params", "params")
"""Of what CatBoost writes beside its trees: names of classes, and the loss, which says what the scores are. The rest is of
the moment and the machine."""


def catboost_bytes(estimator: Any) -> bytes:
    """CatBoost's binary format (cbm)."""
    about = estimator.get_metadata()
    for key in [*about.keys()]:
        if key not in KEPT_OF_CATBOOST:
            del about[key]
    params = json.loads(about["params"])
    about["params"] = json.dumps({"loss_function": params["loss_function"]}, sort_keys=True)
    with tempfile.TemporaryDirectory() as folder:
        estimator.save_model(f"{folder}/model.cbm", format="cbm")
        return Path(folder, "model.cbm").read_bytes()


def load_catboost(path: Path) -> "CatBoost":
    """`*.cbm` or `*.json`."""
    import catboost

    form = "json" if path.suffix == ".json" else "cbm"
    try:
        loaded = catboost.CatBoostClassifier().load_model(str(path), format=form)
        if not len(loaded.classes_):
            loaded = catboost.CatBoostRegressor().load_model(str(path), format=form)
    except (catboost.CatBoostError, ValueError) as error:
        raise TeacherError(f"{path}: not readable as a model of CatBoost ({_first_line(error)})") from error
    return CatBoost(loaded)


class CatBoost(Asked):
    """A model of CatBoost, whose settings cannot be changed any more. A classifier, if its file names classes."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if hasattr(model, "predict_proba"):
            self.classes_ = np.asarray(model.classes_)

    def num_numbers(self) -> int:
        """Of each level of a symmetric tree a feature and a threshold, of each leaf its values."""
        leaves = self.model.get_tree_leaf_counts()
        return int(2 * np.log2(leaves).sum() + len(self.model.get_leaf_values()))

    def predict_proba(self, features: Floats) -> Floats:
        """f64 `[rows, classes]`."""
        said: Floats = self.model.predict_proba(features, thread_count=self.n_jobs)
        return said

    def predict(self, features: Floats) -> Floats:
        """f64 `[rows]`."""
        said: Floats = self.model.predict(features, thread_count=self.n_jobs)
        return said


def stop_xgboost(estimator: Any, rounds: int, held: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `fit`. `held`: `X`, `y` and maybe `sample_weight` of the rows that are looked at."""
    estimator.set_params(early_stopping_rounds=rounds)
    weights = {"sample_weight_eval_set": [held["sample_weight"]]} if "sample_weight" in held else {}
    return {"eval_set": [(held["X"], held["y"])], "verbose": False, **weights}


def stop_lightgbm(estimator: Any, rounds: int, held: Mapping[str, Any]) -> dict[str, Any]:
    import lightgbm

    weights = {"eval_sample_weight": [held["sample_weight"]]} if "sample_weight" in held else {}
    callbacks = [lightgbm.early_stopping(rounds, verbose=False)]
    return {"eval_X": (held["X"],), "eval_y": (held["y"],), "callbacks": callbacks, **weights}


def stop_catboost(estimator: Any, rounds: int, held: Mapping[str, Any]) -> dict[str, Any]:
    import catboost

    pool = catboost.Pool(held["X"], held["y"], weight=held.get("sample_weight"))
    return {"eval_set": pool, "early_stopping_rounds": rounds}


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
