"""Boosted trees of other libraries as teachers: files of their own, early stopping, any number of CPUs."""

import json

import numpy as np
import pytest

from teachers.config.folds import HeldOut
from teachers.config.resources import Resources
from teachers.config.teacher import SklearnTeacher
from teachers.errors import DataError, RecipeError, TeacherError
from teachers.models.adapters import load_teacher, teacher_classes
from teachers.models.estimators import fit_sklearn, held_out, labelled_rows, made
from teachers.models.foreign import given_problem, library_of
from teachers.models.formats import FORMATS, format_of

MODELS = {
    "xgboost": ("XGBClassifier", {"n_estimators": 8, "subsample": 0.8}),
    "lightgbm": ("LGBMClassifier", {"n_estimators": 8, "min_child_samples": 5}),
    "catboost": ("CatBoostClassifier", {"iterations": 8, "depth": 4}),
}
FED = {"preprocess": {"normalise": "auto"}}


@pytest.fixture(params=sorted(MODELS))
def library(request):
    pytest.importorskip(request.param, reason=f"{request.param} is not installed: its trees are missing")
    return request.param


def teacher_of(library, **more):
    name, arguments = MODELS[library]
    given = {"kind": "sklearn", "model": f"{library}:{name}", "arguments": arguments}
    return SklearnTeacher.model_validate(given | more)


def load(digits, config, trained=None):
    about = {
        "columns": digits.columns,
        "space": digits.space,
        "trust": (),
        "device": "cpu",
        "user_path": digits.folder,
    }
    return load_teacher(config, trained=trained, **about)


def some_rows(digits):
    return {name: np.array(column) for name, column in digits.inputs(digits.of("validation")[0], 0, 50).items()}


def test_a_fitted_teacher_says_what_its_own_library_says(library, digits, tmp_path):
    config = teacher_of(library)
    files = fit_sklearn(config, digits, tmp_path)
    assert files == [FORMATS[library].file, "teacher.json"] and all((tmp_path / file).is_file() for file in files)
    rows = labelled_rows(config, digits)
    own = made(config.model, config.arguments, 0).fit(rows.features, rows.labels)
    teacher = load(digits, config, tmp_path)
    from teachers.models.estimators import flat
    from teachers.models.preprocess import Preprocessor

    features = flat(Preprocessor(config.preprocess, digits.columns), some_rows(digits))
    np.testing.assert_allclose(teacher(some_rows(digits)), own.predict_proba(features), atol=1e-6)
    assert teacher.classes == teacher_classes(config, digits.space, tmp_path) == digits.classes


def test_neither_cpus_nor_the_moment_are_in_the_bytes(library, digits, tmp_path):
    for cpus in (1, 2):
        fit_sklearn(teacher_of(library, resources=Resources(cpus=cpus)), digits, tmp_path / str(cpus))
    file = FORMATS[library].file
    assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_its_file_teaches_where_it_is_brought(library, digits, tmp_path):
    config = teacher_of(library)
    fit_sklearn(config, digits, tmp_path)
    brought = SklearnTeacher(kind="sklearn", weights=str(tmp_path / FORMATS[library].file), **FED)
    assert library_of(tmp_path / FORMATS[library].file) == library and given_problem(brought) == ""
    said = load(digits, brought)(some_rows(digits))
    np.testing.assert_array_equal(said, load(digits, config, tmp_path)(some_rows(digits)))
    assert load(digits, brought).classes == digits.classes


def test_a_file_that_does_not_say_how_it_was_fed_is_told_of(library, digits, tmp_path):
    path = tmp_path / FORMATS[library].file
    path.write_bytes(b'{"learner": 1}')
    assert "how it was fed" in given_problem(SklearnTeacher(kind="sklearn", weights=str(path)))


@pytest.mark.parametrize("content", [None, b"", b"tree of nothing"], ids=["no file", "empty", "garbage"])
def test_what_is_no_model_of_the_library_is_said_to_be_none(library, digits, tmp_path, content):
    path = tmp_path / {"xgboost": "m.ubj"}.get(library, FORMATS[library].file)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TeacherError, match=rf"{path.name}"):
        load(digits, SklearnTeacher(kind="sklearn", weights=str(path), **FED))


def test_early_stopping_grows_fewer_trees_by_rows_that_are_not_learnt(library, digits, tmp_path):
    count = {"catboost": "iterations"}.get(library, "n_estimators")
    many = {**MODELS[library][1], count: 300, "learning_rate": 1.0}
    stopping = teacher_of(library, arguments=many, train={"early_stopping": {"rounds": 3, "share": 0.3}})
    fit_sklearn(stopping, digits, tmp_path / "stopped")
    fit_sklearn(teacher_of(library, arguments=many), digits, tmp_path / "grown")
    size = {name: (tmp_path / name / FORMATS[library].file).stat().st_size for name in ("stopped", "grown")}
    assert size["stopped"] < 0.9 * size["grown"]


def test_held_out_rows_are_a_share_of_each_class_whatever_the_order_of_rows():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.int32), [10, 20, 70])
    keys = generator.integers(0, 2**63, 100, dtype=np.uint64)
    held = held_out(labels, keys, HeldOut(share=0.2), seed=1)
    assert np.bincount(labels[held]).tolist() == [2, 4, 14]
    order = generator.permutation(100)
    np.testing.assert_array_equal(held_out(labels[order], keys[order], HeldOut(share=0.2), seed=1), held[order])
    assert not np.array_equal(held_out(labels, keys, HeldOut(share=0.2), seed=2), held)


def test_held_out_rows_take_their_whole_group():
    labels, groups = np.zeros(100, np.int32), np.repeat(np.arange(10, dtype=np.uint64), 10)
    held = held_out(labels, groups, HeldOut(share=0.1), seed=0)
    assert {int(rows) for rows in np.bincount(groups[held]) if rows} == {10}


@pytest.mark.parametrize(("share", "told"), [(0.001, "is no row of any class"), (0.9, "no labelled training row left")])
def test_a_share_that_leaves_no_rows_is_refused(share, told):
    labels = np.array([0, 0, 1, 1, 1, 1], np.int32)
    with pytest.raises(DataError, match=told):
        held_out(labels, np.arange(6, dtype=np.uint64), HeldOut(share=share), seed=0)


def test_an_estimator_that_cannot_be_stopped_is_refused(digits, tmp_path):
    train = {"early_stopping": {"rounds": 3}}
    config = SklearnTeacher(kind="sklearn", model="sklearn.ensemble:ExtraTreesClassifier", train=train)
    with pytest.raises(RecipeError, match="ExtraTreesClassifier has none that looks at rows"):
        fit_sklearn(config, digits, tmp_path)


def test_a_class_of_ones_own_on_top_of_a_library_is_not_kept_as_the_librarys():
    lightgbm = pytest.importorskip("lightgbm")

    class Mine(lightgbm.LGBMClassifier):
        pass

    assert format_of(Mine).file == "model.skops"
    assert format_of(lightgbm.LGBMClassifier).file == "model.txt"


def test_an_estimator_that_says_its_classes_in_another_order_teaches_by_their_names(digits, tmp_path):
    (tmp_path / "backwards.py").write_text(BACKWARDS)
    trusted = ["backwards.Backwards"]
    config = SklearnTeacher(kind="sklearn", model="backwards:Backwards", trusted=trusted, seed=1)
    straight = SklearnTeacher(kind="sklearn", model="sklearn.tree:DecisionTreeClassifier", seed=1)
    from teachers.users_code.imports import use_user_path

    use_user_path(tmp_path)
    fit_sklearn(config, digits, tmp_path / "backwards")
    fit_sklearn(straight, digits, tmp_path / "straight")
    found = load_teacher(
        config,
        columns=digits.columns,
        space=digits.space,
        trained=tmp_path / "backwards",
        trust=(),
        device="cpu",
        user_path=tmp_path,
    )
    assert found.classes == digits.classes[::-1]
    expected = load(digits, straight, tmp_path / "straight")(some_rows(digits))
    np.testing.assert_array_equal(found(some_rows(digits)), expected[:, ::-1])


BACKWARDS = """
import numpy as np
from sklearn.tree import DecisionTreeClassifier


class Backwards(DecisionTreeClassifier):
    def fit(self, X, y):
        super().fit(X, y)
        self.classes_ = self.classes_[::-1].copy()
        return self

    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


class Shifted(DecisionTreeClassifier):
    def fit(self, X, y):
        super().fit(X, y)
        self.classes_ = self.classes_ + 1
        return self
"""


def test_an_estimator_whose_classes_are_not_those_that_it_was_given_is_refused(digits, tmp_path):
    from teachers.users_code.imports import use_user_path

    (tmp_path / "shifting.py").write_text(BACKWARDS)
    use_user_path(tmp_path)
    config = SklearnTeacher(kind="sklearn", model="shifting:Shifted", trusted=["shifting.Shifted"])
    with pytest.raises(TeacherError, match=r"says the classes \[1, 2.*it was fitted on 0 to 9"):
        fit_sklearn(config, digits, tmp_path / "out")


def test_a_json_of_xgboost_is_told_from_one_of_catboost(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"learner": {}, "version": [3, 1, 2]}))
    (tmp_path / "c.json").write_text(json.dumps({"features_info": {}, "oblivious_trees": []}))
    assert [library_of(tmp_path / f"{name}.json") for name in "xc"] == ["xgboost", "catboost"]


def test_weights_and_train_do_not_go_together():
    with pytest.raises(ValueError, match="`weights` are given"):
        SklearnTeacher.model_validate({"kind": "sklearn", "weights": "m.json", "train": {"folds": 2}, **FED})
