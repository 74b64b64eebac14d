"""Points of curves: kept in the stage's `metrics.jsonl`, sent to the tracker, shown to Prometheus."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from uuid import uuid4

from teachers.process import prometheus
from teachers.storage import mirror
from teachers.storage.flock import try_lock
from teachers.storage.place import remote_of

from ..tasks.figure import LOOKS

CURVES = "metrics"
WRITER = uuid4().hex
"""This process."""
PATIENCE_S = 2.0
"""With others that add points to the same file; a node that died may have left it locked, and training goes on."""
SHOWN = {"train.loss": "collegium_training_loss"} | {
    f"validation.{key}": f"collegium_validation_{key}" for looks in LOOKS.values() for key in looks
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
    with suppress(NotImplementedError):
        while time.monotonic() < end and not try_lock(file):
            time.sleep(0.01)


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


CHUNK_BYTES = 8 << 20
"""Of a file at a time: so many points that those of a thousand trainings still make portions worth sending."""


@dataclass
class Followed:
    """A `metrics.jsonl` and the bytes of it that were sent; `until`: its size when the run ended."""

    path: str
    stage: str
    offset: int = 0
    until: int | None = None

    def unsent(self) -> Iterator[tuple[list[Record], int]]:
        """Complete lines after `offset`, in chunks: the records, and the offset behind them."""
        if self.complete:
            return
        yield from _chunks(Path(self.path), self.offset, self.until, self.stage)

    def sent(self) -> Iterator[Record]:
        for records, _ in _chunks(Path(self.path), 0, self.offset, self.stage):
            yield from records

    @property
    def complete(self) -> bool:
        if self.until is not None and self.offset >= self.until:
            return True
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return True
        return self.offset >= (size if self.until is None else self.until)


def read_records(path: Path, stage: str = "") -> Iterator[Record]:
    """Every record of a `metrics.jsonl`; a line that a killed writer left unfinished is passed over."""
    for records, _ in _chunks(path, 0, None, stage):
        yield from records


def _chunks(path: Path, offset: int, until: int | None, stage: str) -> Iterator[tuple[list[Record], int]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while True:
            file.seek(offset)
            chunk = file.read(CHUNK_BYTES) + file.readline()
            if until is not None:
                chunk = chunk[: until - offset]
            complete = len(chunk) if until is not None and offset + len(chunk) >= until else chunk.rfind(b"\n") + 1
            if not complete:
                return
            offset += complete
            yield [record for line in chunk[:complete].splitlines() if (record := _parsed(line, stage))], offset


def _parsed(line: bytes, stage: str) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, Mapping) or not {"run", "step", "key", "value", "time"} <= found.keys():
        return None
    return Record(**{"stage": stage, **found})  # type: ignore[typeddict-item]
