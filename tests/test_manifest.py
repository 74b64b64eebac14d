"""A sealed store is its spec, its shards and one manifest of their records: laws of what lies there, whoever is killed."""

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars
import pytest

from benchmarks import scale
from teachers.config.task import AnswerName
from teachers.errors import StoreError
from teachers.soft_targets.encodings.table import ENCODINGS
from teachers.soft_targets.records import read_manifest
from teachers.soft_targets.salvage import record_of
from teachers.soft_targets.schema import Spec, spell
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import collect_garbage, repair, verify
from teachers.storage.manifest import PART_FILES, Found, Part
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import digest_of, write_seal
from tests.test_store import a_spec, a_store, every_file, fill, flip, keys_of, logits_of, stored_keys

MANIFEST = "MANIFEST.arrow"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in every_file(folder))


def test_a_sealed_store_is_its_spec_its_shards_and_one_manifest_that_polars_reads(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    records = [store.record(number) for number in range(store.num_shards)]
    store.seal()
    assert names(tmp_path) == sorted([SEAL, MANIFEST, "spec.json", *(record.path for record in records)])
    frame = polars.read_ipc(tmp_path / MANIFEST)
    assert frame["path"].to_list() == [record.path for record in records]
    assert frame["rows"].sum() == store.spec.num_rows
    assert [store.record(number) for number in range(store.num_shards)] == records


def test_the_digest_is_that_of_spec_and_shards_as_it_was_before_there_were_manifests(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    shards = [[each.first_row, each.num_rows, each.xxh3_128] for each in map(store.record, range(store.num_shards))]
    assert store.seal().digest == digest_of({"spec": store.spec.identity(), "shards": shards})
    empty = SoftTargetStore.create(tmp_path / "empty", a_spec(0))
    assert empty.seal().digest == digest_of({"spec": empty.spec.identity(), "shards": []})


def test_sealing_reads_no_shard(tmp_path: Path) -> None:
    whole, hollow = a_store(tmp_path / "whole"), a_store(tmp_path / "hollow")
    for number in range(hollow.num_shards):
        path = hollow.shard_file(number)
        size = path.stat().st_size
        path.write_bytes(b"")
        os.truncate(path, size)
    assert hollow.seal().digest == whole.seal().digest
    assert len(verify(hollow)) == hollow.num_shards, "who checks every byte finds it"


def sealed_as_before(store: SoftTargetStore) -> None:
    """With a seal that lists every record and every shard."""
    records = [store.record(number) for number in range(store.num_shards)]
    shards = [[record.first_row, record.num_rows, record.xxh3_128] for record in records]
    listed = [
        "spec.json",
        *(f"commits/{record.shard:06d}.json" for record in records),
        *(each.path for each in records),
    ]
    write_seal(store.folder, listed, digest_of({"spec": store.spec.identity(), "shards": shards}))


def test_a_store_that_was_sealed_without_a_manifest_is_read_verified_and_repaired(tmp_path: Path) -> None:
    store = a_store(tmp_path / "old")
    sealed_as_before(store)
    before = names(store.folder)
    digest = a_store(tmp_path / "new").seal().digest
    assert store.seal().digest == digest and names(store.folder) == before
    assert SoftTargetStore.open(store.folder).missing(hashes=True) == [] and verify(store) == []
    flip(store.shard_file(1), 700)
    flip(store.folder / "commits" / "000003.json", 20)
    assert repair(store, tmp_path / "quarantine", verify(store)) == [1, 3] and store.missing() == [1, 3]
    assert fill(store).seal().digest == digest and MANIFEST in names(store.folder)
    assert np.array_equal(stored_keys(store), keys_of(store.spec))


def killed_at(folder: Path, number: int, work: Callable[[Path], Any]) -> None:
    """SIGKILL before the `number`-th time that `work` opens, renames, links or removes something in `folder`."""
    seen = 0

    def heard(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.link") and str(folder) in str(given[0]):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)
    work(folder)


def kills(whole: Path, work: Callable[[Path], Any]) -> Iterator[Path]:
    """Copies of a folder after `work` on each was killed at every one of its steps; the last one was not."""
    code, number = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        number += 1
        folder = whole.with_name(f"{whole.name}-{number}")
        shutil.copytree(whole, folder)
        process = multiprocessing.get_context("fork").Process(target=killed_at, args=(folder, number, work))
        process.start()
        process.join()
        code = process.exitcode or 0
        yield folder
    assert code == 0 and number > 5


def sealing(folder: Path) -> None:
    SoftTargetStore.open(folder).seal()


def repairing(folder: Path) -> None:
    store = SoftTargetStore.open(folder)
    repair(store, folder.parent / "quarantine", verify(store))


def test_who_is_killed_at_any_step_of_sealing_loses_no_record(tmp_path: Path) -> None:
    store = a_store(tmp_path / "wide", a_spec(150))
    digest = a_store(tmp_path / "undisturbed", a_spec(150)).seal().digest
    for folder in kills(store.folder, sealing):
        left = SoftTargetStore.open(folder)
        assert left.missing(hashes=True) == [] and verify(left) == []
        assert left.seal().digest == digest
        collect_garbage(left, grace_s=-60)
        assert len(names(folder)) == 3 + left.num_shards


@pytest.mark.parametrize("damaged", ["shard", "manifest"])
def test_who_is_killed_at_any_step_of_a_repair_loses_no_shard_that_was_whole(tmp_path: Path, damaged: str) -> None:
    store = a_store(tmp_path / "wide", a_spec(150))
    digest = store.seal().digest
    flip(store.shard_file(1) if damaged == "shard" else store.folder / MANIFEST, 700)
    lost = {1} if damaged == "shard" else set()
    for folder in kills(store.folder, repairing):
        left = SoftTargetStore.open(folder)
        if left.is_sealed:  # as the next run finds it
            repair(left, tmp_path / "quarantine", verify(left))
        assert set(left.missing(hashes=True)) <= lost
        assert fill(left, left.missing(hashes=True)).seal().digest == digest and verify(left) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_two_swapped_shard_files_are_found(tmp_path: Path, sealed: bool) -> None:
    store = a_store(tmp_path / "wide")
    digest = a_store(tmp_path / "undisturbed").seal().digest
    if sealed:
        store.seal()
    one, other = store.shard_file(1), store.shard_file(2)
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    assert [damage.path for damage in verify(store)] == [f"shards/{one.name}", f"shards/{other.name}"]
    assert store.missing(hashes=True) == [1, 2]
    assert repair(store, tmp_path / "quarantine", verify(store)) == [1, 2]
    assert fill(store).seal().digest == digest


@pytest.mark.parametrize("change", ["cut", "emptied", "removed", "of another store", "half"])
def test_of_a_manifest_that_is_lost_the_records_are_made_anew_from_the_shards(tmp_path: Path, change: str) -> None:
    store = a_store(tmp_path / "wide")
    digest, path = store.seal().digest, store.folder / MANIFEST
    whole = path.read_bytes()
    other = a_store(tmp_path / "other", a_spec(200))
    other.seal()
    changed = {"cut": whole[:-40], "emptied": b"", "half": whole[: len(whole) // 2]}
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(changed.get(change) or (other.folder / MANIFEST).read_bytes() if change != "emptied" else b"")
    assert collect_garbage(store, grace_s=-60) == [], "nobody knows which shards are wanted"
    damages = verify(store)
    assert [damage.path for damage in damages] == [MANIFEST]
    assert repair(store, tmp_path / "quarantine", damages) == [] and store.missing(hashes=True) == []
    assert store.seal().digest == digest and verify(store) == []


def test_a_cut_record_of_a_growing_store_costs_its_shard_alone(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    record = tmp_path / "commits" / "000002.json"
    record.write_bytes(record.read_bytes()[:-20])
    assert store.missing() == [2] and [damage.path for damage in verify(store)] == ["commits/000002.json"]
    assert collect_garbage(store, grace_s=-60) == []
    assert fill(store).missing(hashes=True) == []


@pytest.mark.parametrize("answer", get_args(AnswerName))
def test_a_record_that_is_made_anew_is_what_its_writer_wrote(tmp_path: Path, answer: AnswerName) -> None:
    for encoding in ENCODINGS[answer]:
        room = 3 if answer == "boxes" else 0
        spec = Spec("t", "d", "train-0", "s", encoding, ("a", "b"), 60, 60, answer, max_boxes=room)  # type: ignore[arg-type]
        said = np.random.default_rng(0).uniform(0.1, 0.9, (60, spec.answered.width)).astype(np.float32)
        said[7] = np.nan
        store = SoftTargetStore.create(tmp_path / encoding, spec)
        record = store.commit(0, np.arange(60, dtype=np.uint64), {spec.named[0]: said})
        assert record.unknown_rows == 1
        assert record_of(spec, 0, store.shard_file(0), record.xxh3_128) == record


def test_a_writer_that_comes_late_changes_nothing_of_a_sealed_store(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    late = store.record(1)
    digest = store.seal().digest
    loose = tmp_path / "commits" / "000001.json"
    forged = {**late.to_json(), "xxh3_128": "0" * 32, "path": "shards/000001-0000000000000000.arrow"}
    loose.write_bytes(spell(forged))
    again = SoftTargetStore.open(tmp_path)
    assert again.record(1) == late and again.missing(hashes=True) == [] and verify(again) == []
    assert again.seal().digest == digest
    loose.write_bytes(spell(forged))
    assert collect_garbage(again, grace_s=-60) == [loose]


def test_more_shards_than_six_digits_can_count(tmp_path: Path) -> None:
    store = SoftTargetStore.create(tmp_path, a_spec(1_000_003, rows=1))
    for number in (5, 999_999, 1_000_002):
        store.commit(number, np.array([number], np.uint64), {"logits": logits_of(a_spec(1))})
    assert store.record(1_000_002).path.startswith("shards/1000002-")
    assert store.records().shards.tolist() == [5, 999_999, 1_000_002]
    assert len(store.missing()) == 1_000_000 and verify(store) == []
    assert collect_garbage(store, grace_s=-60) == []
    store.shard_file(1_000_002).unlink()
    assert repair(store, tmp_path / "quarantine", verify(store)) == [1_000_002]
    assert store.records().shards.tolist() == [5, 999_999]


def test_many_shards_are_checked_in_parts_by_whoever_does_it(tmp_path: Path) -> None:
    spec = scale.a_spec(2 * PART_FILES - 1, 2 * PART_FILES - 1)
    store = SoftTargetStore.create(tmp_path, spec)
    scale.write(tmp_path, spec, 0, spec.num_shards)
    shards = [store.shard_file(number) for number in (3, PART_FILES + 1)]
    for path in shards:
        path.write_bytes(b"?" * path.stat().st_size)
    sizes = []

    def elsewhere(work: Callable[[Part], Found], parts: Iterable[Part]) -> Iterator[Found]:
        for part in parts:
            sizes.append(len(part.files))
            yield pickle.loads(pickle.dumps(work))(pickle.loads(pickle.dumps(part)))

    assert store.missing() == [], "sizes alone are as they were"
    assert store.missing(hashes=True, run=elsewhere) == [3, PART_FILES + 1]
    assert sizes == [PART_FILES, PART_FILES - 1]
    store.seal()
    assert [damage.path for damage in verify(store, run=elsewhere)] == [f"shards/{path.name}" for path in shards]


def test_a_newer_manifest_is_refused_naming_both_formats(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.seal()
    path = tmp_path / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"\x01\x00\x00\x001\x00", b"\x01\x00\x00\x007\x00"))
    with pytest.raises(StoreError, match="format 7, this program reads 1; update Collegium"):
        read_manifest(tmp_path, store.spec)
