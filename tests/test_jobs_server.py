"""Addresses where there is no cluster, or one that will not have us: told in a line, within seconds, exit code 4."""

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.cluster.dashboard import dashboard_address
from orchestrator.cluster.joining import check_address, told
from teachers.errors import EnvironmentUnfit, RecipeError
from tests import warm

COMMAND = Path(sys.executable).parent / "collegium"
KEY = "right-and-hidden"
HERE = {"ray_version": importlib.metadata.version("ray"), "python": platform.python_version()}


HEAD_ALONE = [{"CPU": 0.0}]
"""Resources of the nodes of a cluster at rest."""


def dashboard(
    ray_version: str, python: str, mode: str = "token", nodes: Sequence[Mapping[str, float]] = HEAD_ALONE
) -> type[BaseHTTPRequestHandler]:
    """What a cluster's dashboard answers, of whatever versions."""
    up = [{"node_ip": f"192.0.2.{n}", "state": "ALIVE", "resources_total": node} for n, node in enumerate(nodes, 10)]
    answers = {
        "/api/version": {"ray_version": ray_version},
        "/api/v0/cluster_metadata": {"data": {"rayVersion": ray_version, "pythonVersion": python}},
        "/api/v0/nodes?detail=1&limit=10000": {"data": {"result": {"result": up}}},
        "/api/jobs/": [],
    }

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/api/authentication_mode":
                self.answer(200, {"authentication_mode": mode})
            elif mode == "token" and self.headers.get("Authorization") is None:
                self.answer(401, {})
            elif mode == "token" and self.headers["Authorization"] != f"Bearer {KEY}":
                self.answer(403, {})
            else:
                self.answer(200, answers[self.path])

        def answer(self, status: int, document: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            pass

    return Dashboard


@pytest.fixture
def serve() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def jobs_list(address: str, key: str | None, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    return collegium(key, tmp_path, "jobs", "list", "--address", address)


def collegium(key: str | None, tmp_path: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The command of somebody who has the token `key`."""
    file = tmp_path / "token"
    if key is not None:
        file.touch(mode=0o600)
        file.write_text(key)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "COLLEGIUM_"))}
    environment |= {"RAY_AUTH_TOKEN_PATH": str(file), **variables}
    return warm.run(arguments, tmp_path, environment)


def refused(address: str, key: str | None, tmp_path: Path) -> str:
    """What is said in one line, with exit code 4 and without the token."""
    done = jobs_list(address, key, tmp_path)
    assert done.returncode == 4 and KEY not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_cluster_of_the_same_versions_lets_the_right_token_in(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = jobs_list(serve(dashboard(HERE["ray_version"], HERE["python"])), KEY, tmp_path)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["id", "status"]), done.stderr


def test_a_wrong_token_and_none_are_told_apart_and_say_where_it_was_looked_for(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    address = serve(dashboard(HERE["ray_version"], HERE["python"]))
    told = refused(address, None, tmp_path)
    assert "asks for a token, and there is none" in told and str(tmp_path / "token") in told
    assert f"does not take the token from {tmp_path / 'token'}" in refused(address, "wrong", tmp_path)


@pytest.mark.parametrize(("ray", "python"), [("2.9.0", HERE["python"]), (HERE["ray_version"], "3.9.1")])
def test_a_cluster_with_another_ray_or_python_is_refused_and_both_are_named(  # type: ignore[no-untyped-def]
    serve, tmp_path: Path, ray: str, python: str
) -> None:
    told = refused(serve(dashboard(ray, python)), KEY, tmp_path)
    assert f"has Ray {ray} and Python {python}, here are Ray {HERE['ray_version']} and Python {HERE['python']}" in told


GPU_NODE = {"CPU": 8.0, "GPU": 1.0}
POOLS = '{"teachers": {"nodes": 2, "CPU": 8, "GPU": 1}, "cpu": {"nodes": 1, "CPU": 8}}'


def planned(serve, tmp_path: Path, nodes: Sequence[Mapping[str, float]], *more: str, **variables: str):  # type: ignore[no-untyped-def]
    """`collegium plan digits` with a cluster of these nodes."""
    address = serve(dashboard(HERE["ray_version"], HERE["python"], nodes=nodes))
    return collegium(KEY, tmp_path, "plan", "digits", "--address", address, *more, **variables)


def test_the_plan_refuses_a_teacher_whose_gpu_no_node_has(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = planned(serve, tmp_path, [GPU_NODE], "-o", "teachers.wide.resources.gpus=2")
    assert done.returncode == 4 and done.stdout == "", done.stderr
    assert "teachers.wide.resources asks for 2 GPU (no node has more than 1)" in done.stderr
    assert "`collegium submit --verb plan`" in done.stderr and "Traceback" not in done.stderr


def test_the_plan_of_a_cluster_at_rest_waits_with_autoscaling_and_with_pools_says_for_which(  # type: ignore[no-untyped-def]
    serve, tmp_path: Path
) -> None:
    done = planned(serve, tmp_path, HEAD_ALONE)
    assert done.returncode == 4 and "1 CPU (no node has more than 0)" in done.stderr, done.stderr
    done = planned(serve, tmp_path, HEAD_ALONE, "--autoscaling")
    assert done.returncode == 0 and "waits for the autoscaler; no node of today has 1 CPU" in done.stdout, done.stderr
    done = planned(serve, tmp_path, HEAD_ALONE, COLLEGIUM_POOLS=POOLS)
    assert (
        done.returncode == 0 and "2 x 1 CPU, 1 GPU (replicas)  0 of 2   waits for pool teachers (2)" in done.stdout
    ), done.stderr


def test_a_job_that_does_not_end_when_it_is_stopped_is_no_success(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Hangs(dashboard(HERE["ray_version"], HERE["python"], mode="disabled")):  # type: ignore[misc]
        def do_GET(self) -> None:
            job = {"type": "SUBMISSION", "submission_id": "mine-1", "status": "RUNNING", "entrypoint": "collegium run"}
            self.answer(200, job) if self.path == "/api/jobs/mine-1" else super().do_GET()

        def do_POST(self) -> None:
            self.answer(200, {"stopped": True})

    address = serve(Hangs)
    code = f"from orchestrator.jobs.client import Jobs; Jobs({address!r}).stop('mine-1', patience_s=1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (
        f"CollegiumError: mine-1 was asked to end, and has not within 1 s; look again: collegium jobs list --address {address}"
        in done.stderr
    )


def test_a_cluster_that_takes_jobs_from_anybody_is_warned_of(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = jobs_list(serve(dashboard(HERE["ray_version"], HERE["python"], mode="disabled")), None, tmp_path)
    assert (done.returncode, "takes jobs from anybody" in done.stderr) == (0, True), done.stderr


def test_a_web_page_that_is_no_dashboard_is_told_so(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    assert "not as the dashboard of a Ray cluster" in refused(serve(Page), KEY, tmp_path)


def test_the_token_is_not_carried_to_where_a_dashboard_sends_on(serve, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    keys: list[str | None] = []

    class Elsewhere(dashboard(HERE["ray_version"], HERE["python"])):  # type: ignore[misc]
        def do_GET(self) -> None:
            keys.append(self.headers.get("Authorization"))
            super().do_GET()

    elsewhere = serve(Elsewhere)

    class SendsOn(dashboard(HERE["ray_version"], HERE["python"])):  # type: ignore[misc]
        def do_GET(self) -> None:
            if self.headers.get("Authorization") is None:
                super().do_GET()
            else:
                self.send_response(307)
                self.send_header("Location", elsewhere + self.path)
                self.end_headers()

    assert f"it sends to {elsewhere}/api/version" in refused(serve(SendsOn), KEY, tmp_path)
    assert keys == []


def test_an_address_that_answers_nothing_is_given_up_within_the_time_that_is_promised(
    silent: str, tmp_path: Path
) -> None:
    """10 seconds are promised to users: the command's own start is not counted here."""
    from orchestrator.cluster.dashboard import look_at

    begun = time.monotonic()
    with pytest.raises(EnvironmentUnfit, match="does not answer"):
        look_at(f"http://{silent}")
    assert time.monotonic() - begun < 10
    assert "does not answer" in refused("http://127.0.0.1:1", KEY, tmp_path)


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", None])
def test_what_is_no_dashboard_by_its_name_is_told_what_one_looks_like(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RecipeError, match="http://HEAD:8265"):
        dashboard_address(address)
    assert dashboard_address("head:8265") == dashboard_address("http://head:8265/") == "http://head:8265"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no cluster answers at 127.0.0.1:1"),
        ("elsewhere", "expected HOST:PORT"),
        ("no-such-host.invalid:6379", "no cluster answers"),
        ("http://head:8265", "collegium submit"),
        ("ray://head:10001", "collegium submit"),
    ],
)
def test_an_address_that_cannot_be_joined_is_told_before_any_work(address: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match=said):
        check_address(address)


def test_what_takes_connections_and_is_no_head_is_told_within_the_time_that_is_promised(serve, silent: str) -> None:  # type: ignore[no-untyped-def]
    page = serve(dashboard(HERE["ray_version"], HERE["python"])).removeprefix("http://")
    for address, said in [(page, "no head of a Ray cluster"), (silent, "nothing within 8 s")]:
        begun = time.monotonic()
        with pytest.raises(EnvironmentUnfit, match=f"no cluster answers at {address} .*{said}"):
            check_address(address)
        assert time.monotonic() - begun < 10


def test_what_ray_says_of_other_versions_names_both_sides() -> None:
    text = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.9.1\n"
        "This process on node 10.0.0.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    said = str(told("head:6379", RuntimeError(text)))
    assert f"at head:6379 has Ray 2.9.0 and Python 3.9.1, here are Ray {HERE['ray_version']}" in said
