"""What a run says of itself while it goes on: `runs/<id>/run.json`, for `collegium status` and whoever else looks.

Written over in one step by a thread that nobody waits for, at every change and every few seconds: so who reads it
elsewhere can tell a run that goes on from one whose process is gone. What stores and curves say is not repeated.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Literal, Self

from teachers.errors import StoreError
from teachers.process import prometheus
from teachers.process.identity import this_process
from teachers.process.log_lines import once
from teachers.process.variables import masked
from teachers.storage.seal import read_document, replace

from ..stages.stages import Built, Stage

FORMAT = 1
NAME = "run.json"
BEAT_S = 5.0
KEYS = {
    *(
        "id",
        "command",
        "recipe",
        "state",
        "host",
        "processes",
        "pid",
        "process_start",
        "begun",
        "beat",
        "ended",
        "error",
    ),
    *("planned", "stages", "work", "cluster", "mlflow"),
}
"""Of every journal."""

TO_COME = ("waiting", "building")
"""States of stages that are not there yet."""
Ended = Literal["finished", "failed", "interrupted"]
log = logging.getLogger(__name__)


class Journal:
    """Of one command; a context, whose end says how the command ended. All methods return at once."""

    def __init__(self, folder: Path, *, command: str, recipe: str, planned: Sequence[str]) -> None:
        self.file = folder / NAME
        now = time.time()
        self._document: dict[str, Any] = {
            "format": FORMAT,
            "id": folder.name,
            "command": command,
            "recipe": recipe,
            "state": "running",
            **this_process(),
            "begun": now,
            "beat": now,
            "ended": None,
            "error": None,
            "planned": list(planned),
            "stages": {},
            "work": {},
            "cluster": None,
            "mlflow": None,
        }
        self._lock = Lock()
        self._news, self._over = Event(), False
        self._thread = Thread(target=self._keep, name="journal", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended: Ended = "finished" if kind is None else "failed" if issubclass(kind, Exception) else "interrupted"
        said = (
            (str(error).strip().splitlines() or [kind.__name__])[0] if kind is not None and ended == "failed" else None
        )
        self._tell(state=ended, ended=time.time(), error=said and masked(said))
        self._over = True
        self._news.set()
        self._thread.join()

    def waits(self, stage: Stage, folder: Path) -> None:
        """A stage will be built in `folder` of OUT, when it is its turn."""
        self._note(stage, folder, "waiting")

    def seen(self, stage: Stage, folder: Path, built: Built | None) -> None:
        """A stage is being built in `folder` of OUT, or is there."""
        told = {}
        if built is not None and not built.reused:
            told = {"seconds": round(built.seconds, 3), "facts": dict(built.facts)}
        self._note(stage, folder, "building" if built is None else "reused" if built.reused else "built", **told)

    def _note(self, stage: Stage, folder: Path, state: str, **told: Any) -> None:
        entry = {"folder": "/".join(folder.parts[-2:]), "state": state, "since": time.time(), **told}
        with self._lock:
            self._document["stages"] = {**self._document["stages"], stage.title: entry}
            done = sum(entry["state"] not in TO_COME for entry in self._document["stages"].values())
        prometheus.show("collegium_stages_done", done)
        self._news.set()

    def work(self, title: str, *, trainings: Mapping[str, Any] | None = None, **what: Any) -> None:
        """What is done for `label/wide`, `distill/small` or `tune/small`, and with what; said again, it is put together."""
        with self._lock:
            before = self._document["work"].get(title, {})
            now = {**before, **what}
            if trainings is not None:
                now["trainings"] = {**before.get("trainings", {}), **trainings}
            self._document["work"] = {**self._document["work"], title: now}
        if now != before:
            self._news.set()

    def estimated(self, estimates: Mapping[str, Mapping[str, Any]]) -> None:
        """By stage, what it is thought to take."""
        self._tell(estimates={title: dict(each) for title, each in estimates.items()})

    def on(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """The nodes that the run works on."""
        found = [node["Resources"] for node in nodes]
        cpus, gpus = (sum(node.get(name, 0) for node in found) for name in ("CPU", "GPU"))
        self._tell(cluster={"nodes": len(found), "cpus": cpus, "gpus": gpus})

    def tracked(self, ids: Mapping[str, str]) -> None:
        """Where MLflow has the run."""
        self._tell(mlflow=dict(ids))

    def _tell(self, **news: Any) -> None:
        with self._lock:
            self._document |= news
        self._news.set()

    def _keep(self) -> None:
        while not self._over:
            self._news.wait(BEAT_S)
            self._news.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            self._document["beat"] = time.time()
            payload = json.dumps(self._document, indent=1).encode()
        with suppress(OSError):  # a disk that is full: the run itself says so
            replace(self.file, payload)


def read(folder: Path) -> dict[str, Any] | None:
    """The journal in a run's folder, or None. Raises StoreError for one of another format, or that cannot be read."""
    path = folder / NAME
    try:
        document = read_document(path, FORMAT, "it is of one run alone: remove it")
    except FileNotFoundError:
        return None
    if missing := KEYS - document.keys():
        raise StoreError(f"{path}: not a journal, it has no {', '.join(sorted(missing))}; remove it")
    return document


def journals(out: Path) -> list[dict[str, Any]]:
    """Of all runs in `out`, the newest first. One that is damaged is told once and passed over."""
    found = []
    for path in out.glob(f"runs/*/{NAME}"):
        try:
            found.append(read(path.parent))
        except StoreError as error:
            once(log, str(error))
    return sorted(filter(None, found), key=lambda run: run["begun"], reverse=True)
