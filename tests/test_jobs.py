"""Jobs on a real Ray cluster with token authentication: what a person sees of them from outside."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from teachers.storage.place import CACHE
from tests import warm
from tests.object_store import CREDENTIALS, object_store

BIN = Path(sys.executable).parent
PATIENCE_S = 300
RECIPE = """
format: 1
name: job
task: classification
transfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit, labelled: 60, limit: 100}
teachers:
  mine: {kind: callable, function: "job_teacher:teach", output: logits, require: null, resources: {gpus: 0.5, custom: {place: 1}}}
students:
  small: {model: "students.models:mlp", teachers: [mine], train: {steps: 20, seeds: [0]}, resources: {gpus: 0}}
"""
TEACHER = "import numpy as np\ndef teach(columns): return np.zeros((len(columns['image']), 10), np.float32)\n"
ROWS = """
import atexit, os, time
from pathlib import Path
def raising():
    print("said before", flush=True)
    raise ValueError("not today")
def slow():
    atexit.register(end_slowly)
    print("said before", flush=True)
    time.sleep(600)
def end_slowly():
    time.sleep(6)  # longer than Ray leaves a job that does not ask for more
    Path(os.environ["ENDED"]).touch()
"""

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass(frozen=True)
class Head:
    """Of a cluster: where it takes jobs and where it is joined, and the environment of those whom it lets in."""

    dashboard: str
    gcs: str
    environment: dict[str, str]


def free_ports(num: int) -> list[int]:
    sockets = [socket.socket() for _ in range(num)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head`, with two GPUs that are not there; a driver takes nothing of it."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.touch(mode=0o600)
    token.write_text(os.urandom(16).hex())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    folder = tempfile.mkdtemp(prefix="cg", dir="/tmp")  # Ray's sockets need a short path
    gcs, dashboard, agent, client = free_ports(4)
    command = [
        *(BIN / "ray", "start", "--head", "--temp-dir", folder, "--object-store-memory", 100 << 20),
        *("--port", gcs, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent),
        *("--ray-client-server-port", client, "--num-cpus", 4, "--num-gpus", 2, "--resources", '{"place": 3}'),
    ]
    with open(Path(folder) / "said", "w") as said:
        made = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", environment)
        try:
            command = [str(part) for part in command]
            subprocess.run(command, env=environment, cwd=folder, stdout=said, stderr=said, check=True)
            wait_for(lambda: collegium(made, "jobs", "list").returncode == 0)
            yield made
        finally:
            end(folder)


def end(folder: str) -> None:
    """Of the cluster that keeps its files there: `ray stop` would end every cluster of the machine."""
    mine = [process for process in psutil.process_iter() if folder in " ".join(cmdline(process))]
    for process in mine:
        process.kill()
    psutil.wait_procs(mine, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    for name, text in {"recipe.yaml": RECIPE, "job_teacher.py": TEACHER, "job_rows.py": ROWS}.items():
        (folder / name).write_text(text)
    return folder


def collegium(
    head: Head, *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return warm.run([*arguments, "--address", head.dashboard], cwd or Path.cwd(), head.environment | environment)


def source(function: str) -> tuple[str, str]:
    return "-o", f"transfer_set.source={{kind: import, function: 'job_rows:{function}'}}"


@contextmanager
def bucket(head: Head, user: Path, name: str) -> Iterator[tuple[Head, tuple[str, ...]]]:
    """An object store with the bucket `name`, the head as those see it who have what opens it, and options that pass it on."""
    with object_store() as store:
        store.client().create_bucket(Bucket=name)
        given = CREDENTIALS | {
            "AWS_ENDPOINT_URL": store.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            CACHE: str(user / name),
            "MLFLOW_TRACKING_URI": f"sqlite:///{user}/{name}.db",
            "ENDED": str(user / "ended"),
        }
        passed_on = tuple(part for variable in given for part in ("--env", variable))
        yield Head(head.dashboard, head.gcs, head.environment | given), passed_on


@pytest.mark.campaign
def test_a_job_runs_and_submitted_again_it_resumes_with_its_results_in_a_bucket(head: Head, user: Path) -> None:
    """Of its own driver no second Ray: the head's GPUs and custom resource were there for the teacher."""
    with bucket(head, user, "mine") as (opener, passed_on):
        command = ("submit", "recipe.yaml", "--verb", "label", "--out", "s3://mine/out", *passed_on)
        first = collegium(opener, *command, "--json", cwd=user)
        assert first.returncode == 0, first.stderr
        record = json.loads(first.stdout)
        assert (record["status"], record["exit_code"], record["out"]) == ("SUCCEEDED", 0, "s3://mine/out")
        assert "joining the Ray cluster at" in first.stderr and "building label/mine/train-0" in first.stderr
        shutil.rmtree(user / "mine")  # the cache; what counts is in the bucket
        again = collegium(opener, *command, cwd=user)
    assert again.returncode == 0, again.stderr
    assert "building" not in again.stderr and f"{record['id']}-2: done" in again.stdout
    listed = json.loads(collegium(head, "jobs", "list", "--json").stdout)
    assert [job["id"] for job in listed][:2] == [record["id"], f"{record['id']}-2"]
    assert "building label/mine/train-0" in collegium(head, "jobs", "logs", record["id"]).stdout


def test_the_exit_code_of_a_job_that_fails_is_passed_on_with_what_it_said(head: Head, user: Path) -> None:
    failed = collegium(
        head, "submit", "recipe.yaml", "--verb", "plan", "--out", "/tmp/none", *source("raising"), cwd=user
    )
    assert failed.returncode == 1, failed.stderr
    assert "said before" in failed.stderr and "not today" in failed.stderr and "Traceback" not in failed.stderr
    assert "failed, exit code 1" in failed.stdout


@pytest.mark.campaign
def test_a_run_can_be_left_followed_found_again_and_stopped_and_has_time_to_say_so(head: Head, user: Path) -> None:
    """With OUT in a bucket: what the job wrote last is seen from outside."""
    with bucket(head, user, "stopped") as (opener, passed_on):
        stop_in_the_middle(
            opener, user, ("submit", "recipe.yaml", "--out", "s3://stopped/x", *source("slow"), *passed_on)
        )
        elsewhere = opener.environment | {CACHE: str(user / "another-cache")}
        seen = warm.run(["status", "s3://stopped/x", "--json"], user, elsewhere)
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["run"]["state"] == "interrupted" and (user / "ended").exists()
    with sqlite3.connect(user / "stopped.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]


def stop_in_the_middle(head: Head, user: Path, command: tuple[str, ...]) -> None:
    handed_in = collegium(head, *command, "--detach", cwd=user)
    assert handed_in.returncode == 0, handed_in.stderr
    name = handed_in.stdout.strip()
    found = collegium(head, *command, "--detach", cwd=user)
    assert found.stdout.strip() == name and "under way already" in found.stderr
    following = subprocess.Popen(
        [BIN / "collegium", *command, "--address", head.dashboard],
        cwd=user,
        env=head.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stderr is not None
    for line in following.stderr:  # as it says it: the job is far from its end
        if "said before" in line:
            break
    following.send_signal(signal.SIGINT)
    said = following.stderr.read()
    assert following.wait(PATIENCE_S) == 130 and f"collegium jobs stop {name} --address {head.dashboard}" in said
    stopped = collegium(head, "jobs", "stop", name)
    assert (stopped.returncode, stopped.stdout) == (0, f"{name}: stopped\n"), stopped.stderr
    followed = collegium(head, "jobs", "logs", "-f", name)
    assert followed.returncode == 143 and "said before" in followed.stderr
    assert collegium(head, "jobs", "logs", "no-such-job").returncode == 2


def test_a_wrong_token_is_told_in_a_line(head: Head, user: Path, tmp_path: Path) -> None:
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("wrong-and-hidden")
    command = ("submit", "recipe.yaml", "--out", "/tmp/none")
    done = collegium(head, *command, cwd=user, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert done.returncode == 4 and "does not take the token" in done.stderr
    assert "hidden" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"RAY_AUTH_TOKEN": "wrong-and-hidden"}, "does not take the token from RAY_AUTH_TOKEN"),
        (
            {"RAY_AUTH_TOKEN_PATH": "/no/such/token"},
            "asks for a token, and there is none in RAY_AUTH_TOKEN or /no/such",
        ),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token, and with RAY_AUTH_MODE=disabled none is sent"),
    ],
)
def test_whom_a_cluster_does_not_let_in_joins_nothing_and_is_told_in_a_line(
    head: Head, given: dict[str, str], told: str, tmp_path: Path
) -> None:
    """Before Ray would try for half a minute, and say much."""
    command = ["run", "digits", "--address", head.gcs, "--out", tmp_path / "out"]
    done = warm.run(command, tmp_path, head.environment | given)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1) and told in done.stderr, done.stderr
    assert "hidden" not in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.campaign
def test_the_plan_knows_the_clusters_nodes_without_joining_it(head: Head, user: Path) -> None:
    done = collegium(head, "plan", "recipe.yaml", "--json", "-o", "teachers.mine.replicas=5", cwd=user)
    asks = {ask["stage"]: ask for ask in json.loads(done.stdout)["placement"]}
    assert asks["label/mine"]["at_once"] == 3 and "2 x 1 CPU, 0.5 GPU, 1 place" in asks["label/mine"]["missing"]
    refused = collegium(head, "plan", "recipe.yaml", "-o", "teachers.mine.resources.gpus=3", cwd=user)
    assert (refused.returncode, "3 GPU (no node has more than 2)" in refused.stderr) == (4, True), refused.stderr


PAGES = ("/api/jobs/", "/api/v0/actors?detail=1", "/api/v0/tasks?detail=1", "/api/v0/workers?detail=1")


@pytest.mark.campaign
def test_a_variable_reaches_workers_of_a_cluster_that_do_not_have_it_and_no_page_shows_it(
    head: Head, user: Path, tmp_path: Path
) -> None:
    word = "hush-" + os.urandom(8).hex()
    (tmp_path / "job_secret.py").write_text(
        "import numpy as np\n"
        "def teach(columns, word):\n"
        f"    assert len(word) == {len(word)} and word.startswith('hush'), 'another word'\n"
        "    return np.zeros((len(columns['image']), 10), np.float32)\n"
    )
    teacher = (
        "kind: callable, function: 'job_secret:teach', output: logits, require: null, arguments: {word: '${HUSH}'}"
    )
    command: list[str | Path] = ["label", user / "recipe.yaml", "--address", head.gcs, "--out", tmp_path / "out"]
    command += ["-o", f"teachers.mine={{{teacher}, resources: {{gpus: 0}}}}"]

    def label(**variables: str) -> "subprocess.CompletedProcess[str]":
        return warm.run(command, tmp_path, head.environment | variables)

    absent = label()
    assert absent.returncode == 4 and "word: there is no variable HUSH in the environment of" in absent.stderr
    done = label(HUSH=word)
    assert done.returncode == 0, done.stderr
    key = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    for page in PAGES:
        asked = urllib.request.Request(head.dashboard + page, headers={"Authorization": f"Bearer {key}"})
        assert word not in urllib.request.urlopen(asked).read().decode()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not any(word.encode() in path.read_bytes() for path in written)
    assert any(b"${HUSH}" in path.read_bytes() for path in written)


GANGS = """
import json, ray, sys, time, urllib.request
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
from teachers.config.resources import Resources
from teachers.resources.reservation import Request, reserved
whole = ray.cluster_resources()
def gang(num, **resources):
    return Request.of("replicas", Resources(cpus=0.5, **resources), num)
with reserved([gang(2, gpus=0.5), gang(2, gpus=0, custom={"place": 1}), gang(1, gpus=1)], 60):
    left = ray.available_resources()
    assert left.get("GPU", 0) == 0 and left["place"] == whole["place"] - 2, left
    late = ray.util.placement_group([{"GPU": 1}] * 2, name="collegium-late")
    assert not late.wait(1)
    key = open(sys.argv[3]).read()
    asked = urllib.request.Request(sys.argv[2] + "/api/cluster_status", headers={"Authorization": f"Bearer {key}"})
    end = time.monotonic() + 60
    while not (demand := json.load(urllib.request.urlopen(asked))["data"]["clusterStatus"]["loadMetricsReport"]["pgDemand"]):
        assert time.monotonic() < end, "the autoscaler does not see it"
        time.sleep(0.5)
    print(json.dumps(demand))
assert late.wait(60), "the room was not given back"
"""


def test_gangs_of_different_needs_sit_side_by_side_and_the_autoscaler_sees_who_waits(
    head: Head, tmp_path: Path
) -> None:
    """Fractions of GPUs, whole ones and a custom resource; what is given back goes to who waits."""
    arguments = (head.gcs, head.dashboard, head.environment["RAY_AUTH_TOKEN_PATH"])
    done = subprocess.run(
        [sys.executable, "-c", GANGS, *arguments], env=head.environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "GPU" in done.stdout
