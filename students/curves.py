"""Points of curves: kept in the stage's `metrics.jsonl`, sent to the tracker, shown to Prometheus."""

import fcntl
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

from teachers import prometheus
from teachers.storage import mirror
from teachers.storage.place import remote_of

CURVES = "metrics"
WRITER = uuid4().hex
"""This process."""
PATIENCE_S = 2.0
"""With others that add points to the same file; a node that died may have left it locked, and training goes on."""
SHOWN = {
    "train.loss": "collegium_training_loss",
    "validation.accuracy": "collegium_validation_accuracy",
    "validation.nll": "collegium_validation_nll",
}
"""Curves that Prometheus has too."""


class Record(TypedDict):
    """One point of a curve."""

    stage: str
    run: str
    step: int
    key: str
    value: float
    time: float


def append_metrics(stage: Path, records: Sequence[Record]) -> None:
    """Add points to the `metrics.jsonl` of a stage's folder, in one write; of two points for one (run, step, key) the last counts."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    file = metrics_file(stage)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        _await_turn(opened.fileno())
        opened.write(lines)


def _await_turn(file: int) -> None:
    """Lock an open file until it is closed. Between nodes that share a folder, appending alone is not one step."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return


def metrics_file(stage: Path) -> Path:
    """Where this process adds points: in an object store, which cannot be appended to, each has a file of its own."""
    return stage / "metrics.jsonl" if remote_of(stage) is None else stage / CURVES / f"{WRITER}.jsonl"


def keep_metrics(stage: Path) -> None:
    """Let the storage have the points so far; before each checkpoint, so that what follows on it misses none."""
    if remote_of(stage) is not None and (file := metrics_file(stage)).exists():
        mirror.put(file)


def gather_metrics(stage: Path) -> None:
    """Add what all processes have left of curves to the stage's `metrics.jsonl`, once each."""
    if remote_of(stage) is None:
        return
    whole = stage / "metrics.jsonl"
    mirror.bring(whole)
    mirror.pull(stage / CURVES)
    known = set(whole.read_text("utf-8").splitlines()) if whole.exists() else set()
    found = [line for file in sorted((stage / CURVES).glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    with whole.open("a", encoding="utf-8") as opened:
        opened.write("".join(f"{line}\n" for line in found if line not in known))
    mirror.put(whole)


def deliver_records(mailbox: Any, stage: Path, records: Sequence[Record]) -> None:
    """Keep points of curves in the stage's file, and send them to the tracker and to Prometheus if they are there."""
    append_metrics(stage, records)
    shown = [record for record in records if record["key"] in SHOWN]
    for record in shown:
        prometheus.show(SHOWN[record["key"]], record["value"], stage=record["stage"], training=record["run"])
    for record in shown[:1]:
        prometheus.show("collegium_training_steps", record["step"], stage=record["stage"], training=record["run"])
    if mailbox is not None:
        mailbox.put.remote(list(records))
