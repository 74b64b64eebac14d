"""Text from sources to prepared rows: as it is in every format, named where it is none, kept where rows are added."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing import segments, text
from teachers.preparing.census import Census
from teachers.preparing.ledger import Ledger
from teachers.preparing.look import look
from teachers.preparing.planning import plan_segments
from teachers.preparing.prepare import prepare
from teachers.preparing.sample import as_transfer_set, sample
from teachers.preparing.splits import row_hashes
from teachers.transfer_set.columns import Column, content_hash, inputs_batch, inputs_of
from teachers.transfer_set.hashes import text_hashes
from teachers.transfer_set.transfer_set import TransferSet

TEXT = {"column": "text", "as": "text"}
ODD = ["", "a", "naïve café", "日本語のテキスト", "\N{PILE OF POO}" * 3, "a\0b\0", " kept as it is \n", "x" * 1_000_000]
"""Empty, short, of two, three and four bytes a character, with NUL, with spaces around it, long."""


def texts(rows: int = 60) -> list[str]:
    return [f"{ODD[row % len(ODD)]}{row if row % len(ODD) else ''}" for row in range(rows)]


def config(path: Path, kind: str = "jsonl", inputs: Any = (TEXT,), **changes: Any) -> TransferSetConfig:
    source = {"kind": kind, "path": str(path)}
    return TransferSetConfig.model_validate({"source": source, "inputs": list(inputs), "label": "label"} | changes)


def lines(path: Path, values: list[Any], **beside: list[Any]) -> Path:
    rows = [
        {"text": value, "label": "uv"[row % 2]} | {name: each[row] for name, each in beside.items()}
        for row, value in enumerate(values)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def in_order(prepared: TransferSet) -> list[str]:
    """The texts of a one-file source in the order in which the source has them."""
    found = {}
    for segment in prepared.segments:
        places = [int(each.rpartition("#")[2]) for each in prepared.ids(segment).to_pylist()]
        found |= dict(zip(places, prepared.inputs(segment)["text"], strict=True))
    return [found[place] for place in sorted(found)]


def table(values: list[str | None]) -> dict[str, list[Any]]:
    return {"text": values, "label": ["uv"[row % 2] for row in range(len(values))]}


SOURCES = {
    "parquet": lambda path, values: parquet.write_table(pa.table(table(values)), path / "data.parquet"),
    "arrow": lambda path, values: pl.DataFrame(table(values)).write_ipc(path / "data.arrow"),
    "jsonl": lambda path, values: lines(path / "data.jsonl", values),
    "csv": lambda path, values: pd.DataFrame(table(values)).to_csv(path / "data.csv", index=False),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_text_is_the_same_in_every_format_and_nothing_of_it_is_changed(tmp_path: Path, kind: str) -> None:
    given = texts()
    SOURCES[kind](tmp_path, given)
    allowed = {**TEXT, "missing": "allow"} if kind == "csv" else TEXT  # CSV cannot tell empty from missing
    prepared = prepare(config(tmp_path / f"data.{kind}", kind, [allowed]), tmp_path / "out")
    assert in_order(prepared) == given
    (column,) = prepared.columns
    assert (column.kind, column.shape) == ("text", ())
    assert prepared.report["columns"]["text"]["missing"].keys() == {"train", "validation", "test"}
    assert sum(prepared.report["columns"]["text"]["missing"].values()) == given.count("")


def rows_of_mine(made: str) -> Any:
    """A user's source."""
    values = [*texts(), *(["\ud83d"] if made.startswith("halves") else [])]
    makers: dict[str, Any] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
    makers |= {"reader": lambda rows: pa.table(rows).to_reader(max_chunksize=7), "halves in pandas": _of_objects}
    rows = [dict(zip(("text", "label"), row, strict=True)) for row in zip(*table(values).values(), strict=True)]
    return makers[made](table(values)) if made in makers else rows


def _of_objects(rows: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in rows.items()})


def imported(made: str, **changes: Any) -> TransferSetConfig:
    source = {"kind": "import", "function": "tests.test_text_inputs:rows_of_mine", "arguments": {"made": made}}
    return TransferSetConfig.model_validate({"source": source, "inputs": [TEXT], "label": "label"} | changes)


@pytest.mark.parametrize("made", ["pandas", "polars", "pyarrow", "reader", "dicts"])
def test_a_source_function_gives_whatever_arrow_can_take_over(tmp_path: Path, made: str) -> None:
    assert in_order(prepare(imported(made), tmp_path / "out")) == texts()


def test_a_folder_of_csv_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        pd.DataFrame(table([f"{name} says {row}" for row in range(30)])).to_csv(tmp_path / "in" / f"{name}.csv")
    prepared = prepare(config(tmp_path / "in", "csv"), tmp_path / "out")
    found = {
        id_: value
        for segment in prepared.segments
        for id_, value in zip(prepared.ids(segment).to_pylist(), prepared.inputs(segment)["text"], strict=True)
    }
    assert found == {f"{name}.csv#{row}": f"{name} says {row}" for name in "ab" for row in range(30)}


# ---- rows that cannot be used ------------------------------------------------------------------------------------------


def test_null_is_bad_unless_it_may_be_missing_and_then_it_is_empty(tmp_path: Path) -> None:
    path = lines(tmp_path / "data.jsonl", ["some words", None, ""] * 20)
    with pytest.raises(
        DataError, match=r"(?s)20 rows cannot be used.*#1: text is missing; `missing: allow` takes that"
    ):
        prepare(config(path), tmp_path / "out")
    prepared = prepare(config(path, inputs=[{**TEXT, "missing": "allow"}]), tmp_path / "allowed")
    assert in_order(prepared) == ["some words", "", ""] * 20
    prepared = prepare(config(path, inputs=[{**TEXT, "missing": "allow", "nulls": ["n/a"]}]), tmp_path / "nulls")
    assert set(in_order(prepared)) == {"some words", ""}


def bytes_of(folder: Path, kind: str, odd: bytes) -> Path:
    """60 rows, of which the fourth holds `odd` as it is."""
    values = [b"some words"] * 3 + [odd] + [b"some words"] * 56
    labels = ["uv"[row % 2] for row in range(60)]
    path = folder / f"data.{kind}"
    if kind == "csv":
        rows = [value + b"," + label.encode() for value, label in zip(values, labels, strict=True)]
        path.write_bytes(b"text,label\n" + b"\n".join(rows))
    elif kind == "jsonl":
        said = zip(values, labels, strict=True)
        path.write_bytes(
            b"".join(b'{"text": "%b", "label": "%b"}\n' % (value, label.encode()) for value, label in said)
        )
    else:
        _, ends, held = pa.array(values).buffers()
        parquet.write_table(pa.table({"text": pa.StringArray.from_buffers(60, ends, held), "label": labels}), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_bytes_that_are_no_text_are_a_bad_row_in_every_format(tmp_path: Path, kind: str) -> None:
    path = bytes_of(tmp_path, kind, b"caf\xe9")
    with pytest.raises(DataError, match=rf"(?s)^1 row cannot be used.*data.{kind}#3: .*not UTF-8"):
        prepare(config(path, kind), tmp_path / "out")
    prepared = prepare(config(path, kind, on_bad_row="skip"), tmp_path / "skipped")
    assert prepared.report["bad_rows"] == 1 and in_order(prepared) == ["some words"] * 59


def test_half_a_character_is_a_bad_row(tmp_path: Path) -> None:
    path = bytes_of(tmp_path, "jsonl", rb"\ud83d, half of one")
    with pytest.raises(DataError, match=r"(?s)^1 row cannot be used.*data.jsonl#3: not text: half a character"):
        prepare(config(path), tmp_path / "out")
    for made in ("halves", "halves in pandas"):
        with pytest.raises(DataError, match=r"(?s)^1 row cannot be used.*#60: text is not UTF-8"):
            prepare(imported(made), tmp_path / made)


def test_a_text_longer_than_the_limit_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table(table(["x" * text.LONGEST, "x" * (text.LONGEST + 1), *["some words"] * 58])), path)
    with pytest.raises(DataError, match=r"(?s)^1 row .*#1: text has 16,777,217 bytes; a text may have 16,777,216"):
        prepare(config(path, "parquet"), tmp_path / "out")


def test_a_csv_row_that_no_block_holds_is_told(tmp_path: Path) -> None:
    pd.DataFrame(table(["x" * 9_000_000, *["some words"] * 59])).to_csv(tmp_path / "data.csv", index=False)
    with pytest.raises(DataError, match=r"data.csv: a row has more than 4 MiB, which one of a CSV may not"):
        prepare(config(tmp_path / "data.csv", "csv"), tmp_path / "out")


def test_what_is_no_text_is_refused_or_a_bad_row(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.parquet"
    parquet.write_table(pa.table({"text": range(60), "label": ["u", "v"] * 30}), numbers)
    with pytest.raises(RecipeError, match="column 'text' is int64, no text"):
        prepare(config(numbers, "parquet"), tmp_path / "out")
    binary = tmp_path / "binary.parquet"
    parquet.write_table(pa.table({"text": [b"w\xc3\xb6rter"] * 60, "label": ["u", "v"] * 30}), binary)
    assert set(in_order(prepare(config(binary, "parquet"), tmp_path / "bytes"))) == {"wörter"}


# ---- what a column is without being told -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"please send {row} dollars to my sister" for row in range(64)], "text"),
        ([f"Отправь {row} рублей моей сестре" for row in range(64)], "text"),
        ([f"{row}" + "ACGT" * 40 for row in range(64)], "text"),
        ([f"2026-11-29 08:{row:02} ERROR in the worker" for row in range(60)], "text"),
        (["Very Good", "Ideal", "Fair"] * 20, "category"),
        (["a name of three words", "another name of so many"] * 30, "category"),
        ([f"SKU-{row}-X" for row in range(64)], "category"),
        ([f"Jane Doe{row}" for row in range(64)], "category"),
    ],
)
def test_words_in_a_row_that_hardly_come_twice_are_text_and_names_are_not(
    tmp_path: Path, values: list[str], kind: str
) -> None:
    path = lines(tmp_path / "data.jsonl", values)
    (column,) = look(config(path, inputs=["text"])).columns
    assert column.kind == kind
    assert look(config(path, inputs=[{"column": "text", "as": "category"}])).columns[0].kind == "category"
    assert look(config(path)).columns[0].kind == "text"


def test_too_many_categories_are_told_of_text(tmp_path: Path) -> None:
    path = lines(tmp_path / "data.jsonl", [f"name{row}" for row in range(2000)])
    with pytest.raises(DataError, match=r"different values.*`as: text` reads it"):
        prepare(config(path, inputs=["text"]), tmp_path / "out")


def test_texts_stand_side_by_side_and_beside_numbers_under_their_own_names(tmp_path: Path) -> None:
    others = [f"answer {row}" for row in range(60)]
    path = lines(tmp_path / "data.jsonl", texts(), other=others, x=list(range(60)), size=["s", "l", "m"] * 20)
    inputs = [TEXT, "x", {"column": "other", "as": "text"}, "size"]
    prepared = prepare(config(path, inputs=inputs), tmp_path / "out")
    kinds = {column.name: column.kind for column in prepared.columns}
    assert kinds == {"text": "text", "other": "text", "features": "number", "categories": "category"}
    for segment in prepared.segments:
        rows = prepared.inputs(segment)
        assert rows["other"].tolist() == [f"answer {x:.0f}" for x in rows["features"][:, 0]]
        assert rows["text"].tolist() == [texts()[int(x)] for x in rows["features"][:, 0]]
    assert {"features", "categories"} == set(prepared.input_rows(prepared.segments[0]))


# ---- identity ----------------------------------------------------------------------------------------------------------


def test_a_hash_of_text_is_of_that_text_alone() -> None:
    rng = np.random.default_rng(0)
    values = np.array(
        ["", "a", "\0", "\0\0", "ab", "ba", "x" * 8, "x" * 9, "é" * 5, *ODD[:-1], "y" * 3_000_000], object
    )
    values = np.array([*dict.fromkeys(values), *(f"{n:x}" for n in rng.integers(0, 2**60, 5000))], object)
    hashes = text_hashes(values)
    assert len(np.unique(hashes)) == len(values)
    order = rng.permutation(len(values))
    np.testing.assert_array_equal(text_hashes(values[order]), hashes[order])
    for row in range(20):
        assert text_hashes(values[row : row + 1])[0] == hashes[row]
    assert len(text_hashes(values[:0])) == 0


def test_content_is_of_where_a_text_ends_and_not_of_how_it_lies_in_a_file() -> None:
    keys, column = np.arange(2, dtype=np.uint64), Column("text", "text", (), (), ())
    one, other = (np.array(each, object) for each in (["ab", "c"], ["a", "bc"]))
    assert content_hash(keys, {"text": one}) != content_hash(keys, {"text": other})
    batch = inputs_batch(np.arange(4, dtype=np.uint64), {"text": np.array(["q", "ab", "c", ""], object)})
    assert content_hash(keys, inputs_of(batch.slice(1, 2), [column])) == content_hash(keys, {"text": one})
    assert inputs_of(batch, [column], np.array([3, 1]))["text"].tolist() == ["", "ab"]


def test_the_same_texts_in_two_columns_are_rows_of_their_own() -> None:
    one, other = np.array(["a", "b"], object), np.array(["b", "a"], object)
    assert len(set(row_hashes([one, other]))) == 2 and row_hashes([one, other])[0] != row_hashes([other, one])[0]


@pytest.mark.parametrize("chunk_rows", [7, 4096])
def test_rows_that_are_added_leave_the_others_where_they_are(tmp_path: Path, chunk_rows: int) -> None:
    given = [f"row {row} says {'word ' * (row % 9)}" for row in range(200)]
    short, whole = tmp_path / "short.jsonl", tmp_path / "short" / "short.jsonl"
    whole.parent.mkdir()
    first = prepare(config(lines(short, given[:150])), tmp_path / "first", chunk_rows=chunk_rows)
    grown = prepare(config(lines(whole, given)), tmp_path / "grown", earlier=tmp_path / "first", chunk_rows=chunk_rows)
    kept = {segment.name: segment.digest for segment in first.segments}
    assert {name: digest for name, digest in ((s.name, s.digest) for s in grown.segments) if name in kept} == kept
    assert in_order(grown) == given
    changed = [*given[:149], "another text", *given[150:]]
    anew = prepare(config(lines(whole, changed)), tmp_path / "anew", earlier=tmp_path / "first", chunk_rows=chunk_rows)
    assert not set(kept.values()) <= {segment.digest for segment in anew.segments} and in_order(anew) == changed


def test_a_text_that_is_in_two_splits_is_counted_and_dropped(tmp_path: Path) -> None:
    path = lines(tmp_path / "data.jsonl", [f"text number {row % 40} of all" for row in range(120)])
    kept = prepare(config(path), tmp_path / "kept").report["duplicates_across_splits"]
    dropped = prepare(config(path, duplicates="drop"), tmp_path / "dropped")
    of = {s.split: set(dropped.inputs(s)["text"]) for s in dropped.segments}
    assert sum(kept.values()) > 0 and not (of["train"] & of["test"]) and not (of["train"] & of["validation"])


# ---- memory ------------------------------------------------------------------------------------------------------------


def test_parts_are_cut_by_what_their_rows_hold(tmp_path: Path) -> None:
    sizes = np.array([*[40] * 1000, *[20 * 2**20] * 7, *[40] * 1000, text.LONGEST * 5], np.uint32)
    rows = np.arange(len(sizes))
    keys, zero, columns = rows.astype(np.uint64), np.zeros(len(sizes), np.uint32), [Column("t", "text", (), (), ())]
    about = keys, zero, zero, sizes, np.ones(len(sizes), bool)
    whole = Census(keys, keys, zero.astype(np.uint8), zero.astype(np.int32), *about)
    (planned,) = plan_segments(Ledger.of(whole), columns, None)
    tasks = list(segments.part_tasks(planned, columns))
    starts = [task.first_row for task in tasks]
    found = [stretch.rows().keys for task in tasks for stretch in task.rows]
    assert np.array_equal(np.concatenate(found), keys) and len(tasks) == 5
    held = np.add.reduceat(sizes.astype(np.int64), starts)
    assert (held[:-1] <= segments.PART_BYTES).all() and starts[-1] == len(sizes) - 1


def test_batches_are_cut_by_what_their_rows_hold(tmp_path: Path) -> None:
    lengths = [10, 10, 100, 5, 5, 5, 300, 1]
    batch = text.Batch(
        pa.record_batch({"text": ["x" * n for n in lengths]}), [str(n) for n in range(8)], (("9", "bad"),)
    )
    found = list(text.cut(batch, ["text"], 100))
    assert [part.data.num_rows for part in found] == [2, 1, 3, 1, 1]
    assert [each for part in found for each in part.positions] == batch.positions
    assert [part.bad for part in found] == [batch.bad, (), (), (), ()]
    assert list(text.cut(batch, [], 100)) == [batch]


def test_a_few_rows_are_a_transfer_set_of_their_own(tmp_path: Path) -> None:
    path = lines(tmp_path / "data.jsonl", texts())
    asked = config(path)
    few = sample(asked, look(asked), ("u", "v"), 8)
    made = as_transfer_set(few, tmp_path / "few")
    opened = TransferSet.open(made.folder)
    assert opened.inputs(opened.of("train")[0])["text"].tolist() == few.inputs["text"].tolist()
    assert set(few.inputs["text"]) <= set(texts())
