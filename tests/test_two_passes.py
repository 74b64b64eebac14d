"""Laws of preparing in bounded memory: the budget decides no byte, the driver hears of no row, a kill leaves nothing behind."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, EnvironmentUnfit
from teachers.preparing.budget import BYTES, budget
from teachers.preparing.census import Census
from teachers.preparing.ledger import Ledger
from teachers.preparing.prepare import prepare
from teachers.preparing.selection import at_places
from teachers.preparing.sums import summed
from teachers.transfer_set.transfer_set import SPLITS, TransferSet

TINY = "80000"
"""Bytes: a census of 240 rows, runs of about a hundred."""


def write(path: Path, rows: int, first: int = 0) -> Path:
    """Rows with everything in them that is decided over all of them: few values, rare classes, groups, labels that are missing."""
    random = np.random.default_rng(first)
    words = np.array(["red", "green", "blue", None])
    columns = {
        "name": [f"row-{row}" for row in range(first, first + rows)],
        "who": [f"p{row % 97}" for row in range(rows)],
        "x": pa.FixedSizeListArray.from_arrays(pa.array(random.integers(0, 6, rows * 4).astype(np.float32)), 4),
        "colour": pa.array(words[random.integers(0, 4, rows)], pa.string()),
        "said": [" ".join(["word"] * int(n)) for n in random.integers(0, 30, rows)],
        "class": pa.array(np.array(["cat", "dog", "owl", None])[random.choice(4, rows, p=[0.6, 0.3, 0.01, 0.09])]),
        "number": random.normal(size=rows),
        "tags": [";".join(tag for tag in "xyz" if random.random() < 0.3) for _ in range(rows)],
    }
    pq.write_table(pa.table(columns), path, row_group_size=171)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("source") / "rows.parquet", 3000)


def config(path: Path, **changes: Any) -> TransferSetConfig:
    given = {"source": {"kind": "parquet", "path": str(path)}, "inputs": "x", "label": "class", "id": "name"}
    return TransferSetConfig.model_validate(given | changes)


def contents(prepared: TransferSet) -> dict[str, bytes]:
    return {name: (prepared.folder / name).read_bytes() for name in prepared.files()}


def pickled(function: Any, items: Iterable[Any]) -> Iterator[Any]:
    """A `run` that sends everything through pickle, as Ray does, and does the last item first."""
    function, items = pickle.loads(pickle.dumps((function, list(items))))
    return reversed([pickle.loads(pickle.dumps(function(item))) for item in reversed(items)])


COLOUR = {"column": "colour", "missing": "allow"}
WANTED: dict[str, dict[str, Any]] = {
    "plain": {"inputs": ["number", COLOUR], "labelled": {"train": 200, "validation": 60, "teachers": 100}},
    "groups": {"split": {"group_by": "who", "train": 0.5, "validation": 0.2, "test": 0.1}},
    "duplicates": {"duplicates": "drop", "labelled": 150},
    "limit": {"limit": 400, "split": {"stratify": True}},
    "limit-by-position": {"limit": 300, "id": None, "split": {"stratify": False}},
    "text": {"inputs": [{"column": "said", "as": "text", "missing": "allow"}]},
    "numbers": {"task": "regression", "label": ["number"], "labelled": 700},
    "tags": {
        "task": "multilabel",
        "label": "tags",
        "label_separator": ";",
        "labelled": 90,
        "split": {"stratify": True},
    },
    "munge": {"inputs": ["number", COLOUR], "munge": {"factor": 0.5}},
}


@pytest.mark.parametrize("name", WANTED)
def test_the_budget_changes_no_byte(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    at_once = prepare(config(source, **WANTED[name]), tmp_path / "at-once")
    monkeypatch.setenv(BYTES, TINY)
    assert contents(prepare(config(source, **WANTED[name]), tmp_path / "parts", run=pickled)) == contents(at_once)


def test_rows_beside_and_bad_rows_are_the_same_whatever_the_budget(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = pq.read_table(write(tmp_path / "more.parquet", 700, first=5000))
    spoilt = more["number"].to_numpy().copy()
    spoilt[::7] = np.inf
    pq.write_table(more.set_column(6, "number", pa.array(spoilt)), tmp_path / "more.parquet")
    beside = {"kind": "parquet", "path": str(tmp_path / "more.parquet")}
    wanted = config(source, inputs=["number", "x"], extra=beside, on_bad_row="skip", duplicates="drop")
    at_once = prepare(wanted, tmp_path / "at-once")
    assert at_once.report["bad_rows"] == 100
    monkeypatch.setenv(BYTES, TINY)
    assert contents(prepare(wanted, tmp_path / "parts", run=pickled)) == contents(at_once)
    twice = config(source, inputs=["number", "x"], extra={"kind": "parquet", "path": str(source)})
    with pytest.raises(DataError, match=r"the id 'row-\d+' is there twice"):
        prepare(twice, tmp_path / "twice", run=pickled)


def test_segments_are_kept_and_new_rows_told_apart_range_by_range(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pq.read_table(source).slice(900), tmp_path / "fewer.parquet")
    before = prepare(config(tmp_path / "fewer.parquet"), tmp_path / "before")
    at_once = prepare(config(source), tmp_path / "at-once", earlier=before.folder)
    monkeypatch.setenv(BYTES, TINY)
    parts = prepare(config(source), tmp_path / "parts", earlier=before.folder, run=pickled)
    assert contents(parts) == contents(at_once)
    assert [segment.name for segment in parts.of("train")] == ["train-0", "train-1"]
    assert [parts.segment(f"{split}-0") for split in SPLITS] == [before.segment(f"{split}-0") for split in SPLITS]


def test_less_comes_back_to_the_driver_than_a_key_of_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 20_000
    path, passed = write(tmp_path / "rows.parquet", rows), list[int]()

    def listening(function: Any, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            result = function(item)
            passed.append(len(pickle.dumps((item, result))))
            yield result

    monkeypatch.setenv(BYTES, "1MB")
    prepared = prepare(config(path, inputs=["number"], labelled=5000), tmp_path / "out", run=listening)
    assert sum(segment.num_rows for segment in prepared.segments) == rows
    assert sum(passed) < 8 * rows / 2


def test_there_are_as_many_runs_as_memory_needs_whatever_the_files(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for number in range(60):
        write(tmp_path / "rows" / f"{number}.parquet", 20, first=20 * number)
    found: list[int] = []

    def counting(function: Any, items: Iterable[Any]) -> Iterable[Any]:
        found.append(len([*(tmp_path / "out").glob(".pieces-*/run-*")]))
        return map(function, items)

    prepare(config(tmp_path / "rows"), tmp_path / "out", run=counting)
    assert max(found) == 1


def killed_in(name: str) -> Callable[[Any, Iterable[Any]], Iterator[Any]]:
    """A `run` that ends its process in the second item that a function of this name is given."""

    def run(function: Any, items: Iterable[Any]) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 1 and name in repr(function):
                os.kill(os.getpid(), signal.SIGKILL)
            yield function(item)

    return run


@pytest.mark.parametrize("name", ["_taken", "_written", "_compared", "write_part", "gather_rows"])
def test_after_a_kill_in_any_pass_the_same_call_ends_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = config(source, duplicates="drop", labelled=150)
    at_once = prepare(wanted, tmp_path / "at-once")
    monkeypatch.setenv(BYTES, TINY)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=prepare, args=(wanted, tmp_path / "out"), kwargs={"run": killed_in(name)})
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert contents(prepare(wanted, tmp_path / "out")) == contents(at_once)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == set(at_once.files())


@pytest.mark.parametrize("said", ["much", "0", "-5GB"])
def test_a_budget_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(BYTES, said)
    with pytest.raises(EnvironmentUnfit, match=f"{BYTES} is '{said}'"):
        budget()


@given(st.integers(1, 400), st.integers(0, 2**32), st.booleans())
def test_a_place_among_hashes_is_that_of_the_sorted_ones(rows: int, seed: int, crowded: bool) -> None:
    random = np.random.default_rng(seed)
    keys = random.integers(0, 2**40 if crowded else 2**64, rows, np.uint64, endpoint=False)
    strata = random.integers(0, 3, rows).astype(np.int32)
    nothing = np.zeros(rows, np.uint32)
    split = np.zeros(rows, np.uint8)
    census = Census(keys, keys, split, strata, keys, nothing, nothing, nothing, np.ones(rows, bool))
    counts = np.bincount(strata, minlength=3)
    places = np.where(counts > 0, random.integers(0, np.maximum(counts, 1)), -1)
    found = at_places(Ledger.of(census), lambda held: (held.strata, held.keys), places, counts)
    for number, place in enumerate(places.tolist()):
        assert place < 0 or found[number] == np.sort(keys[strata == number])[place]


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_a_sum_of_parts_is_to_the_last_bit_that_of_the_whole(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.normal(size=count) * 10.0 ** random.integers(-8, 8, count)
    parts = np.split(numbers, np.sort(random.integers(0, count + 1, 4)))
    assert summed(iter(parts), count) == np.add.reduce(numbers)
