"""An OUT in an object store is what an OUT in a folder is: laws of the mirror, of proofs and of the lease.

Each `machine` is a cache of its own, which sees nothing of the others but what the storage has.
"""

import fcntl
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.cli.store import gc, remove, verify
from orchestrator.search.study import Study, Trial
from orchestrator.stages.locks import folder_lock
from orchestrator.stages.stages import Stage, Stages
from orchestrator.tracking.late import replay
from orchestrator.tracking.ledger import Ledger
from orchestrator.tracking.tracker import Tracker
from orchestrator.watching.journal import Journal
from orchestrator.watching.status import Looker
from students.runs.curves import Record, append_metrics, gather_metrics, keep_metrics
from students.runs.run import Run
from students.training.checkpoint import Attempt, drop_attempts, newest_checkpoint, read_checkpoint
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.errors import EnvironmentUnfit, RecipeError, StorageError, StoreError
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import collect_garbage
from teachers.soft_targets.upkeep import repair as repair_store
from teachers.soft_targets.upkeep import verify as verify_store
from teachers.storage import lease as leases
from teachers.storage import mirror, room
from teachers.storage.bucket import bucket_of
from teachers.storage.checking import check_seal
from teachers.storage.place import CACHE, place, remote_of, shipped_environment, spoken
from teachers.storage.room import LIMIT
from teachers.storage.seal import NAME as SEAL
from teachers.storage.seal import publish, read_seal, replace, write_seal
from tests import warm
from tests.google_store import google_store
from tests.object_store import ObjectStore, object_store
from tests.test_status import until
from tests.test_store import a_spec, a_store, fill, keys_of, logits_of, stored_keys
from tests.test_tracking import append as append_points
from tests.test_tracking import children, client, points
from tests.test_tracking import recipe as a_recipe

Machine = Callable[[str], Path]


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as found, pytest.MonkeyPatch.context() as environment:
        for name, value in found.environment.items():
            environment.setenv(name, value)
        found.client().create_bucket(Bucket="box")
        yield found


@pytest.fixture
def machine(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The OUT of a test as this machine mirrors it; later the environment is that of the machine named last."""
    uri = f"s3://box/{uuid4().hex[:8]}"

    def on(name: str) -> Path:
        monkeypatch.setenv(CACHE, str(tmp_path / name))
        return place(uri)

    yield on
    server.harm.rate, server.harm.conditions, server.harm.denied = 0.0, True, ""
    server.harm.planned.clear()


def objects(server: ObjectStore, folder: Path) -> list[str]:
    remote = remote_of(folder)
    assert remote is not None
    return [key.removeprefix(f"{remote.key}/") for key in server.keys("box", f"{remote.key}/")]


def overwrite(server: ObjectStore, path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change an object behind everyone's back."""
    remote = remote_of(path)
    assert remote is not None
    whole = server.client().get_object(Bucket="box", Key=remote.key)["Body"].read()
    server.client().put_object(Bucket="box", Key=remote.key, Body=change(whole))


def flipped(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]


def test_a_uri_and_its_mirror_name_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    out = place("s3://box/some/prefix/")
    assert out.parent == tmp_path and str(remote_of(out / "a" / "b")) == "s3://box/some/prefix/a/b"
    assert (
        spoken(f"error: {out}/a: no file, in {out}")
        == "error: s3://box/some/prefix/a: no file, in s3://box/some/prefix"
    )
    assert str(remote_of(out.with_name(f"{out.name}-smoke"))) == "s3://box/some/prefix-smoke"
    assert remote_of(tmp_path) is None and place(tmp_path) == tmp_path
    for wrong in ("s3://", "s3://box/../other", "s3://key:secret@box/x", "s3://box/x?versionId=1", "http://box/x"):
        with pytest.raises(RecipeError, match="--out") as found:
            place(wrong)
        assert "secret" not in str(found.value)


def test_no_credentials_travel_to_workers(server: ObjectStore, machine: Machine) -> None:
    shipped = shipped_environment(machine("a"))
    assert set(shipped) == {CACHE, "AWS_ENDPOINT_URL", "AWS_REGION"} and "secret-of-tests" not in str(shipped)


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_a_store_elsewhere_is_the_store_of_a_folder(
    server: ObjectStore, machine: Machine, tmp_path: Path, rate: float
) -> None:
    server.harm.rate, server.harm.seed = rate, 7
    here, there = a_store(tmp_path / "local"), a_store(machine("a") / "wide")
    assert there.seal().digest == here.seal().digest
    read = machine("b") / "wide"
    assert np.array_equal(SoftTargets.open(read).keys(), keys_of(here.spec))
    assert np.array_equal(stored_keys(SoftTargetStore.open(read)), stored_keys(here))
    assert verify_store(SoftTargetStore.open(read)) == []
    assert rate == 0 or sum(server.harm.done.values()) > 5


def test_a_labelling_that_was_killed_goes_on_from_an_empty_cache(server: ObjectStore, machine: Machine) -> None:
    server.harm.rate = 0.15
    fill(SoftTargetStore.create(machine("a") / "wide", a_spec()), [0, 3])
    orphan = machine("a") / "wide" / "shards" / "000002-0123456789abcdef.arrow"
    orphan.write_bytes(b"half of a shard, whose record was never written")
    mirror.put(orphan)
    resumed = SoftTargetStore.create(machine("b") / "wide", a_spec())
    assert resumed.missing(hashes=True) == [1, 2, 4]
    assert np.array_equal(stored_keys(fill(resumed)), keys_of(resumed.spec))
    assert resumed.seal().digest == a_store(machine("c").parent / "local").seal().digest


def test_a_store_that_another_machine_fills_is_sealed_by_who_made_it(machine: Machine) -> None:
    made = SoftTargetStore.create(machine("a") / "wide", a_spec())
    filled = fill(SoftTargetStore.create(machine("b") / "wide", a_spec()))
    assert made.seal().digest == filled.seal().digest


def test_of_two_writers_of_one_record_one_wins_and_the_other_sees_its_bytes(machine: Machine) -> None:
    spec = a_spec(num_rows=64)
    stores = [SoftTargetStore.create(machine(name) / "wide", spec) for name in ("a", "b", "c")]
    keys, logits = keys_of(spec), logits_of(spec)
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(store.commit, 0, keys, {"logits": logits + n}) for n, store in enumerate(stores)]
        records = [done.result() for done in work]
    assert records[0] == records[1] == records[2]
    assert len({store.shard_file(0).read_bytes() for store in stores}) == 1
    assert len({store.seal().digest for store in stores}) == 1


def test_an_object_that_is_shorter_than_an_error_of_the_storage_is_read_all_the_same(
    server: ObjectStore, machine: Machine
) -> None:
    publish(machine("a") / "x.json", b"{}")
    server.harm.rate, server.harm.seed = 0.4, 1
    for number in range(20):
        mirror.bring(machine(str(number)) / "x.json")
        assert (machine(str(number)) / "x.json").read_bytes() == b"{}"


def test_one_of_many_creates_and_all_have_its_bytes(server: ObjectStore, machine: Machine) -> None:
    server.harm.rate = 0.15
    paths = [machine(str(number)) / "x.json" for number in range(6)]
    with ThreadPoolExecutor() as pool:
        for work in [pool.submit(publish, path, b"by %d" % number) for number, path in enumerate(paths)]:
            work.result()
    assert len({path.read_bytes() for path in paths}) == 1


def a_stage() -> Stage:
    return Stage("label", "wide", {"temperature": 1.0}, {"teacher weights": "abc"})


def opened(out: Path) -> Stages:
    stages = Stages(out)
    stages.open()
    return stages


def label(folder: Path) -> tuple[object, dict[str, object]]:
    return fill(SoftTargetStore.create(folder, a_spec())).seal(), {}


def repair(folder: Path, away: Path, damages: list[object]) -> None:
    repair_store(SoftTargetStore(folder, a_spec()), away, damages)


def test_a_stage_that_another_machine_sealed_is_reused(machine: Machine) -> None:
    first = opened(machine("a")).build(a_stage(), label)  # type: ignore[arg-type]
    second = opened(machine("b")).build(a_stage(), lambda _: pytest.fail("built twice"))
    assert (first.reused, second.reused, first.digest) == (False, True, second.digest)
    assert not check_seal(second.folder, second.seal, hashes=True)


@pytest.mark.parametrize("finder", ["an empty cache", "store verify"])
def test_a_flipped_byte_in_a_remote_shard_is_found_and_repaired(
    server: ObjectStore, machine: Machine, finder: str
) -> None:
    built = opened(machine("a")).build(a_stage(), label)  # type: ignore[arg-type]
    shard = SoftTargetStore.open(built.folder).shard_file(2)
    overwrite(server, shard, flipped)
    if finder == "store verify":
        found = CliRunner().invoke(verify, [str(remote_of(built.folder))])
        assert found.exit_code == 1 and shard.name in found.output
    look(machine("c"))
    out = machine("a" if finder == "store verify" else "b")
    again = opened(out).build(a_stage(), label, repair)  # type: ignore[arg-type]
    assert again.reason.startswith("repaired: ") and shard.name in again.reason
    assert again.digest == built.digest, "the same bytes: nothing that follows moves"
    assert any(shard.name in key for key in objects(server, out) if key.startswith("quarantine/"))
    assert CliRunner().invoke(verify, [str(remote_of(built.folder))]).exit_code == 0


def look(out: Path) -> None:
    """Somebody watches `out`, who repairs nothing."""
    with pytest.raises(RecipeError, match="holds no run"):
        Looker(spoken(out)).look()
    assert CliRunner().invoke(collegium, ["store", "ls", spoken(out)]).exit_code == 0


def test_who_reads_a_damaged_object_says_so_and_the_next_run_looks_at_it(server: ObjectStore, machine: Machine) -> None:
    built = opened(machine("a")).build(a_stage(), label)  # type: ignore[arg-type]
    shard = SoftTargetStore.open(built.folder).shard_file(2)
    overwrite(server, shard, flipped)
    elsewhere = SoftTargetStore.open(machine("b") / built.folder.relative_to(machine("a")))
    machine("b")
    with pytest.raises(StoreError, match=r"damaged in the storage.*run the same command again"):
        elsewhere.shard_file(2)
    look(machine("c"))
    assert opened(machine("a")).build(a_stage(), label, repair).reason.startswith("repaired: ")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_path_in_a_seal_cannot_leave_the_folder(server: ObjectStore, machine: Machine, path: str) -> None:
    folder = machine("a") / "stage"
    folder.mkdir(parents=True)
    publish(folder / "x", b"x")
    write_seal(folder, ["x"])
    overwrite(server, folder / SEAL, lambda seal: seal.replace(b'"x"', json.dumps(path).encode()))
    read = machine("b") / "stage"
    seal = read_seal(read)
    assert seal is not None
    with pytest.raises(StoreError, match="leaves the folder"):
        check_seal(read, seal, hashes=True)


def test_a_name_in_a_listing_cannot_leave_the_folder(server: ObjectStore, machine: Machine) -> None:
    remote = remote_of(machine("a"))
    assert remote is not None
    server.client().put_object(Bucket="box", Key=f"{remote.key}/x/../../../outside.json", Body=b"{}")
    server.client().put_object(Bucket="box", Key=f"{remote.key}/inside.json", Body=b"{}")
    mirror.pull(machine("a"))
    assert [path.name for path in machine("a").parents[1].rglob("*.json")] == ["inside.json"]


def test_a_lease_has_one_holder(machine: Machine) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def work(folder: Path) -> None:
        nonlocal inside, most
        with leases.lease(folder, "a test", beat_s=0.2, stale_s=5.0) as doubt:
            assert not doubt()
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.5)  # longer than a beat
            with lock:
                inside -= 1

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work, machine(name) / "stage") for name in ("a", "b", "c")]:
            done.result()
    assert most == 1


@pytest.mark.parametrize("holder", ["on this machine", "elsewhere"])
def test_the_lease_of_a_dead_holder_is_taken_over(machine: Machine, holder: str) -> None:
    remote = remote_of(machine("a") / "stage")
    assert remote is not None
    said = json.loads(leases.said("dead")) | {"pid": 2**22 + 1}  # of the same name wherever it is
    said |= {} if holder == "on this machine" else {"processes": "another"}
    publish(machine("a") / "stage" / leases.NAME, json.dumps(said).encode())
    begun = time.monotonic()
    with leases.lease(machine("a") / "stage", "a test", beat_s=0.1, stale_s=1.0) as doubt:
        assert not doubt() and (time.monotonic() - begun >= 1.0) is (holder == "elsewhere")


def test_a_holder_that_beats_is_waited_for(machine: Machine) -> None:
    with ExitStack() as first:
        first.enter_context(leases.lease(machine("a") / "stage", "a test", beat_s=0.1, stale_s=1.0))
        got = threading.Event()

        def second() -> None:
            with leases.lease(machine("a") / "stage", "a test", beat_s=0.1, stale_s=1.0):
                got.set()

        waiting = threading.Thread(target=second)
        waiting.start()
        assert not got.wait(2.5), "its holder is alive"
        first.close()
        waiting.join()
        assert got.is_set()


@pytest.mark.parametrize("there", ["no lease", "a free one"])
def test_who_took_a_lease_and_was_not_told_does_not_wait_for_itself(
    server: ObjectStore, machine: Machine, there: str
) -> None:
    folder = machine("a") / "stage"
    with leases.lease(folder.parent if there == "no lease" else folder, "an earlier run") as doubt:
        assert not doubt()
    server.harm.planned.extend(["reset after"] if there == "no lease" else ["", "", "reset after"])
    got = threading.Event()

    def take() -> None:
        with leases.lease(folder, "a test", stale_s=math.inf):
            got.set()

    threading.Thread(target=take, daemon=True).start()
    until(got.is_set)


def test_a_holder_whose_beat_was_lost_and_could_not_be_looked_up_goes_on(server: ObjectStore, machine: Machine) -> None:
    path = machine("a") / "stage" / leases.NAME
    with leases.lease(path.parent, "a test", beat_s=0.2) as doubt:
        server.harm.planned.extend(["reset after", "", "denied"])  # written, refused since it is there, not to be read
        until(lambda: not server.harm.planned)
        lost = content(server, path)
        until(lambda: content(server, path) != lost)
        assert not doubt()


def content(server: ObjectStore, path: Path) -> bytes:
    remote = remote_of(path)
    assert remote is not None
    found: bytes = server.client().get_object(Bucket="box", Key=remote.key)["Body"].read()
    return found


def test_who_was_not_heard_for_too_long_removes_nothing(server: ObjectStore, machine: Machine) -> None:
    store = a_store(machine("a") / "wide")
    orphan = store.folder / "shards" / "000002-0123456789abcdef.arrow"
    orphan.write_bytes(b"an orphan, perhaps that of another run by now")
    mirror.put(orphan)
    with leases.lease(store.folder, "slow", beat_s=3600) as slow:
        assert slow() == ""
        with leases.lease(machine("b") / "wide", "quick", beat_s=0.1, stale_s=0.1) as quick:
            with pytest.raises(StoreError, match="nothing more is removed: another machine has taken over"):
                collect_garbage(store, -60, partial(remove, store.folder, slow))
            assert f"shards/{orphan.name}" in objects(server, store.folder)
            assert collect_garbage(store, -60, partial(remove, store.folder, quick)) == [orphan]


def test_who_was_not_heard_for_too_long_repairs_nothing(server: ObjectStore, machine: Machine) -> None:
    deep, wide = (Stage("label", name, {"of": name}, {}) for name in ("deep", "wide"))
    for stage in (deep, wide):
        built = opened(machine("a")).build(stage, label)  # type: ignore[arg-type]
        overwrite(server, SoftTargetStore.open(built.folder).shard_file(2), flipped)
    out = machine("b")

    def slowly(folder: Path, away: Path, damages: list[object]) -> None:
        assert deep.folder in str(folder)
        repair(folder, away, damages)
        replace(out / wide.folder / leases.NAME, leases.said("another"))

    whole = objects(server, out / wide.folder)
    with pytest.raises(StoreError, match=r"label/wide is damaged .* not repaired: another machine has taken over"):
        opened(out).build_together([deep, wide], pytest.fail, slowly)  # type: ignore[arg-type]
    assert objects(server, out / wide.folder) == whole


def test_without_conditional_writes_labelling_goes_on_and_nothing_is_repaired_or_removed(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client().create_bucket(Bucket="clone")
    monkeypatch.setenv(CACHE, str(tmp_path / "a"))
    server.harm.conditions = False
    out = place("s3://clone/out")
    built = opened(out).build(a_stage(), label)  # type: ignore[arg-type]
    remote = remote_of(SoftTargetStore.open(built.folder).shard_file(2))
    assert remote is not None
    with folder_lock(built.folder, "a test") as doubt:
        assert "no conditional writes" in doubt()
    found = CliRunner().invoke(gc, [str(remote_of(built.folder))])
    assert isinstance(found.exception, StoreError) and "no conditional writes" in str(found.exception)
    server.client().put_object(Bucket="clone", Key=remote.key, Body=b"spoiled")
    monkeypatch.setenv(CACHE, str(tmp_path / "b"))
    with pytest.raises(StoreError, match="not repaired: this storage knows no conditional writes"):
        opened(place("s3://clone/out")).build(a_stage(), label, repair)  # type: ignore[arg-type]
    server.harm.conditions = True


def test_gc_removes_what_no_record_names_and_nothing_else(server: ObjectStore, machine: Machine) -> None:
    store = a_store(machine("a") / "wide")
    orphan = store.folder / "shards" / "000002-0123456789abcdef.arrow"
    orphan.write_bytes(b"an orphan")
    mirror.put(orphan)
    cleaner = SoftTargetStore.open(machine("b") / "wide")
    assert collect_garbage(cleaner, grace_s=3600) == []
    assert [path.name for path in collect_garbage(cleaner, grace_s=-60)] == [orphan.name]
    assert len([key for key in objects(server, store.folder) if key.startswith("shards/")]) == store.num_shards


def test_a_listing_comes_by_pages_and_leaps_and_many_objects_go_at_once(server: ObjectStore, machine: Machine) -> None:
    folder, client = machine("a"), server.client()
    remote = remote_of(folder)
    assert remote is not None
    many = [f"x/shards/{number:06d}-{'0' * 16}.arrow" for number in range(1_010)]
    for name in ("a.json", *many, "x/spec.json", "x/texts/1"):
        client.put_object(Bucket="box", Key=f"{remote.key}/{name}", Body=b"1")

    def asked(work: Callable[[], object]) -> tuple[object, int]:
        before = server.harm.num_requests
        return work(), server.harm.num_requests - before

    assert asked(lambda: [name for name, _ in mirror.listed(folder)]) == (
        ["a.json", *many, "x/spec.json", "x/texts/1"],
        2,
    )
    assert asked(lambda: [*mirror.entries(folder, ("shards",))]) == (["a.json", "x/spec.json", "x/texts/1"], 2)
    _, requests = asked(lambda: mirror.remove_all(folder / name for name in many))
    assert requests == 2 and objects(server, folder) == ["a.json", "x/spec.json", "x/texts/1"]


def test_who_seals_asks_for_nothing_that_writers_have_told(server: ObjectStore, machine: Machine) -> None:
    driver = SoftTargetStore.create(machine("a") / "wide", a_spec(40 * 64))
    writer = fill(SoftTargetStore.create(machine("b") / "wide", a_spec(40 * 64)))
    machine("a")
    for number in range(writer.num_shards):
        driver.note(writer.record(number))
    before = server.harm.num_requests
    digest = driver.seal().digest
    assert server.harm.num_requests - before < 20
    assert not [*(driver.folder / "shards").iterdir()], "no shard has come here"
    assert digest == a_store(machine("c").parent / "local", a_spec(40 * 64)).seal().digest
    assert objects(server, driver.folder)[:2] == ["MANIFEST.arrow", "SEAL.json"]
    assert not [name for name in objects(server, driver.folder) if name.startswith("commits/")]


def test_the_cache_stays_within_its_bound_and_what_went_comes_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(machine("a") / "wide", a_spec(num_rows=64 * 4096, rows=16 * 4096))
    store.seal()
    size = store.shard_file(0).stat().st_size
    monkeypatch.setenv(LIMIT, str(2 * size + 1))
    other = SoftTargetStore.open(machine("b") / "wide")
    for number in range(other.num_shards):
        room.forget(other.folder / other.record(number - 1).path if number else other.folder)
        assert other.shard_file(number).read_bytes() == store.shard_file(number).read_bytes()
        assert len(list((other.folder / "shards").glob("*.arrow"))) <= 2
    assert verify_store(SoftTargetStore.open(other.folder)) == []
    assert SoftTargets.open(machine("c") / "wide").keys().tobytes() == keys_of(store.spec).tobytes()


def a_run(stage: Path) -> Run:
    return Run(
        name="student/seed-0",
        folder=stage / "student/seed-0",
        stage=stage,
        stage_name="distill/small",
        model="students.models:mlp",
        arguments={},
        preprocess=Preprocess(),
        objective=(),
        train=TrainConfig(steps=1),
        seed=0,
        transfer_set=stage,
    )


def test_training_goes_on_elsewhere_from_the_newest_checkpoint_that_verifies(
    server: ObjectStore, machine: Machine
) -> None:
    attempt = Attempt(a_run(machine("a") / "stage"))
    for step in (10, 20, 30):
        attempt.save(step, {"weights": torch.full((100,), float(step))})
    run = a_run(machine("b") / "stage")
    newest = newest_checkpoint(run)
    assert newest is not None and newest.name == "step-000030"
    assert read_checkpoint(newest, torch.device("cpu"))["weights"][0] == 30.0
    named = newest.relative_to(machine("b"))
    assert read_checkpoint(machine("another rank's") / named, torch.device("cpu"))["weights"][0] == 30.0, (
        "one rank looks, the others are told where"
    )
    assert not any("step-000010" in key for key in objects(server, machine("a"))), "only the newest are kept"
    overwrite(server, attempt.folder / "step-000030" / "state.pt", flipped)
    run = a_run(machine("c") / "stage")
    newest = newest_checkpoint(run)
    assert newest is not None and newest.name == "step-000020"
    drop_attempts(run)
    assert newest_checkpoint(a_run(machine("d") / "stage")) is None and objects(server, machine("a")) == []


def test_curves_of_several_processes_are_one_file_without_doubles(machine: Machine) -> None:
    for name, steps in (("a", (1, 2)), ("b", (3, 4))):
        run = a_run(machine(name) / "stage")
        for step in steps:
            record = Record(stage="distill/small", run="s", step=step, key="train.loss", value=0.5, time=0.0)
            append_metrics(run.stage, [record])
        if name == "b":  # two machines are two processes
            one, other = (run.stage / "metrics").glob("*.jsonl"), run.stage / "metrics" / f"{uuid4().hex}.jsonl"
            next(one).rename(other)
            mirror.put(other)
        else:
            keep_metrics(run.stage)
    for _ in range(2):
        gather_metrics(machine("c") / "stage")
    lines = (machine("c") / "stage" / "metrics.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["step"] for line in lines) == [1, 2, 3, 4]


@pytest.mark.parametrize("other", ["ends", "died on its node, with the lock"])
def test_who_adds_points_waits_for_another_that_does_but_not_for_ever(tmp_path: Path, other: str) -> None:
    adding = threading.Thread(target=append_metrics, args=(tmp_path, points(range(1))))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        adding.start()
        adding.join(timeout=0.3 if other == "ends" else None)
        file.write("of another\n")
    adding.join()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line == "of another" for line in lines] == ([True, False] if other == "ends" else [False, True])


def test_a_study_goes_on_elsewhere_with_every_trial_that_has_ended(machine: Machine) -> None:
    study = Study.open(machine("a") / "studies" / "small", {"recipe": "digits"})
    for number in range(3):
        study.add(Trial(number=number, who="student", params={"x": number}, state="finished", values={"v": 0.5}))
    other = Study.open(machine("b") / "studies" / "small", {"recipe": "digits"})
    assert other.trials == study.trials
    other.add(Trial(number=3, who="student", params={}, state="failed"))
    again = Study.open(machine("a") / "studies" / "small", {"recipe": "digits"})
    assert [trial.number for trial in again.trials] == [0, 1, 2, 3]


def test_status_of_an_out_elsewhere_is_what_its_driver_and_workers_last_said(machine: Machine) -> None:
    stage = Stage(kind="distill", name="small", config={}, inputs={})
    training = {"steps": 10, "rows": 100, "batch_size": 10, "folder": stage.folder}
    with Journal(machine("a") / "runs" / "one", command="run", recipe="digits", planned=[stage.title]) as journal:
        journal.seen(stage, machine("a") / stage.folder, None)
        journal.work(stage.title, trainings={"student/seed-0": training})
        looker = Looker(spoken(machine("b")))
        for step in (3, 7):
            folder = machine("a") / stage.folder
            record = Record(
                stage=stage.title, run="student/seed-0", step=step, key="train.loss", value=0.5, time=time.time()
            )
            append_metrics(folder, [record])
            keep_metrics(folder)
            machine("b")
            until(lambda step=step: steps_of(looker.look()) == [step])  # type: ignore[misc]
        assert looker.look()["run"]["state"] == "running"
    assert looker.look()["run"]["state"] == "finished"
    with pytest.raises(EnvironmentUnfit, match="no-such-box"):
        Looker("s3://no-such-box/out")


def test_status_elsewhere_knows_when_shards_were_committed_and_fetches_no_record(
    server: ObjectStore, machine: Machine
) -> None:
    stage = a_stage()
    with Journal(machine("a") / "runs" / "one", command="run", recipe="digits", planned=["label/wide"]) as journal:
        journal.seen(stage, machine("a") / stage.folder, None)
        time.sleep(1)  # the storage's times are whole seconds
        fill(SoftTargetStore.create(machine("a") / stage.folder, a_spec()), [0, 1, 2, 3])
        time.sleep(4)
        found = Looker(spoken(machine("b"))).look()["stages"][0]
    assert (found["shards"], found["num_shards"]) == (4, 5)
    assert 0 < found["shards_per_s"] <= 3 / 4 and found["eta_s"] > 0
    assert not (machine("b") / stage.folder / "commits").exists()


def test_a_look_elsewhere_asks_no_run_that_has_ended(server: ObjectStore, machine: Machine) -> None:
    def asked(looker: Looker) -> int:
        looker.look()
        before = server.harm.num_requests
        looker.look()
        return server.harm.num_requests - before

    def run(name: str) -> Journal:
        return Journal(machine("a") / "runs" / name, command="run", recipe="digits", planned=[])

    with run("first"):
        pass
    few = asked(Looker(spoken(machine("b"))))
    for name in ("second", "third"):
        with run(name):
            pass
    assert asked(Looker(spoken(machine("b")))) == few


def drive_and_die(out: Path, uri: str) -> None:
    with Journal(out / "runs" / "one", command="run", recipe="digits", planned=[]) as journal:
        tracker = Tracker.start(a_recipe(uri), out, journal.file.parent)
        tracker.follow("distill/small", metrics := out / "metrics.jsonl")
        append_points(metrics, points(range(3)))
        until(lambda: children(uri, tracker.ids()))
        storage = mirror.entries(out / "runs")["one/tracking.json"].time
        until(lambda: mirror.entries(out / "runs")["one/tracking.json"].time > storage)
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_run_of_a_driver_that_was_killed_is_ended_in_mlflow_from_another_machine(
    machine: Machine, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    process = warm.process(drive_and_die, machine("a"), uri)
    process.start()
    process.join()
    begun = Ledger.open(machine("a") / "runs" / "one")
    out = opened(machine("b")).out
    assert "sent" in replay(out, uri)[0] and replay(out, uri) == []
    (child,) = children(uri, vars(begun)).values()
    assert {child.info.status, client(uri).get_run(begun.run_id).info.status} == {"KILLED"}
    assert replay(opened(machine("c")).out, uri) == [], "the storage knows that it has ended"


def steps_of(status: dict[str, Any]) -> list[int]:
    return [each["step"] for stage in status["stages"] for each in stage.get("trainings", [])]


BAD = {
    "no bucket": ("s3://no-such-bucket/x", "", r"s3://no-such-bucket: there is no such bucket; create it"),
    "refused": (
        "s3://box/x",
        "AccessDenied",
        r"s3://box: refused \(AccessDenied\); these credentials need s3:ListBucket",
    ),
    "wrong key": ("s3://box/x", "InvalidAccessKeyId", r"s3://box: these credentials are not accepted"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_storage_that_is_not_there_or_refuses_is_told_before_anything_is_done(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from orchestrator.planning.planning import plan
    from orchestrator.recipe.load import load_recipe
    from orchestrator.running.run import run

    uri, denied, message = BAD[case]
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "digits.yaml")
    server.harm.denied = denied
    try:
        for command in (run, plan):
            with pytest.raises(EnvironmentUnfit, match=message) as found:
                command(recipe, uri)
            assert found.value.exit_code == 4 and "\n" not in str(found.value)
    finally:
        server.harm.denied = ""
    assert not (tmp_path / "mlflow.db").exists()


def test_missing_credentials_are_one_line_and_exit_code_4(server: ObjectStore, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {
        **kept,
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    environment |= {CACHE: str(tmp_path / "cache"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = str(Path(sys.executable).parent / "collegium")
    done = subprocess.run(
        [command, "run", "digits", "--out", "s3://box/x"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.startswith("error: s3://box: there are no credentials; set AWS_ACCESS_KEY_ID")
    assert done.stderr.count("\n") == 1 and done.stdout == "" and not (tmp_path / "mlflow.db").exists()


def test_without_a_tracking_server_a_run_elsewhere_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.recipe.load import load_recipe
    from orchestrator.running.run import run

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "digits.yaml")
    with pytest.raises(EnvironmentUnfit, match="MLFLOW_TRACKING_URI=http://HOST:5000"):
        run(recipe, machine("a"))


def test_a_proof_that_broke_off_is_read_again_after_pauses_that_grow(server: ObjectStore, machine: Machine) -> None:
    remote = remote_of(path := machine("a") / "x.json")
    assert remote is not None and publish(path, b"a proof of some length")
    server.harm.planned.extend(["cut"] * 4)
    begun = time.monotonic()
    found = bucket_of(remote).conditions.read(remote.key)
    assert found is not None and found[0] == b"a proof of some length"
    assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4 + 0.8


def test_a_storage_that_goes_away_ends_in_one_line(server: ObjectStore, machine: Machine) -> None:
    publish(machine("a") / "x.json", b"{}")
    store = SoftTargetStore.create(machine("a") / "wide", a_spec())
    server.harm.denied = "AnInventedCode"
    for work in (lambda: publish(machine("a") / "y.json", b"{}"), lambda: fill(store)):
        with pytest.raises(StorageError, match="the same command goes on from here"):
            work()


def test_a_node_that_does_not_see_out_says_so(tmp_path: Path) -> None:
    from orchestrator.cluster.probing import what_is_wrong

    (tmp_path / "probe").write_text("token")
    assert what_is_wrong(str(tmp_path / "probe"), "token") == ""
    assert "does not see" in what_is_wrong(str(tmp_path / "elsewhere"), "token")


def test_conditions_on_google_are_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    from teachers.storage import gcs

    with google_store() as (address, objects):
        monkeypatch.setenv(gcs.EMULATOR, address)
        gcs.client.cache_clear()
        bucket = gcs.Conditions("box")
        bucket.check("out")
        first = bucket.create("out/x", io.BytesIO(b"first"))
        assert first is not None and bucket.create("out/x", io.BytesIO(b"second")) is None
        assert bucket.read("out/x") == (b"first", first) and bucket.read("out/y") is None
        swapped = bucket.swap("out/x", b"swapped", first)
        assert swapped is not None and bucket.swap("out/x", b"late", first) is None
        bucket.copy("out/x", "out/y")
        for name in ("out/y/shards/1", "out/y/shards/2", "out/y/z", "out/yy"):
            bucket.create(name, io.BytesIO(b"1"))
        assert [key for key, _, _ in bucket.list("out/y", ("shards",))] == ["out/y/z"]
        assert [key for key, *_ in bucket.list("out/y")] == ["out/y/shards/1", "out/y/shards/2", "out/y/z"]
        bucket.remove(["out/x", "out/none", "out/yy", *(key for key, *_ in bucket.list("out/y"))])
        assert [(name, payload) for name, (_, payload) in objects.items()] == [("out/y", b"swapped")]
        with pytest.raises(EnvironmentUnfit, match="gs://none: there is no such bucket"):
            gcs.Conditions("none").check("out")
        gcs.client.cache_clear()


@pytest.mark.campaign
def test_a_recipe_on_a_storage_that_does_harm_ends_as_in_a_folder_and_is_reused_from_an_empty_cache(
    tmp_path: Path,
) -> None:
    from tests import faults, storage_faults

    with object_store() as store:
        store.client().create_bucket(Bucket=storage_faults.BUCKET)
        store.harm.rate = storage_faults.RATE
        storage_faults.finish(storage_faults.start(tmp_path, store, "cache"), tmp_path)
        found = storage_faults.downloaded(store, tmp_path / "found")
        assert faults.compare(found, faults.undisturbed(tmp_path, faults.SMALL)) == []
        stages = storage_faults.again(tmp_path, store, "another-cache")
        assert len(stages) > 10 and all(stage["reused"] for stage in stages)
