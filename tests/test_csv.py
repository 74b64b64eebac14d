"""CSV as people have it: marks, quotes and words for nothing; each file is read as it is meant, or refused with its line."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.sources.quotes import Watched

from .test_sources import by_position


def config(path: Path, inputs: Any, delimiter: str = ",", **changes: Any) -> TransferSetConfig:
    source = {"kind": "csv", "path": str(path), "delimiter": delimiter}
    return TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": "y"} | changes)


def written(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]))
    return path


ROWS = [f"{row},{'uv'[row % 2]}" for row in range(60)]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", "\ufeffx,y", ROWS)
    for delimiter in (",", "auto"):
        inputs, labels = by_position(prepare(config(path, "x", delimiter), tmp_path / delimiter))
        assert inputs["features"][:, 0].tolist() == list(range(60)) and labels.tolist() == [0, 1] * 30


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_the_delimiter_is_found_by_the_columns_of_the_recipe(delimiter: str, tmp_path: Path) -> None:
    """One column's name holds the others' marks."""
    header = delimiter.join(['"a;b,c|d\te"', "x", "y"])
    path = written(tmp_path / "data.csv", header, [delimiter.join(["0", str(row), "uv"[row % 2]]) for row in range(60)])
    inputs, _ = by_position(prepare(config(path, "x", "auto"), tmp_path / "out"))
    assert inputs["features"][:, 0].tolist() == list(range(60))
    if delimiter != ",":
        with pytest.raises(RecipeError, match="no column 'x'"):
            look(config(path, "x"))


def test_line_breaks_and_delimiters_in_quotes_are_of_the_value(tmp_path: Path) -> None:
    said = ['first\nline, and ""more""', "plain"]
    rows = [f'{row},"{said[row % 2]}",{row % 2}' for row in range(60)]
    made = prepare(config(written(tmp_path / "data.csv", "x,text,y", rows), ["x", "text"]), tmp_path / "out")
    assert made.columns[1].values == (('first\nline, and "more"', "plain"),)
    assert by_position(made)[0]["features"][:, 0].tolist() == list(range(60))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('7,"seven,u', r"data.csv: line 9: a quote is opened there, and the file ends before it is closed"),
        (
            '7,"seven,u\n8,"eight",v',
            r"line 9: a quote is opened there, and text goes on behind the next one, in line 10",
        ),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_a_quote_that_is_not_closed_is_told_with_its_line(broken: str, said: str, skip: bool, tmp_path: Path) -> None:
    rows = [f"{row},word,{'uv'[row % 2]}" for row in range(60)]
    rows[7:9] = broken.split("\n")
    path = written(tmp_path / "data.csv", "x,w,y", rows)
    changes = {"on_bad_row": "skip"} if skip else {}
    with pytest.raises(DataError, match=said):
        prepare(config(path, ["x", "w"], **changes), tmp_path / "out")


def test_a_quote_that_swallows_more_than_a_block_is_told_with_its_line(tmp_path: Path) -> None:
    rows = [f"{row},word,{'uv'[row % 2]}" for row in range(900_000)]
    rows[3] = '3,"word,v'
    with pytest.raises(DataError, match=r"data.csv: line 5: a quote is opened there"):
        prepare(config(written(tmp_path / "data.csv", "x,w,y", rows), ["x", "w"]), tmp_path / "out")


@pytest.mark.parametrize("text", ['5" pipe', 'say "no"', '"quoted" '])
def test_a_quote_inside_a_value_is_a_letter(text: str, tmp_path: Path) -> None:
    rows = [f"{row},{text if row % 3 else 'plain'},{'uv'[row % 2]}" for row in range(60)]
    made = prepare(config(written(tmp_path / "data.csv", "x,w,y", rows), ["x", "w"]), tmp_path / "out")
    assert len(made.columns[1].values[0]) == 2 and sum(s.num_rows for s in made.segments) == 60


TEXT = st.text(st.sampled_from('ab,"\n '), max_size=8)


@drawn(st.lists(st.lists(TEXT, min_size=2, max_size=3), min_size=1, max_size=6), st.integers(1, 9))
def test_what_a_csv_writer_writes_is_never_refused(rows: list[list[str]], size: int) -> None:
    import csv

    sink = io.StringIO()
    csv.writer(sink).writerows(rows)
    watched = Watched(io.BytesIO(sink.getvalue().encode()), "t.csv", ",")
    while watched.read(size):
        pass
    assert watched.opened_in == 0 and watched.line == 1 + sink.getvalue().count("\n")


@pytest.mark.parametrize(
    ("values", "entry", "expected"),
    [
        (["1,5", "2,25", "-3"], {"decimal": ","}, [1.5, 2.25, -3.0]),
        (["1.234,5", "12", "1.000.000"], {"decimal": ",", "thousands": "."}, [1234.5, 12.0, 1e6]),
        (["1,234.5", "950", "+2,000"], {"thousands": ","}, [1234.5, 950.0, 2000.0]),
        (["1 234", "5", "6e2"], {"thousands": " "}, [1234.0, 5.0, 600.0]),
        (["1", "NA", ""], {"missing": "allow"}, [1.0, np.nan, np.nan]),
        (["1", "?", "n/a"], {"missing": "allow", "nulls": ["?", "n/a"]}, [1.0, np.nan, np.nan]),
        (["2026-11-29", "1970-01-03", "2000-02-29"], {"as": "date"}, [20786.0, 2.0, 11016.0]),
        (["1970-01-01T01:00:00Z", "1970-01-02T00:00:30+01:00", "1970-01-01 00:00"], {"as": "date", "unit": "minutes"}, [60.0, 1380.5, 0.0]),
        (["3.1.1970", "29.02.2000", "01.01.1970"], {"as": "date", "format": "%d.%m.%Y"}, [2.0, 11016.0, 0.0]),
    ],
)  # fmt: skip
def test_numbers_and_dates_are_read_as_the_recipe_says(
    values: list[str], entry: dict[str, Any], expected: list[float], tmp_path: Path
) -> None:
    rows = [f'"{values[row % 3]}",{row % 2}' for row in range(60)]
    path = written(tmp_path / "data.csv", "x,y", rows)
    inputs, _ = by_position(prepare(config(path, [{"column": "x", **entry}]), tmp_path / "out"))
    np.testing.assert_allclose(inputs["features"][:3, 0], expected)


@pytest.mark.parametrize(
    ("odd", "entry", "said"),
    [
        ("1,23", {"thousands": ","}, "#40: x is '1,23', not a number"),
        ("1.234,5", {"decimal": ","}, "#40: x is '1.234,5', not a number"),
        ("NA", {}, "#40: x is 'NA', not a number; `missing: allow` takes it for none"),
        ("inf", {"missing": "allow"}, "#40: x is inf, not a finite float32"),
        ("2026-02-30", {"as": "date"}, "#40: x is '2026-02-30', no date"),
        ("30.02.2026", {"as": "date", "format": "%d.%m.%Y"}, "#40: x is '30.02.2026', no date like %d.%m.%Y"),
    ],
)
def test_a_value_that_reads_otherwise_is_a_bad_row(odd: str, entry: dict[str, Any], said: str, tmp_path: Path) -> None:
    usual = {"%d.%m.%Y": "28.02.2026"}.get(entry.get("format", ""), "2026-02-28" if "as" in entry else "1")
    rows = [f'"{odd if row == 40 else usual}",{row % 2}' for row in range(60)]
    path = written(tmp_path / "data.csv", "x,y", rows)
    with pytest.raises(DataError, match=said):
        prepare(config(path, [{"column": "x", **entry}]), tmp_path / "out")


def test_a_delimiter_is_one_character(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        config(tmp_path / "data.csv", "x", ";;")
