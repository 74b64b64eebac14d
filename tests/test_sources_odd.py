"""Values and files as other programs write them: numbers, times, views, damaged text, pipes. Taken, or a bad row."""

import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from teachers.errors import DataError
from teachers.preparing.look import source_digest
from teachers.preparing.prepare import prepare
from teachers.transfer_set.class_names import as_number, in_order, plain

from .test_sources import by_position, config, ipc
from .test_sources_labels import classes_by_id

ROWS = 60


def lines(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def jsonl(path: Path, labels: list[object]) -> Path:
    return lines(path, [json.dumps({"x": row, "label": label}) for row, label in enumerate(labels)])


# ---- numbers ----------------------------------------------------------------------------------------------------------


def test_labels_that_savetxt_wrote_are_the_numbers_that_it_was_given(tmp_path: Path) -> None:
    labels = np.arange(ROWS) % 11
    table = np.stack([np.arange(ROWS) / 7, labels], axis=1)
    np.savetxt(tmp_path / "data.csv", table, delimiter=",", header="x,label", comments="")
    prepared = prepare(config("csv", tmp_path / "data.csv", "x"), tmp_path / "out")
    assert prepared.classes == tuple(map(str, range(11))) and by_position(prepared)[1].tolist() == labels.tolist()


@pytest.mark.parametrize("number", [0, -3, 7, 100_000, 12_345_678])
def test_a_whole_number_is_itself_as_printf_writes_it(number: int) -> None:
    assert as_number(f"{number:e}" if number < 10**7 else f"{number:.18e}") == str(number)
    assert as_number(f"{number + 0.5:.12e}") is None


def test_names_with_an_e_among_digits_stay_names() -> None:
    assert plain(["1e5", "0e1", "0e2"]) == {"1e5": "1e5", "0e1": "0e1", "0e2": "0e2"}


def test_numbers_of_any_length_are_in_order() -> None:
    long = "1" * 5000
    assert in_order([f"{long}2", f"{long}1", "3", f"-{long}"]) == [f"-{long}", "3", f"{long}1", f"{long}2"]


@pytest.mark.parametrize("number", [2**63, 10**30])
def test_whole_numbers_beyond_64_bits_are_told_apart_to_the_last_digit(tmp_path: Path, number: int) -> None:
    labels = [number + row % 2 for row in range(ROWS)]
    tables = {
        "jsonl": jsonl(tmp_path / "data.jsonl", list(labels)),
        "arrow": ipc(
            tmp_path / "data.arrow",
            pa.table({"x": np.arange(ROWS) * 1.0, "label": pa.array(map(Decimal, labels), pa.decimal128(38, 4))}),
        ),
    }
    for kind, path in tables.items():
        prepared = prepare(config(kind, path, "x"), tmp_path / kind)
        assert prepared.classes == (str(number), str(number + 1))
        assert by_position(prepared)[1].tolist() == [0, 1] * (ROWS // 2)


def test_floats_that_skip_whole_numbers_name_no_class_and_that_is_said(tmp_path: Path) -> None:
    path = ipc(tmp_path / "data.arrow", pa.table({"x": np.arange(ROWS) * 1.0, "label": [2.0**60, 2.0**61] * 30}))
    with pytest.raises(DataError, match="floats of that size skip whole numbers; write integers or text"):
        prepare(config("arrow", path, "x"), tmp_path / "out")


def test_arrays_of_extended_precision_are_read_as_doubles(tmp_path: Path) -> None:
    x, label = np.arange(ROWS * 2).reshape(ROWS, 2) / 3, np.arange(ROWS) % 3
    np.savez(tmp_path / "data.npz", x=x.astype(np.longdouble), label=label.astype(np.longdouble))
    inputs, labels = by_position(prepare(config("numpy", tmp_path / "data.npz", "x"), tmp_path / "out"))
    np.testing.assert_array_equal(inputs["x"], x)
    assert labels.tolist() == label.tolist()


def test_an_array_of_rows_without_values_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((ROWS, 0)), label=np.arange(ROWS) % 3)
    with pytest.raises(DataError, match=r"array 'x' has shape .60, 0.: its rows hold no value"):
        prepare(config("numpy", tmp_path / "data.npz", "x"), tmp_path / "out")


# ---- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("2020-01-01", "2020-01-02"), ("2020-01-01T00:00:00Z", "2020-06-01T00:00:00Z")])
def test_text_of_json_that_looks_like_a_time_stays_as_it_is_written(tmp_path: Path, names: tuple[str, str]) -> None:
    path = jsonl(tmp_path / "data.jsonl", list(names) * 30)
    assert prepare(config("jsonl", path, "x"), tmp_path / "out").classes == names
    days = [json.dumps({"x": row, "label": "u", "id": f"2020-01-01T00:00:{row:02}Z"}) for row in range(ROWS)]
    named = config("jsonl", lines(tmp_path / "days.jsonl", days), "x", id="id")
    assert sorted(classes_by_id(prepare(named, tmp_path / "named"))) == [
        f"2020-01-01T00:00:{row:02}Z" for row in range(60)
    ]


def test_a_value_of_json_is_one_class_whatever_stands_beside_it(tmp_path: Path) -> None:
    labels: list[object] = [True, "true", 1, "1", 1.0, "b"] * 10
    found = classes_by_id(prepare(config("jsonl", jsonl(tmp_path / "data.jsonl", labels), "x"), tmp_path / "out"))
    expected = ["true", "true", "1", "1", "1", "b"] * 10
    assert found == {f"data.jsonl#{row}": name for row, name in enumerate(expected)}


@pytest.mark.parametrize("line", [b"null", b'{"x": 1, "label": "u"} null', b'{"x": 1, "label": "\xe9"}'])
@pytest.mark.parametrize("first", [True, False])
def test_a_line_that_would_end_a_parser_is_a_bad_row(tmp_path: Path, line: bytes, first: bool) -> None:
    rows = [json.dumps({"x": row, "label": "uv"[row % 2]}).encode() for row in range(ROWS)]
    (tmp_path / "data.jsonl").write_bytes(b"\n".join([line, *rows] if first else [*rows, line]))
    prepared = prepare(config("jsonl", tmp_path / "data.jsonl", "x", on_bad_row="skip"), tmp_path / "out")
    assert prepared.report["bad_rows"] == 1 and sum(s.num_rows for s in prepared.segments) == ROWS


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_utf16_and_utf32_are_told_with_and_without_a_mark(tmp_path: Path, kind: str) -> None:
    text = "x,label\n1,u\n" if kind == "csv" else '{"x": 1, "label": "u"}\n'
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"):
        (tmp_path / f"data.{kind}").write_bytes((text * 60).encode(encoding))
        with pytest.raises(DataError, match=r"UTF-(16|32).*; save it as UTF-8"):
            prepare(config(kind, tmp_path / f"data.{kind}", "x"), tmp_path / "out")


def test_text_of_a_table_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    latin = pa.array([b"caf\xe9", b"v"] * 30)
    text = pa.StringArray.from_buffers(ROWS, latin.buffers()[1], latin.buffers()[2])
    path = ipc(tmp_path / "data.arrow", pa.table({"x": np.arange(ROWS) * 1.0, "label": text}))
    with pytest.raises(
        DataError, match=r"(?s)^30 rows cannot be used.*data.arrow#0: label is not UTF-8; save it as UTF-8"
    ):
        prepare(config("arrow", path, "x"), tmp_path / "out")


def test_zeros_that_pad_text_are_not_part_of_a_class(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "data.csv", ["x,label", *(f"{row},{'uv'[row % 2]}{chr(0) * (row % 3)}" for row in range(ROWS))]
    )
    assert prepare(config("csv", path, "x"), tmp_path / "out").classes == ("u", "v")


def test_a_text_of_several_lines_may_lie_across_blocks(tmp_path: Path) -> None:
    note = '"' + "first line, " * 12 + '\nsecond line ""quoted"""'
    rows = 30_000  # more than a block of text
    path = lines(tmp_path / "data.csv", ["x,label,note", *(f"{row},{'uv'[row % 2]},{note}" for row in range(rows))])
    inputs, labels = by_position(prepare(config("csv", path, "x"), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == list(range(rows)) and labels.tolist() == [0, 1] * (rows // 2)


# ---- types and files --------------------------------------------------------------------------------------------------


def test_views_on_lists_and_runs_are_the_values_they_stand_for(tmp_path: Path) -> None:
    values = [[float(row), row / 2] for row in range(ROWS)]
    plain_table = pa.table({"x": values, "label": ["u"] * 20 + ["v"] * 40})
    runs = pa.RunEndEncodedArray.from_arrays([20, ROWS], ["u", "v"])
    viewed = pa.table({"x": pa.array(values, pa.list_view(pa.float64())), "label": runs})
    expected, found = (
        by_position(prepare(config("arrow", ipc(tmp_path / f"{name}.arrow", table), "x"), tmp_path / name))
        for name, table in (("plain", plain_table), ("viewed", viewed))
    )
    np.testing.assert_array_equal(found[0]["x"], expected[0]["x"])
    assert found[1].tolist() == expected[1].tolist()


def test_pipes_and_links_to_themselves_are_bad_rows(tmp_path: Path) -> None:
    for row in range(ROWS):
        (tmp_path / "data" / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), row).save(tmp_path / "data" / "ab"[row % 2] / f"{row}.png")
    os.mkfifo(tmp_path / "data" / "a" / "pipe.png")
    (tmp_path / "data" / "a" / "loop.png").symlink_to("loop.png")
    found = config("image_folder", tmp_path / "data", "image", on_bad_row="skip")
    assert source_digest(found)
    assert prepare(found, tmp_path / "out").report["bad_rows"] == 2


def test_a_class_folder_is_called_as_labels_are_without_blanks_around(tmp_path: Path) -> None:
    for row in range(ROWS):
        folder = tmp_path / "data" / ("a", " a", "b")[row % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), row).save(folder / f"{row}.png")
    prepared = prepare(config("image_folder", tmp_path / "data", "image"), tmp_path / "out")
    assert prepared.classes == ("a", "b")
    assert sorted(classes_by_id(prepared).values()) == ["a"] * 40 + ["b"] * 20
