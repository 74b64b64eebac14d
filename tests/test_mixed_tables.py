"""Tables of numbers, categories, dates and gaps, prepared: codes by a dictionary of training rows, moments of what is there."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.preprocessing import OrdinalEncoder

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError
from teachers.preparing.look import look
from teachers.preparing.prepare import prepare
from teachers.transfer_set.columns import FIRST, MISSING, UNKNOWN
from teachers.transfer_set.transfer_set import SPLITS, TransferSet

ROWS = 400
WORDS = ["red", "green", "blue", "a rather long word, with a comma"]


def config(path: Path, inputs: Any, **changes: Any) -> TransferSetConfig:
    source = {"kind": {".pq": "parquet"}.get(path.suffix, path.suffix[1:]), "path": str(path)}
    return TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": "y"} | changes)


def mixed(rows: int = ROWS, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    fare = random.gamma(2, 50, rows)
    color = [None if random.random() < 0.1 else WORDS[random.integers(0, 4)] for _ in range(rows)]
    color[rows // 2] = "seen once"
    return pa.table(
        {
            "id": [f"row {row}" for row in range(rows)],
            "age": random.integers(18, 90, rows),
            "fare": pa.array(fare, mask=random.random(rows) < 0.2),
            "color": color,
            "member": pa.array(random.random(rows) < 0.5, mask=random.random(rows) < 0.1),
            "start": [
                datetime.date(2020, 1, 1) + datetime.timedelta(days=int(d)) for d in random.integers(0, 999, rows)
            ],
            "y": random.integers(0, 2, rows),
        }
    )


INPUTS = ["age", {"column": "fare", "missing": "allow"}, "color", "member", {"column": "start", "as": "date"}]


def by_id(prepared: TransferSet) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """(inputs, ids, split of each row) in the order of ids' numbers."""
    ids = [name for segment in prepared.segments for name in prepared.ids(segment).to_pylist()]
    order = np.argsort([int(name.split()[1]) for name in ids])
    inputs = [prepared.inputs(segment) for segment in prepared.segments]
    split = np.concatenate([np.full(s.num_rows, SPLITS.index(s.split)) for s in prepared.segments])[order]
    whole = {name: np.concatenate([part[name] for part in inputs])[order] for name in inputs[0]}
    return whole, [ids[at] for at in order], split


def text_of(table: pa.Table, name: str) -> np.ndarray:
    values = table[name].to_pylist()
    return np.array([str(v).lower() if isinstance(v, bool) else v for v in values], object)[:, None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, TransferSet]:
    folder, table = tmp_path_factory.mktemp("mixed"), mixed()
    pq.write_table(table, folder / "data.pq")
    return table, prepare(config(folder / "data.pq", INPUTS, id="id"), folder / "out")


def test_codes_are_places_in_the_sorted_values_of_training_rows(prepared: tuple[pa.Table, TransferSet]) -> None:
    """The oracle: scikit-learn's OrdinalEncoder, fitted on the training rows alone."""
    table, made = prepared
    inputs, _, split = by_id(made)
    column = made.columns[1]
    assert (column.name, column.kind, column.names) == ("categories", "category", ("color", "member"))
    assert inputs["categories"].dtype == np.int32
    for at, name in enumerate(column.names):
        values = text_of(table, name)
        there = values[:, 0] != None  # noqa: E711
        encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=UNKNOWN - FIRST)
        encoder.fit(values[there & (split == 0)])
        expected = np.full(len(values), MISSING)
        expected[there] = encoder.transform(values[there])[:, 0] + FIRST
        assert column.values[at] == tuple(encoder.categories_[0])
        assert np.array_equal(inputs["categories"][:, at], expected)


def test_moments_are_of_the_training_rows_that_have_a_value(prepared: tuple[pa.Table, TransferSet]) -> None:
    table, made = prepared
    inputs, _, split = by_id(made)
    fare = table["fare"].to_numpy()
    assert np.array_equal(inputs["features"][:, 1], fare, equal_nan=True)
    train = fare[split == 0]
    assert made.columns[0].mean[1] == pytest.approx(np.nanmean(train), rel=1e-11)
    assert made.columns[0].std[1] == pytest.approx(np.nanstd(train), rel=1e-11)
    assert made.columns[0].missing == (0, int(np.isnan(train).sum()), 0)


def test_dates_are_days_since_1970(prepared: tuple[pa.Table, TransferSet]) -> None:
    table, made = prepared
    days = [(date - datetime.date(1970, 1, 1)).days for date in table["start"].to_pylist()]
    assert by_id(made)[0]["features"][:, 2].tolist() == days


def test_what_lacks_is_counted_by_column_and_split(prepared: tuple[pa.Table, TransferSet]) -> None:
    _, made = prepared
    inputs, _, split = by_id(made)
    counted = made.report["columns"]
    assert list(counted) == ["fare", "color", "member"]
    for number, name in enumerate(SPLITS):
        here = split == number
        assert counted["fare"]["missing"][name] == np.isnan(inputs["features"][here, 1]).sum()
        assert counted["color"]["missing"][name] == (inputs["categories"][here, 0] == MISSING).sum()
        assert counted["color"]["unknown"][name] == (inputs["categories"][here, 0] == UNKNOWN).sum()
    assert counted["color"]["unknown"]["train"] == 0 and counted["color"]["values"] == len(made.columns[1].values[0])


@pytest.mark.parametrize("form", ["csv", "jsonl", "arrow", "dictionary.pq", "rows.pq"])
def test_every_format_gives_the_same_codes(form: str, prepared: tuple[pa.Table, TransferSet], tmp_path: Path) -> None:
    table, made = prepared
    path = tmp_path / f"data.{form}"
    if form == "csv":
        pyarrow.csv.write_csv(table, path)
    elif form == "jsonl":
        rows = [{k: str(v) if k == "start" else v for k, v in row.items()} for row in table.to_pylist()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=37)
    elif form == "dictionary.pq":
        at = table.schema.names.index("color")
        pq.write_table(table.set_column(at, "color", table["color"].dictionary_encode()), path)
    else:
        pq.write_table(table, path, row_group_size=11)
    other = prepare(config(path, INPUTS, id="id"), tmp_path / "out", chunk_rows=29)
    assert other.columns[1] == made.columns[1]
    assert [segment.digest for segment in other.segments] == [segment.digest for segment in made.segments]


def test_whole_numbers_are_categories_where_the_recipe_says_so_and_dictionaries_by_themselves(tmp_path: Path) -> None:
    zone = np.arange(60) % 7 * 100
    table = pa.table({"zone": zone, "code": pa.array(zone).dictionary_encode(), "x": zone * 1.0, "y": zone % 2})
    with pa.ipc.new_file(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    as_category = {"column": "zone", "as": "category"}
    (made,) = prepare(config(tmp_path / "data.arrow", [as_category, "code"]), tmp_path / "out").columns
    assert made.values == (tuple(str(100 * number) for number in range(7)),) * 2
    floats = config(tmp_path / "data.arrow", [{"column": "x", "as": "category"}])
    assert prepare(floats, tmp_path / "floats").columns[0].values == made.values[:1]


def test_truth_values_have_one_spelling(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("b,y\n" + "True,0\nfalse,1\nTRUE,0\nFalse,1\n" * 20)
    (made,) = prepare(config(tmp_path / "data.csv", "b"), tmp_path / "out").columns
    assert made.values == (("false", "true"),)


@pytest.mark.parametrize(("inputs", "first"), [(["age"], 0), (["color"], 0), (INPUTS, 1)])
def test_numbers_alone_categories_alone_and_both(inputs: list[Any], first: int, tmp_path: Path) -> None:
    pq.write_table(mixed(), tmp_path / "data.pq")
    made = prepare(config(tmp_path / "data.pq", inputs, id="id"), tmp_path / "out")
    assert [column.kind for column in made.columns] == [["number"], ["category"]][inputs == ["color"]] + [
        "category"
    ] * first


def test_digests_of_numbers_and_images_are_what_they_were(tmp_path: Path) -> None:
    """Before there were categories: the soft targets of such rows stay good."""
    for name, label, inputs, digest in (
        ("digits", "digit", "image", "916baf03f22d9805"),
        ("iris", "target", "features", "71d11d3436118f62"),
    ):
        given = {"source": {"kind": "sklearn", "name": name}, "inputs": inputs, "label": label}
        made = prepare(TransferSetConfig.model_validate(given), tmp_path / name)
        assert made.of("train")[0].digest.startswith(digest)


# ---- rows that are added ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["red", "violet"])
def test_old_segments_stay_where_the_dictionary_does(new: str, tmp_path: Path) -> None:
    table = mixed()
    more = mixed(60, seed=1).set_column(3, "color", pa.array([new] * 60, pa.string()))
    more = more.set_column(0, "id", pa.array([f"row {1000 + row}" for row in range(60)]))
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    pq.write_table(table, tmp_path / "before" / "a.pq")
    pq.write_table(pa.concat_tables([table, more]), tmp_path / "after" / "a.pq")
    given = [config(tmp_path / name / "a.pq", INPUTS, id="id") for name in ("before", "after")]
    before = prepare(given[0], tmp_path / "out")
    after = prepare(given[1], tmp_path / "grown", earlier=before.folder)
    anew = prepare(given[1], tmp_path / "anew")
    kept = {segment.digest for segment in before.segments} <= {segment.digest for segment in after.segments}
    assert kept == (new == "red")
    assert after.columns == anew.columns and after.report["columns"] == anew.report["columns"]
    found, expected = by_id(after), by_id(anew)
    assert all(np.array_equal(found[0][name], expected[0][name], equal_nan=True) for name in found[0])


def test_a_row_with_another_unknown_value_counts_as_changed(tmp_path: Path) -> None:
    table = mixed()
    made = []
    for name, value in (("a", "seen once"), ("b", "another")):
        color = pc_replaced(table["color"], "seen once", value)
        (tmp_path / name).mkdir()
        pq.write_table(table.set_column(3, "color", color), tmp_path / name / "rows.pq")
        given = config(tmp_path / name / "rows.pq", ["color"], id="id")
        made.append(prepare(given, tmp_path / name / "out", earlier=made[0].folder if made else None))
    assert [segment.name for segment in made[1].segments] == [f"{split}-0" for split in SPLITS]


def pc_replaced(column: pa.ChunkedArray, old: str, new: str) -> pa.Array:
    return pa.array([new if value == old else value for value in column.to_pylist()], pa.string())


def test_copies_across_splits_are_of_values_not_of_codes(tmp_path: Path) -> None:
    """Two values that nobody knows have one code, and are no copies of each other."""
    names = [f"v{row}" for row in range(200)]
    pq.write_table(pa.table({"c": names, "y": np.arange(200) % 2}), tmp_path / "data.pq")
    made = prepare(config(tmp_path / "data.pq", ["c"]), tmp_path / "out")
    assert not any(made.report["duplicates_across_splits"].values())


# ---- bad input ----------------------------------------------------------------------------------------------------------


def many_values(rows: int) -> pa.Table:
    names = np.char.add("v", (np.arange(rows) // 2).astype(str)).tolist()
    return pa.table({"zip": ["often"] * (rows // 10) + names[rows // 10 :], "y": np.arange(rows) % 2})


def test_a_category_of_100_000_values_is_refused_or_capped(tmp_path: Path) -> None:
    pq.write_table(many_values(222_222), tmp_path / "data.pq")
    with pytest.raises(
        DataError, match=r"^column 'zip': \d\d,\d\d\d different values in .* may have 1,000; `most_common: 500`"
    ):
        prepare(config(tmp_path / "data.pq", ["zip"]), tmp_path / "out")
    capped = [{"column": "zip", "as": "category", "most_common": 3}]
    made = prepare(config(tmp_path / "data.pq", capped), tmp_path / "capped")
    (column,) = made.columns
    codes = np.concatenate([made.inputs(segment)["categories"] for segment in made.of("train")])
    assert "often" in column.values[0] and len(column.values[0]) == 3
    assert column.unknown == ((codes == UNKNOWN).sum(),) and column.unknown[0] > 100_000


@pytest.mark.parametrize(
    ("values", "entry", "said"),
    [
        (pa.nulls(ROWS, pa.float64()), {"column": "x", "missing": "allow"}, "column 'x': none of the .* training rows has a value"),
        (pa.nulls(ROWS, pa.string()), {"column": "x", "as": "category"}, "column 'x': none of the .* training rows has a value"),
        (pa.nulls(ROWS, pa.string()), "x", "none of the 64 rows that were looked at has a value; take it out, or say"),
        (pa.nulls(ROWS), "x", "none of the 64 rows that were looked at has a value"),
        (pa.array([np.inf, *[1.0] * (ROWS - 1)]), {"column": "x", "missing": "allow"}, "#0: x is inf, not a finite float32"),
        (pa.array([None, *[1.0] * (ROWS - 1)]), "x", "#0: x is missing; `missing: allow` takes that"),
        (pa.array([None, *["u", "v"] * 200][:ROWS]), {"column": "x", "as": "category", "missing": "refuse"}, "#0: x is missing"),
        (pa.array([0.5, *[1.0] * (ROWS - 1)]), {"column": "x", "as": "category"}, "#0: x is 0.5, which names no category"),
        (pa.array([datetime.date(2026, 1, 1)] * ROWS), "x", "is date32.*, a time; say {column: x, as: date, unit: days}"),
        (pa.array([datetime.timedelta(1)] * ROWS), "x", "is duration.*, a time; say"),
        (pa.array([1, 2] * 200), {"column": "x", "as": "date"}, "is int64, no date; of a number say `as: number`"),
        (pa.array(["soon", "later"] * 200), {"column": "x", "as": "date"}, "'soon', 'later', which is no date like 2026-11-29"),
        (pa.array(["u", "v"] * 200), {"column": "x", "as": "number"}, "'u', 'v', which is no number"),
        (pa.array([[1.0], [2.0]] * 200), {"column": "x", "missing": "allow"}, "holds images or lists, of which none may be missing"),
        (pa.array([1.0, 2.0] * 200), {"column": "x", "most_common": 5}, "`most_common` is of categories, and column 'x' is none"),
        (pa.array([[1.0], [2.0]] * 200), {"column": "x", "as": "category"}, "whose values name no category"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_input_is_told_with_what_to_do(
    values: pa.Array, entry: Any, said: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"x": values, "y": np.arange(ROWS) % 2}), tmp_path / "data.pq")
    with pytest.raises((DataError, RecipeError), match=said):
        prepare(config(tmp_path / "data.pq", [entry]), tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"column": "x", "unit": "hours"}, "`unit` is of `as: date`"),
        ({"column": "x", "as": "category", "decimal": ","}, "`decimal` is of `as: number`"),
        ({"column": "x", "as": "number", "most_common": 5}, "`most_common` is of `as: category`"),
        ({"column": "x", "thousands": "."}, "`thousands` and `decimal` are both '.'"),
        ({"column": "x", "as": "words"}, "Input should be 'number', 'category', 'date' or 'text'"),
    ],
)
def test_what_is_said_of_a_column_must_be_of_its_kind(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(Path("data.pq"), [entry])


def test_a_column_of_the_same_name_as_what_is_made_of_categories_is_refused(tmp_path: Path) -> None:
    table = pa.table({"categories": [[1.0, 2.0]] * 60, "c": ["u", "v"] * 30, "y": [0, 1] * 30})
    pq.write_table(table, tmp_path / "data.pq")
    with pytest.raises(RecipeError, match="'c' would be joined to `categories`, a column of its own"):
        look(config(tmp_path / "data.pq", ["categories", "c"]))
