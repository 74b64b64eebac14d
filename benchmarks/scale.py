"""What a driver does with a store of a million shards: resumed, looked at, sealed, verified. No byte of it is real.

    python -m benchmarks.scale [--shards 1000000] [--rows 1000000000] [--remote-shards 300]

The shards are sparse files of zeros with true hashes in their records, written by nobody's teacher. Each step is a process of its own,
whose largest memory counts: the driver's, which also hashes here what tasks would on a cluster. TMPDIR says where the files lie. What a
store in a bucket asks of it is counted at a smaller one on a server on loopback. The last line printed is one JSON object:

    driver_rss_mb       the largest memory of any step, Python, torch and Arrow included
    resume_s            half of the shards are there: every byte of them is checked, the rest given out by the dispatcher's queue
    status_s            `collegium status` counts the records while the store grows
    seal_s              the records are gathered, the seal is written, the loose records are removed
    verify_s            `collegium store verify`: every byte
    rss_mb              by step
    requests            of a store in a bucket, by step, for each shard: `write`, `seal`, `status`, `resume` from an empty cache, `verify`
    requests_per_shard  the largest of these
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from benchmarks.record import ROOT, finish, with_record
from teachers.soft_targets.records import record_path
from teachers.soft_targets.schema import Commit, Spec, shard_path, spell
from teachers.soft_targets.store import SoftTargetStore

ROW_BYTES = 12
"""Of a store that keeps classes alone: key and class."""


def a_spec(num_rows: int, num_shards: int) -> Spec:
    return Spec("nobody", "0", "train-0", "0", "label", ("a", "b"), num_rows, -(-num_rows // num_shards))


def write(folder: Path, spec: Spec, first: int, stop: int) -> None:
    """Shards of zeros in files that take no room, and their records, as if somebody had committed them."""
    zeros = np.zeros(spec.rows_per_shard * ROW_BYTES, np.uint8)
    hashes: dict[int, str] = {}
    for number in range(first, stop):
        first_row, num_rows = spec.shard_rows(number)
        size = num_rows * ROW_BYTES
        if size not in hashes:
            hashes[size] = xxhash.xxh3_128_hexdigest(zeros[:size].data)
        digest = hashes[size]
        path, last = shard_path(number, digest), first_row + num_rows - 1
        record = Commit(number, first_row, num_rows, size, path, digest, 0, first_row, last)
        with (folder / path).open("wb") as file:
            file.truncate(size)
        (folder / record_path(number)).write_bytes(spell(record.to_json()))


def resume(folder: Path) -> None:
    from teachers.labelling.hands import Waiting

    store = SoftTargetStore.open(folder)
    waiting = Waiting({0: (store, store.missing(hashes=True))})
    while waiting:
        waiting.popleft()


def status(folder: Path) -> None:
    from orchestrator.watching.status_stages import labelling

    found = labelling({"train-0": folder}, {}, time.time(), since=0.0, goes_on=True)
    assert found["shards"] == found["num_shards"]


def seal(folder: Path) -> None:
    SoftTargetStore.open(folder).seal()


def verify(folder: Path) -> None:
    from teachers.soft_targets.upkeep import verify as damages

    assert not damages(SoftTargetStore.open(folder))


STEPS: dict[str, Callable[[Path], None]] = {"resume": resume, "status": status, "seal": seal, "verify": verify}


def measured(step: str, folder: Path) -> tuple[float, float]:
    """(seconds, MB) of one step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    seconds, mb = json.loads(done.stdout)
    print(f"{step}: {seconds:.1f} s, {mb:.0f} MB")
    return seconds, mb


def local(num_rows: int, num_shards: int) -> dict[str, Any]:
    seconds, mb, spec = {}, {}, a_spec(num_rows, num_shards)
    with tempfile.TemporaryDirectory(prefix="collegium-scale-") as scratch:
        folder = SoftTargetStore.create(Path(scratch) / "store", spec).folder
        write(folder, spec, 0, spec.num_shards // 2)
        seconds["resume"], mb["resume"] = measured("resume", folder)
        write(folder, spec, spec.num_shards // 2, spec.num_shards)
        for step in ("status", "seal", "verify"):
            seconds[step], mb[step] = measured(step, folder)
    times = {f"{step}_s": round(found, 1) for step, found in seconds.items()}
    return {
        "driver_rss_mb": round(max(mb.values())),
        **times,
        "rss_mb": {step: round(each) for step, each in mb.items()},
    }


def remote(num_shards: int) -> dict[str, Any]:
    """Requests of each step for each shard of a store in a bucket."""
    from teachers.soft_targets.upkeep import verify as damages
    from teachers.storage import mirror
    from teachers.storage.anew import apart
    from teachers.storage.place import CACHE, place
    from tests.object_store import object_store

    asked: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="collegium-scale-") as scratch, object_store() as server:
        os.environ |= server.environment
        server.client().create_bucket(Bucket="box")

        def on(machine: str) -> Path:
            os.environ[CACHE] = str(Path(scratch) / machine)
            return place("s3://box/out") / "soft_targets" / "store"

        def counted(step: str, work: Callable[[], Any]) -> Any:
            before = server.harm.num_requests
            result = work()
            asked[step] = round((server.harm.num_requests - before) / num_shards, 3)
            return result

        spec = a_spec(64 * num_shards, num_shards)
        driver, writer = (SoftTargetStore.create(on(name), spec) for name in ("driver", "writer"))
        logits = np.random.default_rng(0).normal(size=(64, 2))
        keys = [np.arange(first, first + 64, dtype=np.uint64) for first in range(0, 64 * num_shards, 64)]
        on("writer")
        said = counted("write", lambda: [writer.commit(n, key, {"logits": logits}) for n, key in enumerate(keys)])
        counted("resume", lambda: SoftTargetStore.open(on("another")).missing())
        on("driver")
        for record in said:
            driver.note(record)
        counted("status", lambda: mirror.pull(driver.folder.parents[1], without="commits"))
        counted("seal", driver.seal)

        def verified() -> None:
            with apart(driver.folder) as read:
                assert not damages(SoftTargetStore.open(read), kept=False)

        counted("verify", verified)
    return {"requests": asked, "requests_per_shard": max(asked.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10**6)
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--remote-shards", type=int, default=300)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    with_record(parser)
    arguments = parser.parse_args()
    if arguments.step:
        begun = time.perf_counter()
        STEPS[arguments.step](arguments.folder)
        taken = time.perf_counter() - begun
        print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000]))
        return
    figures = {**local(arguments.rows, arguments.shards), **remote(arguments.remote_shards)}
    finish("scale", {"shards": arguments.shards, "rows": arguments.rows, **figures}, keep=arguments.record)


if __name__ == "__main__":
    main()
