"""What an estimator is given to learn and how it answers, by the kind of answer: one class of many, classes that each hold, numbers.

The only place where one is asked. Knows nothing of files or preprocessing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.task import AnswerName
from ..errors import TeacherError
from ..tasks.labels import is_known

Labels = NDArray[Any]
Said = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Given:
    """What `fit` is given for labels `[rows, ...]` as a transfer set has them: `y` of the rows that `usable` marks."""

    y: NDArray[Any]
    usable: NDArray[np.bool_]
    present: NDArray[np.int64]
    """Numbers of the names that it can learn from them."""


@dataclass(frozen=True)
class EstimatorAnswer:
    given: Callable[[Labels], Given]
    places: Callable[[Any, int, str], list[int]]
    """(fitted estimator, how many names it was given, its name): which of these each column of its answer is."""
    ask: Callable[[Any, NDArray[Any]], Said]
    """What it says of rows, f32 [rows, F] or text: [rows, width]."""
    check: Callable[[Any, str], None]
    """Raise TeacherError for an estimator, fitted or not, that gives no such answer."""


def _class_given(labels: Labels) -> Given:
    present, numbers = np.unique(labels, return_inverse=True)  # 0 to K - 1 without a gap, as many want them
    return Given(numbers.astype(np.int32), np.ones(len(labels), bool), present.astype(np.int64))


def _set_given(labels: Labels) -> Given:
    """Rows of which every class is known: estimators have no way to leave one out."""
    usable = np.asarray(is_known(labels).all(1))
    return Given(labels[usable].astype(np.int32), usable, np.arange(labels.shape[1]))


def _values_given(labels: Labels) -> Given:
    usable = np.asarray(is_known(labels).all(1))
    y = labels[usable]
    return Given(y[:, 0] if y.shape[1] == 1 else y, usable, np.arange(labels.shape[1]))


def class_places(estimator: Any, num_classes: int, name: str) -> list[int]:
    """Which of the classes that it was given, 0 to K - 1, each column of its answer is. Raises TeacherError for others."""
    check_fitted(estimator, name)
    found = [int(number) for number in estimator.classes_]
    if sorted(found) != list(range(num_classes)):
        raise TeacherError(
            f"{name} says the classes {found}; it was fitted on 0 to {num_classes - 1}, and `classes_` has to name each of "
            f"them once, in whatever order it scores them"
        )
    return found


def _in_order(estimator: Any, width: int, name: str) -> list[int]:
    return list(range(width))


def _probabilities(estimator: Any, features: NDArray[Any]) -> Said:
    return np.asarray(estimator.predict_proba(features))


def _set_probabilities(estimator: Any, features: NDArray[Any]) -> Said:
    """Of estimators that give `[rows, classes]`, and of those that give (holds not, holds) for each class."""
    said = estimator.predict_proba(features)
    if not isinstance(said, list):
        return np.asarray(said)
    return np.stack(
        [_holds(each, classes) for each, classes in zip(said, _classes_of(estimator, said), strict=True)], 1
    )


def _classes_of(estimator: Any, said: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """By class, what its columns are: a class that held nowhere, or everywhere, has one column."""
    found = getattr(estimator, "classes_", None)
    return found if isinstance(found, list) else [range(each.shape[1]) for each in said]


def _holds(said: Said, classes: Sequence[Any]) -> Said:
    where = [place for place, value in enumerate(classes) if int(value) == 1]
    return said[:, where[0]] if where else np.zeros(len(said))


def _values(estimator: Any, features: NDArray[Any]) -> Said:
    said = np.asarray(estimator.predict(features))
    return said[:, None] if said.ndim == 1 else said


def check_says_probabilities(estimator: Any, name: str) -> None:
    """Raise TeacherError for an estimator, fitted or not, that gives no probabilities."""
    if not hasattr(estimator, "predict_proba"):
        raise TeacherError(f"{name} has no predict_proba; choose an estimator, or arguments, that give probabilities")


def check_says_values(estimator: Any, name: str) -> None:
    """Raise TeacherError for an estimator that gives no numbers."""
    from sklearn.base import is_classifier

    if is_classifier(estimator) or not hasattr(estimator, "predict"):
        what = "is a classifier" if is_classifier(estimator) else "has no predict"
        raise TeacherError(f"{name} {what}, and the labels are numbers; choose a regressor")


def check_fitted(estimator: Any, name: str) -> None:
    check_says_probabilities(estimator, name)
    if not hasattr(estimator, "classes_"):
        raise TeacherError(f"{name} has no classes_: it is not fitted, or no classifier")


ESTIMATOR_ANSWERS: dict[AnswerName, EstimatorAnswer] = {
    "class_axis": EstimatorAnswer(_class_given, class_places, _probabilities, check_says_probabilities),
    "class_set": EstimatorAnswer(_set_given, _in_order, _set_probabilities, check_says_probabilities),
    "values": EstimatorAnswer(_values_given, _in_order, _values, check_says_values),
}
