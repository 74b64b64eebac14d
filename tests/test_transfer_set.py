"""Laws of the prepared transfer set: splits that stay, one content for any way of reading, resume, segments that are kept."""

import math
import multiprocessing
import os
import pickle
import signal
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from teachers.config.transfer_set import SplitConfig, TransferSetConfig
from teachers.errors import DataError, StoreError
from teachers.preparing.moments import mean_and_std, moments
from teachers.preparing.prepare import prepare
from teachers.preparing.segments import rows_per_part
from teachers.preparing.splits import quotas, row_hashes, sample_keys, split_numbers
from teachers.transfer_set.columns import Column, content_hash
from teachers.transfer_set.transfer_set import NAME, SPLITS, TransferSet, segment_digest

NUMBERS, IMAGES = Column("x", "number", (1,), (), ()), Column("x", "image", (1, 1, 1), (), ())
FASHION = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist"


def table(rows: int, seed: int = 0, width: int = 3, classes: int = 3) -> pa.Table:
    random = np.random.default_rng(seed)
    features = pa.FixedSizeListArray.from_arrays(pa.array(random.normal(size=rows * width).astype(np.float32)), width)
    label = pa.array(random.integers(0, classes, rows))
    return pa.table({"name": [f"row-{seed}-{row}" for row in range(rows)], "x": features, "y": label})


def config(path: Path, **changes) -> TransferSetConfig:
    given = {"source": {"kind": "parquet", "path": str(path)}, "inputs": "x", "label": "y", "id": "name"}
    return TransferSetConfig.model_validate(given | changes)


def written(folder: Path, data: pa.Table, row_group_size: int | None = None, name: str = "data.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(data, folder / name, row_group_size=row_group_size)
    return folder / name


def contents(transfer_set: TransferSet) -> dict[str, bytes]:
    return {name: (transfer_set.folder / name).read_bytes() for name in transfer_set.files()}


def split_of_ids(transfer_set: TransferSet) -> dict[str, str]:
    return {name: s.split for s in transfer_set.segments for name in transfer_set.ids(s).to_pylist()}


def backwards(function, items):
    """A `run` that does the last item first, and sends everything through pickle as Ray does."""
    function, items = pickle.loads(pickle.dumps((function, list(items))))
    return reversed([pickle.loads(pickle.dumps(function(item))) for item in reversed(items)])


def colliding_id(difference: int) -> str:
    """Ids of 1,100 characters with the same xxh3_64: where a lane equals XXH3's secret, its product is 0."""
    text = bytearray(b"a" * 1100)
    text[896:904] = bytes([109 + difference]) + b"aaa\xcd\xb4Y1"
    text[448:456] = bytes([109 - difference]) + b"aa\xc3\x81:&L"
    return text.decode()


def test_what_was_prepared_is_what_the_source_held(tmp_path):
    data = table(500)
    prepared = prepare(config(written(tmp_path, data)), tmp_path / "out")
    features = np.array(data["x"].to_pylist(), np.float32)
    by_id = {name: (features[row], data["y"][row].as_py()) for row, name in enumerate(data["name"].to_pylist())}
    seen = 0
    for segment in prepared.segments:
        keys, ids = prepared.keys(segment), prepared.ids(segment).to_pylist()
        assert keys.tolist() == [xxhash.xxh3_64_intdigest(name.encode()) for name in ids] == sorted(keys.tolist())
        assert np.array_equal(prepared.inputs(segment)["x"], np.stack([by_id[name][0] for name in ids]))
        assert prepared.labels(segment).tolist() == [by_id[name][1] for name in ids]
        assert prepared.labelled(segment).all()
        seen += segment.num_rows
    assert seen == 500 and prepared.classes == ("0", "1", "2")
    assert prepared.report["rows"] == {split: prepared.of(split)[0].num_rows for split in SPLITS} | {"unused": 0}


def test_opening_gives_what_preparing_gave(tmp_path):
    prepared = prepare(config(written(tmp_path, table(50))), tmp_path / "out")
    assert TransferSet.open(tmp_path / "out") == prepared
    assert all((tmp_path / "out" / name).is_file() for name in prepared.files())
    on_disk = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert on_disk == set(prepared.files())


def test_mean_and_std_are_of_the_training_rows(tmp_path):
    prepared = prepare(config(written(tmp_path, table(300))), tmp_path / "out")
    train = prepared.inputs(prepared.of("train")[0])["x"].astype(np.float64)
    np.testing.assert_allclose(prepared.columns[0].mean, train.mean(0), rtol=1e-10)
    np.testing.assert_allclose(prepared.columns[0].std, train.std(0), rtol=1e-10)


def test_a_constant_feature_has_std_one():
    values = np.full((7, 2), 0.1, np.float32)
    values[:, 1] = np.arange(7)
    halves = [moments(values[:3], NUMBERS), moments(values[3:], NUMBERS)]
    mean, std = mean_and_std(halves)
    assert std == (1.0, 2.0) and mean == pytest.approx((0.1, 3.0))


def test_how_rows_are_cut_and_ordered_changes_no_bit_of_mean_and_std():
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(3000, 400)) * generator.lognormal(0, 3, 400)).astype(np.float32)
    whole = mean_and_std([moments(values, NUMBERS)])
    pieces = np.split(generator.permutation(values), [1, 700, 2100])
    assert mean_and_std([moments(piece, NUMBERS) for piece in pieces]) == whole
    np.testing.assert_allclose(whole, [values.mean(0, np.float64), values.std(0, dtype=np.float64)], rtol=1e-10)


@pytest.mark.parametrize("values", [[3e38, -3e38, 1e-45], [1e-45, 0, 0], [1 + 2**-23, 1, 1]])
def test_sums_of_the_largest_and_the_smallest_numbers_are_exact(values):
    column = np.array(values, np.float32)[:, None]
    (mean,), (std,) = mean_and_std([moments(column, NUMBERS)])
    exact = [Fraction(float(value)) for value in column[:, 0]]
    variance = sum(x * x for x in exact) / 3 - (sum(exact) / 3) ** 2
    assert mean == pytest.approx(float(sum(exact) / 3), rel=1e-11, abs=0)
    assert std == pytest.approx(math.sqrt(variance), rel=1e-11)


def test_image_moments_are_of_value_over_255():
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
    mean, std = mean_and_std([moments(images[:9], IMAGES), moments(images[9:], IMAGES)])
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-10)


@pytest.mark.parametrize(
    ("row_group_size", "chunk_rows", "run"), [(7, 1, map), (500, 3, backwards), (64, 100, backwards)]
)
def test_neither_chunks_nor_the_order_of_tasks_change_a_byte(tmp_path, row_group_size, chunk_rows, run):
    data = table(400)
    whole = prepare(config(written(tmp_path / "a", data), labelled=20), tmp_path / "whole")
    other = config(written(tmp_path / "b", data, row_group_size), labelled=20)
    pieces = prepare(other, tmp_path / "pieces", run=run, chunk_rows=chunk_rows)
    for segment, same in zip(whole.segments, pieces.segments, strict=True):
        assert segment == same
    assert contents(whole) == contents(pieces)


def test_rows_in_many_parts_are_in_one_order(tmp_path):
    data = table(1200, width=20_000)  # 92 MiB of features
    prepared = prepare(config(written(tmp_path, data)), tmp_path / "out")
    train = prepared.of("train")[0]
    assert len(train.parts) == 2 and all(part.bytes <= 64 * 2**20 for part in train.parts)
    assert np.all(np.diff(prepared.keys(train).astype(object)) > 0)
    on_disk = [pa.ipc.open_file(pa.memory_map(str(prepared.folder / part.path))).get_batch(0) for part in train.parts]
    assert np.array_equal(np.concatenate([batch["sample_key"].to_numpy() for batch in on_disk]), prepared.keys(train))
    border = train.parts[1].first_row
    across = prepared.inputs(train, border - 2, 5)["x"]
    assert np.array_equal(across, prepared.inputs(train)["x"][border - 2 : border + 3])
    assert prepared.input_rows(train)["x"].num_rows == train.num_rows


def test_a_digest_covers_keys_and_inputs_but_no_labels(tmp_path):
    data = table(200)
    first = prepare(config(written(tmp_path / "a", data)), tmp_path / "1")
    relabelled = data.set_column(2, "y", pa.array((data["y"].to_numpy() + 1) % 3))
    second = prepare(config(written(tmp_path / "b", relabelled)), tmp_path / "2")
    moved = data.set_column(1, "x", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(600, np.float32)), 3))
    third = prepare(config(written(tmp_path / "c", moved)), tmp_path / "3")
    assert [s.digest for s in first.segments] == [s.digest for s in second.segments]
    assert not {s.digest for s in first.segments} & {s.digest for s in third.segments}


def test_part_hashes_are_of_the_content_alone(tmp_path):
    prepared = prepare(config(written(tmp_path, table(100))), tmp_path / "out")
    for segment in prepared.segments:
        assert segment.parts[0].xxh3_128 == content_hash(prepared.keys(segment), prepared.inputs(segment))
        assert segment.digest == segment_digest(prepared.columns, 0, segment.parts)


def test_added_rows_move_no_other_row(tmp_path):
    before = prepare(config(written(tmp_path / "a", table(300))), tmp_path / "1")
    more = pa.concat_tables([table(200, seed=1), table(300)])
    after = prepare(config(written(tmp_path / "b", more)), tmp_path / "2")
    assert split_of_ids(before).items() <= split_of_ids(after).items()


def test_shares_are_met_within_chance_and_the_rest_is_left_out():
    keys = sample_keys([str(n) for n in range(20_000)], "")
    split = SplitConfig(train=0.5, validation=0.2, test=0.1)
    counts = np.bincount(split_numbers(keys, split, None), minlength=4) / len(keys)
    np.testing.assert_allclose(counts, [0.5, 0.2, 0.1, 0.2], atol=0.02)


def test_rows_that_no_share_takes_are_counted(tmp_path):
    split = {"train": 0.3, "validation": 0.2, "test": 0.2}
    prepared = prepare(config(written(tmp_path, table(400)), split=split), tmp_path / "out")
    rows = prepared.report["rows"]
    assert sum(rows.values()) == 400 and rows["unused"] > 60
    assert sum(segment.num_rows for segment in prepared.segments) == 400 - rows["unused"]


def test_another_seed_gives_another_split(tmp_path):
    path = written(tmp_path, table(300))
    splits = [split_of_ids(prepare(config(path, split={"seed": seed}), tmp_path / str(seed))) for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_a_group_is_never_divided(tmp_path):
    data = table(300).append_column("patient", pa.array([f"p{row % 40}" for row in range(300)]))
    prepared = prepare(config(written(tmp_path, data), split={"group_by": "patient"}), tmp_path / "out")
    patient = dict(zip(data["name"].to_pylist(), data["patient"].to_pylist(), strict=True))
    sides = {(patient[name], split) for name, split in split_of_ids(prepared).items()}
    assert len(sides) == 40 and {split for _, split in sides} == set(SPLITS)


def test_given_files_are_the_splits(tmp_path):
    for name, seed in (("train", 0), ("validation", 1), ("test", 2)):
        written(tmp_path / "data", table(40, seed), name=f"{name}.parquet")
    files = {name: f"{name}.parquet" for name in SPLITS}
    prepared = prepare(config(tmp_path / "data", split={"files": files}), tmp_path / "out")
    assert {name.split("-")[1]: split for name, split in split_of_ids(prepared).items()} == dict(
        zip("012", SPLITS, strict=True)
    )
    del files["validation"]
    shared = prepare(config(tmp_path / "data", split={"files": files, "validation": 0.3}), tmp_path / "shared")
    assert shared.of("test")[0].num_rows == 40
    assert 3 <= shared.of("validation")[0].num_rows <= 21
    assert shared.of("train")[0].num_rows + shared.of("validation")[0].num_rows == 40


def test_labelled_rows_are_stratified_and_depend_on_keys_and_seed_only(tmp_path):
    data = table(600)
    shuffled = data.take(pa.array(np.random.default_rng(5).permutation(600)))
    first = prepare(config(written(tmp_path / "a", data), labelled=30), tmp_path / "1")
    second = prepare(config(written(tmp_path / "b", shuffled), labelled=30), tmp_path / "2")
    train = first.of("train")[0]
    assert first.num_labelled == first.labelled(train).sum() == 30
    assert np.array_equal(first.labelled(train), second.labelled(second.of("train")[0]))
    shares = np.bincount(first.labels(train)) / train.num_rows * 30
    taken = np.bincount(first.labels(train)[first.labelled(train)])
    assert np.all(np.abs(shares - taken) < 1) and taken.tolist() == [*first.report["labelled_per_class"].values()]
    assert first.labelled(first.of("test")[0]).all()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(1, 120))
def test_quotas_use_every_label_asked_for_and_every_class(per_class, count):
    present = sum(rows > 0 for rows in per_class)
    count = min(count, sum(per_class))
    if count < present or not present:
        return
    wanted = quotas(per_class, count)
    assert sum(wanted) == count
    assert all(0 < want <= rows if rows else want == 0 for want, rows in zip(wanted, per_class, strict=True))


def test_fewer_labels_than_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="less than one row for each of the 3 classes"):
        prepare(config(written(tmp_path, table(100)), labelled=2), tmp_path / "out")


def test_more_labels_than_there_are_are_refused_with_how_many_there_are(tmp_path):
    source = written(tmp_path, table(100))
    there = int(
        (
            prepare(config(source), tmp_path / "all").labels(prepare(config(source), tmp_path / "all").of("train")[0])
            >= 0
        ).sum()
    )
    with pytest.raises(
        DataError, match=f"labelled: 10,000 labels of train rows may be used, and {there} train rows have one"
    ):
        prepare(config(source, labelled=10_000), tmp_path / "out")
    assert prepare(config(source, labelled=there), tmp_path / "just").num_labelled == there


def test_limit_takes_the_first_rows_of_each_split_in_key_order(tmp_path):
    path = written(tmp_path, table(400), row_group_size=50)
    for named in ({"id": "name"}, {"id": None}):
        whole = prepare(config(path, **named), tmp_path / f"whole-{named['id']}")
        short = prepare(config(path, limit=15, **named), tmp_path / f"short-{named['id']}", chunk_rows=50)
        for split in SPLITS:
            first, all_rows = short.of(split)[0], whole.of(split)[0]
            assert first.num_rows == 15
            assert np.array_equal(short.keys(first), whole.keys(all_rows)[:15])
            assert np.array_equal(short.inputs(first)["x"], whole.inputs(all_rows, 0, 15)["x"])


@pytest.mark.parametrize("row_id", [None, "name"])
def test_bad_rows_behind_the_limit_are_nobodys_business(tmp_path, row_id):
    data = table(400)
    clean = prepare(config(written(tmp_path / "a", data), id=row_id), tmp_path / "clean")
    train = clean.of("train")[0]
    ids, positions = clean.ids(train).to_pylist(), data["name"].to_pylist()
    features = np.array(data["x"].to_pylist(), np.float32)
    number = (
        {name: row for row, name in enumerate(positions)} if row_id else {f"data.parquet#{n}": n for n in range(400)}
    )
    features[number[ids[-1]]] = np.nan
    spoilt = data.set_column(1, "x", pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), 3))
    path = written(tmp_path / "b", spoilt)
    assert prepare(config(path, id=row_id, limit=20), tmp_path / "short").report["bad_rows"] == 0
    with pytest.raises(DataError, match="1 row cannot be used"):
        prepare(config(path, id=row_id), tmp_path / "long")


@pytest.fixture
def doubled(tmp_path):
    """(path, content of each id): 400 rows of which 150 have a twin and 50 two."""
    data = table(400)
    features = np.array(data["x"].to_pylist(), np.float32)
    features[150:350] = np.concatenate([features[:150], features[:50]])
    twice = data.set_column(1, "x", pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), 3))
    content = dict(zip(data["name"].to_pylist(), map(bytes, features), strict=True))
    return written(tmp_path, twice), content


def contents_by_split(prepared, content):
    """{split: [content of each of its rows]}."""
    return {split: [content[name] for name, own in split_of_ids(prepared).items() if own == split] for split in SPLITS}


def test_rows_of_two_splits_are_counted_by_split(doubled, tmp_path):
    path, content = doubled
    prepared = prepare(config(path), tmp_path / "out")
    rows = contents_by_split(prepared, content)
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    expected = {f"{one}/{other}": sum(row in set(rows[one]) for row in rows[other]) for one, other in pairs}
    assert prepared.report["duplicates_across_splits"] == expected
    assert min(expected.values()) > 2
    assert not any(prepared.report["dropped_duplicates"].values())


def test_dropped_duplicates_leave_the_test_rows_whole_and_nobody_has_learnt_or_chosen_with_them(doubled, tmp_path):
    path, content = doubled
    before = contents_by_split(prepare(config(path), tmp_path / "kept"), content)
    prepared = prepare(config(path, duplicates="drop", labelled=40), tmp_path / "dropped")
    after = contents_by_split(prepared, content)
    assert after["test"] == before["test"]
    assert after["validation"] == [row for row in before["validation"] if row not in set(before["test"])]
    elsewhere = {*before["test"], *before["validation"]}
    assert after["train"] == [row for row in before["train"] if row not in elsewhere]
    assert prepared.report["dropped_duplicates"] == {
        split: len(before[split]) - len(after[split]) for split in ("train", "validation")
    }
    assert prepared.num_labelled == 40


def test_a_split_that_is_nothing_but_copies_is_refused_with_the_cure(tmp_path):
    data = table(60)
    written(tmp_path / "rows", data, name="train.parquet")
    written(
        tmp_path / "rows", data.set_column(0, "name", pa.array([f"again-{n}" for n in range(60)])), name="test.parquet"
    )
    split = {"files": {"train": "train.parquet", "test": "test.parquet"}}
    source = {"kind": "parquet", "path": str(tmp_path / "rows")}
    with pytest.raises(DataError, match=r"no row is left in the split 'train'.*set transfer_set.duplicates: keep"):
        prepare(config(tmp_path, source=source, split=split, duplicates="drop"), tmp_path / "out")


def test_a_segment_keeps_the_group_of_every_row_and_a_row_without_one_is_its_own(tmp_path):
    path = written(tmp_path, table(200).append_column("who", pa.array([f"p{row % 23}" for row in range(200)])))
    who = {f"row-0-{row}": f"p{row % 23}" for row in range(200)}
    grouped = prepare(config(path, split={"group_by": "who"}), tmp_path / "grouped")
    for segment in grouped.segments:
        expected = sample_keys([who[name] for name in grouped.ids(segment).to_pylist()], "")
        assert np.array_equal(grouped.groups(segment), expected)
    alone = prepare(config(path), tmp_path / "alone")
    assert all(np.array_equal(alone.groups(segment), alone.keys(segment)) for segment in alone.segments)


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_rows_hash_alike_exactly_when_their_bytes_are_equal(width, seed):
    rows = np.random.default_rng(seed).integers(0, 3, (64, width), dtype=np.uint8)
    hashes = row_hashes([rows, rows[:, :1].astype(np.float32)])
    groups = Counter(row.tobytes() for row in rows)
    assert len(set(hashes.tolist())) == len(groups)


def test_ids_of_one_key_are_both_named_and_a_salt_is_the_cure(tmp_path):
    first, second = colliding_id(0), colliding_id(5)
    assert first != second and xxhash.xxh3_64_intdigest(first.encode()) == xxhash.xxh3_64_intdigest(second.encode())
    data = table(100).set_column(0, "name", pa.array([first, second, *(str(n) for n in range(98))]))
    path = written(tmp_path, data)
    with pytest.raises(DataError, match="the same sample_key") as raised:
        prepare(config(path), tmp_path / "out")
    assert first in str(raised.value) and second in str(raised.value) and "key_salt" in str(raised.value)
    assert prepare(config(path, key_salt="pepper"), tmp_path / "salted").report["rows"]["unused"] == 0


def test_an_id_that_is_there_twice_is_named_with_both_places(tmp_path):
    data = table(60).set_column(0, "name", pa.array([*(str(n) for n in range(59)), "7"]))
    with pytest.raises(DataError, match=r"'7' is there twice, at data.parquet#7 and data.parquet#59"):
        prepare(config(written(tmp_path, data)), tmp_path / "out")


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="no row in the split"):
        prepare(config(written(tmp_path, table(2))), tmp_path / "out")


class Killed(Exception):
    """Stands for the process that goes away."""


@pytest.mark.parametrize("killed_at", [0, 1, 4, 8, 9])
def test_a_killed_prepare_made_again_ends_with_the_same_files(tmp_path, killed_at):
    wanted = config(written(tmp_path, table(200), row_group_size=25), labelled=12)
    undisturbed = prepare(wanted, tmp_path / "whole", chunk_rows=25)
    calls = 0

    def dies(function, items):
        nonlocal calls
        for item in items:
            if calls == killed_at:
                raise Killed
            calls += 1
            yield function(item)

    with pytest.raises(Killed):
        prepare(wanted, tmp_path / "resumed", run=dies, chunk_rows=25)
    resumed = prepare(wanted, tmp_path / "resumed", chunk_rows=25)
    assert contents(resumed) == contents(undisturbed)
    on_disk = {path.relative_to(resumed.folder).as_posix() for path in resumed.folder.rglob("*") if path.is_file()}
    assert on_disk == set(resumed.files())


def test_a_chunk_that_was_read_before_the_kill_is_not_read_again(tmp_path):
    path = written(tmp_path, table(200), row_group_size=50)

    def stops_before_the_second_pass(function, items):
        if "write_part" in repr(function):
            raise Killed
        return map(function, items)

    with pytest.raises(Killed):
        prepare(config(path), tmp_path / "out", run=stops_before_the_second_pass, chunk_rows=50)
    runs = sorted((tmp_path / "out").glob(".pieces-*/run-*"))
    before = [run.stat().st_mtime_ns for run in runs]
    with pytest.raises(Killed):
        prepare(config(path), tmp_path / "out", run=stops_before_the_second_pass, chunk_rows=50)
    assert len(runs) == 4 and [run.stat().st_mtime_ns for run in runs] == before


def kill_self(function, items):
    for number, item in enumerate(items):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield function(item)


def test_sigkill_leaves_nothing_that_a_second_call_trips_over(tmp_path):
    wanted = config(written(tmp_path, table(200), row_group_size=25))
    context = multiprocessing.get_context("fork")
    child = context.Process(
        target=prepare, args=(wanted, tmp_path / "out"), kwargs={"run": kill_self, "chunk_rows": 25}
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(StoreError):
        TransferSet.open(tmp_path / "out")
    assert contents(prepare(wanted, tmp_path / "out")) == contents(prepare(wanted, tmp_path / "whole"))


def test_a_call_whose_pieces_another_call_removed_returns_the_others_outcome(tmp_path):
    wanted = config(written(tmp_path, table(100)))

    def overtaken(function, items):
        if "write_part" in repr(function):
            prepare(wanted, tmp_path / "out")
        return map(function, items)

    assert prepare(wanted, tmp_path / "out", run=overtaken) == TransferSet.open(tmp_path / "out")


def test_new_rows_form_new_segments_beside_the_old(tmp_path):
    old, new = table(300), table(150, seed=1)
    before = prepare(config(written(tmp_path / "a", old), labelled=20), tmp_path / "1")
    path = written(tmp_path / "b", pa.concat_tables([new, old]))
    after = prepare(config(path, labelled=20), tmp_path / "2", earlier=tmp_path / "1", run=backwards)
    assert [s.name for s in after.segments] == [
        "train-0",
        "train-1",
        "validation-0",
        "validation-1",
        "test-0",
        "test-1",
    ]
    for segment in before.segments:
        assert after.segment(segment.name) == segment
        assert np.array_equal(before.inputs(segment)["x"], after.inputs(segment)["x"])
        assert before.ids(segment).equals(after.ids(segment))
        part = segment.parts[0].path
        assert (before.folder / part).samefile(after.folder / part)
    fresh = prepare(config(path, labelled=20), tmp_path / "3")
    assert split_of_ids(after) == split_of_ids(fresh)
    assert (after.columns, after.num_labelled, after.report) == (fresh.columns, fresh.num_labelled, fresh.report)
    third = pa.concat_tables([new, old, table(80, seed=2)])
    last = prepare(config(written(tmp_path / "c", third), labelled=20), tmp_path / "4", earlier=tmp_path / "2")
    assert [s.name for s in last.of("train")] == ["train-0", "train-1", "train-2"]
    chosen = {name for s in fresh.of("train") for name in fresh.ids(s).filter(pa.array(fresh.labelled(s))).to_pylist()}
    same = {name for s in after.of("train") for name in after.ids(s).filter(pa.array(after.labelled(s))).to_pylist()}
    assert chosen == same


def test_without_new_rows_nothing_changes(tmp_path):
    path = written(tmp_path, table(100))
    before = prepare(config(path), tmp_path / "1")
    assert contents(prepare(config(path), tmp_path / "2", earlier=tmp_path / "1")) == contents(before)


@pytest.mark.parametrize("change", ["a row is gone", "a row changed", "the earlier set is damaged", "nothing is there"])
def test_when_an_old_row_is_not_what_it_was_everything_is_new(tmp_path, change):
    old = table(200)
    earlier = prepare(config(written(tmp_path / "a", old)), tmp_path / "1")
    if change == "a row is gone":
        old = old.slice(1)
    elif change == "a row changed":
        features = np.array(old["x"].to_pylist(), np.float32)
        features[17, 1] += 1
        old = old.set_column(1, "x", pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), 3))
    elif change == "the earlier set is damaged":
        part = tmp_path / "1" / earlier.of("train")[0].parts[0].path
        part.write_bytes(part.read_bytes()[:200])
    else:
        (tmp_path / "1" / NAME).unlink()
    path = written(tmp_path / "b", pa.concat_tables([old, table(50, seed=1)]))
    after = prepare(config(path), tmp_path / "2", earlier=tmp_path / "1")
    assert [s.name for s in after.segments] == ["train-0", "validation-0", "test-0"]
    assert contents(after) == contents(prepare(config(path), tmp_path / "3"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 8}', "format 8, this program reads 5; update"),
        ('{"format": 1}', "format 1, this program reads 5; remove its folder and run the recipe again"),
        ("{", "not readable as JSON"),
        ('{"format": 5}', "not a transfer"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(tmp_path, text, said):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(StoreError, match=said):
        TransferSet.open(tmp_path)


def test_a_damaged_part_is_named(tmp_path):
    prepared = prepare(config(written(tmp_path, table(100))), tmp_path / "out")
    segment = prepared.of("train")[0]
    path = tmp_path / "out" / segment.parts[0].path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"000000.arrow: cannot be read"):
        prepared.inputs(segment)


def test_a_part_holds_at_most_64_mib_whatever_a_row_weighs():
    for shape in [(1,), (784,), (20_000,), (40_000_000,)]:
        rows = rows_per_part([Column("x", "number", shape, (), ())])
        assert rows == 1 or rows * (8 + 4 * shape[0]) < 64 * 2**20


@pytest.mark.skipif(not FASHION.is_dir(), reason="Fashion-MNIST is not in ../shared/data")
def test_fashion_mnist_is_prepared_from_its_parquet_files(tmp_path):
    given = {
        "source": {"kind": "parquet", "path": str(FASHION)},
        "inputs": "image",
        "label": "label",
        "split": {"files": {"train": "train.parquet", "test": "test.parquet"}, "validation": 0.1},
        "limit": 200,
    }
    prepared = prepare(TransferSetConfig.model_validate(given), tmp_path / "out")
    assert prepared.classes[0] == "T-shirt/top" and len(prepared.classes) == 10
    assert prepared.columns[0].shape == (28, 28, 1)
    assert prepared.columns[0].mean[0] == pytest.approx(0.286, abs=0.02)
    source = {
        name: pq.read_table(FASHION / f"{name}.parquet", columns=["label"])["label"] for name in ("train", "test")
    }
    for segment in prepared.segments:
        ids = [name.split("#") for name in prepared.ids(segment).to_pylist()]
        assert segment.num_rows == 200 and {name for name, _ in ids} == {
            "test.parquet" if segment.split == "test" else "train.parquet"
        }
        labels = [source[name.removesuffix(".parquet")][int(row)].as_py() for name, row in ids]
        assert prepared.labels(segment).tolist() == labels
