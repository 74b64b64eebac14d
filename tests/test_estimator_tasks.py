"""Estimators that learn several classes a row, or numbers, from what teachers say: what they learn, what they leave, who refuses."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.tree import DecisionTreeRegressor

from orchestrator.recipe.model import Recipe
from students.config.estimator import EstimatorStudent
from students.data.elements import copies_of_sets, elements
from students.delivering.export import _onnx
from students.delivering.forms import FORMS
from students.delivering.golden import asked, compared
from students.fitting.fit import fit
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from students.training.estimator import features_of
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.models.preprocess import Preprocessor
from teachers.soft_targets.reader import SoftTargets
from teachers.tasks.labels import is_known
from teachers.transfer_set.merged import MergedSplit
from tests.task_runs import make_store, prepared
from tests.training_runs import source

TASKS = ("multilabel", "regression")
TREES = {"multilabel": "sklearn.tree:DecisionTreeClassifier", "regression": "sklearn.tree:DecisionTreeRegressor"}
SOFT = {"loss": "soft", "weight": 0.7, "temperature": 1.0}
HARD = {"loss": "hard", "weight": 0.3}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return {task: prepared(tmp_path_factory.mktemp(task), task, labelled=60) for task in TASKS}


@pytest.fixture(scope="module")
def stores(sets, tmp_path_factory):
    return {task: make_store(tmp_path_factory.mktemp(task) / "store", sets[task]) for task in TASKS}


def run_of(folder, sets, stores, task, kind="student", **more):
    document = {"kind": "sklearn", "model": TREES[task], "arguments": {"max_depth": 5}, "teachers": ["wide"]}
    config = EstimatorStudent.model_validate(document | {"objective": [SOFT, HARD]} | more)
    where = {"folder": folder, "stage": folder, "stage_name": "distill/tree", "transfer_set": sets[task].folder}
    return student_run(kind, config, 0, sources=(source(stores[task]),), user_path=folder, **where)


def taught_rows(transfer_set, run):
    """(features, labels as a batch has them) of the training rows."""
    train = MergedSplit(transfer_set, "train")
    features = features_of(transfer_set, Preprocessor(run.preprocess, transfer_set.columns), np.arange(train.num_rows))
    labels = train.usable_labels()
    known = is_known(labels)
    return features, torch.from_numpy(np.where(known, transfer_set.space.standardised(labels), np.nan))


def test_copies_of_sets_hold_the_sum_of_binary_cross_entropies_that_a_network_has(sets, stores, tmp_path):
    """Whatever is predicted; of rows of which every class is known, as all are that a teacher has heard of."""
    run = run_of(tmp_path, sets, stores, "multilabel", objective=[SOFT])
    learnt = elements(run, sets["multilabel"], 1e-3)
    some = copies_of_sets(learnt.target, learnt.weight, 0.0)
    logits = torch.randn(len(learnt.rows), 3, generator=torch.Generator().manual_seed(0)).double()
    copied = F.binary_cross_entropy_with_logits(
        logits[some.row], torch.from_numpy(some.label).double(), reduction="none"
    )
    found = (torch.from_numpy(some.weight)[:, None] * copied).sum() / len(learnt.rows)
    said = SoftTargets.open(stores["multilabel"]).said(1e-3).sigmoid().double()
    own = 0.7 * F.binary_cross_entropy_with_logits(logits, said, reduction="none").sum(1).mean()
    assert float(found) == pytest.approx(float(own), rel=1e-5)
    assert len(some.row) <= 4 * len(learnt.rows)


def test_least_weight_moves_a_class_by_less_than_it_and_a_row_keeps_its_weight():
    target, weight = np.array([[0.9995, 0.5, 0.0004]], np.float32), np.array([2.0], np.float32)
    some = copies_of_sets(target, weight, 1e-2)
    assert some.weight.sum() == pytest.approx(2.0)
    held = (some.weight[:, None] * some.label).sum(0) / some.weight.sum()
    np.testing.assert_allclose(held, target[0], atol=1e-2)
    assert len(some.row) == 2
    many = np.full((1, 2000), 0.5, np.float32)
    assert np.isfinite(copies_of_sets(many, weight, 1e-3).weight).all()


@pytest.mark.parametrize("task", TASKS)
def test_terms_together_are_their_weighted_mean_of_every_element(task, sets, stores, tmp_path):
    run = run_of(tmp_path, sets, stores, task)
    learnt = elements(run, sets[task], 1e-3)
    _, labels = taught_rows(sets[task], run)
    said = SoftTargets.open(stores[task]).said(1e-3)
    soft = said.sigmoid() if task == "multilabel" else torch.from_numpy(sets[task].space.standardised(said.numpy()))
    has_label = ~labels.isnan().all(1)
    hard = 0.3 * len(labels) / has_label.sum() * ~labels.isnan()
    expected = (0.7 * soft + hard * labels.nan_to_num()) / (0.7 + hard)
    assert learnt.rows.tolist() == [*range(len(labels))]
    np.testing.assert_allclose(learnt.target, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learnt.weight, (0.7 + hard).mean(1), rtol=1e-4)


def test_a_regressor_learns_the_teachers_numbers_in_their_units(sets, stores, tmp_path):
    run = run_of(tmp_path, sets, stores, "regression", objective=[SOFT])
    (result,) = fit([run], PlainSession())
    features, _ = taught_rows(sets["regression"], run)
    space, said = sets["regression"].space, SoftTargets.open(stores["regression"]).said(1e-3).numpy()
    own = DecisionTreeRegressor(max_depth=5, random_state=0).fit(features, space.standardised(said).astype(np.float32))
    (segment,) = sets["regression"].of("test")
    found = load_model(run.folder)(sets["regression"].inputs(segment)).numpy()
    ready = Preprocessor(run.preprocess, sets["regression"].columns)(sets["regression"].inputs(segment)).numpy()
    np.testing.assert_allclose(found, own.predict(ready) * space.scale + space.mean, rtol=1e-4)
    assert set(result.validation) == {"rmse", "mae"}
    assert json.loads((run.folder / "config.json").read_text())["estimator"]["learns"] == "values"


@pytest.mark.parametrize("task", TASKS)
def test_who_heard_a_teacher_is_better_than_who_did_not(task, sets, stores, tmp_path):
    found = [fit([run_of(tmp_path, sets, stores, task, kind)], PlainSession())[0] for kind in ("student", "control")]
    key, sign = {"multilabel": ("macro_average_precision", 1), "regression": ("rmse", -1)}[task]
    student, control = (sign * result.validation[key] for result in found)
    assert student > control


def test_a_control_of_labels_with_gaps_learns_the_rows_that_are_known_in_full(sets, stores, tmp_path):
    run = run_of(tmp_path, sets, stores, "regression", "control")
    _, labels = taught_rows(sets["regression"], run)
    learnt = elements(run, sets["regression"], 1e-3)
    assert learnt.rows.tolist() == (~labels.isnan()).all(1).nonzero()[:, 0].tolist() != []


@pytest.mark.parametrize(
    ("task", "model", "arguments", "learns"),
    [
        ("multilabel", "sklearn.ensemble:ExtraTreesClassifier", {"n_estimators": 5, "max_depth": 5}, "probabilities"),
        ("multilabel", "sklearn.tree:DecisionTreeRegressor", {"max_depth": 5}, "logits"),
        ("multilabel", "xgboost:XGBClassifier", {"n_estimators": 5}, "probabilities"),
        ("regression", "sklearn.linear_model:Ridge", {}, "probabilities"),
        ("regression", "xgboost:XGBRegressor", {"n_estimators": 5}, "probabilities"),
    ],
)
def test_any_that_takes_weighted_rows_learns_it(task, model, arguments, learns, sets, stores, tmp_path):
    pytest.importorskip(model.partition(".")[0].partition(":")[0])
    run = run_of(tmp_path, sets, stores, task, model=model, arguments=arguments, learns=learns)
    (result,) = fit([run], PlainSession())
    assert result.validation.get("macro_average_precision", 1) > 0.6 and result.validation.get("rmse", 0) < 0.9


def with_onnx():
    for name in ("onnxruntime", "skl2onnx", "onnxmltools"):
        pytest.importorskip(name, reason=f"{name} is not installed: no graph was made")


@pytest.mark.parametrize("task", TASKS)
def test_a_graph_says_what_a_tree_says_of_several_classes_and_of_numbers(task, sets, stores, tmp_path):
    with_onnx()
    run = run_of(
        tmp_path,
        sets,
        stores,
        task,
        model=TREES["regression"],
        **({"learns": "logits"} if task == "multilabel" else {}),
    )
    fit([run], PlainSession())
    model = load_model(run.folder)
    form, golden = FORMS["onnx"], asked(model, sets[task].inputs(sets[task].of("test")[0]))
    found = compared(form.said(form.made_of(model), golden.inputs), golden, model.config.space)
    assert found.largest_difference < 1e-4 and found.same_class in (None, 1.0)


def test_a_graph_that_says_something_else_is_not_delivered(sets, stores, tmp_path, caplog):
    """skl2onnx gets the probabilities of trees of several outputs wrong that were fitted with weights."""
    with_onnx()
    run = run_of(tmp_path, sets, stores, "multilabel")
    fit([run], PlainSession())
    with caplog.at_level("WARNING"):
        graph, found = _onnx("tree", load_model(run.folder), sets["multilabel"].folder)
    assert graph is None and "the converter's graph says something else than the model, by" in found["why"]
    assert "tree is delivered without model.onnx" in caplog.text


@pytest.mark.parametrize(
    ("task", "more", "told"),
    [
        ("regression", {"model": "sklearn.tree:DecisionTreeClassifier"}, "is a classifier, and values are numbers: take a regressor"),
        ("multilabel", {"model": "sklearn.tree:DecisionTreeRegressor"}, "has no predict_proba"),
        ("regression", {"model": "sklearn.neighbors:KNeighborsRegressor", "arguments": {}}, "takes no `sample_weight`"),
    ],
)  # fmt: skip
def test_an_estimator_that_cannot_learn_this_is_refused(task, more, told, sets, stores, tmp_path):
    with pytest.raises(RecipeError, match=told):
        fit([run_of(tmp_path, sets, stores, task, **more)], PlainSession())


@pytest.mark.parametrize(
    ("task", "more", "told"),
    [
        ("regression", {"learns": "logits"}, "students.tree.learns: is of classes, and labels of the task regression are"),
        ("regression", {"least_weight": 0.1}, "students.tree.least_weight: is of classes"),
        ("regression", {"objective": [{"loss": "soft", "distance": "huber"}]}, "objective.0.distance: an estimator learns the mean"),
        ("regression", {"objective": [{"loss": "teacher_label"}]}, "objective.0.loss: is 'teacher_label'"),
        ("multilabel", {"train": {"class_weights": "balanced"}}, "train.class_weights: an estimator weighs rows"),
    ],
)  # fmt: skip
def test_what_an_estimator_does_not_have_of_a_task_is_an_error_of_the_recipe(task, more, told):
    with pytest.raises(RecipeError, match=told):
        Recipe.from_dict(recipe(task, **more))


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_that_says_nothing_more_and_its_resolved_copy_are_taken(task):
    made = Recipe.from_dict(recipe(task))
    assert Recipe.from_dict(made.model_dump(mode="json")) == made


def recipe(task, **more):
    label = {"multilabel": ["red", "round"], "regression": "price"}[task]
    return {
        "format": 1,
        "name": "of-trees",
        "task": task,
        "transfer_set": {"source": {"kind": "csv", "path": "a.csv"}, "inputs": ["x", "y"], "label": label},
        "teachers": {"wide": {"kind": "module", "model": "teachers.zoo:mlp", "train": {"steps": 10}}},
        "students": {"tree": {"kind": "sklearn", "model": TREES[task], "teachers": ["wide"], **more}},
    }
