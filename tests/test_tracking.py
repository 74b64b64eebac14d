import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.mailbox import Mailbox
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.headline import deep_link
from orchestrator.tracking import names
from orchestrator.tracking.late import replay
from orchestrator.tracking.ledger import Ledger, Told, ledgers_with_unsent
from orchestrator.tracking.server import (
    check_artifacts,
    check_reachable,
    connect,
    experiment_link,
    resolve_uri,
    ui_command,
)
from orchestrator.tracking.tracker import Tracker
from orchestrator.watching.journal import Journal
from students.runs.curves import Record, read_records
from teachers.errors import EnvironmentUnfit
from tests import warm

STAGE = "distill/small"


@pytest.fixture(autouse=True)
def no_uri_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory) -> Path:
    """MLflow takes a second or more to make one."""
    out = tmp_path_factory.mktemp("mlflow")
    client(resolve_uri(None, out))
    return out / "mlflow.db"


@pytest.fixture
def out(tmp_path, fresh_database) -> Path:
    shutil.copy(fresh_database, tmp_path)
    return tmp_path


def recipe(uri: str | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "digits",
            "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
            "teachers": {"wide": {"kind": "callable", "function": "a:b", "output": "logits"}},
            "students": {"small": {"model": "students.models:mlp", "teachers": ["wide"]}},
            "tracking": {"uri": uri},
        }
    )


def report(verdict: str = "Distillation helps.", judged_on: str = "these rows") -> dict[str, Any]:
    accuracy = {"mean": 0.92, "std": 0.01, "runs": [0.91, 0.93]}
    gain = {"low": 0.03, "mean": 0.06, "high": 0.09}
    student = {"test_accuracy": accuracy, "control_accuracy": accuracy, "gain": gain, "agreement": 0.9, "ece": 0.02}
    student["balanced_accuracy"] = 0.91
    return {
        "transfer_set": {
            "commonest": {"class": "3", "share": 0.1, "classes": 10, "remark": None},
            "judged_on": judged_on,
        },
        "recipe": {"name": "digits", "task": "classification"},
        "cautions": [],
        "teachers": {"wide": {"test_accuracy": 0.95}},
        "ensemble": {"test_accuracy": 0.96},
        "students": {"small": {**student, "parameters": 1234, "verdict": verdict}},
        "seconds": 12.5,
    }


def points(steps: range, run: str = "student/seed-0", now: float | None = None) -> list[Record]:
    now = now or time.time()
    return [
        Record(stage=STAGE, run=run, step=step, key="train.loss", value=1 / (1 + step), time=now + step / 1000)
        for step in steps
    ]


def append(path: Path, records: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def model_folder(folder: Path, accuracy: float = 0.9) -> Path:
    folder.mkdir(parents=True)
    safetensors.numpy.save_file({}, folder / "model.safetensors")
    test = {"accuracy": 0.92, "nll": 0.3, "parameters": 12, "validation": {"accuracy": accuracy, "nll": 0.2}}
    (folder / "metrics.json").write_text(json.dumps({"test": test}))
    return folder


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what must come; the limit only ends a test that would never."""
    end = time.monotonic() + 120
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    assert found
    return found


def children(uri: str, ids: dict[str, str]) -> dict[str, Any]:
    found = client(uri).search_runs([ids["experiment_id"]], f"tags.\"mlflow.parentRunId\" = '{ids['run_id']}'")
    return {run.info.run_name: run for run in found}


def steps_of(uri: str, run: Any) -> list[int]:
    return [metric.step for metric in client(uri).get_metric_history(run.info.run_id, "train.loss")]


def test_curves_appear_while_training_runs_and_results_at_its_end(out):
    metrics = out / "students" / "small" / "metrics.jsonl"
    folder = out / "runs" / "1"
    uri = resolve_uri(None, out)
    with Tracker.start(recipe(), out, folder) as tracker:
        tracker.follow(STAGE, metrics)
        append(metrics, points(range(5)))
        child = until(lambda: children(uri, tracker.ids()).get(f"{STAGE} student/seed-0"))
        until(lambda: steps_of(uri, child) == [0, 1, 2, 3, 4])
        assert child.info.status == "RUNNING"
        append(metrics, points(range(5, 10)) + points(range(3), run="control/seed-0"))
        tracker.log("label/wide", {"rows_per_s": 1000.0})
        tracker.stage_done(STAGE)
        (folder / "report.html").write_text("<p>hello")
        assert tracker.finish(report(), {"small": model_folder(out / "models" / "small-0123")}) == []
        ids = tracker.ids()

    nested = children(uri, ids)
    assert set(nested) == {f"{STAGE} student/seed-0", f"{STAGE} control/seed-0", "label/wide"}
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    assert steps_of(uri, nested[f"{STAGE} student/seed-0"]) == list(range(10))
    parent = client(uri).get_run(ids["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["students.small.train.seeds"] == "[0, 1, 2]"
    assert parent.data.metrics["students.small.gain.mean"] == 0.06
    assert "Distillation helps." in parent.data.tags["mlflow.note.content"]
    kept = {file.path for file in client(uri).list_artifacts(ids["run_id"])}
    assert kept == {"report.html", "models"}
    version = client(uri).get_model_version_by_alias("digits-small", "champion")
    assert version.tags["collegium.key"] == "small-0123"
    (logged,) = client(uri).search_logged_models([ids["experiment_id"]])
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "digits-small", "version": version.version}]
    assert logged.status == "READY"
    assert {metric.key for metric in logged.metrics} == {"accuracy", "nll"}


def test_points_keep_the_time_at_which_they_were_made(out):
    metrics = out / "metrics.jsonl"
    append(metrics, points(range(3), now=1_000_000.0))
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        tracker.follow(STAGE, metrics)
        tracker.finish(report(), {})
    uri = resolve_uri(None, out)
    (child,) = children(uri, tracker.ids()).values()
    history = client(uri).get_metric_history(child.info.run_id, "train.loss")
    assert [metric.timestamp for metric in history] == [1_000_000_000, 1_000_000_001, 1_000_000_002]


def test_a_point_counts_once_whether_it_comes_by_mailbox_by_file_or_from_a_resumed_training(out):
    metrics = out / "metrics.jsonl"
    mailbox = Mailbox()
    uri = resolve_uri(None, out)
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        tracker.follow(STAGE, metrics)
        tracker.listen(mailbox.take)
        mailbox.put(points(range(4)))
        child = until(lambda: children(uri, tracker.ids()).get(f"{STAGE} student/seed-0"))
        until(lambda: steps_of(uri, child) == [0, 1, 2, 3])
        append(metrics, points(range(4)))
        metrics.open("a").write('{"stage": "distill/sm')  # killed in the middle of a line
        append(metrics, points(range(4, 5)))  # this one is on the broken line
        append(metrics, points(range(2, 8)))
        tracker.finish(report(), {})
    assert steps_of(uri, child) == list(range(8))


def test_the_alias_champion_stays_with_the_best_on_validation_and_a_model_is_registered_once(out):
    uri = resolve_uri(None, out)
    for number, (key, accuracy) in enumerate([("small-a", 0.9), ("small-b", 0.8), ("small-a", 0.9), ("small-c", 0.95)]):
        folder = out / "models" / key
        if not folder.exists():
            model_folder(folder, accuracy)
        with Tracker.start(recipe(), out, out / "runs" / str(number)) as tracker:
            tracker.finish(report(), {"small": folder})
        expected = "small-c" if key == "small-c" else "small-a"
        assert client(uri).get_model_version_by_alias("digits-small", "champion").tags["collegium.key"] == expected
    assert len(client(uri).search_model_versions("name = 'digits-small'")) == 3


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_does_not_end_well_says_so(out, error, status):
    with pytest.raises(error), Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        raise error
    assert client(resolve_uri(None, out)).get_run(tracker.ids()["run_id"]).info.status == status


def start_and_die(out: Path) -> None:
    Tracker.start(recipe(), out, out / "runs" / "1")
    os.kill(os.getpid(), signal.SIGKILL)


def start_and_end(out: Path, name: str) -> None:
    with Tracker.start(recipe(), out, out / "runs" / name):
        pass


def test_a_run_whose_process_was_killed_is_ended_by_the_next_which_continues_it(out):
    process = warm.process(start_and_die, out)
    process.start()
    process.join()
    old = Ledger.open(out / "runs" / "1").run_id
    uri = resolve_uri(None, out)
    killed = client(uri).get_run(old)
    assert killed.info.status == "RUNNING"
    of_killed = {**killed.data.tags, "mlflow.parentRunId": old}
    nested = client(uri).create_run(killed.info.experiment_id, tags=of_killed).info.run_id
    with Tracker.start(recipe(), out, out / "runs" / "2") as tracker:
        assert {client(uri).get_run(run).info.status for run in (old, nested)} == {"KILLED"}
        parent = client(uri).get_run(tracker.ids()["run_id"])
        assert parent.data.tags["collegium.continues"] == old
        with Tracker.start(recipe(), out, out / "runs" / "3"):
            assert client(uri).get_run(tracker.ids()["run_id"]).info.status == "RUNNING"  # this process lives


def test_a_run_of_another_machine_is_not_ended_for_its_pid_is_unknown_here(out):
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        elsewhere, run = client(resolve_uri(None, out)), tracker.ids()["run_id"]
        elsewhere.set_tag(run, "collegium.pid", str(2**22 + 1))  # more than there can be
        elsewhere.set_tag(run, "collegium.processes", "those of a machine of the same name")
        with Tracker.start(recipe(), out, out / "runs" / "2"):
            assert elsewhere.get_run(run).info.status == "RUNNING"


def start_and_die_later(out: Path, unsent: int) -> None:
    folder = out / "runs" / "1"
    folder.mkdir(parents=True)
    with Journal(folder, command="run", recipe="digits", planned=[]):
        tracker = Tracker.start(recipe(), out, folder)
        tracker.follow(STAGE, out / "metrics.jsonl")
        append(out / "metrics.jsonl", points(range(10 - unsent)))
        until(lambda: any(followed.offset for followed in Ledger.open(folder).files))
        append(out / "metrics.jsonl", points(range(10 - unsent, 10)))
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("unsent", [5, 0])
def test_a_killed_run_is_ended_and_what_it_had_not_sent_is_sent_by_whoever_comes_next(out, unsent):
    process = warm.process(start_and_die_later, out, unsent)
    process.start()
    process.join()
    old = Ledger.open(out / "runs" / "1")
    assert not old.closed
    assert "sent" in replay(out)[0]
    assert replay(out) == []
    uri = resolve_uri(None, out)
    (child,) = children(uri, {"experiment_id": old.experiment_id, "run_id": old.run_id}).values()
    assert steps_of(uri, child) == list(range(10))
    assert {child.info.status, client(uri).get_run(old.run_id).info.status} == {"KILLED"}


@pytest.mark.slow
def test_three_processes_may_open_a_fresh_database_at_once(tmp_path):
    processes = [warm.process(start_and_end, tmp_path, str(number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealServer:
    """`mlflow server` on loopback, light; it can be killed, and started again with other options."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command, environment = ui_command(self.folder, self.port)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*command, *options], env=environment, start_new_session=True, **quiet)
        until(self.answers)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def one_server(tmp_path_factory) -> Iterator[RealServer]:
    server = RealServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(one_server) -> RealServer:
    """It runs, with the usual options."""
    if one_server.process is None:
        one_server.start()
    return one_server


@pytest.mark.campaign
def test_nothing_is_lost_and_nothing_doubled_when_the_server_goes_away(tmp_path, server):
    metrics = tmp_path / "metrics.jsonl"
    with Tracker.start(recipe(server.uri), tmp_path, tmp_path / "runs" / "1") as tracker:
        ids = tracker.ids()
        tracker.follow(STAGE, metrics)
        append(metrics, points(range(5)))
        child = until(lambda: children(server.uri, ids).get(f"{STAGE} student/seed-0"))
        until(lambda: len(steps_of(server.uri, child)) == 5)

        server.kill()
        append(metrics, points(range(5, 10)) + points(range(3), run="student/seed-1"))
        tracker.stage_done(STAGE)
        time.sleep(1)  # so that the thread meets the server that is away
        server.start()
        append(metrics, points(range(3, 12)))
        until(lambda: steps_of(server.uri, child) == list(range(12)))

        server.kill()
        append(metrics, points(range(12, 14)))
        told = tracker.finish(report(), {"small": model_folder(tmp_path / "models" / "small-0123")}, patience_s=1.0)
        assert "collegium report" in told[0]

    until(lambda: not any(thread.name == "tracker" for thread in threading.enumerate()))
    append(metrics, points(range(14, 20)))  # of a later run: no business of this one
    assert "stays kept" in replay(tmp_path)[0]
    assert [ledger.run_id for ledger in ledgers_with_unsent(tmp_path)] == [ids["run_id"]]
    server.start()
    assert "sent" in replay(tmp_path)[0]
    assert ledgers_with_unsent(tmp_path) == []
    nested = children(server.uri, ids)
    assert steps_of(server.uri, nested[f"{STAGE} student/seed-0"]) == list(range(14))
    assert steps_of(server.uri, nested[f"{STAGE} student/seed-1"]) == [0, 1, 2]
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    assert client(server.uri).get_run(ids["run_id"]).info.status == "FINISHED"
    assert client(server.uri).get_model_version_by_alias("digits-small", "champion").version == "1"


@pytest.mark.campaign
def test_a_server_that_has_each_machine_keep_artifacts_is_refused_until_it_is_mended(tmp_path, one_server):
    """The refused experiment leaves its name free; a server on this machine may use a folder of this machine."""
    folder = tmp_path / "artifacts"
    one_server.kill()
    one_server.start("--no-serve-artifacts", "--default-artifact-root", str(folder), "--host", "0.0.0.0")
    elsewhere = one_server.uri.replace("127.0.0.1", "0.0.0.0")  # this machine too, and not said to be
    named = recipe(elsewhere).model_copy(update={"name": "folders"})
    for _ in range(2):
        with pytest.raises(EnvironmentUnfit, match=f"keeps artifacts in {folder}/.*--serve-artifacts") as raised:
            Tracker.start(named, tmp_path, tmp_path / "runs" / "1")
        assert raised.value.exit_code == 4 and "name another experiment" not in str(raised.value)
    assert not (tmp_path / "runs").exists()
    here = named.model_copy(update={"tracking": recipe(one_server.uri).tracking, "name": "here"})
    with Tracker.start(here, tmp_path, tmp_path / "runs" / "2") as tracker:
        tracker.finish(report(), {"small": model_folder(tmp_path / "models" / "small-0123")})
    assert [path.name for path in folder.rglob("model.safetensors")]
    one_server.kill()
    one_server.start()
    mended = connect(one_server.uri, tmp_path, "folders")
    assert mended.client.get_experiment(mended.experiment_id).artifact_location.startswith("mlflow-artifacts:")


def test_without_a_server_nothing_starts(tmp_path):
    uri = f"http://somebody:secret@127.0.0.1:{free_port()}"
    with pytest.raises(EnvironmentUnfit, match="does not answer") as raised:
        Tracker.start(recipe(uri), tmp_path, tmp_path / "runs" / "1")
    assert "secret" not in str(raised.value)
    with pytest.raises(EnvironmentUnfit, match="does not answer"):
        check_reachable(uri)


def test_plain_folders_are_refused_with_what_to_use(tmp_path):
    with pytest.raises(EnvironmentUnfit, match="sqlite:///FILE"):
        Tracker.start(recipe("./mlruns"), tmp_path, tmp_path / "runs" / "1")


def test_the_recipe_names_the_server_else_the_environment_else_a_file_in_out(tmp_path, monkeypatch):
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert resolve_uri(None, tmp_path) == "http://environment"
    assert resolve_uri("http://recipe", tmp_path) == "http://recipe"


def test_links_lead_to_the_experiment_of_the_newest_run(out):
    assert experiment_link(out, "http://x") == "http://x"
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        found = experiment_link(out, "http://x/")
    assert found == deep_link("http://x", tracker.ids()["experiment_id"])
    assert "workflowType=machine_learning" in deep_link("http://x", "1", "2")


def test_a_server_that_refuses_a_point_does_not_stop_the_others(out):
    metrics = out / "metrics.jsonl"
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        tracker.follow(STAGE, metrics)
        append(metrics, points(range(1), run="gone"))
        uri = resolve_uri(None, out)
        gone = until(lambda: children(uri, tracker.ids()).get(f"{STAGE} gone"))
        client(uri).delete_run(gone.info.run_id)  # somebody cleans up in the page while the run goes on
        append(metrics, points(range(1, 3), run="gone") + points(range(3)))
        assert tracker.finish(report(), {}) == []
    assert steps_of(uri, children(uri, tracker.ids())[f"{STAGE} student/seed-0"]) == [0, 1, 2]


def test_all_points_of_a_big_file_arrive_in_portions(out, monkeypatch):
    metrics = out / "metrics.jsonl"
    append(metrics, points(range(2 * names.METRICS_AT_ONCE + 1)))
    with Tracker.start(recipe(), out, out / "runs" / "1") as tracker:
        tracker.follow(STAGE, metrics)
        tracker.finish(report(), {})
    uri = resolve_uri(None, out)
    (child,) = children(uri, tracker.ids()).values()
    assert len(steps_of(uri, child)) == 2 * names.METRICS_AT_ONCE + 1
    assert len(list(read_records(metrics))) == 2 * names.METRICS_AT_ONCE + 1


def test_a_mailbox_actor_reserves_nothing_and_gives_each_record_once(ray_cluster):
    import ray

    from orchestrator.cluster.mailbox import empty, open_mailbox

    mailbox = open_mailbox()
    ray.get(mailbox.put.remote(points(range(3))))
    assert [record["step"] for record in empty(mailbox)] == [0, 1, 2]
    assert empty(mailbox) == []
    ray.kill(mailbox)
    assert empty(mailbox) == []


@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), max_size=30), max_size=5))
def test_a_point_is_new_until_it_was_told(rounds):
    told, known = Told(), set()
    for given_points in rounds:
        records = [points(range(step, step + 1), run)[0] for run, step in given_points]
        new = told.new(records)
        assert {(record["run"], record["step"]) for record in new} == set(given_points) - known
        assert len(new) == len(set(given_points) - known)
        told.add(new)
        known |= set(given_points)


def test_a_ledger_is_written_only_when_something_has_changed(tmp_path):
    ledger = Ledger(tmp_path, "sqlite://", "1", "2")
    ledger.save()
    first = (tmp_path / "tracking.json").stat().st_ino
    ledger.save()
    assert (tmp_path / "tracking.json").stat().st_ino == first
    ledger.outbox.append({"do": "end"})
    ledger.save()
    assert Ledger.open(tmp_path).outbox == [{"do": "end"}]


@pytest.mark.parametrize(
    ("uri", "location", "fits"),
    [
        ("http://tracking.example:5000", "mlflow-artifacts:/1", True),
        ("https://tracking.example", "s3://bucket/1", True),
        ("http://tracking.example:5000", "file:///home/me/mlruns/1", False),
        ("http://somebody:secret@tracking.example:5000", "/mlruns/1", False),
        ("http://tracking.example:5000", "mlruns/1", False),
        ("http://127.0.0.1:5000", "file:///home/me/mlruns/1", True),
        ("http://localhost:5000", "/mlruns/1", True),
        ("sqlite:////out/mlflow.db", "file:///out/mlartifacts", True),
    ],
)
def test_artifacts_that_other_machines_cannot_reach_are_refused_at_the_start(uri, location, fits):
    if fits:
        check_artifacts(uri, "digits", location)
        return
    with pytest.raises(EnvironmentUnfit, match="--serve-artifacts") as raised:
        check_artifacts(uri, "digits", location)
    assert location in str(raised.value) and "secret" not in str(raised.value) and raised.value.exit_code == 4


def test_importing_the_tracker_does_not_import_mlflow():
    code = "import sys, orchestrator.tracking.tracker; sys.exit('mlflow' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
