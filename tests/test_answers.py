"""`collegium store export`: what teachers said, beside what the rows are; read by pandas' and Polars' own readers."""

import time
from pathlib import Path

import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.special import softmax

from orchestrator.cli.main import collegium
from teachers.config.transfer_set import SklearnSource, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.storage.seal import write_seal
from teachers.transfer_set.transfer_set import Segment, TransferSet

CLASSES = {"dense": ("a, b", "setosa", "2"), "label": ("0", "1", "2")}


def said_of(segment: Segment, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(segment.num_rows, 3)).astype(np.float32)


def a_store(out: Path, of: TransferSet, segment: Segment, teacher: str, *, seed: int, encoding: str = "dense") -> Path:
    spec = Spec(teacher, "0" * 64, segment.name, segment.digest, encoding, CLASSES[encoding], segment.num_rows, 16)  # type: ignore[arg-type]
    store = SoftTargetStore.create(out / "soft_targets" / f"{teacher}-{seed:012x}", spec)
    said, keys = said_of(segment, seed), of.keys(segment)
    for number in range(store.num_shards):
        first, rows = store.shard_rows(number)
        store.commit(number, keys[first : first + rows], {"logits": said[first : first + rows]})
    store.seal()
    return store.folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TransferSet]:
    """An OUT with iris, 30 of its labels, and what two teachers said of train and test."""
    out = tmp_path_factory.mktemp("out")
    source = SklearnSource(kind="sklearn", name="iris")
    config = TransferSetConfig(source=source, inputs="features", label="target", labelled=30)
    folder = out / "prepared" / "transfer_set-1"
    folder.mkdir(parents=True)
    transfer_set = prepare(config, folder)
    write_seal(folder, transfer_set.files())
    for number, segment in enumerate([*transfer_set.of("train"), *transfer_set.of("test")]):
        a_store(out, transfer_set, segment, "wide", seed=number)
        a_store(out, transfer_set, segment, "trees", seed=10 + number, encoding="label")
    return out, transfer_set


def export(*arguments: Path) -> str:
    done = CliRunner().invoke(collegium, ["store", "export", str(arguments[0]), "--parquet", str(arguments[1])])
    assert done.exit_code == 0, done.exception
    return done.output


def test_one_table_has_every_row_with_id_split_label_and_each_teachers_probabilities_by_class(
    out: tuple[Path, TransferSet], tmp_path: Path
) -> None:
    folder, rows = out
    export(folder, tmp_path / "all.parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    segments = [*rows.of("train"), *rows.of("test")]
    assert table["id"].to_pylist() == [each for s in segments for each in rows.ids(s).to_pylist()]
    assert table["split"].to_pylist() == [s.split for s in segments for _ in range(s.num_rows)]
    assert table["label"].to_pylist() == [rows.classes[label] for s in segments for label in rows.labels(s)]
    assert sum(table["labelled"].to_pylist()) == 30 + segments[1].num_rows
    logits = np.concatenate([said_of(segment, number) for number, segment in enumerate(segments)])
    expected = softmax(logits, axis=1)
    frame = polars.read_parquet(tmp_path / "all.parquet")
    found = frame["wide.probabilities"].struct.unnest()
    assert tuple(found.columns) == CLASSES["dense"] and np.allclose(found.to_numpy(), expected, atol=5e-3)
    assert np.allclose(np.stack(table["wide.logits"].to_pylist()), logits, atol=0.01)
    assert table["wide.class"].to_pylist() == [CLASSES["dense"][k] for k in expected.argmax(1)]
    said = np.concatenate([said_of(segment, 10 + number) for number, segment in enumerate(segments)]).argmax(1)
    assert (
        table["trees.class"].to_pylist() == [str(k) for k in said] and "trees.probabilities" not in table.column_names
    )


def test_a_folder_gets_a_file_for_each_segment(out: tuple[Path, TransferSet], tmp_path: Path) -> None:
    folder, rows = out
    export(folder, tmp_path / "each")
    files = {
        pq.read_table(file)["split"][0].as_py(): pq.read_table(file).num_rows for file in (tmp_path / "each").iterdir()
    }
    assert files == {"train": rows.of("train")[0].num_rows, "test": rows.of("test")[0].num_rows}


def test_one_store_is_exported_with_its_rows_and_a_copy_without_them_says_so(
    out: tuple[Path, TransferSet], tmp_path: Path
) -> None:
    folder, rows = out
    store = folder / "soft_targets" / f"wide-{0:012x}"
    export(store, tmp_path / "one.parquet")
    table = pq.read_table(tmp_path / "one.parquet")
    assert "label" in table.column_names and "trees.class" not in table.column_names
    (tmp_path / "copy").mkdir()
    store_copy = tmp_path / "copy" / "wide"
    import shutil

    shutil.copytree(store, store_copy)
    assert "id, split and label are left out" in export(store_copy, tmp_path / "copy.parquet")
    assert (
        pq.read_table(tmp_path / "copy.parquet")["sample_key"].to_numpy().tolist()
        == rows.keys(rows.of("train")[0]).tolist()
    )


def test_what_a_teacher_said_before_it_changed_stands_under_a_name_of_its_own(
    tmp_path: Path, out: tuple[Path, TransferSet]
) -> None:
    _, rows = out
    segment = rows.of("test")[0]
    older = a_store(tmp_path, rows, segment, "wide", seed=1)
    time.sleep(0.02)
    a_store(tmp_path, rows, segment, "wide", seed=2)
    export(tmp_path, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert np.allclose(np.stack(table["wide.logits"].to_pylist()), said_of(segment, 2), atol=0.01)
    assert f"wide-{older.name[-12:]}.logits" in table.column_names


def test_a_store_with_missing_shards_is_named(tmp_path: Path, out: tuple[Path, TransferSet]) -> None:
    _, rows = out
    store = a_store(tmp_path, rows, rows.of("test")[0], "wide", seed=1)
    next((store / "shards").iterdir()).unlink()
    done = CliRunner().invoke(collegium, ["store", "export", str(tmp_path), "--parquet", str(tmp_path / "t.parquet")])
    assert "1 of 2 shards are missing" in str(done.exception) and not (tmp_path / "t.parquet").exists()
