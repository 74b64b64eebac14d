"""Curves and results to MLflow while training goes on: one thread, which nobody waits for.

A run of the command is a run of MLflow, each training a nested one. The thread follows the stages' `metrics.jsonl` and a
mailbox that is quicker, keeps a ledger of what was sent, and goes on from there when a server was away.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from students.runs.curves import Record
from students.tasks.figure import headline
from teachers.config.secrets import without_password
from teachers.process import prometheus
from teachers.process.log_lines import with_ids

from ..cluster import mailbox as mailboxes
from ..recipe.model import Recipe, public
from ..reporting import unjudged
from ..reporting.headline import headline_figures, task_of
from ..reporting.note import note
from ..watching.pulse import SILENT_S
from .away import reason_of, told_if_away
from .courier import JUDGED_ON, Courier
from .late import Late, failure
from .ledger import Ledger, Status
from .server import connect, flattened, place_of, resolve_uri
from .shown import results_in_short, run_name, source_tags, view

POLL_S = 0.3
LONGEST_PAUSE_S = 5.0
PATIENCE_S = 15.0
"""How long the end of a run waits for a server that is away."""
SHORT_PATIENCE_S = 3.0
"""How long a run that failed or was interrupted does."""

log = logging.getLogger(__name__)


class Tracker:
    """Of one `collegium run`. All methods but `finish` return at once, whatever the server does."""

    def __init__(self, uri: str, courier: Courier, late: Late, *, registers: bool, name: str) -> None:
        self.uri = without_password(uri)
        self._name = name
        self._registers = registers
        self._courier = courier
        self._late = late
        self._ledger = courier.ledger
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._take: Callable[[], list[Record]] = list
        self._mailbox: Any = None
        self._asking = threading.Lock()
        self._away_since: float | None = None
        self._finishing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=with_ids(self._serve), name="tracker", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        out: Path,
        folder: Path,
        *,
        command: str = "run",
        source: str | None = None,
        undecided: Sequence[str] = (),
        silent_s: float = SILENT_S,
    ) -> Self:
        """Open the parent run of the command whose folder is `runs/<id>`; leave it as a context or by `finish`.

        `source`: the file that the recipe was read from, as its user named it. `undecided`: students whose settings `decide` tells.

        Earlier runs that were killed are ended; of another machine's, one whose beat does not change for `silent_s`.

        Raises EnvironmentUnfit when the tracking server does not answer.
        """
        uri = resolve_uri(recipe.tracking.uri, out)
        server = connect(uri, out, recipe.tracking.experiment or recipe.name)
        tags, late = place_of(out), Late(out, uri, silent_s)
        late.close_abandoned()
        with told_if_away(uri):
            parent = server.begin(
                run_name(recipe.name, command),
                {**tags, **source_tags(source), "collegium.run": folder.name},
                _without(public(recipe), undecided),
                view(recipe),
            )
        folder.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(folder, without_password(uri), server.experiment_id, parent)
        ledger.follow("", folder / "metrics.jsonl")
        ledger.save()
        courier = Courier(server.client, ledger, tags)
        return cls(uri, courier, late, registers=recipe.tracking.register_models, name=run_name(recipe.name, command))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended.is_set() and not self._finishing:
            interrupted = kind is not None and not issubclass(kind, Exception)
            status: Status = "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED"
            for told in self._end(status, SHORT_PATIENCE_S):
                log.warning("%s", told)

    def ids(self) -> dict[str, str]:
        """`experiment_id`, `run_id` and `uri`, for the report."""
        return {"experiment_id": self._ledger.experiment_id, "run_id": self._ledger.run_id, "uri": self.uri}

    def mailbox(self) -> Any:
        """The mailbox actor that all trainings `put` points into; needs a cluster."""
        with self._asking:
            if self._mailbox is None:
                self._mailbox = mailboxes.open_mailbox()
                self.listen(partial(mailboxes.empty, self._mailbox))
            return self._mailbox

    def listen(self, take: Callable[[], list[Record]]) -> None:
        """Take points of followed stages from `take` too."""
        self._take = take

    def drain(self) -> None:
        """Leave the mailbox, before its cluster ends: who asks it then waits for ever. What lies in it is in the files."""
        with self._asking:
            self.listen(list)
            self._mailbox = None

    def follow(self, stage: str, metrics: Path) -> None:
        """Send what is, and what will be, in a stage's `metrics.jsonl`; call it when the stage starts."""
        self._inbox.put(lambda: self._ledger.follow(stage, metrics))

    def decide(self, recipe: Recipe, names: Sequence[str]) -> None:
        """Tell the settings of students that were not decided when the run began."""
        document = public(recipe)
        students = {name: document["students"][name] for name in names}
        self._tell({"do": "settings", "values": dict(flattened({"students": students}))})

    def learns_from(self, dataset: Mapping[str, str]) -> None:
        """The transfer set, as `shown.data_set` describes it."""
        self._tell({"do": "input", "dataset": dict(dataset)})

    def log(self, stage: str, values: Mapping[str, float], *, run: str = "", step: int = 0) -> None:
        """Figures of the driver's own, for example rows per second of a label stage."""
        now = time.time()
        records = [
            Record(stage=stage, run=run, step=step, key=key, value=value, time=now) for key, value in values.items()
        ]
        with (self._ledger.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))

    def stage_done(self, stage: str, status: Status = "FINISHED") -> None:
        """End the nested runs of a stage."""
        self._tell({"do": "end_children", "stage": stage, "status": status})

    def trial_done(
        self, stage: str, run: str, *, params: Mapping[str, Any], status: Status, tags: Mapping[str, str]
    ) -> None:
        """End the nested run of one trial, with its setting."""
        given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
        self._tell({"do": "trial", "stage": stage, "run": run, "params": given, "status": status, "tags": dict(tags)})

    def finish(
        self, report: Mapping[str, Any], models: Mapping[str, Path], patience_s: float = PATIENCE_S
    ) -> list[str]:
        """End the run with its results; `models` are the exported folders `<name>-<key>` by student.

        Waits until all is told, or until the server has been away for `patience_s`. Returns what to tell the user.
        """
        self._tell_results(report, [*models] if self._registers else [])
        for name, folder in models.items():
            self._tell({"do": "artifact", "path": str(folder), "to": f"models/{name}"})
            if self._registers:
                self._tell_model(name, folder, report)
        return self._end("FINISHED", patience_s)

    def _end(self, status: Status, patience_s: float) -> list[str]:
        self._finishing = True
        self._tell({"do": "end_children", "stage": None, "status": status})
        self._tell({"do": "end", "status": status})
        self._inbox.put(self._ledger.close)
        begun = time.monotonic()
        while not self._ended.wait(POLL_S):
            since = begun if status == "KILLED" else self._away_since  # who interrupts a run wants it to end
            if not self._thread.is_alive() or (since is not None and time.monotonic() - since > patience_s):
                self._ended.set()  # whoever opens the ledger next goes on
                return [self._kept()]
        return []

    def _tell(self, task: dict[str, Any]) -> None:
        task.setdefault("time", int(time.time() * 1000))
        self._inbox.put(lambda: self._ledger.outbox.append(task))

    def _tell_results(self, report: Mapping[str, Any], models: Sequence[str]) -> None:
        out = self._ledger.folder.parent.parent
        values = dict(unjudged.figures(report)) if "unjudged" in report else headline_figures(report)
        self._tell({"do": "figures", "values": {name: value for name, value in values.items() if value is not None}})
        if results := results_in_short(report):
            self._tell({"do": "name", "name": f"{self._name}: {results}"})
        self._tell({"do": "tag", "key": "mlflow.note.content", "value": note(report, out=out, models=models)})
        for file in ("recipe.yaml", "found.yaml", "report.json", "report.html"):
            if (path := self._ledger.folder / file).exists():
                self._tell({"do": "artifact", "path": str(path), "to": None})

    def _tell_model(self, name: str, folder: Path, report: Mapping[str, Any]) -> None:
        test = json.loads((folder / "metrics.json").read_bytes())["test"]
        figures = {key: value for key, value in test.items() if isinstance(value, float)}
        tags = {"collegium.student": name, JUDGED_ON: report["transfer_set"]["judged_on"]}
        figure = headline(task_of(report))
        if test.get("validation", {}).get(figure.key) is not None:
            tags[f"validation_{figure.key}"] = str(test["validation"][figure.key])
        registered = f"{report['recipe']['name']}-{name}"
        judged_by = {"tag": f"validation_{figure.key}", "sign": figure.sign}
        model = {"name": registered, "key": folder.name, "path": str(folder), "figures": figures, "tags": tags, "judged_by": judged_by}  # fmt: skip
        self._tell({"do": "model", **model})

    def _kept(self) -> str:
        return (
            f"MLflow at {self.uri} does not answer, or not quickly; the curves are kept in the stages' metrics.jsonl and "
            f"what is left to send in {self._ledger.folder}; `collegium report` or the next run sends it"
        )

    def _serve(self) -> None:
        self._say(self._late.send())
        with self._ledger.alone():
            pause = POLL_S
            while not self._ended.is_set():
                self._read_inbox(pause)
                pause = POLL_S if self._sync() else min(LONGEST_PAUSE_S, 2 * pause)
                if self._ledger.closed and self._ledger.is_empty:
                    self._ended.set()
                else:
                    self._say(self._late.look())

    def _say(self, told: Iterable[str]) -> None:
        for line in told:
            log.info("%s", line)

    def _sync(self) -> bool:
        """Tell what there is, and keep what was told; whether server and disk took it."""
        with self._asking:
            fresh = self._take()
        failures = [failure(partial(self._courier.sync, fresh)), failure(self._ledger.save)]
        if error := failures[0] or failures[1]:
            self._is_away(error)
            return False
        if self._away_since is not None:
            log.info("MLflow at %s answers again; nothing was lost", self.uri)
        self._away_since = None
        prometheus.show("collegium_mlflow_away_seconds", 0)
        return True

    def _read_inbox(self, pause: float) -> None:
        try:
            change = self._inbox.get(timeout=pause)
            while True:
                change()
                change = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _is_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "MLflow at %s does not answer; work goes on and curves are sent later (%s)", self.uri, reason_of(error)
            )
        prometheus.show("collegium_mlflow_away_seconds", time.monotonic() - self._away_since)


def _without(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A recipe but for some of its students."""
    students = {name: student for name, student in document["students"].items() if name not in names}
    return {**document, "students": students}
