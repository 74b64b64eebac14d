"""Where MLflow keeps things: which URI, whether it answers, its experiment, the parent run, and its page.

Knows nothing of curves.
"""

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from teachers.config.secrets import without_password
from teachers.errors import EnvironmentUnfit
from teachers.process.identity import is_process, neighbours, this_process
from teachers.process.variables import resolved
from teachers.storage.flock import await_lock
from teachers.storage.place import remote_of, spoken
from teachers.storage.seal import publish

from ..reporting.headline import deep_link
from .away import prepare_environment, told_if_away
from .ledger import ledgers
from .names import fit_tags, log_batch, params
from .shown import VIEW_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

LOOPBACK = ("127.0.0.1", "localhost", "::1")

log = logging.getLogger(__name__)


def resolve_uri(uri: str | None, out: Path) -> str:
    """The recipe's, else MLFLOW_TRACKING_URI, else SQLite in `out`. Raises EnvironmentUnfit without a variable that it names."""
    return resolved(uri) or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(out / 'mlflow.db').resolve()}"


def check_place(uri: str | None, out: Path) -> None:
    """Raise EnvironmentUnfit for an OUT in an object store without a server named: a database file cannot lie there."""
    if remote_of(out) is not None and not uri and "MLFLOW_TRACKING_URI" not in os.environ:
        raise EnvironmentUnfit(
            f"--out {spoken(out)}: MLflow's database file cannot lie in an object store; name a tracking server: set "
            f"MLFLOW_TRACKING_URI=http://HOST:5000, or `tracking.uri` in the recipe"
        )


def check_scheme(uri: str) -> None:
    if urlsplit(uri).scheme in ("", "file"):
        raise EnvironmentUnfit(
            f"tracking.uri {without_password(uri)}: MLflow keeps no runs in plain folders any more; use sqlite:///FILE or http(s)://HOST"
        )


def client_of(uri: str) -> "MlflowClient":
    """A client; of a database file it makes or migrates the tables at once."""
    prepare_environment()
    from mlflow import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what it raises as well
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def place_of(out: Path) -> dict[str, str]:
    """Tags that say which process runs where; `collegium.place` stands for the host and the folder."""
    process, folder = this_process(), spoken(out.resolve())
    return {
        "collegium.out": folder,
        "collegium.host": process["host"],
        "collegium.place": hashlib.sha256(f"{process['host']}:{folder}".encode()).hexdigest()[:16],
        "collegium.processes": process["processes"],
        "collegium.pid": str(process["pid"]),
        "collegium.start": str(process["process_start"]),
    }


@dataclass(frozen=True)
class Server:
    """A tracking server that answered, and the experiment in it."""

    client: "MlflowClient"
    experiment_id: str

    def begin(self, name: str, tags: Mapping[str, str], recipe: Mapping[str, Any], view: str) -> str:
        """Open a parent run; runs of the same place whose process is gone are ended first. Returns its id.

        `view`: of the experiment's table, as `shown.view`.
        """
        here = f"tags.\"collegium.place\" = '{tags['collegium.place']}'"
        self._end_stale([*self._runs(f"{here} and attributes.status = 'RUNNING'")])
        last = next((run for run in self._runs(here) if "mlflow.parentRunId" not in run.data.tags), None)
        if last is not None and last.info.status != "FINISHED":
            tags = {**tags, "collegium.continues": last.info.run_id}
        self.client.set_experiment_tag(self.experiment_id, VIEW_TAG, view)
        begun = int(time.time() * 1000)
        run_id: str = self.client.create_run(self.experiment_id, begun, fit_tags(tags), name).info.run_id
        log_batch(self.client, run_id, params=params(dict(flattened(recipe))))
        return run_id

    def _runs(self, query: str) -> "Iterator[Run]":
        """In any experiment, newest first; nested ones too, of which a search has thousands."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments(max_results=1000)]
        token = None
        while True:
            page = self.client.search_runs(experiments, query, max_results=1000, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _end_stale(self, runs: "list[Run]") -> None:
        for run in runs:
            if run.info.status == "RUNNING" and _is_dead_here(run.data.tags):
                self.client.set_terminated(run.info.run_id, "KILLED")


def connect(uri: str, out: Path, experiment: str) -> Server:
    """Open the experiment, made where it is missing. Raises EnvironmentUnfit when there is no MLflow at `uri`."""
    check_scheme(uri)
    with told_if_away(uri), _alone(out, uri):
        _make_at_once(uri)
        client = client_of(uri)
        return Server(client, _experiment(client, uri, out, experiment))


def _make_at_once(uri: str) -> None:
    """A database file that is not there yet: MLflow takes seconds, and who is killed in them leaves tables half made."""
    from sqlalchemy.engine import make_url

    file = make_url(uri).database if uri.startswith("sqlite:") else None
    if not file or file == ":memory:" or Path(file).exists():
        return
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="collegium-") as folder:
        draft = Path(folder) / "mlflow.db"
        client_of(f"sqlite:///{draft}")
        publish(Path(file), draft.read_bytes())


def check_reachable(uri: str) -> None:
    """Raise EnvironmentUnfit when a server's URI does not answer. A database file is not touched."""
    check_scheme(uri)
    if uri.startswith("sqlite:"):
        return
    with told_if_away(uri):
        client_of(uri).search_experiments(max_results=1)


def _experiment(client: "MlflowClient", uri: str, out: Path, name: str) -> str:
    local = uri.startswith("sqlite:")
    found = client.get_experiment_by_name(name)
    is_new = found is None
    if is_new:
        beside = Path(uri.removeprefix("sqlite:///")).parent if remote_of(out) is not None else out
        location = (beside / "mlartifacts").resolve().as_uri() if local else None
        found = _created(client, name, location)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    try:
        check_artifacts(uri, name, found.artifact_location, is_new=is_new)
    except EnvironmentUnfit:
        if is_new:  # one keeps its place for good: the name must be free once the server is mended
            client.rename_experiment(found.experiment_id, f"{name}, refused as {found.experiment_id}")
            client.delete_experiment(found.experiment_id)
        raise
    return str(found.experiment_id)


def _created(client: "MlflowClient", name: str, location: str | None) -> "Experiment":
    """The experiment, or the one that another process made at the same time."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_experiment(name, location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(name)


def check_artifacts(uri: str, experiment: str, location: str, *, is_new: bool = False) -> None:
    """Raise EnvironmentUnfit where a server elsewhere would have each machine write artifacts to its own disk."""
    parts = urlsplit(uri)
    elsewhere = parts.scheme in ("http", "https") and parts.hostname not in LOOPBACK
    if elsewhere and urlsplit(location).scheme in ("", "file"):
        keeps = ", and name another experiment in `tracking.experiment`: one keeps the place that it was made with"
        raise EnvironmentUnfit(
            f"experiment {experiment!r} at {without_password(uri)} keeps artifacts in {location}, a folder that other "
            f"machines cannot reach; start the server with --serve-artifacts, or with --default-artifact-root s3://..."
            f"{'' if is_new else keeps}"
        )


@contextmanager
def _alone(out: Path, uri: str) -> Iterator[None]:
    """One process at a time makes or migrates a database file: MLflow itself fails when several do."""
    if not uri.startswith("sqlite:"):
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".mlflow.lock").open("w") as lock:
        with suppress(NotImplementedError):
            await_lock(lock.fileno())
        yield


def _is_dead_here(tags: Mapping[str, str]) -> bool:
    """Whether the very process that opened a run was of this machine and is gone; of others their journals tell."""
    try:
        here = tags["collegium.processes"] == neighbours()
        return here and not is_process(int(tags["collegium.pid"]), float(tags["collegium.start"]))
    except (KeyError, ValueError):
        return False


def flattened(recipe: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """`students.small.train.steps`: `1600`; mappings are walked, everything else is JSON or itself."""
    if isinstance(recipe, Mapping) and recipe:
        for key, value in recipe.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, recipe if isinstance(recipe, str) else json.dumps(recipe)


def ui_command(out: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of MLflow's page for the SQLite file in `out`, on loopback, with one worker."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{(out / 'mlflow.db').resolve()}"]
    command += ["--artifacts-destination", (out / "mlartifacts").resolve().as_uri()]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return command, {**os.environ, **quiet}


def experiment_link(out: Path, base: str) -> str:
    """The link of the experiment of the newest run in `out`; the bare page where there is none."""
    found = ledgers(out)
    return deep_link(base, found[-1].experiment_id) if found else base
