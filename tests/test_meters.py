"""A meter of a task over chunks, over ranks and under integer weights is scikit-learn's figure of the repeated rows."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from students.tasks.class_set import probabilities
from students.tasks.figure import FIGURES
from students.tasks.multilabel import best_thresholds
from students.tasks.tasks import TASKS
from teachers.tasks.space import Space

CLASSES, VALUES = ("a", "b", "c", "d"), ("price", "rent")
SPACES = {
    "classification": Space("classification", CLASSES),
    "multilabel": Space("multilabel", CLASSES),
    "regression": Space("regression", VALUES, mean=(1.0, 2.0), scale=(2.0, 0.5)),
}
THRESHOLDS = [0.3, 0.5, 0.6, 0.9]


@st.composite
def judged(draw, task):
    """Answers with ties, labels of which some are unknown, a weight from 0 to 3 a row, and where to cut into chunks."""
    rows = draw(st.integers(1, 40))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step = draw(st.sampled_from([0.5, 1e-3]))
    width = SPACES[task].width
    said = (numbers.normal(size=(rows, width)) / step).round() * step * 2
    unknown = draw(st.sampled_from([0.0, 0.3, 0.9]))
    if task == "classification":
        labels = numbers.integers(0, draw(st.integers(1, width)), rows).astype(np.int32)
        labels[numbers.random(rows) < unknown] = -1
    elif task == "multilabel":
        labels = (numbers.random((rows, width)) < draw(st.sampled_from([0.05, 0.4, 1.0]))).astype(np.int8)
        labels[numbers.random((rows, width)) < unknown] = -1
    else:
        labels = (said + numbers.normal(size=said.shape)).round(1).astype(np.float32)
        labels[numbers.random(labels.shape) < unknown] = np.nan
    weights = numbers.integers(0, 4, rows)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    return said.astype(np.float32), labels, weights, [0, *cuts, rows]


def is_judged(labels):
    if labels.dtype == np.float32:
        return ~np.isnan(labels).all(1)
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1)


def metered(task, said, labels):
    meter = TASKS[task].meter(SPACES[task], THRESHOLDS)
    meter.update(torch.from_numpy(said), torch.from_numpy(labels))
    return meter


def mean_or_none(found):
    return float(np.mean(found)) if len(found) else None


def of_classification(said, labels):
    if not len(labels):
        return dict.fromkeys(figure.key for figure in FIGURES["classification"])
    p = scipy.special.softmax(said.astype(np.float64), axis=1)
    answers, everything = said.argmax(1), range(len(CLASSES))
    confidence, right, ece = p.max(1), answers == labels, 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean()) if inside.any() else 0.0
    return {
        "accuracy": oracle.accuracy_score(labels, answers),
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, answers),
        "macro_f1": oracle.f1_score(labels, answers, average="macro", zero_division=0),
        "nll": oracle.log_loss(labels, p, labels=everything),
        "brier": oracle.brier_score_loss(labels, p, labels=everything),
        "ece": ece,
    }


def of_multilabel(said, labels):
    p = scipy.special.expit(said.astype(np.float64))
    columns = [(p[known, c], labels[known, c], THRESHOLDS[c]) for c in range(len(CLASSES)) for known in [labels[:, c] >= 0]]  # fmt: skip
    true = np.concatenate([labels for _, labels, _ in columns])
    answers = np.concatenate([p >= threshold for p, _, threshold in columns])
    ranked = [oracle.average_precision_score(labels, p) for p, labels, _ in columns if labels.any()]
    f1 = [oracle.f1_score(labels, p >= t, zero_division=0) for p, labels, t in columns if labels.any() or (p >= t).any()]  # fmt: skip
    return {
        "macro_average_precision": mean_or_none(ranked),
        "micro_f1": oracle.f1_score(true, answers, zero_division=0) if true.any() or answers.any() else None,
        "macro_f1": mean_or_none(f1),
        "nll": oracle.log_loss(true, np.concatenate([p for p, _, _ in columns]), labels=[0, 1]) if len(true) else None,
    }


def of_regression(said, labels):
    columns = []
    for number, scale in enumerate(SPACES["regression"].scale):
        known = ~np.isnan(labels[:, number])
        if known.any():
            columns.append((said[known, number].astype(np.float64), labels[known, number].astype(np.float64), scale))
    squares = [oracle.mean_squared_error(labels, said) / scale**2 for said, labels, scale in columns]
    spread = [(said, labels) for said, labels, _ in columns if np.ptp(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        ranks = [scipy.stats.spearmanr(said, labels).statistic for said, labels in spread]
    return {
        "rmse": math.sqrt(np.mean(squares)) if columns else None,
        "mae": mean_or_none([oracle.mean_absolute_error(labels, said) / scale for said, labels, scale in columns]),
        "r2": mean_or_none([oracle.r2_score(labels, said) for said, labels in spread]),
        "spearman": mean_or_none([each for each in ranks if not np.isnan(each)]),
    }


ORACLES = {"classification": of_classification, "multilabel": of_multilabel, "regression": of_regression}
pytestmark = [
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true"),
    pytest.mark.filterwarnings("ignore:A single label was found"),
    pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50"),
]


def close(expected):
    return {key: None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9) for key, value in expected.items()}


@pytest.mark.parametrize("task", SPACES)  # that of boxes has an oracle and tests of its own
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_meter_over_chunks_ranks_and_weights_is_scikit_learn_on_the_repeated_rows(task, data):
    said, labels, weights, cuts = data.draw(judged(task))
    keys = {figure.key for figure in FIGURES[task]}
    kept = is_judged(labels)
    expected = close(ORACLES[task](said[kept], labels[kept]))
    assert expected.keys() == keys
    whole = metered(task, said, labels)
    assert whole.figures() == expected
    in_chunks, together = TASKS[task].meter(SPACES[task], THRESHOLDS), TASKS[task].meter(SPACES[task], THRESHOLDS)
    for first, last in pairwise(cuts):
        in_chunks.update(torch.from_numpy(said[first:last]), torch.from_numpy(labels[first:last]))
        together.join(metered(task, said[first:last], labels[first:last]).parts())
    assert in_chunks.figures() == expected and together.figures() == expected
    repeated = [np.repeat(each[kept], weights[kept], axis=0) for each in (said, labels)]
    assert whole.figures(torch.from_numpy(weights[kept])) == close(ORACLES[task](*repeated))
    assert whole.figures(keys=["nll"]).keys() == keys & {"nll"}


@pytest.mark.parametrize("task", TASKS)
def test_a_meter_that_has_seen_nothing_has_no_figures(task):
    space = SPACES.get(task) or Space("detection", CLASSES, max_boxes=3)
    assert set(TASKS[task].meter(space).figures().values()) == {None}


@settings(deadline=None)
@given(data=st.data())
def test_no_other_threshold_has_a_better_f1_than_the_one_that_is_chosen(data):
    said, labels, *_ = data.draw(judged("multilabel"))
    chosen = best_thresholds(torch.from_numpy(said), torch.from_numpy(labels))
    p = probabilities(torch.from_numpy(said)).numpy()
    for number, threshold in enumerate(chosen):
        known = labels[:, number] >= 0
        scores, true = p[known, number], labels[known, number]
        if not true.any():
            assert threshold == 0.5
            continue
        best = max(oracle.f1_score(true, scores >= each, zero_division=0) for each in np.unique(scores))
        assert oracle.f1_score(true, scores >= threshold, zero_division=0) == pytest.approx(best)


def test_one_column_of_numbers_is_told_in_its_own_units():
    meter = TASKS["regression"].meter(Space("regression", ("price",), mean=(100.0,), scale=(50.0,)))
    meter.update(torch.tensor([[10.0], [20.0]]), torch.tensor([[13.0], [16.0]]))
    assert meter.figures(keys=["rmse", "mae"]) == {"rmse": pytest.approx(math.sqrt(12.5)), "mae": 3.5}


@settings(deadline=None)
@given(data=st.data())
def test_a_row_is_well_placed_as_often_as_the_mann_whitney_statistic_says(data):
    said, labels, *_ = data.draw(judged("multilabel"))
    space = Space("multilabel", ("a",))
    said, labels = said[:, :1], labels[:, :1]
    said, labels = said[labels[:, 0] >= 0], labels[labels[:, 0] >= 0]
    found = TASKS["multilabel"].merits(torch.from_numpy(said), torch.from_numpy(labels), space).numpy()
    is_of = labels[:, 0] > 0
    if is_of.any() and not is_of.all():
        auc = oracle.roc_auc_score(is_of, said[:, 0])
        assert found[is_of].mean() == pytest.approx(auc) and found[~is_of].mean() == pytest.approx(auc)


def test_merits_of_numbers_are_squared_errors_and_of_classes_who_is_right():
    said, labels = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[2.0, 1.0], [float("nan"), 0.5]])
    found = TASKS["regression"].merits(said, labels, SPACES["regression"])
    assert found.tolist() == [-((0.5**2 + 2**2) / 2), -1.0]
    said = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert TASKS["classification"].merits(said, torch.tensor([0, 0]), SPACES["classification"]).tolist() == [1.0, 0.0]
