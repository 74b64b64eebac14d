"""Laws of a stratified split: shares of every class, from keys and labels alone, and old rows that stay where they are."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.recipe.model import Recipe
from orchestrator.recipe.seen_rows import Learnt, _learnt_test_rows
from teachers.config.transfer_set import SplitConfig, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.preparing.splits import sample_keys, split_numbers
from teachers.preparing.stratify import SLACK, divide, misses
from teachers.transfer_set.transfer_set import SPLITS

SHARES = {"test": 0.2, "validation": 0.1, "train": 0.7}


def rows_of(**counts):
    """(id, class), `a0` to `a9` for a=10."""
    return [(f"{name}{number}", name) for name, count in counts.items() for number in range(count)]


def split_of(folder, rows, *, chunk_rows=4096, run=map, source="rows.csv", **changes):
    """By id, the split of a row; and what was prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, labels = zip(*rows, strict=True)
    table = pa.table({"id": ids, "x": [float(len(i) + hash_free(i)) for i in ids], "y": labels})
    pyarrow.csv.write_csv(table, folder / source)
    config = TransferSetConfig.model_validate(
        {"source": {"kind": "csv", "path": str(folder / source)}, "inputs": ["x"], "label": "y", "id": "id"} | changes
    )
    prepared = prepare(config, folder / "prepared", chunk_rows=chunk_rows, run=run)
    found = {row: s.split for s in prepared.segments for row in prepared.ids(s).to_pylist()}
    return found, prepared


def hash_free(text):
    return sum(map(ord, text)) % 97


def hashed(rows, split=None):
    numbers = split_numbers(sample_keys([row for row, _ in rows], ""), SplitConfig(**(split or {})), None)
    return {row: SPLITS[number] for (row, _), number in zip(rows, numbers.tolist(), strict=True)}


def per_class(split, rows):
    return Counter((label, split[row]) for row, label in rows)


STRATIFIED = {"split": {"stratify": True}}


def test_every_class_has_its_shares_to_within_a_row_or_a_tenth(tmp_path):
    rows = rows_of(a=1000, b=200, c=40, d=12, e=5, f=3)
    split, _ = split_of(tmp_path, rows, **STRATIFIED)
    counts = per_class(split, rows)
    for name, total in Counter(label for _, label in rows).items():
        for part in ("test", "validation"):
            exact = SHARES[part] * total
            assert abs(counts[name, part] - exact) <= max(1, SLACK * exact), (name, part)
        assert all(counts[name, part] for part in SPLITS), name


def test_a_class_with_fewer_rows_than_splits_is_learnt_then_tested(tmp_path):
    rows = rows_of(a=100, two=2, one=1)
    split, _ = split_of(tmp_path, rows, **STRATIFIED)
    counts = per_class(split, rows)
    assert counts["one", "train"] == 1
    assert counts["two", "train"] == counts["two", "test"] == 1


def test_neither_the_order_of_rows_nor_chunks_nor_the_order_of_tasks_move_a_row(tmp_path):
    rows = rows_of(a=300, b=30, c=7)
    expected, prepared = split_of(tmp_path / "first", rows, **STRATIFIED)
    shuffled = random.Random(0).sample(rows, len(rows))

    def backwards(function, items):
        return [*map(function, [*items][::-1])][::-1]

    found, again = split_of(tmp_path / "again", shuffled, chunk_rows=16, run=backwards, **STRATIFIED)
    assert found == expected
    assert [s.digest for s in again.segments] == [s.digest for s in prepared.segments]


def test_without_a_word_only_a_class_that_would_miss_a_split_is_divided(tmp_path):
    rows = rows_of(a=400, b=300, rare=4)
    natural = hashed(rows)
    while len({natural[row] for row, label in rows if label == "rare"}) == 3:  # until chance has it miss one
        rows = [(f"{row}_", label) for row, label in rows]
        natural = hashed(rows)
    split, prepared = split_of(tmp_path, rows)
    assert {part for row, part in split.items() if row.startswith("rare")} == set(SPLITS)
    assert {row: split[row] for row, label in rows if label != "rare"} == {
        row: natural[row] for row, label in rows if label != "rare"
    }
    assert prepared.report["stratified"] == ["rare"]


def test_a_class_with_a_row_everywhere_stays_as_it_was_hashed(tmp_path):
    rows = rows_of(a=400, b=300)
    split, prepared = split_of(tmp_path, rows)
    assert split == hashed(rows) and prepared.report["stratified"] == []


def test_a_class_that_only_test_had_is_learnt_too(tmp_path):
    rows = rows_of(a=200)
    tested = [row for row, part in hashed(rows_of(b=100)).items() if part == "test"][:2]
    rows += [(row, "b") for row in tested]
    split, _ = split_of(tmp_path / "mended", rows)
    assert sorted(split[row] for row in tested) == ["test", "train"]
    as_hashed, _ = split_of(tmp_path / "hashed", rows, split={"stratify": False})
    assert {as_hashed[row] for row in tested} == {"test"}


def test_appended_rows_move_no_old_row_of_a_class_that_chance_leaves_within_its_bounds(tmp_path):
    rows = rows_of(a=4000, b=3000)
    old, _ = split_of(tmp_path / "old", rows, **STRATIFIED)
    assert old == hashed(rows)  # chance deviates by some 25 of 800, the slack is 80
    more = rows + [(f"new{number}", "ab"[number % 2]) for number in range(700)]
    new, _ = split_of(tmp_path / "new", more, **STRATIFIED)
    assert {row: new[row] for row in old} == old


def test_appended_rows_move_of_a_small_class_a_few_rows_beside_its_cuts(tmp_path):
    rows = rows_of(a=500, rare=20)
    old, _ = split_of(tmp_path / "old", rows, **STRATIFIED)
    more = rows + [(f"new{number}", "rare") for number in range(10)]
    new, _ = split_of(tmp_path / "new", more, **STRATIFIED)
    moved = [row for row in old if new[row] != old[row]]
    assert all(row.startswith("rare") for row in moved) and len(moved) <= 6


def test_files_that_are_splits_have_their_validation_taken_by_class(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in {"train": rows_of(a=200, b=20), "test": rows_of(ta=50, tb=5)}.items():
        ids, labels = zip(*rows, strict=True)
        labels = [label.removeprefix("t") for label in labels]
        pyarrow.csv.write_csv(
            pa.table({"id": ids, "x": np.arange(len(ids)) * 1.0, "y": labels}), folder / f"{name}.csv"
        )
    config = {"source": {"kind": "csv", "path": str(folder)}, "inputs": ["x"], "label": "y", "id": "id"}
    split = {"files": {"train": "train.csv", "test": "test.csv"}, "stratify": True}
    prepared = prepare(TransferSetConfig.model_validate(config | {"split": split}), tmp_path / "prepared")
    (validation,), (test,) = prepared.of("validation"), prepared.of("test")
    found = Counter(row[0] for row in prepared.ids(validation).to_pylist())
    assert 18 <= found["a"] <= 22 and 1 <= found["b"] <= 3
    assert test.num_rows == 55


@given(st.lists(st.integers(0, 60), min_size=2, max_size=3), st.integers(1, 8), st.integers(1, 8))
def test_what_is_divided_is_whole_within_its_bounds_and_stays_if_divided_again(counts, validation, test):
    shares = [test / 20, validation / 20, 1 - (test + validation) / 20][-len(counts) :]
    shares = [share / sum(shares) for share in shares]
    divided = divide(counts, shares)
    assert sum(divided) == sum(counts) and min(divided) >= 0
    assert not misses(divided)
    assert divide(divided, shares) == divided
    if sum(counts) >= 30:
        for part, share in zip(divided[:-1], shares, strict=False):
            assert abs(part - share * sum(counts)) <= max(1, SLACK * share * sum(counts)) + 1e-9


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"stratify": True, "group_by": "g"}, "part the rows of a group"),
        ({"stratify": True, "files": {"train": "a", "validation": "b", "test": "c"}}, "nothing to `stratify`"),
    ],
)
def test_what_cannot_be_stratified_is_refused(split, said):
    with pytest.raises(ValidationError, match=said):
        SplitConfig.model_validate(split)


def test_without_labels_there_are_no_classes_to_divide():
    source = {"kind": "csv", "path": "x.csv"}
    recipe = {
        "format": 1,
        "name": "plain",
        "transfer_set": {"source": source, "inputs": ["a"], "label": None, "split": {"stratify": True}},
        "students": {},
    }
    found = dict(Recipe.model_validate(recipe).problems())
    assert "no classes to divide" in found["transfer_set", "split", "stratify"]


def test_a_model_of_other_shares_may_have_learnt_what_is_tested_where_classes_are_cut():
    there, here = SplitConfig(stratify=True, validation=0.2), SplitConfig(stratify=True)
    config = TransferSetConfig.model_validate(
        {"source": {"kind": "csv", "path": "x.csv"}, "inputs": ["a"], "label": "y", "split": here.model_dump()}
    )
    assert "shares the rest, 0.2, 0.2 there" in _learnt_test_rows(Learnt(there, None, "", None, None), config)
    assert not _learnt_test_rows(Learnt(here, None, "", None, None), config)
