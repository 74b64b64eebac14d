"""Laws of the rows that teachers have for themselves: they alone learn them, and all other rows stay what they are."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.building.fit import rows_drawn
from orchestrator.building.label import label_stages
from students.data.shared import open_data
from students.runs.session import PlainSession
from teachers.config.teacher import CallableTeacher, SklearnTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError
from teachers.models.estimators import labelled_rows
from teachers.preparing.prepare import prepare
from teachers.transfer_set.folds import labelled_keys
from teachers.transfer_set.own_rows import shared
from teachers.transfer_set.transfer_set import SPLITS
from tests.training_runs import make_run

LABELLED = {"train": 40, "teachers": 70}
HARD = ({"loss": "hard"},)
FOREST = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}


def digits(**options) -> TransferSetConfig:
    source = {"kind": "sklearn", "name": "digits"}
    return TransferSetConfig.model_validate({"source": source, "inputs": "image", "label": "digit", **options})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    return [prepare(digits(labelled=given), folder / str(n)) for n, given in enumerate([{"train": 40}, LABELLED])]


def keys(transfer_set, split):
    return np.concatenate([np.zeros(0, np.uint64), *(transfer_set.keys(each) for each in transfer_set.of(split))])


def learnt(transfer_set):
    return {key for s in transfer_set.of("train") for key in transfer_set.keys(s)[transfer_set.labelled(s)].tolist()}


def test_rows_of_teachers_are_training_rows_that_leave_their_split_and_move_no_other(prepared):
    without, given = prepared
    own = keys(given, "teachers")
    assert len(own) == given.report["of_teachers"] == 70 and "of_teachers" not in without.report
    assert np.array_equal(np.sort(np.append(keys(given, "train"), own)), keys(without, "train"))
    assert learnt(given) == learnt(without) and not learnt(given) & set(own.tolist())
    assert given.judged_on() == without.judged_on()
    assert given.num_labelled == 40
    assert [segment.name for segment in shared(given)] == [segment.name for segment in without.segments]


def test_nobody_is_asked_about_them(prepared):
    _, given = prepared
    config = CallableTeacher.model_validate(
        {"kind": "callable", "function": "json:dumps", "output": "logits", "version": "1"}
    )
    stages, live = label_stages("mine", config, {}, given)
    assert [*stages] == [f"{split}-0" for split in SPLITS] and not live


def test_they_are_stratified(prepared):
    _, given = prepared
    (segment,) = given.of("teachers")
    shares = np.bincount(np.concatenate([given.labels(s) for s in (*given.of("train"), segment)])) - 4
    taken = np.bincount(given.labels(segment))
    assert np.all(np.abs(shares / shares.sum() * 70 - taken) < 1)


def test_teachers_learn_labels_of_all_and_their_own_and_nobody_else_meets_these(prepared, tmp_path):
    _, given = prepared
    own, everybody = set(keys(given, "teachers").tolist()), learnt(given)
    learners = {"control": {}, "teacher": {"teaches": True}}
    rows = {}
    for name, options in learners.items():
        run = replace(make_run(tmp_path / name, given, objective=HARD, labelled_only=True), **options)
        rows[name] = open_data(run, PlainSession(), 1 << 28).rows
        assert rows_drawn(given.folder, labelled_only=True, **options) == len(rows[name].labelled)
    assert len(rows["control"].labelled) == 40 and len(rows["teacher"].labelled) == 110
    student = open_data(make_run(tmp_path / "student", given, objective=HARD), PlainSession(), 1 << 28)
    assert len(student.rows.labelled) == len(keys(given, "train"))
    fitted = labelled_rows(SklearnTeacher.model_validate(FOREST), given)
    assert sorted(fitted.groups.tolist()) == sorted(own | everybody)
    assert sorted(labelled_keys(given)[1].tolist()) == sorted(own | everybody)


def test_more_than_are_left_are_refused_with_how_many_are(tmp_path):
    rows = len(keys(prepare(digits(), tmp_path / "all"), "train"))
    with pytest.raises(
        DataError, match=rf"5,000 training rows are the teachers' alone, and {rows - 40:,} further ones have"
    ):
        prepare(digits(labelled={"train": 40, "teachers": 5000}), tmp_path / "out")


def test_without_labels_for_all_there_is_none_left_for_teachers_alone(tmp_path):
    with pytest.raises(DataError, match="0 further ones have a label"):
        prepare(digits(labelled={"teachers": 10}), tmp_path / "out")
