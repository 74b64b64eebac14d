"""What the tracking server has been told of one run, and what not yet: `runs/<id>/tracking.json`.

The curves themselves lie in the stages' `metrics.jsonl`; the ledger keeps how far each was sent. So nothing is lost while a
server is away: who opens the ledger later goes on where it stopped. Knows nothing of MLflow.
"""

import json
import logging
import math
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from students.runs.curves import Followed, Record
from teachers.errors import StoreError
from teachers.process.log_lines import once
from teachers.storage.flock import try_lock
from teachers.storage.place import here, remote_of
from teachers.storage.room import write
from teachers.storage.seal import read_document, replace

FORMAT = 1
NAME = "tracking.json"
LOCK = ".tracking.lock"
CURE = "what MLflow was not told of this run is not sent: remove it, and the run's curves stay in the stages' metrics.jsonl"
KEEP_EVERY_S = 5.0
"""Storage has a ledger of a run that goes on, so that a driver elsewhere can end it. What is told twice does no harm."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
log = logging.getLogger(__name__)


class Told:
    """Points that were told, in eight bytes each: a training that resumed says the same again, and they count once."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._steps: dict[tuple[str, str, str], array[int]] = {}
        """By curve, ascending."""
        self.add(records)

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            steps = self._steps.setdefault(_curve(record), array("q"))
            if not steps or steps[-1] < record["step"]:
                steps.append(record["step"])
            elif steps[at := bisect_left(steps, record["step"])] != record["step"]:
                steps.insert(at, record["step"])

    def new(self, records: Iterable[Record]) -> list[Record]:
        """Those of `records` that were not told; of two for one point the later one."""
        found = {(*_curve(record), record["step"]): record for record in records if not self._has(record)}
        return [*found.values()]

    def _has(self, record: Record) -> bool:
        steps = self._steps.get(_curve(record), ())
        at = bisect_left(steps, record["step"])
        return at < len(steps) and steps[at] == record["step"]


def _curve(record: Record) -> tuple[str, str, str]:
    return record["stage"], record["run"], record["key"]


@dataclass
class Child:
    """A nested run of the tracking server: one training of a stage, or a stage without trainings (`run` is empty)."""

    stage: str
    run: str
    id: str
    ended: bool = False


PLAIN = ("uri", "experiment_id", "run_id", "outbox", "closed")


@dataclass
class Ledger:
    """`outbox`: what is told after the curves, in this order; each entry says what to do, and doing it twice does no harm."""

    folder: Path
    uri: str
    """Without its password."""
    experiment_id: str
    run_id: str
    children: list[Child] = field(default_factory=list)
    files: list[Followed] = field(default_factory=list)
    outbox: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    """The run has ended and nothing will be added."""
    saved: bytes = b""
    """As it lies here."""
    kept: bytes = b""
    """As it outlives this machine, since `kept_s`."""
    kept_s: float = -math.inf

    @classmethod
    def open(cls, folder: Path) -> "Ledger":
        """Raises StoreError for one that is damaged or of another format."""
        document = read_document(folder / NAME, FORMAT, CURE)
        try:
            return cls(
                folder=folder,
                children=[Child(**child) for child in document["children"]],
                files=[
                    Followed(**{**followed, "path": str(here(Path(followed["path"])))})
                    for followed in document["files"]
                ],
                **{name: document[name] for name in PLAIN},
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"{folder / NAME}: not a ledger ({error!r}); {CURE}") from error

    def save(self) -> None:
        """Write it, where something has changed; storage, where OUT is in one, gets it at once or a little later."""
        document = {"format": FORMAT, **{name: getattr(self, name) for name in PLAIN}}
        document |= {"children": [*map(vars, self.children)], "files": [*map(vars, self.files)]}
        payload, now = json.dumps(document, indent=1).encode(), time.monotonic()
        if payload != self.kept and (self.closed or now - self.kept_s > self.keep_every_s):
            self.kept_s = now  # tried, at least
            replace(self.folder / NAME, payload)
            self.kept = self.saved = payload
        elif payload != self.saved:
            write(self.folder / NAME, payload)
            self.saved = payload

    @property
    def keep_every_s(self) -> float:
        return -1.0 if remote_of(self.folder) is None else KEEP_EVERY_S

    @property
    def is_empty(self) -> bool:
        """Whether everything that there is has been told."""
        return not self.outbox and all(followed.complete for followed in self.files)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else sends from this ledger, for as long as this context lasts; where nobody can know, it is sent."""
        with (self.folder / LOCK).open("w") as lock:
            try:
                mine = try_lock(lock.fileno())
            except NotImplementedError:
                mine = True
            yield mine

    def follow(self, stage: str, path: Path) -> None:
        if all(followed.path != str(path) for followed in self.files):
            self.files.append(Followed(str(path), stage))

    def close(self) -> None:
        """Nothing is added from here on: what a later run writes into the same files is not this run's."""
        self.closed = True
        for followed in self.files:
            followed.until = Path(followed.path).stat().st_size if Path(followed.path).exists() else 0


def ledgers_with_unsent(out: Path) -> list[Ledger]:
    """Runs in `out` that ended while their server was away."""
    return [ledger for ledger in ledgers(out) if ledger.closed and not ledger.is_empty]


def ledgers(out: Path) -> list[Ledger]:
    """Of all runs in `out`, the newest last. One that is damaged is told once and passed over."""
    found = []
    for path in sorted((out / "runs").glob(f"*/{NAME}")):
        try:
            found.append(Ledger.open(path.parent))
        except StoreError as error:
            once(log, str(error))
    return found
