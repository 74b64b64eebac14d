"""Tells a tracking server what a ledger says it has not heard yet. Whatever is told twice is kept once.

Every call names its run, so any thread may make it, and points carry the time at which they were made. Knows nothing of
threads, retries or where the server is.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from students.runs.curves import Record
from teachers.process import prometheus

from ..reporting.note import CHARACTERS
from .ledger import Child, Ledger, Told
from .names import (
    LONGEST_NAME,
    METRICS_AT_ONCE,
    REFUSED,
    fit_tags,
    fit_value,
    log_batch,
    metric,
    model_metrics,
    params,
    run_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAVE_EVERY_S = 1.0
HOPELESS = (REFUSED, "RESOURCE_DOES_NOT_EXIST")
"""Answers of a server that is well and will never take this."""
AWAY = "TEMPORARILY_UNAVAILABLE"
"""Answer of a server that is not well, and of a database that is locked or whose disk is full."""
ATTEMPTS = 3

T = TypeVar("T")

log = logging.getLogger(__name__)


class Courier:
    """Of one ledger. `tags` are put on every nested run."""

    def __init__(self, client: "MlflowClient", ledger: Ledger, tags: Mapping[str, str]) -> None:
        self.client = client
        self.ledger = ledger
        self.tags = dict(tags)
        self.refusals = 0
        self.told = Told(record for file in ledger.files for record in file.sent())
        self.children = {(child.stage, child.run): child for child in ledger.children}
        self.in_doubt = ledger.closed
        """Whether the server may have made a nested run whose id never came here."""
        self.saved_s = time.monotonic()

    def sync(self, fresh: Iterable[Record] = ()) -> None:
        """Send fresh points of followed stages, then what the files have beyond them, then the outbox.

        Raises MlflowException or OSError when the server does not answer; what was told by then is in the ledger.
        """
        stages = {followed.stage for followed in self.ledger.files}
        self._send([record for record in fresh if record["stage"] in stages])
        for followed in self.ledger.files:
            for records, offset in followed.unsent():
                self._send(records)
                followed.offset = offset
        while self.ledger.outbox:
            self._unless_hopeless(self._do, self.ledger.outbox[0])
            del self.ledger.outbox[0]
            if time.monotonic() - self.saved_s > SAVE_EVERY_S:  # what is done twice does no harm
                self.saved_s = time.monotonic()
                self.ledger.save()

    def _send(self, records: Sequence[Record]) -> None:
        for (stage, run), grouped in groupby(sorted(self.told.new(records), key=_place), key=_place):
            for some in _portions(list(grouped)):
                self._unless_hopeless(self._send_points, stage, run, some)
                self.told.add(some)
                prometheus.add("collegium_mlflow_points", len(some))

    def _send_points(self, stage: str, run: str, records: Sequence[Record]) -> None:
        of = self.ledger.run_id  # figures of no stage are the parent's own
        if stage:
            of = (self.children.get((stage, run)) or self._begin(stage, run, records[0]["time"])).id
        log_batch(self.client, of, metrics=[_metric(record) for record in records])

    def _begin(self, stage: str, run: str, begun: float) -> Child:
        """The nested run; one that was made by a call whose answer was lost is found again."""
        place = hashlib.sha256(f"{stage}|{run}".encode()).hexdigest()[:16]
        query = f"tags.\"mlflow.parentRunId\" = '{self.ledger.run_id}' and tags.\"collegium.child\" = '{place}'"
        found = self.client.search_runs([self.ledger.experiment_id], query) if self.in_doubt else []
        tags = {"collegium.stage": stage, "collegium.run": run, "collegium.child": place}
        was_in_doubt, self.in_doubt = self.in_doubt, True
        made = found[0] if found else self.client.create_run(
            self.ledger.experiment_id,
            start_time=int(begun * 1000),
            run_name=f"{stage} {run}".strip(),
            tags=fit_tags({**self.tags, **tags, "mlflow.parentRunId": self.ledger.run_id}),
        )  # fmt: skip
        self.in_doubt = was_in_doubt
        child = self.children[stage, run] = Child(stage, run, made.info.run_id)
        self.ledger.children.append(child)
        return child

    def _unless_hopeless(self, tell: Callable[..., None], *arguments: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            tell(*arguments)
        except MlflowException as error:
            hopeless = error.error_code in HOPELESS
            if not hopeless and (error.error_code == AWAY or not self._is_refused_again()):
                raise
            log.warning("MLflow refuses a part of run %s and goes without it: %s", self.ledger.run_id, error.message)
        self.refusals = 0

    def _is_refused_again(self) -> bool:
        """Whether a server that answers otherwise has failed at this often enough. Raises when it does not answer."""
        self.client.search_experiments(max_results=1)
        self.refusals += 1
        return self.refusals >= ATTEMPTS

    def _do(self, task: Mapping[str, Any]) -> None:
        if "path" in task and not Path(task["path"]).exists():
            log.warning("%s is gone and cannot be sent to MLflow", task["path"])
        else:
            TASKS[task["do"]](self, task)

    def end_children(self, task: Mapping[str, Any]) -> None:
        """End the nested runs of `stage`, or all that are left."""
        for child in self.ledger.children:
            if not child.ended and task["stage"] in (None, child.stage):
                self.client.set_terminated(child.id, task["status"], task["time"])
                child.ended = True

    def trial(self, task: Mapping[str, Any]) -> None:
        """End one nested run, and say what it was trained with."""
        stage, run = task["stage"], task["run"]
        child = self.children.get((stage, run)) or self._begin(stage, run, task["time"] / 1000)
        if not child.ended:
            log_batch(self.client, child.id, params=params(task["params"]), tags=run_tags(task["tags"]))
            self.client.set_terminated(child.id, task["status"], task["time"])
            child.ended = True

    def end(self, task: Mapping[str, Any]) -> None:
        self.client.set_terminated(self.ledger.run_id, task["status"], task["time"])

    def figures(self, task: Mapping[str, Any]) -> None:
        """Headline figures on the parent."""
        points = [metric(key, value, task["time"]) for key, value in task["values"].items()]
        log_batch(self.client, self.ledger.run_id, metrics=points)

    def settings(self, task: Mapping[str, Any]) -> None:
        """Parameters of the parent that were not known when it began."""
        log_batch(self.client, self.ledger.run_id, params=params(task["values"]))

    def name(self, task: Mapping[str, Any]) -> None:
        """Of the parent, in the list of runs."""
        self.client.update_run(self.ledger.run_id, name=fit_value(task["name"], LONGEST_NAME))

    def input(self, task: Mapping[str, Any]) -> None:
        """The data set that the run learns from: `dataset` holds the fields of MLflow's."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        context = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(self.ledger.run_id, [DatasetInput(Dataset(**task["dataset"]), context)])

    def tag(self, task: Mapping[str, Any]) -> None:
        self.client.set_tag(self.ledger.run_id, task["key"], fit_value(task["value"], CHARACTERS))

    def artifact(self, task: Mapping[str, Any]) -> None:
        """A file, or a folder with all that is in it, below `to`."""
        path = Path(task["path"])
        if path.is_dir():
            self.client.log_artifacts(self.ledger.run_id, str(path), task["to"])
        else:
            self.client.log_artifact(self.ledger.run_id, str(path), task["to"])

    def model(self, task: dict[str, Any]) -> None:
        """A LoggedModel of the folder, a registered version of it, and the alias `champion` for the best on validation."""
        from mlflow.entities import LoggedModelOutput

        name, tags = task["name"], {"collegium.key": task["key"], **task["tags"]}
        versions = self.client.search_model_versions(f"name = '{name}'")
        if any(version.tags.get("collegium.key") == task["key"] for version in versions):
            return
        if "id" not in task:
            logged = self.client.create_logged_model(
                self.ledger.experiment_id, name, self.ledger.run_id, fit_tags(tags)
            )
            task["id"] = logged.model_id
            self.ledger.save()
        self.client.log_model_artifacts(task["id"], task["path"])
        self.client.finalize_logged_model(task["id"], "READY")
        self.client.log_outputs(self.ledger.run_id, [LoggedModelOutput(task["id"], 0)])
        self._log_model_figures(task)
        self._register(task, tags, first=not versions)

    def _log_model_figures(self, task: Mapping[str, Any]) -> None:
        figures = model_metrics(task["figures"], task["time"], task["id"])
        log_batch(self.client, self.ledger.run_id, metrics=figures)

    def _register(self, task: Mapping[str, Any], tags: Mapping[str, str], first: bool) -> None:
        from mlflow.exceptions import MlflowException

        if first:
            try:
                self.client.create_registered_model(task["name"])
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        where = self.client.get_logged_model(task["id"]).artifact_location  # `models:/ID` would be looked up elsewhere
        version = self.client.create_model_version(
            task["name"], where, self.ledger.run_id, fit_tags(tags), model_id=task["id"]
        ).version
        linked = json.dumps([{"name": task["name"], "version": version}])
        self.client.set_logged_model_tags(task["id"], {"mlflow.modelVersions": linked})
        if stays := self._why_champion_stays(task["name"], tags, task["judged_by"]):
            log.warning("version %s of %s is registered, and champion stays %s", version, task["name"], stays)
        else:
            self.client.set_registered_model_alias(task["name"], "champion", version)

    def _why_champion_stays(self, name: str, tags: Mapping[str, str], by: Mapping[str, Any]) -> str:
        """Which version it is, and why; nothing where there is none, or where it is beaten."""
        from mlflow.exceptions import MlflowException

        try:
            champion = self.client.get_model_version_by_alias(name, "champion")
        except MlflowException as error:
            if error.error_code not in HOPELESS:
                raise
            return ""
        if tags.get(JUDGED_ON) != champion.tags.get(JUDGED_ON):
            cure = "set the alias by hand if the new one shall take its place"
            return f"version {champion.version}, which was judged on other rows or classes, so no figure compares them; {cure}"
        unknown = -by["sign"] * math.inf
        ours, its = (float(each.get(by["tag"], unknown)) for each in (tags, champion.tags))
        return (
            ""
            if by["sign"] * ours >= by["sign"] * its
            else f"version {champion.version}: {its:.4f} on validation, the new one has {ours:.4f}"
        )


JUDGED_ON = "collegium.judged_on"
"""Stands for the rows and labels of validation and test: figures of other ones say nothing about each other."""

TASKS: dict[str, Callable[[Courier, Any], None]] = {
    "end_children": Courier.end_children,
    "trial": Courier.trial,
    "end": Courier.end,
    "figures": Courier.figures,
    "settings": Courier.settings,
    "name": Courier.name,
    "input": Courier.input,
    "tag": Courier.tag,
    "artifact": Courier.artifact,
    "model": Courier.model,
}


def _portions(points: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(points), METRICS_AT_ONCE):
        yield points[first : first + METRICS_AT_ONCE]


def _place(record: Record) -> tuple[str, str]:
    return record["stage"], record["run"]


def _metric(record: Record) -> Any:
    return metric(record["key"], record["value"], int(record["time"] * 1000), record["step"])
