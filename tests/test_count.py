"""What `plan` counts is what `prepare` finds, for every format, split and limit; and it ends with the same complaint."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from orchestrator.planning.counting import count_notes, known, with_counts
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError
from teachers.preparing.count import count, count_prepared
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.preparing.sample import as_transfer_set, sample, sample_prepared
from teachers.transfer_set.transfer_set import SPLITS


def iris(**options: Any) -> TransferSetConfig:
    source = {"kind": "sklearn", "name": "iris"}
    return TransferSetConfig.model_validate({"source": source, "inputs": "features", "label": "target", **options})


def table(folder: Path, kind: str, labels: Any, **options: Any) -> TransferSetConfig:
    """Rows of two numbers with these labels, and a group of two rows each."""
    at = np.arange(len(labels))
    data = pa.table({"a": at / 7, "b": at % 5, "group": at // 2, "uid": [f"row-{row}" for row in at], "y": labels})
    path = folder / f"rows.{kind}"
    pq.write_table(data, path, row_group_size=40) if kind == "parquet" else pa.csv.write_csv(data, path)
    given = {"source": {"kind": kind, "path": str(path)}, "inputs": ["a", "b"], "label": "y", **options}
    return TransferSetConfig.model_validate(given)


def rare(folder: Path) -> TransferSetConfig:
    """Class `b` has test rows only, and nobody divides it otherwise."""
    by_hash = {"split": {"stratify": False}}
    prepared = prepare(table(folder, "csv", ["a"] * 300, **by_hash), folder / "plain")
    tests = {int(name.rpartition("#")[2]) for name in prepared.ids(prepared.of("test")[0]).to_pylist()[:2]}
    return table(folder, "csv", ["b" if row in tests else "ac"[row % 2] for row in range(300)], **by_hash)


LABELS = ["ant", "bee", "cat"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labelled": {"train": 40, "validation": 6}},
        {"limit": 12, "labelled": 9},
        {"labelled": {"train": 40, "teachers": 30}},
        {"id": "uid", "split": {"group_by": "group", "train": 0.5}},
        {"classes": ["cat", "ant", "bee", "dog"], "key_salt": "x"},
        {"split": {"stratify": True}},
        {"split": {"stratify": False}},
    ],
    ids=["plain", "labelled", "limit", "of teachers", "groups", "named classes", "stratified", "by the hash alone"],
)
def test_counts_are_those_of_the_prepared_rows(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    labels = [LABELS[at] for at in np.random.default_rng(0).choice(3, 300, p=[0.7, 0.2, 0.1])]
    config = table(tmp_path, kind, labels, **options)
    prepared = prepare(config, tmp_path / "out")
    counted = count(config, look(config))
    assert counted == count_prepared(prepared)
    assert counted is not None and counted.of_class("train") == prepared.report["labelled_per_class"]
    assert counted.num_labelled == prepared.report["labelled"]


@pytest.mark.parametrize(
    ("labels", "options", "told"),
    [
        (
            ["a", "b"] * 60,
            {"labelled": 999_999},
            "labelled: 999,999 labels of train rows may be used, and 8. train rows have one",
        ),
        (["a", "b"] * 60, {"classes": ["a", "c"]}, "60 rows cannot be used"),
        (["a", "b"] * 2, {}, "no row in the split"),
        ([None] * 120, {}, "no row has a label"),
    ],
    ids=["labelled", "classes", "split", "no labels"],
)
def test_what_ends_prepare_ends_the_count_with_the_same_words(
    tmp_path: Path, labels: list[Any], options: dict[str, Any], told: str
) -> None:
    config = table(tmp_path, "parquet", pa.array(labels, pa.string()), **options)
    with pytest.raises(DataError, match=told) as by_count:
        count(config, look(config))
    with pytest.raises(DataError) as by_prepare:
        prepare(config, tmp_path / "out")
    assert str(by_count.value) == str(by_prepare.value)


def test_two_rows_of_one_id_are_told_as_prepare_tells_them(tmp_path: Path) -> None:
    config = table(tmp_path, "parquet", ["a", "b"] * 60, id="group")
    with pytest.raises(DataError, match=r"the id '\d+' is there twice, at rows\.parquet#\d+ and") as by_count:
        count(config, look(config))
    with pytest.raises(DataError) as by_prepare:
        prepare(config, tmp_path / "out")
    assert str(by_count.value) == str(by_prepare.value)


def test_a_source_of_too_many_rows_is_not_counted_and_that_is_said() -> None:
    config = iris()
    assert count(config, look(config), most=149) is None
    assert [*count_notes(config, None, thorough=True)] == [
        "classes and rows of each class are known after `prepare`: the source has too many to count before"
    ]


def test_of_numbers_and_of_rows_without_labels_no_class_is_spoken_of() -> None:
    numbers = iris().model_copy(update={"task": "regression"})
    nothing = iris().model_copy(update={"label": None})
    (told,), (untold,) = ([*count_notes(each, None, thorough=False)] for each in (numbers, nothing))
    assert told == "rows with a label are known after `prepare`: `--check` counts them"
    assert untold == "how many rows there are is known after `prepare`: `--check` counts them"


def test_notes_tell_of_classes_that_cannot_be_learnt_chosen_by_or_tested(tmp_path: Path) -> None:
    config = rare(tmp_path)
    counted = known(config, look(config), None, thorough=True)
    notes = [*count_notes(config, counted, thorough=True)]
    assert notes[0] == "class 'b': no labelled training row, so nobody learns it from labels; 2 test rows are of it"
    few = known(iris(), look(iris()), None, thorough=False)
    (told,) = count_notes(iris(), few, thorough=False)
    assert (
        "labelled validation rows choose weights" in told and "under 10 of 'setosa', 'versicolor', 'virginica'" in told
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_sample_of_sorted_rows_has_every_class_and_the_rows_own_values(tmp_path: Path, kind: str) -> None:
    labels = sorted(LABELS * 2000)
    config = table(tmp_path, kind, labels)
    seen = with_counts(look(config), count(config, look(config)))
    rows = sample(config, seen, tuple(LABELS), 48)
    assert (
        rows.num_rows == 48
        and set(rows.labels.tolist()) == {0, 1, 2}
        and set(rows.take(3).labels.tolist()) == {0, 1, 2}
    )
    at = np.rint(rows.inputs["features"][:, 0] * 7).astype(int)
    assert [LABELS.index(labels[row]) for row in at] == rows.labels.tolist()
    assert np.array_equal(rows.inputs["features"][:, 1], at % 5)
    mean = rows.inputs["features"].astype(np.float64).mean(0)
    assert np.allclose(rows.columns[0].mean, mean, rtol=1e-9)


def test_a_sample_is_a_transfer_set_whose_splits_are_the_same_rows(tmp_path: Path) -> None:
    whole = prepare(iris(), tmp_path / "iris")
    rows = sample_prepared(whole, 12)
    made = as_transfer_set(rows, tmp_path / "few", some_unlabelled=True)
    assert rows.columns == whole.columns and sorted(np.bincount(rows.labels)) == [4, 4, 4]
    for split in SPLITS:
        (segment,) = made.of(split)
        assert np.array_equal(made.inputs(segment)["features"], rows.inputs["features"])
        assert np.array_equal(made.labels(segment), rows.labels) and made.labelled(segment).sum() == 6
