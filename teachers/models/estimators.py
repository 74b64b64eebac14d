"""Estimators with scikit-learn's interface as teachers: fitted here on the labelled rows, kept in a file that runs nothing.

Knows nothing of torch modules or of labelling. scikit-learn, and whatever library an estimator is of, is imported where it
is used: every replica imports this module, and few hold estimators.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.folds import HeldOut
from ..config.task import AnswerName
from ..config.teacher import SklearnTeacher
from ..errors import DataError, RecipeError, TeacherError
from ..storage import seal
from ..transfer_set.class_names import as_number, name_of, places_of
from ..transfer_set.folds import FOLDS, PARTS, Folds, checked
from ..transfer_set.hashes import Keys, mixed
from ..transfer_set.merged import MergedSplit
from ..transfer_set.own_rows import of_teachers
from ..transfer_set.transfer_set import TransferSet
from ..users_code import imports
from ..users_code.calls import calling
from .estimator_answers import ESTIMATOR_ANSWERS, check_fitted
from .estimator_columns import categories_told, check_no_ids, check_takes_nan
from .formats import SKOPS, StopEarly, format_of, kept, load_file
from .preprocess import Inputs, Preprocessor

FORMAT = 2
ABOUT = "teacher.json"


@dataclass(frozen=True)
class Learnt:
    """Rows that an estimator learns, in the order of their keys: features as `flat` has them, labels [rows, ...], group keys."""

    features: NDArray[Any]
    labels: NDArray[Any]
    groups: Keys

    def where(self, mask: NDArray[np.bool_]) -> "Learnt":
        return Learnt(self.features[mask], self.labels[mask], self.groups[mask])


def fit_sklearn(config: SklearnTeacher, transfer_set: TransferSet, folder: Path, *, gpus: float = 0.0) -> list[str]:
    """Fit `config.model` on the labelled training rows and write its file and `teacher.json` into `folder`.

    With folds each part has a folder of its own below it, and a part that is there already is not fitted again. The same
    rows, arguments and seed give the same bytes, whatever the number of CPUs. Returns the files, relative to `folder`.
    Raises RecipeError when the estimator cannot be made, DataError for folds without a class, TeacherError when it has no
    `predict_proba` or holds types that nobody vouched for.
    """
    if config.classes is not None:
        transfer_set = transfer_set.of_classes(config.classes)
    rows = labelled_rows(config, transfer_set)
    folds = Folds.of_config(config.train, config.seed)
    if folds is None:
        return _fit(config, rows, transfer_set, folder, gpus)
    learnt = checked(folds, transfer_set)
    outputs = []
    for number, name in enumerate(folds.parts):
        part = f"{PARTS}/{name}"
        mine = rows.where(folds.learnt_by(number, rows.groups))
        outputs += [f"{part}/{file}" for file in _fit(config, mine, transfer_set, folder / part, gpus)]
    folds.save(folder, learnt)
    return [*outputs, FOLDS]


def _fit(config: SklearnTeacher, rows: Learnt, transfer_set: TransferSet, folder: Path, gpus: float) -> list[str]:
    """One estimator, unless an earlier attempt has finished it."""
    if (folder / ABOUT).is_file():
        return [_about(folder)["file"], ABOUT]
    how = ESTIMATOR_ANSWERS[transfer_set.space.answer]
    given = how.given(rows.labels)
    if not len(given.y):
        raise TeacherError(f"no row to fit {config.model} on has a label that is known in full; give some")
    with calling("model", str(config.model)):
        estimator = make_estimator(config, gpus=gpus)
    how.check(estimator, str(config.model))
    check_takes_nan(estimator, config, transfer_set.columns)
    told = categories_told(estimator, config, Preprocessor(config.preprocess, transfer_set.columns))
    with calling("model", str(config.model)):
        learnt, more = _stopping(estimator, config, replace(rows.where(given.usable), labels=given.y))
        estimator.fit(learnt.features, learnt.labels, **told, **more)
    names = transfer_set.classes
    places = how.places(estimator, len(given.present), str(config.model))
    classes = [names[given.present[place]] for place in places]
    if format_of(type(estimator)) is SKOPS:
        use_cpus(estimator, config.arguments, 1)  # how many there were is no part of what it has learnt
    file, payload = kept(estimator, config.trusted, str(config.model))
    folder.mkdir(parents=True, exist_ok=True)
    seal.publish(folder / file, payload)
    about = {"format": FORMAT, "file": file, "classes": classes}
    seal.publish(folder / ABOUT, json.dumps(about, indent=1).encode())
    return [file, ABOUT]


def _stopping(estimator: Any, config: SklearnTeacher, rows: Learnt) -> tuple[Learnt, dict[str, Any]]:
    """(rows to learn, keywords of `fit`): with early stopping some rows are looked at instead."""
    rule, stop_early = config.train.early_stopping, check_stops(estimator, config)
    if rule is None or stop_early is None:
        return rows, {}
    held = held_out(_strata(rows.labels), rows.groups, rule, config.seed)
    looked_at = rows.where(held)
    return rows.where(~held), stop_early(estimator, rule.rounds, {"X": looked_at.features, "y": looked_at.labels})


def _strata(y: NDArray[Any]) -> NDArray[np.int32]:
    """What the rows that early stopping looks at are divided by: classes; numbers, and sets of classes, are one stratum."""
    return y if y.dtype == np.int32 and y.ndim == 1 else np.zeros(len(y), np.int32)


def check_stops(estimator: Any, config: SklearnTeacher) -> StopEarly | None:
    """How the estimator is stopped early. Raises RecipeError where the recipe asks for it and nothing can."""
    stop_early = format_of(type(estimator)).stop_early
    if stop_early is None and config.train.early_stopping is not None:
        raise RecipeError(
            f"train.early_stopping: {config.model} has none that looks at rows it is given; boosted trees of XGBoost, "
            f"LightGBM and CatBoost have, others may have an argument of their own"
        )
    return stop_early


def held_out(labels: NDArray[np.int32], groups: Keys, rule: HeldOut, seed: int) -> NDArray[np.bool_]:
    """Which rows early stopping looks at, bool [rows]: of each class its share, by a seeded hash, with whole groups.

    Raises DataError where a class would have no row left to learn.
    """
    order = np.lexsort((mixed(groups, "held out", seed), labels))
    sizes = np.bincount(labels)
    place = np.empty(len(labels), np.int64)  # of a row among those of its class
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = place < np.round(rule.share * sizes)[labels]
    held = np.isin(groups, groups[chosen])
    if not held.any():
        raise DataError(
            f"train.early_stopping: a share of {rule.share:g} of the {len(labels)} labelled training rows is no row of any "
            f"class; raise it, or leave it out"
        )
    if (np.bincount(labels[~held], minlength=len(sizes)) == 0)[sizes > 0].any():
        raise DataError(
            f"train.early_stopping: with a share of {rule.share:g} a class has no labelled training row left to learn; "
            f"lower it, or give more rows"
        )
    return held


def load_estimator(path: Path, config: SklearnTeacher, answer: AnswerName = "class_axis") -> Any:
    """The estimator in a file, ready to be asked. Raises TeacherError that lists its types when they are not trusted."""
    estimator = load_file(path, config.trusted)
    check = check_fitted if answer == "class_axis" else ESTIMATOR_ANSWERS[answer].check
    check(estimator, f"{path}: the {type(estimator).__name__} in it")
    use_cpus(estimator, config.arguments, config.resources.cpus)
    return estimator


def load_fitted(folder: Path, config: SklearnTeacher, answer: AnswerName = "class_axis") -> Any:
    """The estimator that `fit_sklearn` left in `folder`."""
    return load_estimator(seal.local(folder, _about(folder)["file"]), config, answer)


def fitted_classes(folder: Path) -> tuple[str, ...]:
    """Names of the classes that the estimator in `folder`, fitted here, has seen."""
    return tuple(_about(folder)["classes"])


def _about(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(seal.local(folder, ABOUT).read_bytes())
    seal.check_format(document, FORMAT, folder / ABOUT)
    return document


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
    """What an estimator takes: the columns side by side, as `side_by_side` has them."""
    check_no_ids(preprocessor)
    return side_by_side(preprocessor(inputs))


def side_by_side(tensors: Inputs) -> np.ndarray:
    """f32 [rows, features] of what a preprocessor gives.

    Of one text alone `str` [rows], as vectorisers take it; of several, or text beside other columns, objects [rows, K]: the
    texts in their order, then the features, for a `ColumnTransformer` that names them by their places.
    """
    parts: list[Any] = list(tensors.values()) if isinstance(tensors, dict) else [tensors]
    texts = [part for part in parts if isinstance(part, np.ndarray)]
    features = [part.flatten(1).cpu().numpy() for part in parts if not isinstance(part, np.ndarray)]
    if not texts:
        return np.concatenate(features, axis=1)
    if len(texts) == 1 and not features:
        return texts[0]
    return np.concatenate([*(text[:, None] for text in texts), *(each.astype(object) for each in features)], axis=1)


def make_estimator(config: SklearnTeacher, *, gpus: float = 0.0) -> Any:
    """What `config.model` makes with its arguments, not fitted. Raises RecipeError when it cannot be made so."""
    assert config.model is not None
    return made(config.model, config.arguments, config.seed, cpus=config.resources.cpus, gpus=gpus)


def made(model: str, arguments: Mapping[str, Any], seed: int, *, cpus: float = 1, gpus: float = 0.0) -> Any:
    """The same of an import string: `random_state` is the seed where there is one, `gpus` of a GPU are used where it can."""
    make = imports.load(model)
    own = format_of(make) if isinstance(make, type) else SKOPS
    takes_seed = own is not SKOPS or "random_state" in inspect.signature(make).parameters
    first = ({"random_state": seed} if takes_seed else {}) | dict(own.always or {})
    passed = first | (dict(own.on_gpu or {}) if gpus > 0 else {}) | dict(arguments)
    try:
        estimator = make(**passed)
    except TypeError as error:
        raise RecipeError(f"{model} cannot be made with {sorted(passed)}: {error}") from error
    if lacking := [name for name in ("fit", "get_params") if not hasattr(estimator, name)]:
        raise RecipeError(f"{model} gives a {type(estimator).__name__}, which is no estimator: no {lacking[0]}")
    use_cpus(estimator, arguments, cpus)
    return estimator


def use_cpus(estimator: Any, arguments: Mapping[str, Any], cpus: float) -> None:
    """Let the estimator use so many CPUs, unless the recipe's arguments say how many."""
    own = format_of(type(estimator))
    name = own.threads
    if name in arguments:
        return
    if own is not SKOPS:
        estimator.set_params(**{name: max(1, int(cpus))})
    elif name in estimator.get_params(deep=False):
        estimator.set_params(**{name: int(cpus) if cpus >= 2 else None})


def labelled_rows(config: SklearnTeacher, transfer_set: TransferSet) -> Learnt:
    """The training rows whose label may be used, in the order of their keys."""
    preprocessor = Preprocessor(config.preprocess, transfer_set.columns)
    transfer_set = of_teachers(transfer_set).seen(preprocessor.sees).deriving(preprocessor.text)
    train = MergedSplit(transfer_set, "train")
    labelled = train.labelled()
    if not labelled.any():
        raise TeacherError(f"there is no labelled row to fit {config.model} on; set `label` in the transfer set")
    features, keys = [], []
    for segment in transfer_set.of("train"):
        rows = np.flatnonzero(transfer_set.labelled(segment))
        features.append(flat(preprocessor, transfer_set.chosen(segment, rows)))
        keys.append(transfer_set.keys(segment)[rows])
    order = np.argsort(np.concatenate(keys), kind="stable")
    return Learnt(np.concatenate(features)[order], train.labels()[labelled], train.groups()[labelled])
