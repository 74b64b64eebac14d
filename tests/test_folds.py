"""Out of fold: who labels which row, whatever else is in the transfer set."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from sklearn.tree import DecisionTreeClassifier

from students.config.estimator import EstimatorStudent
from students.fitting.fit import fit
from students.measuring.gain import paired_gain
from students.runs.of_student import student_run
from students.runs.run import Source
from students.runs.session import PlainSession
from teachers.config.teacher import SklearnTeacher, TeacherConfig
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, StoreError
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.models.estimators import fit_sklearn, labelled_rows
from teachers.models.folded import mean_said
from teachers.models.folder import load_model
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.folds import Folds, checked

TREE = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier", "seed": 1}


def folded(**train):
    return SklearnTeacher.model_validate(TREE | {"train": {"folds": 4} | train})


def labels_of(tmp_path, transfer_set, config, trained, segment):
    """What a replica puts into the store of a segment, f32 logits [rows, C]."""
    spec = Spec("tree", "digest", segment.name, segment.digest, "dense", transfer_set.classes, segment.num_rows, 64)
    folder = tmp_path / f"store-{segment.name}"
    store = SoftTargetStore.create(folder, spec)
    teacher = TeacherSpec("tree", config, trained, (), tmp_path)
    labeller = Labeller(teacher, [LabelTask(transfer_set.folder, segment.name, folder)], "cpu")
    for number in range(store.num_shards):
        labeller.label(0, number)
    store.seal()
    return SoftTargets.open(folder).said(1e-3)


@pytest.mark.parametrize("refit", [False, True])
def test_a_learnt_row_is_labelled_by_who_has_not_seen_it_and_others_by_all(digits, tmp_path, refit):
    config = folded(refit=refit)
    fit_sklearn(config, digits, tmp_path / "trained")
    rows, [segment] = labelled_rows(config, digits), digits.of("train")
    fold = Folds(4, 1, refit).of(rows.groups)
    said = labels_of(tmp_path, digits, config, tmp_path / "trained", segment)
    everything = labelled_rows(config, _all_labelled(digits))
    own = [
        DecisionTreeClassifier(random_state=1).fit(rows.features[fold != k], rows.labels[fold != k]) for k in range(4)
    ]
    whole = DecisionTreeClassifier(random_state=1).fit(rows.features, rows.labels)
    p = np.mean([tree.predict_proba(everything.features) for tree in own], axis=0)
    if refit:
        p = whole.predict_proba(everything.features)
    learnt = digits.labelled(segment)
    for k in range(4):
        mine = np.flatnonzero(learnt)[fold == k]
        p[mine] = own[k].predict_proba(everything.features[mine])
    torch.testing.assert_close(said.softmax(-1), torch.tensor(0.999 * p + 1e-4, dtype=torch.float32), atol=2e-3, rtol=0)
    assert (said.argmax(-1).numpy() == everything.labels)[learnt].mean() < 0.9  # it knows none of them by heart


def _all_labelled(digits):
    """The same rows, of which all may be learnt."""

    class All(type(digits)):
        def labelled(self, segment):
            return np.full(segment.num_rows, True)

    return All(**vars(digits))


def test_the_fold_of_a_row_follows_from_its_key_alone():
    keys = np.random.default_rng(0).integers(0, 2**63, 10_000, dtype=np.uint64)
    folds = Folds(5, 3, False)
    some = np.random.default_rng(1).permutation(10_000)[:100]
    np.testing.assert_array_equal(folds.of(keys)[some], folds.of(keys[some]))
    assert np.abs(np.bincount(folds.of(keys)) - 2000).max() < 150
    assert (folds.of(keys) != Folds(5, 4, False).of(keys)).mean() > 0.7


def test_a_group_is_in_one_fold_also_the_rows_that_nobody_has_learnt(tmp_path):
    import csv

    generator = np.random.default_rng(0)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "who", "label"])
        for row in range(400):
            writer.writerow([generator.random(), generator.random(), f"person {row // 8}", "ab"[row % 2]])
    document = {
        "source": {"kind": "csv", "path": str(tmp_path / "rows.csv")},
        "inputs": ["x", "y"],
        "label": "label",
        "labelled": 40,
        "split": {"group_by": "who"},
    }
    transfer_set = prepare(TransferSetConfig.model_validate(document), tmp_path / "prepared")
    [segment] = transfer_set.of("train")
    folds = Folds(3, 0, False)
    folds.save(tmp_path, checked(folds, transfer_set))
    found, groups = folds.of_rows(transfer_set, segment, tmp_path), transfer_set.groups(segment)
    learnt = np.isin(groups, groups[transfer_set.labelled(segment)])
    assert (found >= 0).tolist() == learnt.tolist() and learnt.sum() > transfer_set.labelled(segment).sum()
    for group in np.unique(groups[learnt]):
        assert len(set(found[groups == group].tolist())) == 1
    [validation] = transfer_set.of("validation")
    assert (folds.of_rows(transfer_set, validation, tmp_path) == -1).all()


def test_folds_without_a_class_are_refused(digits):
    labels, keys = np.array([0, 0, 0, 1], np.int32), np.arange(4, dtype=np.uint64)
    with pytest.raises(DataError, match=r"without fold \d of 3 no labelled training row is left of 'owl' \(1\)"):
        Folds(3, 0, False).check(labels, keys, ("cat", "owl"))
    Folds(3, 0, False).check(np.zeros(40, np.int32), np.arange(40, dtype=np.uint64), ("cat", "owl"))


def test_parts_that_learnt_other_rows_are_not_asked(digits, tmp_path):
    [segment] = digits.of("train")
    folds = Folds(4, 1, False)
    folds.save(tmp_path, np.arange(3, dtype=np.uint64))
    with pytest.raises(StoreError, match="learnt other rows than are labelled here"):
        folds.of_rows(digits, segment, tmp_path)


def test_a_fold_that_was_fitted_before_the_kill_is_not_fitted_again(digits, tmp_path):
    config = folded()
    files = fit_sklearn(config, digits, tmp_path)
    assert sorted(files) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.skops")}
    again = tmp_path / "teacher" / "fold-2"
    for file in again.iterdir():
        file.unlink()
    (tmp_path / "folds.json").unlink()
    assert fit_sklearn(config, digits, tmp_path) == files
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.skops")}
    assert {path.parent.name for path in after if after[path] != before[path]} == {"fold-2"}


def test_a_network_in_folds_learns_all_rows_but_its_folds(digits, tmp_path):
    from orchestrator.building.train import teacher_run

    config = TypeAdapter(TeacherConfig).validate_python(
        {"kind": "module", "model": "teachers.zoo:linear", "train": {"steps": 20, "folds": 2, "seed": 5}}
    )
    folds = Folds(2, 5, False)
    runs = [
        teacher_run(
            "net", config, config.train, folder=tmp_path, run=f"teacher/{name}", part=(folds, number),
            transfer_set=digits.folder, user_path=tmp_path,
        )
        for number, name in enumerate(folds.parts)
    ]  # fmt: skip
    folds.save(tmp_path, checked(folds, digits))
    fit(runs, PlainSession())
    from students.data.shared import SharedData

    rows = [SharedData(1 << 26).of([run], PlainSession())[0].rows for run in runs]
    assert sum(len(each.labelled) for each in rows) == digits.num_labelled == 100
    assert not set(map(bytes, _pixels(rows[0]))) & set(map(bytes, _pixels(rows[1])))
    [segment] = digits.of("train")
    said = labels_of(tmp_path, digits, config, tmp_path, segment)
    parts = [load_model(tmp_path / f"teacher/{name}")(digits.inputs(segment)) for name in folds.parts]
    fold = folds.of_rows(digits, segment, tmp_path)
    for number in range(2):
        mine = torch.from_numpy(fold == number)
        torch.testing.assert_close(said[mine].softmax(-1), parts[number][mine].softmax(-1), atol=2e-3, rtol=0)
    rest = torch.from_numpy(fold < 0)
    mean = torch.stack([part.softmax(-1) for part in parts]).mean(0)
    torch.testing.assert_close(said[rest].softmax(-1), mean[rest], atol=2e-3, rtol=0)


def _pixels(rows):
    return next(column for name, column in rows.columns.items() if name.startswith("input")).numpy()


def test_the_mean_of_parts_is_of_probabilities_whatever_they_say():
    said = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    expected = torch.stack([each.softmax(-1) for each in said]).mean(0)
    torch.testing.assert_close(mean_said(said, "logits").softmax(-1), expected)
    torch.testing.assert_close(mean_said([each.log_softmax(-1) for each in said], "log_probabilities").exp(), expected)
    torch.testing.assert_close(mean_said([each.softmax(-1) for each in said], "probabilities"), expected)


def test_a_live_teacher_has_no_folds_and_a_refit_needs_them():
    with pytest.raises(ValidationError, match="leave one of the two out"):
        SklearnTeacher.model_validate(TREE | {"mode": "live", "train": {"folds": 2}})
    with pytest.raises(ValidationError, match="`refit` trains once more beside `folds`"):
        SklearnTeacher.model_validate(TREE | {"train": {"refit": True}})


def test_a_student_of_a_tree_that_knows_rows_by_heart_is_better_by_out_of_fold_labels(digits, tmp_path):
    """A tree of unlimited depth on 100 rows; the interval of the difference over seeds of the tree and test rows is above 0."""
    right = {
        kind: np.stack([_right_of_student(digits, tmp_path / f"{kind}-{seed}", train, seed) for seed in range(5)])
        for kind, train in (("in sample", {"folds": None}), ("out of fold", {"folds": 5}))
    }
    [test] = digits.of("test")
    gain = paired_gain(right["out of fold"], right["in sample"], digits.groups(test))
    assert gain.low > 0 and gain.mean > 0.03


def _right_of_student(digits, folder, train, seed):
    """On which test rows a logistic regression is right that was taught by such a tree alone, bool [rows]."""
    folder.mkdir()
    config = SklearnTeacher.model_validate(TREE | {"train": train, "seed": seed})
    fit_sklearn(config, digits, folder / "trained")
    labels_of(folder, digits, config, folder / "trained", digits.of("train")[0])
    student = EstimatorStudent.model_validate(
        {
            "kind": "sklearn",
            "model": "sklearn.linear_model:LogisticRegression",
            "arguments": {"max_iter": 300, "tol": 1e-3},
            "teachers": ["tree"],
            "objective": [{"loss": "soft", "temperature": 1.0}],
        }
    )
    where = {"folder": folder, "stage": folder, "stage_name": "distill/linear", "transfer_set": digits.folder}
    sources = (Source("tree", {"train-0": folder / "store-train-0"}),)
    run = student_run("student", student, 0, sources=sources, user_path=folder, **where)
    fit([run], PlainSession())
    [test] = digits.of("test")
    said = load_model(run.folder)(digits.inputs(test)).argmax(-1).numpy()
    return said == digits.labels(test)
