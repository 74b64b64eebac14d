"""Figures by how many labelled rows a class has: who is in which group, that they are of its rows alone, and how a page shows them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.reporting.shots import by_shots, page_table, shots_of
from students.measuring.by_row import to_document
from students.measuring.gain import paired_gain
from students.tasks.figure import headline
from teachers.sources.examples import fashion_with_a_long_tail

COUNTS = {str(number): rows for number, rows in enumerate([500, 300, 100, 99, 21, 20, 8, 5, 5, 0])}
GROUPS = {"many": ["0", "1", "2"], "median": ["3", "4"], "few": ["5", "6", "7", "8", "9"]}


def evaluation(digits, share, seed, control=0.5):
    (segment,) = digits.of("test")
    rng = np.random.default_rng(seed)
    rows = segment.num_rows
    of = {"student": rng.random((3, rows)) < share, "control": rng.random((3, rows)) < control}
    return {"by_row": {kind: to_document(right) for kind, right in of.items()}}, of


def test_groups_are_the_papers_where_classes_are_ten_to_one():
    assert shots_of(COUNTS) == GROUPS
    assert shots_of({"a": 100, "b": 10}) == {"many": ["a"], "few": ["b"]}
    assert shots_of({"a": 99, "b": 10}) == {} == shots_of({"a": 0, "b": 0}) == shots_of({})


def test_each_groups_figures_are_of_its_test_rows_alone(digits):
    found, right = evaluation(digits, 0.8, 1)
    table = by_shots({"small": found}, digits, COUNTS)
    (segment,) = digits.of("test")
    labels = digits.labels(segment)
    assert sum(group["test_rows"] for group in table["groups"].values()) == len(labels)
    for shot, names in GROUPS.items():
        rows = np.isin(labels, [digits.classes.index(name) for name in names])
        own = table["students"]["small"][shot]
        assert own["student"]["runs"] == pytest.approx(right["student"][:, rows].mean(1).tolist())
        expected = paired_gain(right["student"][:, rows], right["control"][:, rows])
        assert own["gain"]["mean"] == pytest.approx(expected.mean) and own["gain"]["low"] == pytest.approx(expected.low)
        assert table["groups"][shot]["rows"] == [min(COUNTS[n] for n in names), max(COUNTS[n] for n in names)]


def test_even_classes_and_numbers_have_no_such_table(digits):
    found, _ = evaluation(digits, 0.8, 1)
    assert by_shots({"small": found}, digits, dict.fromkeys(COUNTS, 10)) is None
    assert by_shots({}, digits, COUNTS) is None
    assert page_table(headline("classification"), None) is None


def test_a_page_has_a_line_for_a_student_and_its_control(digits):
    found, _ = evaluation(digits, 0.8, 1)
    alone = {"by_row": {"student": found["by_row"]["student"]}}
    table = page_table(headline("classification"), by_shots({"small": found, "free": alone}, digits, COUNTS))
    assert [line["name"] for line in table["lines"]] == ["small", "control of small", "free"]
    assert [group["title"] for group in table["groups"]] == ["many", "median", "few"]
    first, *_ = table["lines"]
    assert all(
        "%" in cell["right"] and "to" in cell["gain"] and cell["tone"] in ("helps", "open") for cell in first["cells"]
    )
    assert all(cell["gain"] == "" for line in table["lines"][1:] for cell in line["cells"])


def test_a_long_tail_keeps_the_first_images_of_each_class_down_to_one_in_so_many(tmp_path):
    png = io.BytesIO()
    Image.new("L", (2, 2)).save(png, "PNG")
    for name, first in (("train.parquet", 0), ("test.parquet", 600)):
        label = np.tile(np.arange(3), 200)
        image = [{"bytes": png.getvalue(), "path": f"{first + row}"} for row in range(len(label))]
        pq.write_table(pa.table({"image": image, "label": label}), tmp_path / name)
    table = fashion_with_a_long_tail(str(tmp_path), imbalance=100, most=400)
    labels = table.column("label").to_numpy()
    assert np.bincount(labels).tolist() == [400, 40, 4]
    paths = [int(each["path"]) for each in table.column("image").to_pylist()]
    assert paths == sorted(paths) and [p for p, label in zip(paths, labels, strict=True) if label == 2] == [2, 5, 8, 11]
