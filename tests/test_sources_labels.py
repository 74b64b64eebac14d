"""What a label value means: numbers, names, positions and order, by the rules of one function, in every format."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teachers.errors import DataError, RecipeError, TeacherError
from teachers.models.estimators import class_names
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.transfer_set.class_names import in_order, places_of, plain
from teachers.transfer_set.transfer_set import TransferSet

from .test_sources import by_position, config, encoded, image_folder, ipc, labelled, pixels


def classes_by_id(prepared: TransferSet) -> dict[str, str]:
    found: dict[str, str] = {}
    for segment in prepared.segments:
        names = [prepared.classes[label] for label in prepared.labels(segment).tolist()]
        found |= dict(zip(prepared.ids(segment).to_pylist(), names, strict=True))
    return found


def csv(tmp_path: Path, labels: list[str]) -> Path:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{row},{value}\n" for row, value in enumerate(labels)))
    return tmp_path / "data.csv"


# ---- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64(), pa.decimal128(24, 1), pa.string_view()]
)
def test_a_number_is_one_class_in_every_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([2, 10, 0] * 20)
    column = values.cast(pa.string()).cast(kind) if kind == pa.string_view() else values.cast(kind)
    path = ipc(tmp_path / "data.arrow", pa.table({"x": np.arange(60) * 1.0, "label": column}))
    prepared = prepare(config("arrow", path, "x"), tmp_path / "out")
    assert prepared.classes == ("0", "2", "10") and by_position(prepared)[1].tolist() == [1, 2, 0] * 20


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["0.0", "1.0", "11.0"], ("0", "1", "11")),  # pandas writes integers with gaps so
        (["0.0", "1", "11.0"], ("0", "1", "11")),
        (["-1.0", "2.0", "10.0"], ("-1", "2", "10")),
        (["01", "2", "10"], ("01", "2", "10")),  # a code of its own, no number
        (["01", "1", "001"], ("001", "01", "1")),
        (["1.0", "red", "2.0"], ("1.0", "2.0", "red")),  # text among text
        (["3.11", "3.12", "next"], ("3.11", "3.12", "next")),
        (["True", "False", "True"], ("False", "True")),
    ],
)
def test_a_csv_file_has_the_classes_that_its_values_mean(
    tmp_path: Path, values: list[str], classes: tuple[str, ...]
) -> None:
    prepared = prepare(config("csv", csv(tmp_path, values * 20), "x"), tmp_path / "out")
    assert prepared.classes == classes
    numbers = {value: at for at, name in enumerate(classes) for value in values if value in (name, f"{name}.0")}
    assert by_position(prepared)[1].tolist() == [numbers[value] for value in values] * 20


@pytest.mark.parametrize("kind", ["csv", "float32", "jsonl"])
def test_a_price_is_no_class_and_the_message_says_what_can_be_done(tmp_path: Path, kind: str) -> None:
    prices = [f"{row}.25" for row in range(60)]
    if kind == "csv":
        path = csv(tmp_path, prices)
    elif kind == "jsonl":
        path = tmp_path / "data.jsonl"
        path.write_text("".join(f'{{"x": 1, "label": {price}}}\n' for price in prices))
    else:
        path = tmp_path / "data.parquet"
        table = pa.table({"x": np.arange(60) * 1.0, "label": pa.array(map(float, prices), pa.float32())})
        pq.write_table(table, path)
    with pytest.raises(RecipeError, match=r"'label' is a number with decimals .0.25, .*range.*transfer_set.classes"):
        look(config(path.suffix[1:], path, "x"))


def test_decimals_are_classes_where_the_recipe_names_them(tmp_path: Path) -> None:
    _, labels = labelled(tmp_path, pa.array([0.5, 1.0, 1.5] * 20), classes=["1.5", "1", "0.5"])
    assert labels == [2, 1, 0] * 20


def test_a_label_of_shape_rows_by_one_is_one_a_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((60, 2)), label=np.arange(60)[:, None] % 3)
    prepared = prepare(config("numpy", tmp_path / "data.npz", "x"), tmp_path / "out")
    assert by_position(prepared)[1].tolist() == [0, 1, 2] * 20


def test_one_column_a_class_is_refused_with_the_cure(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((60, 2)), label=np.eye(3)[np.arange(60) % 3])
    with pytest.raises(RecipeError, match="one a row, not one column a class"):
        look(config("numpy", tmp_path / "data.npz", "x"))


@pytest.mark.parametrize("dtype", ["S1", "U1", "S8"])
def test_bytes_are_text(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((60, 2)), label=np.array(["u", "v"], dtype)[np.arange(60) % 2])
    prepared = prepare(config("numpy", tmp_path / "data.npz", "x"), tmp_path / "out")
    assert prepared.classes == ("u", "v") and by_position(prepared)[1].tolist() == [0, 1] * 30


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.parquet#59: label b'\\xff' names no class"):
        labelled(tmp_path, pa.array([b"a", b"b"] * 29 + [b"a", b"\xff"]))


# ---- order ------------------------------------------------------------------------------------------------------------


def test_the_order_of_classes_is_the_same_whatever_the_process_hashes() -> None:
    sets = [["1", "01", "001"], ["-0", "0", "00"], ["b", "B", "a"], ["10", "9", "x"]]
    code = (
        f"from teachers.transfer_set.class_names import in_order; print([in_order(set(names)) for names in {sets!r}])"
    )
    said = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, text=True)
        for seed in ("0", "1", "2", "3")
    }
    assert said == {f"{[in_order(reversed(names)) for names in sets]}\n"}


def test_a_call_that_was_killed_and_named_other_classes_takes_nothing_over(tmp_path: Path) -> None:
    """The pieces of a first pass hold numbers of classes: they are of these classes only."""

    def dying(function: Any, items: Any) -> Iterator[Any]:
        yield from map(function, items)
        if function.func.__name__ == "read_chunks":
            raise KeyboardInterrupt

    root = image_folder(tmp_path / "data")
    given = config("image_folder", root)
    with pytest.raises(KeyboardInterrupt):
        prepare(given, tmp_path / "out", run=dying)
    image = pixels(1, (6, 5), 7)[0]
    (root / "ant").mkdir()
    (root / "ant" / "0.png").write_bytes(encoded(image))
    prepared = prepare(given, tmp_path / "out")
    assert prepared.classes == ("ant", "cat", "dog")
    assert all(name.startswith(said) for name, said in classes_by_id(prepared).items())


# ---- what files say themselves ----------------------------------------------------------------------------------------


def says(names: list[str] | None, animals: list[str], path: Path) -> None:
    labels = [animals.index(name) if names is None else names.index(name) for name in animals]
    table = pa.table({"x": np.arange(len(animals)) * 1.0, "label": labels})
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    "orders",
    [
        {"a": ["cat", "dog"], "b": ["dog", "cat"]},
        {"a": ["cat", "dog"], "b": ["cat", "dog"]},
        {"a": ["cat", "dog"], "b": ["eel", "dog", "cat"]},
        {"a": ["dog"], "b": ["cat", "dog"]},
        {"a": ["7", "3"], "b": ["3", "7"]},
    ],
)
def test_integers_mean_what_their_own_file_says(tmp_path: Path, orders: Mapping[str, list[str]]) -> None:
    for name, names in orders.items():
        says(names, [names[row % len(names)] for row in range(60)], tmp_path / "data" / f"{name}.parquet")
    prepared = prepare(config("parquet", tmp_path / "data", "x"), tmp_path / "out")
    assert set(prepared.classes) == {name for names in orders.values() for name in names}
    for row, said in classes_by_id(prepared).items():
        file, number = row.split(".parquet#")
        assert said == orders[file][int(number) % len(orders[file])]


def test_files_that_differ_and_one_that_says_nothing_are_refused(tmp_path: Path) -> None:
    says(["cat", "dog"], ["cat", "dog"] * 30, tmp_path / "data" / "a.parquet")
    says(["dog", "cat"], ["cat", "dog"] * 30, tmp_path / "data" / "b.parquet")
    says(None, ["cat", "dog"] * 30, tmp_path / "data" / "c.parquet")
    with pytest.raises(DataError, match=r"^c.parquet: does not say what the integers of 'label' mean"):
        look(config("parquet", tmp_path / "data", "x"))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["dog", "cat"], "label 0 is 'dog' here and 'cat' in what a.parquet says itself"),
        (["kitten", "dog"], "label 0 is 'kitten' here and 'cat'"),
        (["dog"], "label 0 is 'dog' here and 'cat'"),
        (["cat", "dog"], ("cat", "dog")),
        (["cat", "dog", "eel"], ("cat", "dog")),
        (["kitten", "puppy"], ("kitten", "puppy")),  # other names for the same integers
    ],
)
def test_classes_agree_with_what_the_file_says_or_are_refused(
    tmp_path: Path, classes: list[str], expected: Any
) -> None:
    says(["cat", "dog"], ["cat", "dog"] * 30, tmp_path / "data" / "a.parquet")
    given = config("parquet", tmp_path / "data" / "a.parquet", "x", classes=classes)
    if isinstance(expected, str):
        with pytest.raises(RecipeError, match=rf"^transfer_set.classes: {expected}"):
            look(given)
        return
    said = classes_by_id(prepare(given, tmp_path / "out"))
    assert all(name == expected[int(row.split("#")[1]) % 2] for row, name in said.items())


# ---- folders ----------------------------------------------------------------------------------------------------------


def folders(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for row in range(30):
            (root / name / f"{row}.png").write_bytes(encoded(pixels(1, (6, 5), 100 * number + row)[0]))
    return root


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/cat", "train/dog", "val/cat", "test/dog"], "files: {train: train, validation: val, test: test}"),
        (["train", "test"], "files: {train: train, test: test}"),
        (["Train", "Val"], "files: {train: Train, test: Val}"),
        (
            ["training/a", "testing/a", "validation/a"],
            "files: {train: training, validation: validation, test: testing}",
        ),
        (["images/cat", "images/dog"], "the only folder of data is images, which holds folders .cat, dog."),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_what_to_write(
    tmp_path: Path, names: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        look(config("image_folder", folders(tmp_path / "data", *names)))


def test_images_that_lie_in_no_class_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for row in range(40):
        (tmp_path / "data" / f"cat_{row}.png").write_bytes(encoded(pixels(1, (6, 5), row)[0]))
    with pytest.raises(RecipeError, match=r"no class folders in data; .* or say `label: null`"):
        look(config("image_folder", tmp_path / "data"))
    unlabelled = config("image_folder", tmp_path / "data", label=None, classes=["cat", "dog"])
    assert prepare(unlabelled, tmp_path / "out").report["without_label"] > 0


def test_what_file_managers_and_archives_leave_is_no_row(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", "a", "b")
    (root / "__MACOSX" / "a").mkdir(parents=True)
    for junk in ("a/Thumbs.db", "b/desktop.ini", "a/.DS_Store", "__MACOSX/a/0.png"):
        (root / junk).write_bytes(b"no image")
    prepared = prepare(config("image_folder", root), tmp_path / "out")
    assert prepared.classes == ("a", "b") and prepared.report["bad_rows"] == 0


@pytest.mark.parametrize("names", [["train", "plane"], ["test_a", "test_b"], ["one"]])
def test_folders_that_may_be_classes_are(tmp_path: Path, names: list[str]) -> None:
    assert look(config("image_folder", folders(tmp_path / "data", *names))).classes == tuple(sorted(names))


def test_splits_are_classes_where_the_recipe_says_so(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", "train", "test")
    assert look(config("image_folder", root, classes=["test", "train"])).classes == ("test", "train")


# ---- estimators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "classes", "expected"),
    [
        ([0, 1, 10], ("0", "1", "10"), ("0", "1", "10")),
        (np.array([0.0, 1.0, 10.0]), ("0", "1", "10"), ("0", "1", "10")),
        ([1, 2], ("01", "02"), ("01", "02")),  # by number, not by position
        ([1, 2], ("1.0", "2.0"), ("1.0", "2.0")),
        (np.array([False, True]), ("False", "True"), ("False", "True")),
        (np.array([False, True]), ("false", "true"), ("false", "true")),
        (np.array([b"a", b"b"]), ("a", "b"), ("a", "b")),
        (np.array([2, 0]), ("cat", "dog", "owl"), ("owl", "cat")),
        (["dog", "fox"], ("cat", "dog"), ("dog", "fox")),
    ],
)
def test_classes_of_an_estimator_are_found_by_name_number_or_position(
    found: Any, classes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert class_names(found, None, classes) == expected


@pytest.mark.parametrize(
    ("found", "classes"),
    [
        ([0, 1, 2], ("1", "2", "3")),
        ([0, 1], ("10", "20")),
        ([0, 1], ("1", "other")),
        ([5], ("a", "b")),
        ([-1, 0], ("a", "b")),
    ],
)
def test_positions_among_classes_that_are_numbers_would_be_a_guess(found: list[int], classes: tuple[str, ...]) -> None:
    with pytest.raises(TeacherError, match=r"neither names nor positions.*name them in `classes`"):
        class_names(found, None, classes)


@pytest.mark.parametrize("value", ["3", "3.0", "03", "+3"])
def test_a_number_names_the_class_of_that_number_however_it_is_written(value: str) -> None:
    assert places_of([value], ("2", "3")) == [1] and places_of([value], ("a", "b", "c", "d")) == [3]


def test_values_are_rewritten_only_where_all_of_them_are_numbers() -> None:
    assert plain(["1.0", "2"]) == {"1.0": "1", "2": "2"}
    assert plain(["1.0", "x"]) == {"1.0": "1.0", "x": "x"}


@pytest.mark.parametrize("kind", ["sizes", "csv"])
def test_a_class_of_which_every_row_is_bad_is_not_skipped_in_silence(tmp_path: Path, kind: str) -> None:
    if kind == "sizes":
        folders(tmp_path / "data", "a", "b")
        for row in range(20):  # fewer than of the other size
            (tmp_path / "data" / "c").mkdir(exist_ok=True)
            (tmp_path / "data" / "c" / f"{row}.png").write_bytes(encoded(pixels(1, (9, 9), row)[0]))
        given, said = (
            config("image_folder", tmp_path / "data", on_bad_row="skip"),
            r"'c', .*; c/\d+.png#0: image: 9 x 9",
        )
    else:
        rows = [f"{row if row % 3 else 'much'},{row % 3}.0" for row in range(60)]
        (tmp_path / "data.csv").write_text("\n".join(["x,label", *rows]))
        given, said = config("csv", tmp_path / "data.csv", "x", on_bad_row="skip"), "'0', .*data.csv#0: x is 'much'"
    with pytest.raises(DataError, match=f"on_bad_row: skip would drop every row of the class {said}"):
        prepare(given, tmp_path / "out")


# ---- a limit ----------------------------------------------------------------------------------------------------------


def test_a_limit_keeps_the_first_rows_and_one_of_each_class_however_it_is_read(tmp_path: Path) -> None:
    """Rows lie sorted by class, as a folder of images does; a smoke run of a hundred classes needs all of them."""
    names = [f"data.parquet#{row}" for row in range(3000)]
    table = pa.table({"x": np.arange(3000) * 1.0, "label": [f"c{row // 30:02}" for row in range(3000)], "n": names})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=400)
    by_hash = {"stratify": False}  # as under a limit
    whole = prepare(config("parquet", tmp_path / "data.parquet", "x", split=by_hash), tmp_path / "whole")
    found = []
    for at, changes in enumerate(({}, {"id": "n"}, {"chunks": 100})):
        rows = changes.pop("chunks", 4096)
        given = config("parquet", tmp_path / "data.parquet", "x", limit=20, **changes)
        short = prepare(given, tmp_path / f"short-{at}", chunk_rows=rows)
        found.append({split: ids_of(short, split) for split in ("train", "validation", "test")})
        for split in ("train", "validation", "test"):
            first = ids_of(whole, split)[:20]
            assert set(first) <= set(found[-1][split]) and len(found[-1][split]) <= 20 + 100
            classes = {(int(name.split("#")[1]) // 30) for name in ids_of(whole, split)}
            assert {(int(name.split("#")[1]) // 30) for name in found[-1][split]} == classes
    assert found[0] == found[1] == found[2]


def ids_of(prepared: TransferSet, split: Any) -> list[str]:
    """In the order of keys."""
    return [name for segment in prepared.of(split) for name in prepared.ids(segment).to_pylist()]
