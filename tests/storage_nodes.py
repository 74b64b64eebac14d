"""Whole runs on nodes whose OUT is a bucket: each has its mirror on a disk of its own, and sees what the storage has, no more.

The storage does harm (see `storage_faults`). A node dies while it labels and another joins; the driver dies while the student
trains, and the same command goes on from a node that has nothing. Nodes have credentials; where the storage is, and where
mirrors lie, they hear from the driver.
"""

import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from tests import faults
from tests.node_cluster import SWITCH, Node, until
from tests.node_faults import WHOLE, Nodes, kill_who_labels
from tests.object_store import CREDENTIALS, ObjectStore, object_store
from tests.storage_faults import BUCKET, RATE, downloaded

SETUP = replace(WHOLE, overrides=(*WHOLE.overrides, "students.small.train.steps=5000"))
"""Its student has a checkpoint long before it ends."""


@contextmanager
def nodes_and_bucket(folder: Path) -> Iterator[tuple[Nodes, ObjectStore]]:
    nodes = Nodes(folder)
    nodes.environment |= CREDENTIALS
    del nodes.environment["AWS_REGION"]
    with nodes, object_store(nodes.listening()) as store:
        store.client().create_bucket(Bucket=BUCKET)
        yield nodes, store


def mirrors(nodes: Nodes) -> Path:
    """The folder of all mirrors on a node, which is on its own disk."""
    return Path(nodes.ray_folder.name) / "mirrors"


def on(node: Node, path: Path) -> Path:
    """A path of a node's disk, as this process sees it."""
    return Path(f"/proc/{node.processes()[0].pid}/root{path}")


def collegium(
    nodes: Nodes, store: ObjectStore, node: Node, command: Sequence[str], log: Path
) -> "subprocess.Popen[bytes]":
    environment = {**store.location, "COLLEGIUM_CACHE": str(mirrors(nodes))}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{nodes.shared}/mlflow.db"}
    return nodes.run(node, command, log=log, **environment)


def start(nodes: Nodes, store: ObjectStore, out: Path, node: Node) -> "subprocess.Popen[bytes]":
    """A whole run with `--out s3://BUCKET/<name of out>`; what it says is added to `<out>.log`."""
    command = [*faults.command(out, SETUP), "--address", nodes.address]
    command[command.index("--out") + 1] = f"s3://{BUCKET}/{out.name}"
    return collegium(nodes, store, node, command, out.with_name(f"{out.name}.log"))


def lose_a_node_and_the_driver(
    nodes: Nodes, store: ObjectStore, out: Path, at: random.Random
) -> tuple[Node, float, float]:
    """The node that went on, when the driver was killed (by the clock), and the seconds from then to the end of the run."""
    nodes.pace(2.0, held=nodes.right.address)
    log = out.with_name(f"{out.name}.log")
    driver = start(nodes, store, out, nodes.head)
    kill_who_labels(nodes, driver, out, at)
    until(lambda: any(is_checkpoint(key) for key in store.keys(BUCKET, out.name)), or_dead=driver, log=log)
    time.sleep(at.uniform(0.0, 3.0))
    assert driver.poll() is None, "the run ended before there was anything to kill"
    for process in psutil.Process(driver.pid).children(recursive=True):
        process.kill()
    driver.wait()
    killed, since = time.time(), time.monotonic()
    other = nodes.add(cpus=0)
    assert not on(other, mirrors(nodes)).exists()
    faults.finish(start(nodes, store, out, other), out)
    return other, killed, time.monotonic() - since


def is_checkpoint(key: str) -> bool:
    return "/students/" in key and "/student/" in key and "/attempts/" in key and key.endswith("SEAL.json")


def first_step_after(folder: Path, clock: float) -> int:
    """Of a downloaded OUT: the step of the first point of the student's curve that was made after `clock`."""
    files = folder.glob("students/small-*/metrics.jsonl")
    points = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    losses = [point for point in points if (point["run"], point["key"]) == ("student/seed-0", "train.loss")]
    return min(point["step"] for point in losses if point["time"] > clock)


def told(nodes: Nodes, store: ObjectStore, node: Node, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command on a node."""
    log = nodes.shared / "logs" / f"{arguments[0]}-{time.monotonic_ns()}.log"
    code = collegium(nodes, store, node, ["collegium", *arguments], log).wait(faults.PATIENCE_S)
    return code, log.read_text()


def strangers(nodes: Nodes) -> dict[str, Node]:
    """Nodes that join and do not see the storage, by how they tell what is wrong."""
    key = nodes.environment.pop("AWS_ACCESS_KEY_ID")
    found = {"there are no credentials": nodes.add(cpus=1)}
    nodes.environment["AWS_ACCESS_KEY_ID"] = "unknown"
    found["these credentials are not accepted"] = nodes.add(cpus=1)
    nodes.environment["AWS_ACCESS_KEY_ID"] = key
    if nodes.isolated:
        found["Could not connect"] = nodes.add(cpus=1)
        nodes.cut_off(found["Could not connect"], SWITCH)
    return found


def kills(folder: Path, times: int, seed: int) -> Iterator[faults.Kill]:
    with nodes_and_bucket(folder) as (nodes, store):
        calm = nodes.shared / "calm"  # in a folder: where OUT lies changes nothing
        faults.finish(nodes.start(calm, SETUP), calm)
        store.harm.rate, store.harm.drawn = RATE, random.Random(seed)
        for number in range(times):
            out = nodes.shared / f"bucket-{number}"
            other, killed, seconds = lose_a_node_and_the_driver(nodes, store, out, random.Random(seed + number))
            nodes.kill(other)
            found = downloaded(store, nodes.shared / "found", out.name)
            step = first_step_after(nodes.shared / "found" / out.name, killed)
            yield faults.Kill(
                f"a node, then the driver; went on at {step}", seconds, faults.compare(found, faults.outcome(calm))
            )


KINDS = {"node and driver of a bucket": kills}  # no comma: overlayfs would take it for the end of a path
