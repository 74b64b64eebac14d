"""The other engine: an estimator fitted at once on all that its terms say of the rows.

Knows nothing of Ray, nor of who asks the estimator later. Leaves what a training of a network leaves: a sealed model folder.
"""

import inspect
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from teachers.config.task import AnswerName
from teachers.errors import RecipeError
from teachers.models.estimator_answers import ESTIMATOR_ANSWERS
from teachers.models.estimator_columns import check_no_ids
from teachers.models.estimator_module import About, EstimatorModule, Learns, asked_as
from teachers.models.estimators import made, side_by_side, use_cpus
from teachers.models.folder import ModelConfig, save_config
from teachers.models.formats import SKOPS, format_of, kept
from teachers.models.preprocess import Preprocessor
from teachers.storage import seal
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.calls import calling

from ..data.inputs import in_order
from ..data.lessons import LESSONS, Lesson
from ..data.validation import Look, Validation
from ..objective.scale import with_scale
from ..runs.curves import Record
from ..runs.run import Run, RunResult
from ..runs.session import Session
from .checkpoint import publish_result, read_result

log = logging.getLogger(__name__)

NAMED = 5
Features = NDArray[Any]


def fit_estimator(run: Run, session: Session) -> RunResult:
    """Fit the estimator of `run` and seal its folder. The same rows and seed give the same bytes, on any number of CPUs.

    Raises RecipeError for an estimator that cannot learn this, UsersCodeError for what it raises, TeacherError for types
    that nobody vouched for.
    """
    how = run.estimator
    assert how is not None
    transfer_set = with_scale(TransferSet.open(run.transfer_set), run.sources)
    preprocessor = Preprocessor(run.preprocess, transfer_set.columns)
    check_no_ids(preprocessor)
    transfer_set = transfer_set.seen(preprocessor.sees).deriving(preprocessor.text)
    space = transfer_set.space
    lesson = LESSONS[space.answer](run, how, transfer_set)
    features = features_of(transfer_set, preprocessor, lesson.rows)
    estimator, columns = fitted(run, lesson, features, space.answer, gpus=float(session.device.type == "cuda"))
    if unheard := [name for place, name in enumerate(space.names) if place not in lesson.present]:
        told = "%s: no row it learns from is of %s; it says these with %g of a probability (probability_floor / classes), never more"
        log.warning(told, run.name, _some(unheard), how.probability_floor / space.width)
    file, payload = kept(estimator, how.trusted, run.model)
    about = About(file, columns, lesson.learns, how.probability_floor)
    network = EstimatorModule(estimator, about, space)
    found = Validation(transfer_set, preprocessor, session, is_held=False).look(network)
    made_of = preprocessor.resolved(), transfer_set.made_of, about.to_json()
    config = ModelConfig(run.model, dict(run.arguments), space, *made_of, files=preprocessor.files)

    def save(folder: Path) -> None:
        seal.publish(folder / file, payload)
        save_config(folder, config)

    _report(run, session, found or {})
    result = RunResult(run.name, run.folder, run.seed, 1, 1, found)
    publish_result(run, save, file, result, preprocessor.files)
    sealed = read_result(run)
    assert sealed is not None
    return sealed


def features_of(transfer_set: TransferSet, preprocessor: Preprocessor, rows: NDArray[np.intp]) -> Features:
    """What the estimator takes of training rows by their place in the order of keys, ascending: f32 [len(rows), F], or text."""
    train = MergedSplit(transfer_set, "train")
    only = None
    if len(rows) < train.num_rows:
        only = np.zeros(train.num_rows, bool)
        only[rows] = True
    chunks = in_order(train, preprocessor, torch.device("cpu"), only=only)
    return np.concatenate([side_by_side(chunk) for chunk in chunks])


def fitted(
    run: Run, lesson: Lesson, features: Features, answer: AnswerName, *, gpus: float = 0.0
) -> tuple[Any, tuple[int, ...]]:
    """(the estimator, which of the classes, or numbers, each column of its answer is)."""
    with calling("model", run.model):
        estimator = made(run.model, run.arguments, run.seed, cpus=torch.get_num_threads(), gpus=gpus)
        _check_kind(estimator, run.model, lesson.learns)
        copied = features if lesson.row is None else features[lesson.row]
        _fit(estimator, copied, lesson.y, lesson.weight, len(lesson.rows))
        how = ESTIMATOR_ANSWERS[asked_as(lesson.learns, answer)]
        columns = tuple(lesson.present[place] for place in how.places(estimator, len(lesson.present), run.model))
    if format_of(type(estimator)) is SKOPS:
        use_cpus(estimator, run.arguments, 1)  # how many there were is no part of what it has learnt
    return estimator, columns


def _check_kind(estimator: Any, model: str, learns: Learns) -> None:
    """Raise RecipeError for a classifier where numbers are learnt, a regressor where classes are, or one without weights."""
    is_classifier = hasattr(estimator, "predict_proba")
    if learns == "probabilities" and not is_classifier:
        raise RecipeError(
            f"{model} has no predict_proba; a student that `learns: probabilities` is a classifier that gives them, a "
            f"regressor says `learns: logits`"
        )
    if learns != "probabilities" and is_classifier:
        cure = ", or `learns: probabilities`" if learns == "logits" else ""
        raise RecipeError(f"{model} is a classifier, and {learns} are numbers: take a regressor{cure}")
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if "sample_weight" not in inspect.signature(last.fit).parameters:
        raise RecipeError(
            f"{model} takes no `sample_weight` when it is fitted, and soft targets are weighted rows; choose an estimator "
            f"that does: a tree, a forest, boosted trees, a linear model"
        )


def _fit(estimator: Any, features: Features, target: Any, weight: NDArray[Any], num_rows: int) -> None:
    """A row weighs 1 on average, all its copies together: so much as in a fit on labels, which penalties compare with."""
    before = f"{estimator.steps[-1][0]}__" if hasattr(estimator, "steps") else ""  # of a pipeline, who learns last
    estimator.fit(features, target, **{f"{before}sample_weight": weight * (num_rows / weight.sum())})


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + f" and {len(names) - NAMED} more" * (len(names) > NAMED)


def _report(run: Run, session: Session, found: Look) -> None:
    """One look at validation: an estimator has no curve."""
    stage, now = run.stage_name, time.time()
    records = [
        Record(stage=stage, run=run.name, step=1, key=f"validation.{key}", value=value, time=now)
        for key, value in found.items()
        if value is not None
    ]
    if records:
        session.report(run, records)
