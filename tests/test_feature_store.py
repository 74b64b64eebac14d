"""Stores with features beside the answers: what float16 holds comes back, and what the store promises holds of them too."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.store import store as store_command
from teachers.errors import StoreError, TeacherError
from teachers.soft_targets.encodings.features import LARGEST, bytes_of
from teachers.soft_targets.listing import describe
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import repair, verify
from teachers.transfer_set.answers import answered_segments, write_answers

MAPS, MEAN = Output.of_layer("maps", (3, 2, 2)), Output.of_layer("mean", (3,))


def a_spec(*more: Output, encoding: str = "dense") -> Spec:
    return Spec("wide", "4ea1", "train-0", "51de", encoding, ("a", "b"), 100, 64, more=more)  # type: ignore[arg-type]


def said() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    maps = draw.normal(scale=20, size=(100, 3, 2, 2)).astype(np.float32)
    return {"logits": draw.normal(size=(100, 2)).astype(np.float32), "maps": maps, "mean": maps.mean((2, 3))}


def filled(folder: Path, spec: Spec, **changed: np.ndarray) -> SoftTargetStore:
    store, keys = SoftTargetStore.create(folder, spec), np.arange(100, dtype=np.uint64)
    given = {name: (said() | changed)[name] for name in spec.named}
    for number in store.missing():
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {name: it[first : first + num] for name, it in given.items()})
    return store


@pytest.mark.parametrize("encoding", ["dense", "label"])
def test_features_come_back_within_float16(tmp_path: Path, encoding: str) -> None:
    filled(tmp_path, a_spec(MAPS, MEAN, encoding=encoding)).seal()
    stored = SoftTargets.open(tmp_path)
    found = stored.said(output=stored.spec.layers["maps"]).reshape(-1, 3, 2, 2)
    np.testing.assert_allclose(found.numpy(), said()["maps"], rtol=2**-10)
    assert stored.rows(stored.spec.layers["mean"])["value"].shape == (3,)
    assert stored.rows(stored.spec.layers["mean"])["value"].dtype == torch.float16
    assert SoftTargetStore.open(tmp_path).spec == a_spec(MAPS, MEAN, encoding=encoding)
    assert SoftTargetStore.open(tmp_path).spec.outputs["maps"] == {
        "kind": "half",
        "shape": [3, 2, 2],
        "dtype": "float16",
    }
    assert verify(SoftTargetStore.open(tmp_path)) == []


def test_a_row_takes_two_bytes_a_feature_more(tmp_path: Path) -> None:
    with_features, without = (filled(tmp_path / name, spec) for name, spec in (("a", a_spec(MAPS)), ("b", a_spec())))
    more = sum(a.record(n).bytes - b.record(n).bytes for a, b in [(with_features, without)] for n in range(2))
    assert bytes_of(MAPS.shape) == 24
    assert 100 * 24 <= more < 100 * 24 + 4096  # the schema, and lines of 64 bytes


def test_a_store_without_features_is_what_it_was(tmp_path: Path) -> None:
    document = json.loads((filled(tmp_path, a_spec()).folder / "spec.json").read_bytes())
    assert document["more"] == [] and [*document["outputs"]] == ["logits"]


@pytest.mark.parametrize("output", [MAPS, Output.of_layer("maps", (12,)), Output.of_layer("other", (3, 2, 2))])
def test_a_store_of_other_features_is_refused(tmp_path: Path, output: Output) -> None:
    SoftTargetStore.create(tmp_path, a_spec(MEAN))
    with pytest.raises(StoreError, match="stores are never mixed"):
        SoftTargetStore.create(tmp_path, a_spec(output))


def test_what_float16_does_not_hold_is_refused_naming_the_row(tmp_path: Path) -> None:
    mean = said()["mean"]
    mean[70, 1] = -70_000
    with pytest.raises(
        TeacherError, match=r"values beyond 65,504.* as mean for 1 of 36 rows; .*: 70; name a layer behind"
    ):
        filled(tmp_path / "a", a_spec(MEAN), mean=mean)
    mean[70, 1] = np.nan
    with pytest.raises(TeacherError, match=r"NaN or infinite values as mean for 1 of 36 rows; .*: 70$"):
        filled(tmp_path / "b", a_spec(MEAN), mean=mean)
    mean[70, 1] = LARGEST
    filled(tmp_path / "c", a_spec(MEAN), mean=mean)
    stored = SoftTargets.open(tmp_path / "c")
    assert stored.said(output=MEAN)[70, 1] == LARGEST


def test_features_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gave \[64, 3, 4\] values as maps, \[64, 3, 2, 2\] expected"):
        filled(tmp_path, a_spec(MAPS), maps=said()["maps"].reshape(100, 3, 4))


def test_a_flipped_bit_of_a_feature_is_found_and_repaired(tmp_path: Path) -> None:
    store = filled(tmp_path / "s", a_spec(MAPS))
    digest, shard = store.seal().digest, store.shard_file(1)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    damages = verify(store)
    assert [damage.path for damage in damages] == [f"shards/{shard.name}"]
    assert repair(store, tmp_path / "away", damages) == [1]
    assert filled(tmp_path / "s", a_spec(MAPS)).seal().digest == digest


def test_features_are_listed_and_exported(tmp_path: Path) -> None:
    folder = tmp_path / "soft_targets" / "wide-1"
    filled(folder, a_spec(MAPS)).seal()
    assert describe(folder)["outputs"] == {"maps": [3, 2, 2]}
    listed = CliRunner().invoke(store_command, ["ls", str(tmp_path)])
    assert "sealed  + maps [3, 2, 2]" in listed.output
    write_answers([*answered_segments([folder], tmp_path / "prepared")], tmp_path / "all.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    found = np.array(table["wide.maps"].to_pylist()).reshape(100, 3, 2, 2)
    np.testing.assert_allclose(found, said()["maps"], rtol=2**-10)
