"""Estimators that learn from soft targets: what they learn, what they leave, who opens it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import students
from orchestrator.recipe.model import Recipe
from students.config.estimator import EstimatorStudent, Student
from students.config.student import StudentConfig
from students.data.copies import copies, taught
from students.fitting.fit import fit
from students.measuring.footprint import footprint
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from students.training.estimator import features_of
from teachers.errors import RecipeError, StoreError, UsersCodeError
from teachers.models.folder import load_model
from teachers.models.preprocess import Preprocessor
from teachers.soft_targets.reader import SoftTargets
from teachers.transfer_set.merged import MergedSplit
from tests.training_runs import make_store, source

TREE = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier", "arguments": {"max_depth": 6}}
SOFT = {"loss": "soft", "weight": 0.9, "temperature": 1.0}
HARD = {"loss": "hard", "weight": 0.1}


def config_of(**more):
    return EstimatorStudent.model_validate(TREE | {"teachers": ["wide"]} | more)


def run_of(tmp_path, transfer_set, config, kind="student", seed=0, store=None):
    where = {"folder": tmp_path, "stage": tmp_path, "stage_name": "distill/tree", "transfer_set": transfer_set.folder}
    store = store or make_store(tmp_path / "store", transfer_set)
    return student_run(kind, config, seed, sources=(source(store),), user_path=tmp_path, **where)


def rows_of(transfer_set):
    train = MergedSplit(transfer_set, "train")
    preprocessor = Preprocessor(config_of().preprocess, transfer_set.columns)
    features = features_of(transfer_set, preprocessor, np.arange(train.num_rows))
    return features, train.labels(), train.labelled()


def test_copies_hold_the_objective_that_a_network_has(digits, tmp_path):
    """The sum over copies of weight x cross-entropy is the engine's weighted sum of terms, whatever is predicted."""
    run = run_of(tmp_path, digits, config_of(objective=[SOFT, HARD]))
    learnt = taught(run, digits, 1e-3)
    _, labels, labelled = rows_of(digits)
    log_q = torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    said = SoftTargets.open(tmp_path / "store").said(1e-3).softmax(-1)
    soft = -(said * log_q).sum(-1).mean()
    hard = -log_q[torch.from_numpy(labelled), torch.from_numpy(labels[labelled]).long()].mean()
    some = copies(learnt.weights, 0.0)
    rows = learnt.rows[some.row]
    found = -(torch.from_numpy(some.weight) * log_q[rows, some.label.astype(int)].double()).sum() / len(labels)
    assert float(found) == pytest.approx(float(0.9 * soft + 0.1 * hard), rel=1e-4)


def test_a_control_is_the_estimator_that_knows_labels_alone(digits, tmp_path):
    run = run_of(tmp_path, digits, config_of(), "control", seed=3)
    fit([run], PlainSession())
    features, labels, labelled = rows_of(digits)
    own = DecisionTreeClassifier(max_depth=6, random_state=3).fit(features[labelled], labels[labelled])
    said = load_model(run.folder)(digits.inputs(digits.of("test")[0])).softmax(-1)
    test = features_of_test(digits)
    expected = torch.tensor(0.999 * own.predict_proba(test) + 1e-4, dtype=torch.float32)
    torch.testing.assert_close(said, expected, atol=1e-6, rtol=1e-4)


def features_of_test(transfer_set):
    preprocessor = Preprocessor(config_of().preprocess, transfer_set.columns)
    return preprocessor(transfer_set.inputs(transfer_set.of("test")[0])).flatten(1).numpy()


def test_a_logistic_regression_learns_the_minimum_of_the_objective(digits, tmp_path):
    """Oracle: the gradient of the objective at what it has learnt is that of its own penalty."""
    document = {"model": "sklearn.linear_model:LogisticRegression", "arguments": {"max_iter": 5000, "tol": 1e-8}}
    config = config_of(**document, least_weight=0.0, probability_floor=1e-9, objective=[SOFT])
    run = run_of(tmp_path, digits, config)
    fit([run], PlainSession())
    features, *_ = rows_of(digits)
    p = SoftTargets.open(tmp_path / "store").said(1e-3).softmax(-1).numpy()
    own = load_model(run.folder).module.estimator
    assert isinstance(own, LogisticRegression)
    gradient = (p - own.predict_proba(features)).T @ features  # of -sum CE; its penalty is |w|^2 / 2, with C = 1
    assert np.linalg.norm(gradient - own.coef_) < 0.1 * np.linalg.norm(own.coef_)  # it is solved in float32


def test_least_weight_drops_small_copies_and_keeps_what_a_row_weighs(digits, tmp_path):
    weights = np.array([[0.9, 0.0999, 0.0001], [2.0, 0.0, 0.0]], np.float32)
    some = copies(weights, 1e-3)
    assert some.row.tolist() == [0, 0, 1] and some.label.tolist() == [0, 1, 0]
    np.testing.assert_allclose(np.bincount(some.row, some.weight), [1.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(copies(weights, 0.0).weight.sum(), 3.0, rtol=1e-6)


def test_a_regressor_learns_the_logits_of_the_teachers(digits, tmp_path):
    document = {"model": "sklearn.tree:DecisionTreeRegressor", "learns": "logits"}
    run = run_of(tmp_path, digits, config_of(**document, objective=[SOFT]))
    fit([run], PlainSession())
    features, *_ = rows_of(digits)
    said = SoftTargets.open(tmp_path / "store").said(1e-3).log_softmax(-1).clamp_min(np.log(1e-4))
    own = DecisionTreeRegressor(max_depth=6, random_state=0).fit(features, (said - said.mean(-1, keepdim=True)).numpy())
    found = load_model(run.folder)(digits.inputs(digits.of("test")[0]))
    expected = torch.tensor(own.predict(features_of_test(digits)), dtype=torch.float32)
    assert ((found.argmax(-1) == expected.argmax(-1)).double().mean()) > 0.95


def test_the_same_rows_and_seed_give_the_same_bytes(digits, tmp_path):
    bytes_of = []
    for number in range(2):
        run = run_of(tmp_path / str(number), digits, config_of(), store=make_store(tmp_path / f"s{number}", digits))
        fit([run], PlainSession())
        bytes_of.append((run.folder / "model.skops").read_bytes())
    assert bytes_of[0] == bytes_of[1]


def test_a_student_that_heard_its_teachers_is_better_than_its_control(digits, tmp_path):
    store = make_store(tmp_path / "store", digits)
    for kind in ("student", "control"):
        fit([run_of(tmp_path, digits, config_of(), kind, store=store)], PlainSession())
    found = [json.loads((tmp_path / kind / "seed-0/result.json").read_text()) for kind in ("student", "control")]
    assert found[0]["validation"]["accuracy"] > found[1]["validation"]["accuracy"] + 0.05
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == {"validation.accuracy", "validation.nll"}


def test_a_class_of_which_nobody_says_anything_has_the_floor_and_is_named(digits, tmp_path, caplog):
    known = tuple(name for name in digits.classes if name != "3")
    store = make_store(tmp_path / "store", digits, classes=known)
    config = config_of(objective=[SOFT])
    where = {"folder": tmp_path, "stage": tmp_path, "stage_name": "distill/tree", "transfer_set": digits.folder}
    heard = (replace(source(store), class_map={}),)
    run = student_run("student", config, 0, sources=heard, user_path=tmp_path, **where)
    fit([run], PlainSession())
    assert "no row it learns from is of '3'; it says these with 0.0001 of a probability" in caplog.text
    p = load_model(run.folder)(digits.inputs(digits.of("test")[0])).softmax(-1)
    assert p[:, 3].max() == pytest.approx(1e-3 / 10, rel=1e-3)


def test_a_folder_of_an_estimator_opens_as_one_of_a_network(digits, tmp_path):
    run = run_of(tmp_path, digits, config_of())
    fit([run], PlainSession())
    model = students.load(run.folder)
    logits = model({"image": torch.from_numpy(np.array(digits.inputs(digits.of("test")[0])["image"]))})
    assert logits.shape[1] == 10 and logits.isfinite().all()
    some = digits.inputs(digits.of("test")[0], 0, 32)
    size = footprint(run.folder, some)
    tree = model.module.estimator.tree_
    assert size["parameters"] == 2 * (tree.node_count - tree.n_leaves) + 10 * tree.n_leaves
    assert size["bytes"] == (run.folder / "model.skops").stat().st_size


def test_a_folder_whose_types_nobody_vouched_for_is_refused(digits, tmp_path):
    (tmp_path / "mine_of_students.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\nclass Mine(DecisionTreeClassifier):\n    pass\n"
    )
    config = config_of(model="mine_of_students:Mine", trusted=["mine_of_students.Mine"])
    run = run_of(tmp_path, digits, config)
    fit([run], PlainSession())
    with pytest.raises(StoreError, match=r"mine_of_students\.Mine.*trusted"):
        load_model(run.folder)
    load_model(run.folder, trust=["mine_of_students:Mine"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "sklearn.tree:DecisionTreeRegressor"}, "has no predict_proba"),
        ({"learns": "logits"}, "is a classifier, and logits are numbers"),
        ({"model": "sklearn.neighbors:KNeighborsClassifier", "arguments": {}}, "takes no `sample_weight`"),
        ({"arguments": {"depth": 3}}, "cannot be made with"),
    ],
)
def test_an_estimator_that_cannot_learn_this_is_refused(digits, tmp_path, changes, told):
    with pytest.raises((RecipeError, UsersCodeError), match=told):
        fit([run_of(tmp_path, digits, config_of(**changes))], PlainSession())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective": [{"loss": "mine:loss"}]}, "learns copies of rows, not by a loss of yours"),
        ({"objective": [SOFT | {"ramp": {"steps": 3}}]}, "fitted at once, so no weight can rise"),
        ({"objective": [SOFT | {"weight": 0}]}, "nothing to learn"),
        ({"train": {"seeds": [1, 1]}}, "name one twice"),
        ({"train": {"steps": 3}}, "Extra inputs"),
    ],
)
def test_what_an_estimator_cannot_be_told_is_an_error(changes, told):
    with pytest.raises(ValidationError, match=told):
        config_of(**changes)


def test_a_student_without_a_kind_is_a_network():
    adapter = TypeAdapter(Student)
    assert isinstance(adapter.validate_python({"model": "students.models:mlp", "teachers": ["a"]}), StudentConfig)
    assert isinstance(adapter.validate_python(TREE | {"teachers": ["a"]}), EstimatorStudent)


def test_an_estimator_has_no_live_teacher():
    document = {
        "format": 1,
        "name": "live",
        "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
        "teachers": {"a": {"kind": "module", "model": "teachers.zoo:mlp", "train": {"steps": 1}, "mode": "live"}},
        "students": {"tree": TREE | {"teachers": ["a"]}},
    }
    with pytest.raises(RecipeError, match="'a' is live, and an estimator learns stored labels"):
        Recipe.from_dict(document)
