"""Whole runs on an S3-compatible server that does harm, their driver killed, the rest done from an empty cache.

The harm: a share of all requests is reset before, within or after it is done, answered with 500 or 503, or answered
slowly. What is in the bucket at the end is read with boto3 alone, and compared with an undisturbed run in a folder.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults import PATIENCE_S, SMALL, Kill, Outcome, command, compare, kill_driver, outcome
from tests.object_store import ObjectStore, object_store

BUCKET = "faults"
RATE = 0.05
PREFIX = "out"


def start(folder: Path, store: ObjectStore, cache: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        **store.environment,
        "COLLEGIUM_CACHE": str(folder / cache),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    given = command(folder / "unused", SMALL)
    given[given.index("--out") + 1] = f"s3://{BUCKET}/{PREFIX}"
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(given, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def finish(driver: "subprocess.Popen[bytes]", folder: Path) -> None:
    code = driver.wait(timeout=3 * PATIENCE_S)
    assert code == 0, f"exit code {code}; {(folder / 'log').read_text()[-3000:]}"


def downloaded(store: ObjectStore, folder: Path, prefix: str = PREFIX) -> Outcome:
    """What lies in the bucket below `prefix`, as an OUT in a folder."""
    for key in store.keys(BUCKET, f"{prefix}/"):
        file = folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        store.client().download_file(BUCKET, key, str(file))
    return outcome(folder / prefix)


def undisturbed(folder: Path) -> Outcome:
    """A run on the same server with nothing done to it."""
    folder.mkdir(parents=True)
    with object_store() as store:
        store.client().create_bucket(Bucket=BUCKET)
        finish(start(folder, store, "cache"), folder)
        return downloaded(store, folder / "found")


def disturbed(folder: Path, seed: int) -> tuple[Outcome, str, float]:
    """One run with harm and one kill; the same command then goes on from an empty cache, as on another machine."""
    folder.mkdir(parents=True)
    with object_store() as store:
        store.client().create_bucket(Bucket=BUCKET)
        store.harm.rate, store.harm.drawn = RATE, random.Random(seed)
        when = kill_driver(start(folder, store, "cache"), folder, random.Random(seed))
        killed = time.monotonic()
        finish(start(folder, store, "another-cache"), folder)
        seconds = time.monotonic() - killed
        harmed: dict[str, Any] = store.harm.done
        return downloaded(store, folder / "found"), f"{when}, {sum(harmed.values())} requests harmed", seconds


def kills(folder: Path, times: int, seed: int) -> Iterator[Kill]:
    expected = undisturbed(folder / "undisturbed")
    for number in range(times):
        found, when, seconds = disturbed(folder / str(number), seed + number)
        yield Kill(f"killed {when}", seconds, compare(found, expected))


KINDS = {"driver, on a storage that does harm": kills}


def again(folder: Path, store: ObjectStore, cache: str) -> list[dict[str, Any]]:
    """The stages of the same command once more, on whatever machine has `cache`."""
    driver = start(folder, store, cache)
    finish(driver, folder)
    newest = max(key for key in store.keys(BUCKET, f"{PREFIX}/runs/") if key.endswith("report.json"))
    report = json.loads(store.client().get_object(Bucket=BUCKET, Key=newest)["Body"].read())
    stages: list[dict[str, Any]] = report["stages"]
    return stages
