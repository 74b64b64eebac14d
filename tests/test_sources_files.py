"""Files that are not what a source takes them for: each is taken, a bad row, or one line that names it and the cure."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import sqlite3
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.building.label import network_folder
from orchestrator.building.prepare import dropped
from teachers.config.teacher import CheckpointTeacher
from teachers.errors import CollegiumError, DataError, RecipeError
from teachers.preparing.look import look, source_digest
from teachers.preparing.prepare import prepare
from teachers.sources import chunks_of, files_of
from teachers.storage.place import CACHE
from teachers.storage.remembered import FOLDER, LARGE, SETTLED_NS, remembered_sha256
from teachers.storage.seal import sha256_file

from .test_sources import ROWS, by_position, config, encoded, image_folder, ipc, pixels, tables_of_mine

JSON_LINES = "".join(json.dumps({"x": row, "label": "uv"[row % 2]}) + "\n" for row in range(ROWS))
CSV = "x,label\n" + "".join(f"{row},{'uv'[row % 2]}\n" for row in range(ROWS))


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0], "label": ["u"]}), sink)
    return sink.getvalue()


def npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.ones((ROWS, 2)))
    return sink.getvalue()


def spreadsheet() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as made:
        made.writestr("xl/workbook.xml", "<workbook/>")
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("jsonl", json.dumps([{"x": 1, "label": "u"}] * 60).encode(), "one JSON list; give one object a line"),
        ("jsonl", json.dumps([{"x": 1, "label": "u"}] * 60, indent=1).encode(), "one JSON list"),
        ("jsonl", gzip.compress(JSON_LINES.encode()), "compressed by gzip; unpack it"),
        ("jsonl", bz2.compress(JSON_LINES.encode()), "compressed by bzip2"),
        ("csv", lzma.compress(CSV.encode()), "compressed by xz"),
        ("csv", CSV.encode("utf-16"), "text in UTF-16; save it as UTF-8"),
        ("csv", CSV.replace("u", "\xfc").encode("latin-1"), "save it as UTF-8"),
        ("csv", spreadsheet(), "a spreadsheet is one.; unpack it, or export it as CSV"),
        ("csv", parquet(), "a Parquet file; say `kind: parquet`"),
        ("parquet", CSV.encode(), "cannot be read as parquet"),
        ("parquet", spreadsheet(), "a zip archive"),
        ("arrow", parquet(), "a Parquet file"),
        ("numpy", gzip.compress(npy()), "compressed by gzip"),
        ("numpy", b"no archive", "data.npz: cannot be read as numpy: File is not a zip file"),
        ("csv", b"x,label\n" + b"1,u,\n" * 60, "no row can be used; data.csv#0: 3 values, the header names 2"),
        ("jsonl", b"{oops\n" * 60, "no row can be used; data.jsonl#0: not JSON"),
        ("jsonl", b"[1, 2]\n" * 60, "no row can be used; data.jsonl#0: a JSON list, not an object"),
        ("csv", b"", "cannot be read as csv|no column"),
        ("jsonl", b"\n\n", "no rows"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_told_by_what_it_is(tmp_path: Path, kind: str, content: bytes, said: str) -> None:
    path = tmp_path / f"data.{'npz' if kind == 'numpy' else kind}"
    path.write_bytes(content)
    with pytest.raises(CollegiumError, match=said) as raised:
        prepare(config(kind, path, "x"), tmp_path / "out")
    assert "\n" not in str(raised.value).replace("\n  data.", "") or "cannot be used" in str(raised.value)


def test_a_database_is_told_from_a_table(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "data.csv") as made:
        made.execute("create table rows (x)")
    with pytest.raises(CollegiumError, match="a SQLite database"):
        look(config("csv", tmp_path / "data.csv", "x"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"x": 1, "label": "\\ud83d"}', "not text: half a character"),
        ('{"x": 1, "x": 2, "label": "u"}', "the key 'x' is there twice"),
        ('{"x": ' + "[" * 30_000 + "}", "not JSON"),
        ('{"x": 1, "label": "u"', "not JSON"),
        ("3", "a JSON int, not an object"),
    ],
)
def test_a_line_that_is_no_row_is_a_bad_row_wherever_it_stands(tmp_path: Path, line: str, said: str) -> None:
    for at in (0, 40, ROWS - 1):
        lines = JSON_LINES.splitlines()
        lines[at] = line
        (tmp_path / "data.jsonl").write_text("\n".join(lines))
        with pytest.raises(DataError, match=rf"(?s)^1 row cannot be used.*data.jsonl#{at}: {said}"):
            prepare(config("jsonl", tmp_path / "data.jsonl", "x"), tmp_path / "out")


# ---- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl"])
@pytest.mark.parametrize("twice", ["x", "label", "n"])
def test_a_column_that_is_there_twice_is_named(tmp_path: Path, kind: str, twice: str) -> None:
    names = ["x", "label", "n"]
    columns = [pa.array(np.arange(60) * 1.0), pa.array(["u", "v"] * 30), pa.array([f"r{row}" for row in range(60)])]
    names, columns = [*names, twice], [*columns, columns[names.index(twice)]]
    table, path = pa.Table.from_arrays(columns, names), tmp_path / f"data.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        ipc(path, table)
    else:
        rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
        line = {"csv": lambda row: ",".join(map(str, row)), "jsonl": lambda row: "{" + ", ".join(f'"{n}": {json.dumps(v)}' for n, v in zip(names, row, strict=True)) + "}"}[kind]  # fmt: skip
        path.write_text("\n".join([",".join(names)] * (kind == "csv") + [line(row) for row in rows]))
    with pytest.raises(CollegiumError, match=rf"'{twice}' is there twice"):
        look(config(kind, path, "x", id="n"))


def test_a_column_that_nobody_names_may_be_there_twice(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,label,z,z\n" + "1,u,2,3\n2,v,3,4\n" * 30)
    assert len(by_position(prepare(config("csv", tmp_path / "data.csv", "x"), tmp_path / "out"))[1]) == ROWS


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_guessed_told_and_taken(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "data.csv").write_text(CSV.replace(",", delimiter))
    given = config("csv", tmp_path / "data.csv", "x")
    with pytest.raises(RecipeError, match="the header looks separated by") as raised:
        look(given)
    said = re.search(r"delimiter: ([^`]+)`", str(raised.value))
    assert said is not None and json.loads(said[1]) == delimiter
    source = {"kind": "csv", "path": str(tmp_path / "data.csv"), "delimiter": delimiter}
    inputs, labels = by_position(prepare(config("", None, "x", source=source), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == list(range(ROWS)) and labels.tolist() == [0, 1] * 30


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("$5", "$1"), "write plain numbers, 1234.5; {column: color, as: category} takes it for names"),
        (("2026-11-29", "2026-11-30"), "looks like dates; say {column: color, as: date, unit: days}"),
        (("29.11.2026", "30.11.2026"), "looks like dates"),
        (("1.png", "2.JPG"), "images are struct<bytes, path>"),
        (('"3,5"', '"2,1"'), "looks like numbers; say {column: color, decimal: ','}"),
        (('"1,234.5"', '"2,100"'), "say {column: color, thousands: ','}"),
        (('"1.234,5"', '"2.100,0"'), "say {column: color, decimal: ',', thousands: '.'}"),
        (("", ""), "none of the 60 rows that were looked at has a value|'color' is string"),
    ],
)
def test_text_that_is_no_name_is_asked_about_and_the_message_says_what_can_be_done(
    tmp_path: Path, values: tuple[str, ...], said: str
) -> None:
    rows = [f"{values[row % len(values)]},{'uv'[row % 2]}" for row in range(ROWS)]
    (tmp_path / "data.csv").write_text("\n".join(["color,label", *rows]))
    with pytest.raises(RecipeError, match=said):
        look(config("csv", tmp_path / "data.csv", "color"))


def test_an_input_that_says_the_label_under_another_name_is_known_before_work(tmp_path: Path) -> None:
    rows = "".join(f"{row},{row % 2},{row % 2}.0,{row % 2}\n" for row in range(ROWS))
    (tmp_path / "data.csv").write_text(f"x,target,code,label\n{rows}")
    assert look(config("csv", tmp_path / "data.csv", ["x", "target", "code"])).copies == ("target", "code")
    assert look(config("csv", tmp_path / "data.csv", ["x"])).copies == ()


def test_groups_that_are_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    with pytest.raises(RecipeError, match=r"^transfer_set.split.group_by: 'label' is the label"):
        look(config("csv", tmp_path / "data.csv", "x", split={"group_by": "label"}))


@pytest.mark.parametrize("kind", ["numpy", "parquet"])
def test_an_input_that_is_the_label_is_refused(tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.0] * 30, "label": [0, 1] * 30}), tmp_path / "data.parquet")
    np.savez(tmp_path / "data.npz", x=np.ones(60), label=np.arange(60) % 2)
    path = tmp_path / ("data.npz" if kind == "numpy" else "data.parquet")
    for inputs in ("label", ["x", "label"]):
        with pytest.raises(RecipeError, match="'label' is the label, too"):
            look(config(kind, path, inputs))


@pytest.mark.parametrize(
    "name", ["sample_key", "split", "group", "id", "position", "content", "label", "input.x", "features"]
)
def test_an_input_may_have_any_name_also_one_of_ours(tmp_path: Path, name: str) -> None:
    table = pa.table({name: pa.array([[float(row), 1.0] for row in range(ROWS)]), "y": [0, 1] * 30})
    pq.write_table(table, tmp_path / "data.parquet")
    inputs, _ = by_position(prepare(config("parquet", tmp_path / "data.parquet", name, "y"), tmp_path / "out"))
    assert inputs[name].tolist() == table[name].to_pylist()


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((3, 8, 8), np.uint8, r"shape \[3, 8, 8\]; that is channels first.*moveaxis"),
        ((1, 28, 28), np.uint8, "channels first"),
        ((4, 16, 9), np.int64, "channels first"),
        ((8, 8, 3), np.float32, r"from 0 to 255 .of 0 to 1: numpy.round"),
        ((2, 8, 8, 3), np.uint8, r"images are uint8 \[H, W\]"),
    ],
)
def test_arrays_that_look_like_images_and_are_none_are_refused_with_the_cure(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, said: str
) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((ROWS, *shape), dtype), label=np.arange(ROWS) % 2)
    with pytest.raises(RecipeError, match=said):
        look(config("numpy", tmp_path / "data.npz", "x"))


@pytest.mark.parametrize("shape", [(3, 8, 3), (8, 8, 3), (8, 8, 12), (3, 3, 3), (8, 8)])
def test_arrays_that_may_be_images_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((ROWS, *shape), np.uint8), label=np.arange(ROWS) % 2)
    assert look(config("numpy", tmp_path / "data.npz", "x")).columns[0].kind == "image"


# ---- NumPy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beside",
    [
        {"class_names": np.array(["u", "v"])},
        {"mean": np.float64(3)},
        {"pickled": np.array([{"a": 1}], object)},
        {"when": np.array(["2020-01-01"], "datetime64[D]")},
        {"split": np.array([1, 2, 3]), "extra": np.ones((7, 7))},
    ],
)
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_only_the_arrays_that_the_recipe_names_count(tmp_path: Path, beside: dict[str, Any], form: str) -> None:
    arrays = {"x": np.random.default_rng(0).normal(size=(ROWS, 2)), "label": np.arange(ROWS) % 2, **beside}
    path = tmp_path / "data.npz"
    if form == "archive":
        np.savez(path, **arrays)
    else:
        path = tmp_path / "data"
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    inputs, labels = by_position(prepare(config("numpy", path, "x"), tmp_path / "out"))
    assert np.array_equal(inputs["x"], arrays["x"]) and np.array_equal(labels, arrays["label"])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([{"a": 1}] * ROWS, object), "holds pickled objects"),
        (np.ones(ROWS, complex), r"holds complex128 of shape \[60\]"),
        (np.float64(3), "is one value, not one a row"),
        (np.ones(7), "arrays of different length"),
    ],
)
def test_an_array_that_is_named_and_no_column_is_told(tmp_path: Path, array: Any, said: str) -> None:
    np.savez(tmp_path / "data.npz", x=array, label=np.arange(ROWS) % 2)
    with pytest.raises(DataError, match=said):
        look(config("numpy", tmp_path / "data.npz", "x"))


def test_one_array_in_a_file_is_a_source_of_one_column(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, 2))
    np.save(tmp_path / "rows.npy", values)
    given = config("numpy", tmp_path / "rows.npy", "rows", None, classes=["a", "b"])
    inputs, _ = by_position(prepare(given, tmp_path / "out"))
    assert np.array_equal(inputs["rows"], values)


# ---- a sample speaks for all ------------------------------------------------------------------------------------------


def test_a_file_of_wider_numbers_after_others_loses_no_digit(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    seconds = 1_700_000_000 + np.arange(ROWS)
    for name, column in (("a", pa.array(np.arange(ROWS), pa.int8())), ("b", pa.array(seconds, pa.int64()))):
        pq.write_table(pa.table({"t": column, "label": [0, 1] * 30}), tmp_path / "data" / f"{name}.parquet")
    prepared = prepare(config("parquet", tmp_path / "data", ["t"]), tmp_path / "out")
    values = np.concatenate([prepared.inputs(segment)["features"][:, 0] for segment in prepared.segments])
    assert sorted(values.tolist()) == [*range(ROWS), *seconds.tolist()]


def test_a_column_that_begins_empty_is_what_its_later_rows_are(tmp_path: Path) -> None:
    """Files sorted by date, say: the oldest have no reading yet."""
    (tmp_path / "data").mkdir()
    for number in range(40):
        values = [None] * 5 if number < 20 else [float(number)] * 5
        table = pa.table(
            {"t": pa.array(values, pa.list_(pa.float32()) if 0 else pa.float32()), "label": [0, 1, 0, 1, 0]}
        )
        text = table.set_column(0, "t", table["t"].cast(pa.string()))
        pq.write_table(text, tmp_path / "data" / f"{number:02}.parquet")
    given = config("parquet", tmp_path / "data", ["t"], on_bad_row="skip")
    assert prepare(given, tmp_path / "out").report["bad_rows"] == 100


def test_rows_behind_the_first_name_images_whose_content_counts(tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": encoded(image), "path": None} for image in pixels()]
    (tmp_path / "late.png").write_bytes(encoded(pixels()[0]))
    images[50] = {"bytes": None, "path": "late.png"}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind), "label": [0, 1] * 30}), tmp_path / "data.parquet")
    given = config("parquet", tmp_path / "data.parquet")
    before = source_digest(given)
    (tmp_path / "README.md").write_text("nobody names it")
    assert source_digest(given) == before
    (tmp_path / "late.png").write_bytes(encoded(pixels(seed=1)[0]))
    assert source_digest(given) != before


# ---- names and places -------------------------------------------------------------------------------------------------


def renamed(path: Path, name: bytes) -> None:
    try:
        os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/" + name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")


def test_an_image_whose_name_is_not_utf8_is_a_bad_row_that_names_it(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    renamed(root / "cat" / "001.png", b"caf\xe9.png")
    given = config("image_folder", root)
    with pytest.raises(DataError, match=r"(?s)1 row cannot be used.*cat/caf\\xe9.png#0: its name is not UTF-8; rename"):
        prepare(given, tmp_path / "out")
    skipping = given.model_copy(update={"on_bad_row": "skip"})
    assert prepare(skipping, tmp_path / "out").report["bad_rows"] == 1 and source_digest(given)


def test_a_class_folder_whose_name_is_not_utf8_is_no_class(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data")
    (root / "eel").mkdir()
    (root / "eel" / "0.png").write_bytes(encoded(pixels()[0]))
    renamed(root / "eel", b"a\xe4l")
    with pytest.raises(DataError, match=r"(?s)1 row cannot be used.*a\\xe4l/0.png#0: its name is not UTF-8"):
        prepare(config("image_folder", root), tmp_path / "out")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_table_whose_name_is_not_utf8_is_named_or_taken(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(tables_of_mine(), tmp_path / "data" / "a.parquet")
    (tmp_path / "data" / "a.jsonl").write_text(JSON_LINES)
    renamed(tmp_path / "data" / f"a.{kind}", b"\xe9t\xe9." + kind.encode())
    given = config(kind, tmp_path / "data", "features" if kind == "parquet" else "x")
    if kind == "parquet":  # which Arrow opens by itself
        with pytest.raises(DataError, match=r"^\\xe9t\\xe9.parquet: .*its name is not UTF-8; rename"):
            look(given)
    else:
        assert len(by_position(prepare(given, tmp_path / "out"))[1]) == ROWS


@pytest.mark.parametrize("kind", ["image_folder", "jsonl", "parquet", "arrow"])
def test_what_a_run_writes_beside_the_data_is_not_read_as_data(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    if kind == "image_folder":
        image_folder(root)
    else:
        root.mkdir()
        table = pa.table({"x": np.arange(60) * 1.0, "label": ["u", "v"] * 30})
        {"jsonl": lambda: (root / "a.jsonl").write_text(JSON_LINES), "parquet": lambda: pq.write_table(table, root / "a.parquet"), "arrow": lambda: ipc(root / "a.arrow", table)}[kind]()  # fmt: skip
    given = config(kind, root, "image" if kind == "image_folder" else "x")
    before = look(given).classes, look(given).num_rows, source_digest(given)
    out = root / "out" / "mine"
    for folder in ("prepared", "soft_targets", "runs"):
        (out / folder / "1").mkdir(parents=True)
    for suffix in ("jsonl", "json", "arrow", "parquet", "png"):
        (out / "runs" / "1" / f"report.{suffix}").write_text("{}")
    made = prepare(given, out / "prepared" / "1")
    assert len({name for segment in made.segments for name in made.ids(segment).to_pylist()}) == ROWS
    assert before == (look(given).classes, look(given).num_rows, source_digest(given))
    with pytest.raises(RecipeError, match="is where a run keeps its results"):
        look(config("jsonl", out, "x"))


def test_a_relative_path_is_of_the_folder_that_the_recipe_was_read_in(tmp_path: Path, monkeypatch: Any) -> None:
    """A worker of a joined cluster runs in another one."""
    (tmp_path / "data.csv").write_text(CSV)
    monkeypatch.chdir(tmp_path)
    given = config("csv", Path("data.csv"), "x")
    assert all(chunk.file.path.is_absolute() for chunk in chunks_of(files_of(given), 7))

    def elsewhere(function: Any, items: Any) -> list[Any]:
        monkeypatch.chdir("/")
        done = [function(item) for item in items]
        monkeypatch.chdir(tmp_path)
        return done

    assert len(by_position(prepare(given, Path("out"), run=elsewhere, chunk_rows=7))[1]) == ROWS


def test_a_teachers_folder_is_of_the_folder_that_the_recipe_was_read_in_too(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = CheckpointTeacher(kind="checkpoint", path="models/wide")
    assert network_folder(teacher, None) == tmp_path.resolve() / "models" / "wide"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{{ data }}", "is a template that was not filled in"),
        ("${DATA}/rows.csv", "is a template that was not filled in"),
        ("<%= data %>", "is a template that was not filled in"),
        ("~/rows.csv", "`~` is a word of the shell; write '/"),
        ("a" * 5000, "is no path: File name too long"),
        ("a\0b", "no such file|is no path"),
        (f"{__file__}/rows.csv", "no such file"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_in_one_line(path: str, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"^transfer_set.source.path: .*{said}"):
        look(config("csv", Path(path), "x"))


@pytest.mark.parametrize("key", ['"z": "\\ud83d"', '"z": 1, "z": 2', '"z": {"deep": [1, "a"]}', '"\\udc00": 1'])
def test_what_a_line_holds_beside_the_columns_of_the_recipe_is_not_looked_at(tmp_path: Path, key: str) -> None:
    lines = "".join(f'{{"x": {row}, "label": {row % 2}, {key}}}\n' for row in range(ROWS))
    (tmp_path / "data.jsonl").write_text(lines)
    inputs, _ = by_position(prepare(config("jsonl", tmp_path / "data.jsonl", "x"), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == list(range(ROWS))


def test_a_csv_file_without_a_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("".join(f"{row},{row % 2}\n" for row in range(ROWS)))
    with pytest.raises(RecipeError, match=r"no column 'x': the first line holds numbers \(0, 0\); it must name"):
        look(config("csv", tmp_path / "data.csv", "x"))


def test_a_label_of_its_own_for_each_row_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{row},r{row}\n" for row in range(ROWS)))
    given = config("csv", tmp_path / "data.csv", "x", split={"stratify": False})
    with pytest.raises(DataError, match=r"each of the 60 rows with a label has one of its own .*which row it is"):
        prepare(given, tmp_path / "out")
    named = given.model_copy(update={"classes": [f"r{row}" for row in range(ROWS)]})
    assert len(prepare(named, tmp_path / "out").classes) == ROWS


@pytest.mark.parametrize("first", ["label", "x"])
def test_a_file_in_which_a_column_holds_nothing_yet_decides_nothing(tmp_path: Path, first: str) -> None:
    (tmp_path / "data").mkdir()
    whole = pa.table({"x": np.arange(60) * 1.0, "label": ["u", "v"] * 30})
    empty = whole.set_column(whole.column_names.index(first), first, pa.nulls(60))
    pq.write_table(empty, tmp_path / "data" / "a.parquet")
    pq.write_table(whole, tmp_path / "data" / "b.parquet")
    prepared = prepare(config("parquet", tmp_path / "data", "x", on_bad_row="skip"), tmp_path / "out")
    assert prepared.report["bad_rows"] == (60 if first == "x" else 0) and prepared.classes == ("u", "v")


def test_rows_that_a_look_cannot_use_are_known_before_work(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV.replace("\n7,v", "\nseven,v"))
    seen = look(config("csv", tmp_path / "data.csv", "x"))
    assert seen.bad == (("data.csv#7", "x is 'seven', not a number"),)


def test_rows_that_were_dropped_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(CSV.replace("7,v", "seven,v").replace("9,v", "9,v,"))
    given = config("csv", tmp_path / "data.csv", "x", on_bad_row="skip")
    bad = prepare(given, tmp_path / "out").report
    assert bad["bad_rows"] > 1 and dropped(bad).startswith(
        f"{bad['bad_rows']} of 60 rows could not be used and were dropped"
    )
    assert "\n" not in dropped(bad) and "data.csv#" in dropped(bad)
    assert dropped({**bad, "bad_rows": 0}) == ""


def test_a_large_file_is_hashed_anew_only_when_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has just been written may change once more within a tick of the clock, so it is not remembered yet."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    path, notes = tmp_path / "rows.bin", tmp_path / "cache" / FOLDER
    path.write_bytes(b"a" * LARGE)
    assert remembered_sha256(path) == sha256_file(path) and not notes.exists()
    time.sleep(SETTLED_NS / 1e9 + 0.1)
    assert remembered_sha256(path) == sha256_file(path)
    (note,) = notes.iterdir()
    note.write_text(note.read_text().replace(sha256_file(path), "what is written here"))
    assert remembered_sha256(path) == "what is written here"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"b" * LARGE)
    os.utime(path, ns=times)  # as `cp -p` does it
    assert remembered_sha256(path) == sha256_file(path)
    note.write_bytes(b"{")
    assert remembered_sha256(path) == sha256_file(path)
