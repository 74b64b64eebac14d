"""A cluster that begins with a head that does no work: Ray's own autoscaler adds each pool when the recipe reserves it, and
takes it away again. Its nodes are processes of this machine."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from teachers.resources.pools import NODES, VARIABLE

BIN = Path(sys.executable).parent
STORE = 150 << 20
POOLS = {
    "teachers": {NODES: 2, "CPU": 1, "teachers": 1000},
    "students": {NODES: 1, "CPU": 1, "students": 1000},
    "cpu": {NODES: 1, "CPU": 2},
}
PINNED = [
    *("-o", "teachers.wide.resources.custom={teachers: 1}", "-o", "teachers.deep.resources.custom={teachers: 1}"),
    *("-o", "students.small.resources.custom={students: 1}", "-o", "students.small.train.seeds=[0]"),
]


def launcher_config(gcs: str) -> dict[str, Any]:
    def node_type(resources: dict[str, int], most: int) -> dict[str, Any]:
        return {"resources": resources | {"object_store_memory": STORE}, "node_config": {}, "max_workers": most}

    pools = {
        pool: node_type({name: amount for name, amount in said.items() if name != NODES}, said[NODES])
        for pool, said in POOLS.items()
    }
    alike = {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growth",
        "max_workers": 4,
        "upscaling_speed": 8.0,
        "idle_timeout_minutes": 0.5,
        "provider": {"type": "fake_multinode", "gcs_address": gcs, **alike},
        "available_node_types": {"ray.head.default": node_type({"CPU": 0, "GPU": 0}, 0), **pools},
        "head_node_type": "ray.head.default",
        "docker": {},
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        **{f"{when}_commands": [] for when in commands},
    }


def processes_with(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get("COLLEGIUM_TEST") == mark:
                yield process
        except psutil.Error:
            pass


@pytest.fixture
def growing() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of such a cluster, and the environment in which to join it."""
    pytest.importorskip("ray.autoscaler._private.fake_multi_node.node_provider", reason="moved in this Ray")
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, dashboard = one.getsockname()[1], other.getsockname()[1]
    # Not tmp_path: the path of a socket may have a hundred characters.
    with tempfile.TemporaryDirectory(prefix="grow-", ignore_cleanup_errors=True) as folder:
        config = Path(folder, "cluster.json")
        config.write_text(json.dumps(launcher_config(f"127.0.0.1:{port}")))
        joining = {name: value for name, value in os.environ.items() if name != "RAY_API_SERVER_ADDRESS"}
        joining["COLLEGIUM_TEST"] = config.parent.name
        fake = {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
        options = {
            "port": port,
            "dashboard-port": dashboard,
            "node-ip-address": "127.0.0.1",
            "temp-dir": folder,
            "num-cpus": 0,
            "num-gpus": 0,
            "object-store-memory": STORE,
            "autoscaling-config": config,
        }
        command = [BIN / "ray", "start", "--head", *(f"--{name}={value}" for name, value in options.items())]
        try:
            subprocess.run(command, env=joining | fake | {"AUTOSCALER_UPDATE_INTERVAL_S": "1"}, check=True)
            yield f"127.0.0.1:{port}", joining
        finally:
            for process in processes_with(config.parent.name):
                process.kill()


def num_nodes(address: str, environment: dict[str, str]) -> int:
    script = f"import ray; ray.init('{address}'); print(sum(node['Alive'] for node in ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


@pytest.mark.campaign
def test_pools_come_when_a_recipe_reserves_them_and_go_when_it_is_done(
    growing: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = growing
    command = [BIN / "collegium", "run", "digits", "--smoke", "--out", "out", "--address", address, *PINNED]
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode == 4 and "no node has more than 0" in refused.stderr
    assert num_nodes(address, environment) == 1

    done = subprocess.run(
        command, cwd=tmp_path, env=environment | {VARIABLE: json.dumps(POOLS)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    while num_nodes(address, environment) > 1:
        time.sleep(5)
