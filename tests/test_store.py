"""The store is never wrong and never loses a row: laws of its files."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import get_args

import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachers.config.any_teacher import EncodingName
from teachers.config.task import AnswerName
from teachers.errors import EnvironmentUnfit, StoreError, TeacherError
from teachers.soft_targets.encodings.table import ENCODINGS, bytes_per_row, decode
from teachers.soft_targets.listing import describe, find_stores
from teachers.soft_targets.schema import Commit, Output, Spec, parse, rows_per_shard, spell
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import collect_garbage, repair, verify
from teachers.storage.seal import NAME as SEAL
from tests import warm

CLASSES = tuple("abcdefg")


def a_spec(num_rows: int = 300, encoding: EncodingName = "dense", rows: int = 64, *more: Output) -> Spec:
    return Spec("wide", "4ea1", "train-0", "51de", encoding, CLASSES, num_rows, rows, more=more)


def keys_of(spec: Spec) -> np.ndarray:
    return np.sort(np.random.default_rng(1).integers(2**64 - 1, size=spec.num_rows, dtype=np.uint64))


def logits_of(spec: Spec) -> np.ndarray:
    return np.random.default_rng(2).normal(scale=4, size=(spec.num_rows, len(CLASSES))).astype(np.float32)


def fill(store: SoftTargetStore, numbers: list[int] | None = None) -> SoftTargetStore:
    keys, said = keys_of(store.spec), {"logits": logits_of(store.spec)}
    for name, output in store.spec.layers.items():
        said[name] = np.random.default_rng(3).normal(size=(store.spec.num_rows, *output.shape))
    for number in store.missing() if numbers is None else numbers:
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {name: it[first : first + num] for name, it in said.items()})
    return store


def a_store(folder: Path, spec: Spec | None = None) -> SoftTargetStore:
    return fill(SoftTargetStore.create(folder, spec or a_spec()))


def stored_keys(store: SoftTargetStore) -> np.ndarray:
    files = [store.shard_file(number) for number in range(store.num_shards)]
    return pa.dataset.dataset(files, format="ipc").to_table(columns=["sample_key"])["sample_key"].to_numpy()


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damages(folder: Path) -> list[object]:
    """What a person sees who runs `store verify` on a folder."""
    try:
        return list(verify(SoftTargetStore.open(folder)))
    except StoreError as error:
        return [error]


def flip(path: Path, offset: int, mask: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


def test_every_encoding_of_a_recipe_is_there():
    assert set(ENCODINGS) == set(get_args(AnswerName))
    assert {name for kept in ENCODINGS.values() for name in kept} == set(get_args(EncodingName))


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_shards_are_neither_too_large_to_share_nor_too_small(num_rows: int, row_bytes: int):
    rows = rows_per_shard(num_rows, row_bytes)
    assert 1 <= rows <= 65_536
    assert rows * row_bytes <= 64 << 20
    assert rows >= 64 or rows == (64 << 20) // row_bytes
    assert num_rows <= 64 * rows or rows in (65_536, (64 << 20) // row_bytes)


@given(st.integers(1, 2000), st.integers(1, 300))
def test_the_shards_of_a_store_are_its_rows_each_once(num_rows: int, rows: int):
    spec = a_spec(num_rows, rows=rows)
    ranges = [range(first, first + num) for first, num in map(spec.shard_rows, range(spec.num_shards))]
    assert [row for part in ranges for row in part] == list(range(num_rows))


def test_dense_gives_back_the_logits_at_any_temperature_and_label_the_class():
    logits = torch.from_numpy(logits_of(a_spec()))
    dense = decode("dense", ENCODINGS["class_axis"]["dense"].encode(logits), width=7)
    for temperature in (1.0, 4.0):
        difference = torch.softmax(dense / temperature, 1) - torch.softmax(logits / temperature, 1)
        assert difference.abs().max() < 1e-3
    label = decode("label", ENCODINGS["class_axis"]["label"].encode(logits), width=7, probability_floor=0.07)
    assert torch.equal(label.argmax(1), logits.argmax(1))
    assert torch.allclose(label.exp().amax(1), torch.tensor(0.94))
    assert torch.allclose(label.exp().sum(1), torch.tensor(1.0))


def test_huge_logits_stay_finite():
    logits = torch.tensor([[3e38, -3e38, 0.0], [0.0, -1e5, 1e30]])
    fields = ENCODINGS["class_axis"]["dense"].encode(logits)
    assert all(values.isfinite().all() for values in fields.values())
    assert torch.equal(fields["value"].argmax(1), logits.argmax(1))


def test_a_row_takes_the_bytes_that_its_encoding_says(tmp_path: Path):
    for encoding in get_args(EncodingName):
        store = a_store(tmp_path / encoding, a_spec(20_000, encoding, rows=20_000))
        assert abs(store.record(0).bytes / 20_000 - bytes_per_row(encoding, len(CLASSES))) < 0.2


def test_creating_twice_is_opening_and_another_spec_is_refused(tmp_path: Path):
    store = a_store(tmp_path)
    assert SoftTargetStore.create(tmp_path, a_spec()).missing() == []
    with pytest.raises(StoreError, match="never mixed"):
        SoftTargetStore.create(tmp_path, replace(store.spec, teacher_digest="other"))
    with pytest.raises(StoreError, match="not a soft-target store"):
        SoftTargetStore.open(tmp_path / "commits")


def test_a_newer_format_is_refused_naming_both(tmp_path: Path):
    a_store(tmp_path)
    document = parse((tmp_path / "spec.json").read_bytes())
    (tmp_path / "spec.json").write_bytes(spell(document | {"format": 3}))
    with pytest.raises(StoreError, match="format 3, this program reads 2; update"):
        SoftTargetStore.open(tmp_path)


def test_committing_again_changes_nothing(tmp_path: Path):
    store = a_store(tmp_path)
    before = {path: path.read_bytes() for path in every_file(tmp_path)}
    first, num = store.shard_rows(1)
    other = store.commit(1, keys_of(store.spec)[first : first + num], {"logits": np.zeros((num, 7), np.float32)})
    assert other == store.record(1)
    assert {path: path.read_bytes() for path in every_file(tmp_path)} == before


def test_values_that_are_not_finite_are_refused_naming_their_keys(tmp_path: Path):
    store = SoftTargetStore.create(tmp_path, a_spec())
    keys, logits = keys_of(store.spec)[:64], logits_of(store.spec)[:64]
    logits[3, 2], logits[40, 0], logits[41] = np.nan, np.inf, -np.inf
    with pytest.raises(TeacherError, match=f"'wide'.* 3 of 64 rows.*{keys[3]}, {keys[40]}, {keys[41]}$"):
        store.commit(0, keys, {"logits": logits})
    with pytest.raises(TeacherError, match="64 of 64 rows"):
        store.commit(0, keys, {"logits": np.full((64, 7), 1e300)})
    assert len(store.missing()) == store.num_shards
    assert not list(tmp_path.glob("shards/*"))


def test_rows_that_are_not_the_shards_are_refused(tmp_path: Path):
    store = SoftTargetStore.create(tmp_path, a_spec())
    keys, logits = keys_of(store.spec)[:64], logits_of(store.spec)[:64]
    with pytest.raises(StoreError, match="takes 64 keys uint64"):
        store.commit(0, keys[:63], {"logits": logits[:63]})
    with pytest.raises(StoreError, match="each key once"):
        store.commit(0, keys[[0, *range(63)]], {"logits": logits})
    with pytest.raises(StoreError, match=r"gave \[64, 5\]"):
        store.commit(0, keys, {"logits": logits[:, :5]})
    with pytest.raises(IndexError):
        store.commit(5, keys, {"logits": logits})


def test_a_store_is_sealed_only_when_whole_and_the_digest_names_the_content(tmp_path: Path):
    digests = set()
    for name, numbers in (("forth", [0, 1, 2, 3, 4]), ("back", [4, 3, 2, 1, 0])):
        store = SoftTargetStore.create(tmp_path / name, a_spec())
        fill(store, numbers[:4])
        with pytest.raises(StoreError, match=r"\(1 in all\) are missing"):
            store.seal()
        fill(store, numbers[4:])
        digests.add(store.seal().digest)
        assert store.seal().digest in digests
    assert len(digests) == 1
    other = a_store(tmp_path / "other", replace(a_spec(), teacher_digest="other")).seal().digest
    assert other not in digests


def test_a_key_may_not_be_in_two_shards(tmp_path: Path):
    store = SoftTargetStore.create(tmp_path, a_spec(128))
    keys, logits = keys_of(store.spec), logits_of(store.spec)
    store.commit(0, keys[:64], {"logits": logits[:64]})
    store.commit(1, keys[63:127], {"logits": logits[64:]})
    with pytest.raises(StoreError, match="shards 0 and 1 overlap"):
        store.seal()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("encoding", get_args(EncodingName))
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, encoding: EncodingName, sealed: bool):
    store = a_store(tmp_path, a_spec(130, encoding))
    if sealed:
        store.seal()
    assert damages(tmp_path) == []
    rng = random.Random(7)
    for path in every_file(tmp_path):
        whole = path.read_bytes()
        edges = [0, 1, len(whole) - 2, len(whole) - 1]
        for offset in edges + rng.sample(range(len(whole)), 60):
            flip(path, offset, rng.randrange(1, 256))
            found = damages(tmp_path)
            assert found, f"{path.name} at {offset}"
            assert path.name in str(found[0])
            path.write_bytes(whole)
    assert damages(tmp_path) == []


def test_a_change_that_json_does_not_see_is_found_too(tmp_path: Path):
    a_store(tmp_path, a_spec(130)).seal()
    a_store(tmp_path / "growing", a_spec(130))
    for path in [tmp_path / "spec.json", tmp_path / "growing" / "commits" / "000001.json", tmp_path / SEAL]:
        whole = path.read_bytes()
        for offset in [at for at, byte in enumerate(whole) if byte == ord(" ")]:
            flip(path, offset, ord(" ") ^ ord("\t"))
            growing = tmp_path / "growing"
            assert damages(growing if growing in path.parents else tmp_path), f"{path.name} at {offset}"
            path.write_bytes(whole)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_cut_or_longer_file_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.mktemp("store")
    a_store(folder, a_spec(130)).seal()
    path = data.draw(st.sampled_from(every_file(folder)))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))] if data.draw(st.booleans()) else whole + b" ")
    assert damages(folder)


def test_missing_files_of_a_sealed_store_are_found(tmp_path: Path):
    for number, pattern in enumerate(("shards/000002-*", "MANIFEST.arrow", "spec.json")):
        folder = tmp_path / str(number)
        a_store(folder).seal()
        next(folder.glob(pattern)).unlink()
        assert damages(folder)


def test_repair_takes_away_what_is_damaged_and_the_rebuilt_store_has_the_same_digest(tmp_path: Path):
    folder, quarantine = tmp_path / "wide-1", tmp_path / "quarantine"
    store = a_store(folder)
    digest = store.seal().digest
    assert repair(store, quarantine, verify(store)) == []
    flip(store.shard_file(1), 700)
    store.shard_file(3).unlink()
    assert repair(store, quarantine, verify(store)) == [1, 3]
    assert not (folder / SEAL).exists()
    assert store.missing() == [1, 3]
    assert verify(store) == []
    moved = sorted(path.name[:6] for path in quarantine.rglob("*.*") if path.is_file())
    assert moved == ["000001", "SEAL.j"]
    assert fill(store).seal().digest == digest


@pytest.mark.parametrize("name", [SEAL, "spec.json"])
def test_a_damaged_seal_or_spec_costs_no_label(tmp_path: Path, name: str):
    store = a_store(tmp_path / "store")
    digest = store.seal().digest
    flip(tmp_path / "store" / name, 30)
    assert repair(store, tmp_path / "quarantine", verify(store)) == []
    assert store.missing() == []
    assert store.seal().digest == digest
    assert damages(tmp_path / "store") == []


def test_a_store_damaged_before_it_is_sealed_heals_by_committing_again(tmp_path: Path):
    store = a_store(tmp_path)
    digest = a_store(tmp_path / "whole").seal().digest
    flip(store.shard_file(0), 900)
    flip(tmp_path / "commits" / "000002.json", 50)
    store.shard_file(4).unlink()
    with pytest.raises(StoreError, match=r"shards \[2, 4\]"):
        store.seal()
    assert store.missing() == [2, 4]
    assert store.missing(hashes=True) == [0, 2, 4]
    assert fill(store, [0, 2, 4]).seal().digest == digest


@pytest.mark.parametrize("xxh3_128", ["/../../../../other", "../other", 5, None])
def test_a_record_cannot_name_a_file_outside_the_store(tmp_path: Path, xxh3_128: object):
    store = a_store(tmp_path / "store")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.arrow").write_bytes(b"secret")
    path = tmp_path / "store" / "commits" / "000000.json"
    document = parse(path.read_bytes())
    for named in ("../other/file.arrow", f"shards/000000-{xxh3_128}.arrow", "/etc/passwd"):
        path.write_bytes(spell(document | {"path": named, "xxh3_128": xxh3_128}))
        assert damages(store.folder)
        with pytest.raises(StoreError):
            store.shard_file(0)


def test_a_linked_folder_outside_the_store_is_refused(tmp_path: Path):
    store = a_store(tmp_path / "store")
    shutil.move(tmp_path / "store" / "shards", tmp_path / "elsewhere")
    (tmp_path / "store" / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="leaves the folder"):
        store.missing()


def test_garbage_is_what_no_record_names_once_it_is_old(tmp_path: Path):
    store = a_store(tmp_path)
    orphan = tmp_path / "shards" / "000001-0123456789abcdef.arrow"
    draft = tmp_path / "commits" / ".draft-1"
    for path in (orphan, draft):
        path.write_bytes(b"?")
    assert collect_garbage(store, grace_s=60) == []
    long_ago = time.time() - 3600
    for path in every_file(tmp_path):
        os.utime(path, (long_ago, long_ago))
    assert collect_garbage(store, grace_s=60) == sorted([orphan, draft])
    assert verify(store) == []
    flip(tmp_path / "commits" / "000002.json", 20)
    assert collect_garbage(store, grace_s=60) == [], "the shard of a damaged record may be all that is left of it"


def test_an_orphan_that_becomes_a_shard_is_young_again(tmp_path: Path):
    store = a_store(tmp_path)
    shard = store.shard_file(0)
    (tmp_path / "commits" / "000000.json").unlink()
    os.utime(shard, (0, 0))
    fill(store)
    assert time.time() - shard.stat().st_mtime < 60


def test_pyarrow_and_polars_read_the_shards_without_us(tmp_path: Path):
    store = a_store(tmp_path)
    (tmp_path / "shards" / ".draft-of-a-killed-writer").write_bytes(b"half")
    logits = logits_of(store.spec)
    table = pa.dataset.dataset(tmp_path / "shards", format="ipc").to_table()
    value = table["logits.value"].combine_chunks().flatten().to_numpy().reshape(-1, 7).astype(np.float32)
    assert np.array_equal(table["sample_key"].to_numpy(), keys_of(store.spec))
    assert np.allclose(value + table["logits.offset"].to_numpy()[:, None], logits, atol=0.02)
    frame = polars.scan_ipc(tmp_path / "shards" / "*.arrow").collect()
    assert frame["sample_key"].to_list() == keys_of(store.spec).tolist()
    assert np.array_equal(frame["logits.value"].to_numpy().astype(np.float32), value)
    assert not any(field.nullable for field in table.schema)


def test_the_list_of_stores_says_how_far_they_are(tmp_path: Path):
    half = SoftTargetStore.create(tmp_path / "soft_targets" / "trees-1", a_spec(encoding="label"))
    fill(half, [0, 2])
    a_store(tmp_path / "soft_targets" / "wide-1").seal()
    assert find_stores(tmp_path) == [tmp_path / "soft_targets" / "trees-1", tmp_path / "soft_targets" / "wide-1"]
    assert find_stores(half.folder) == [half.folder]
    told = [describe(folder) for folder in find_stores(tmp_path)]
    assert [(one["shards_done"], one["shards"], one["sealed"]) for one in told] == [(2, 5, False), (5, 5, True)]
    assert told[0]["bytes"] == sum(path.stat().st_size for path in half.folder.glob("shards/*"))
    (half.folder / "spec.json").unlink()
    assert half.folder in find_stores(tmp_path), "a store without a spec is still listed, to be found damaged"
    with pytest.raises(StoreError, match="no soft-target store here"):
        find_stores(tmp_path / "elsewhere")


def test_a_record_reads_back_as_it_was_written(tmp_path: Path):
    record = a_store(tmp_path).record(2)
    assert Commit.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert record.to_json()["rows"] == record.num_rows == 64
    assert not Path(record.path).is_absolute()


FEATURES = Output.of_layer("hidden", (8, 2, 2))


def commit_in_any_order(folder: Path, seed: int, ready: Barrier) -> None:
    """A writer that knows nothing of others: until all is there, it commits what it finds missing."""
    rng = random.Random(seed)
    ready.wait()
    store = SoftTargetStore.create(folder, a_spec(24 * 64, "dense", 64, FEATURES))
    while missing := store.missing():
        fill(store, [rng.choice(missing)])


def run_writers(folder: Path, seeds: list[int], kill_after_s: list[float]) -> None:
    """Two writers at once, killed so long after their common start, or left to finish."""
    ready = warm.FRESH.Barrier(3)
    writers = [warm.process(commit_in_any_order, folder, seed, ready) for seed in seeds]
    for writer in writers:
        writer.start()
    ready.wait()
    for writer, delay_s in zip(writers, kill_after_s, strict=False):
        time.sleep(delay_s)
        with suppress(ProcessLookupError):  # it had finished
            os.kill(writer.pid, signal.SIGKILL)
    for writer in writers:
        writer.join()
        assert kill_after_s or writer.exitcode == 0


def test_writers_that_race_and_are_killed_leave_each_key_once(tmp_path: Path):
    undisturbed = a_store(tmp_path / "undisturbed", a_spec(24 * 64, "dense", 64, FEATURES)).seal()
    rng = random.Random(3)
    for trial in range(2):
        folder = tmp_path / str(trial)
        for kill in range(6):
            run_writers(folder, [2 * kill, 2 * kill + 1], kill_after_s=[rng.uniform(0, 0.08), rng.uniform(0, 0.02)])
            assert not (folder / "spec.json").exists() or verify(SoftTargetStore.open(folder)) == []
        run_writers(folder, [100, 101], kill_after_s=[])
        store = SoftTargetStore.open(folder)
        assert np.array_equal(stored_keys(store), keys_of(store.spec))
        assert store.seal().digest == undisturbed.digest
        collect_garbage(store, grace_s=-60)
        assert len(every_file(folder)) == 1 + 24 + 1 + 1


def commit_on_a_full_disk(folder: Path, told: Path) -> None:
    store = SoftTargetStore.open(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    try:
        fill(store, [3])
    except EnvironmentUnfit as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told.write_text(str(error))


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path):
    store = SoftTargetStore.create(tmp_path / "store", a_spec())
    fill(store, [0, 1])
    before = every_file(store.folder)
    writer = warm.process(commit_on_a_full_disk, store.folder, tmp_path / "told")
    writer.start()
    writer.join()
    assert "make room" in (tmp_path / "told").read_text()
    assert os.strerror(errno.EFBIG) in (tmp_path / "told").read_text()
    assert every_file(store.folder) == before
    assert store.missing() == [2, 3, 4]
