"""Whole runs on nodes of their own; nodes are killed while they label and while they train, others join, the head dies.

Each function yields, or returns, what the same command left in the end. See `node_cluster` for what a node is here.
"""

import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from tests import faults
from tests.node_cluster import QUICK_TO_NOTICE, Node, NodeCluster, until

PATIENT = '''
"""A teacher that takes its time: how near each image is to the mean image of each digit. It writes down who was asked."""

import os
import time
from pathlib import Path

import numpy as np
import ray
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
DIGITS = load_digits()
MEANS = np.stack([DIGITS.data[DIGITS.target == digit].mean(0) for digit in range(10)])


def waits(seconds):
    pace, *held = (HERE / "pace").read_text().split()
    return seconds < float(pace) or ray.util.get_node_ip_address() in held


def say(batch):
    begun = time.monotonic()
    while waits(time.monotonic() - begun):
        time.sleep(0.05)
    with (HERE / "asked").open("a") as file:
        file.write(f"{ray.util.get_node_ip_address()} {os.getpid()} {len(batch['image'])}\\n")
    images = batch["image"].reshape(-1, 1, 64)
    return -((images - MEANS) ** 2).mean(-1).astype(np.float32)
'''
"""A user's module."""
TEACHER = (
    "{kind: callable, function: 'patient:say', output: logits, replicas: 2, "
    "resources: {cpus: 0.1, custom: {teaches: 1}}}"
)
LABELS = faults.Setup(
    "labels", "digits.yaml", (f"teachers={{patient: {TEACHER}}}", "students.small.teachers=[patient]"), "label"
)
"""Only its labels are wanted: two replicas, each on a node that `teaches`."""
WHOLE = faults.Setup(
    "nodes",
    "digits.yaml",
    (
        f"teachers.patient={TEACHER}",
        "teachers.wide={kind: module, model: 'teachers.zoo:conv_net', arguments: {width: 8}, train: {steps: 60}, "
        "resources: {custom: {wide: 1}}}",
        "teachers.deep={kind: module, model: 'teachers.zoo:conv_net', arguments: {width: 4}, train: {steps: 40}, "
        "resources: {custom: {deep: 1}}}",
        "students.small.teachers=[wide, deep, trees, patient]",
        "students.small.train.steps=2500",
        "students.small.train.seeds=[0]",
        "students.small.train.workers=2",
        "students.small.resources={custom: {trains: 1}}",
    ),
)
"""`wide` and `deep` are on different nodes, and so are the student's two workers."""
PEERS = replace(
    faults.PEERS,
    overrides=(*faults.PEERS.overrides, "cohorts.trio.resources={custom: {trains: 1}}", "cohorts.trio.control=false"),
    verb="distill",
)
LEFT = {"teaches": 1.0, "trains": 1.0, "wide": 1.0}
RIGHT = {"teaches": 1.0, "trains": 1.0, "deep": 1.0}


class Nodes(NodeCluster):
    """A head on which no work is done, a node to the left and one to the right, and what runs on them."""

    def __init__(self, shared: Path, *, dashboard: bool = False, **settings: int) -> None:
        super().__init__(shared, dashboard=dashboard, **(settings or QUICK_TO_NOTICE))
        (self.shared / "patient.py").write_text(PATIENT)
        self.pace(0.0)

    def __enter__(self) -> "Nodes":
        super().__enter__()
        try:
            self.add(cpus=0)
            self.left, self.right = self.add_all([LEFT, RIGHT])
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def pace(self, seconds: float, *, held: str = "") -> None:
        """Of the patient teacher, a batch; whoever is on the node of address `held` does not answer until the next word."""
        draft = self.shared / "pace.new"
        draft.write_text(f"{seconds} {held}")
        draft.rename(self.shared / "pace")

    def start(self, out: Path, setup: faults.Setup, *, on: Node | None = None) -> "subprocess.Popen[bytes]":
        command = faults.command(out, setup)
        return self.run(on or self.head, [*command, "--address", self.address], log=out.with_name(f"{out.name}.log"))

    def asked(self) -> Counter[str]:
        """Batches of the patient teacher by node."""
        file = self.shared / "asked"
        return Counter(line.split()[0] for line in file.read_text().splitlines()) if file.exists() else Counter()

    def replace(self, node: Node, resources: dict[str, float]) -> Node:
        """Kill one node; another one joins."""
        self.kill(node)
        return self.add(cpus=2, resources=resources)


def kill_while_labelling(nodes: Nodes, out: Path, at: random.Random) -> tuple[float, int]:
    """Kill the left node in labelling; another joins and gets work. The seconds from kill to end; its batches."""
    nodes.pace(2.0, held=nodes.right.address)
    driver = nodes.start(out, LABELS)
    killed = kill_who_labels(nodes, driver, out, at)
    faults.finish(driver, out)
    return time.monotonic() - killed, nodes.asked()[nodes.left.address]


def join_while_labelling(nodes: Nodes, out: Path) -> tuple[float, int]:
    """The right node labels alone until another one joins, which gets work. The seconds from there to the end; its batches."""
    nodes.pace(1.0)
    nodes.kill(nodes.left)
    driver = nodes.start(out, LABELS)
    log = out.with_name(f"{out.name}.log")
    before = nodes.asked()[nodes.right.address]
    until(lambda: nodes.asked()[nodes.right.address] > before, or_dead=driver, log=log)
    nodes.pace(1.0, held=nodes.right.address)  # so that work is left for who joins, whenever that is
    nodes.left = nodes.add(cpus=2, resources=LEFT)
    joined = time.monotonic()
    until(lambda: nodes.asked()[nodes.left.address] > 0, or_dead=driver, log=log)
    nodes.pace(0.0)
    faults.finish(driver, out)
    return time.monotonic() - joined, nodes.asked()[nodes.left.address]


def kill_who_labels(nodes: Nodes, driver: "subprocess.Popen[bytes]", out: Path, at: random.Random) -> float:
    """Kill the left node once it has labelled; returns when, once another one that joined has labelled too.

    Whoever is on the right is held until then, so that work is left, whenever that is.
    """
    log = out.with_name(f"{out.name}.log")
    before = nodes.asked()[nodes.left.address]
    until(lambda: nodes.asked()[nodes.left.address] > before, or_dead=driver, log=log)
    time.sleep(at.uniform(0.0, 2.0))
    killed = time.monotonic()
    nodes.left = nodes.replace(nodes.left, LEFT)
    until(lambda: nodes.asked()[nodes.left.address] > 0, or_dead=driver, log=log)
    nodes.pace(0.0)
    return killed


def lose_two_nodes(nodes: Nodes, out: Path, at: random.Random, tracking: str) -> dict[str, float]:
    """A whole run: the left node is killed while it labels, the right one while it trains. Seconds from each kill on."""
    nodes.pace(2.0, held=nodes.right.address)
    driver = nodes.start(out, tracked(WHOLE, tracking))
    labelling = kill_who_labels(nodes, driver, out, at)
    log = out.with_name(f"{out.name}.log")
    until(lambda: any((out / "students").glob("small-*/STAGE.json")), or_dead=driver, log=log)
    wait_for_ranks(nodes, driver, log, other_than=set())
    time.sleep(at.uniform(1.0, 5.0))
    assert driver.poll() is None, "the run ended before there was anything to kill"
    training = time.monotonic()
    nodes.right = nodes.replace(nodes.right, RIGHT)
    joined = time.monotonic()
    wait_for_ranks(nodes, driver, log, other_than=set())
    back = time.monotonic()
    faults.finish(driver, out)
    return {
        "to another node's start": joined - training,
        "to the group's": back - training,
        "from the kill in labelling to the end": time.monotonic() - labelling,
        "from the kill in training to the end": time.monotonic() - training,
    }


def tracked(setup: faults.Setup, uri: str) -> faults.Setup:
    return replace(setup, overrides=(*setup.overrides, f"tracking.uri={uri}"))


def lose_the_head(nodes: Nodes, out: Path, *, on: Node) -> tuple[int, str, float]:
    """Kill the head while a command on node `on` labels: exit code, what it said since, and the seconds that it took."""
    nodes.pace(1.0)
    before = sum(nodes.asked().values())
    driver = nodes.start(out, LABELS, on=on)
    log = out.with_name(f"{out.name}.log")
    until(lambda: sum(nodes.asked().values()) > before + 3, or_dead=driver, log=log)
    said = len(log.read_text())
    killed = time.monotonic()
    nodes.pace(30.0)  # replicas label without a head as well: so that they do not end
    nodes.kill(nodes.head)
    code = driver.wait(faults.PATIENCE_S)
    return code, log.read_text()[said:], time.monotonic() - killed


def label_runs(
    folder: Path, times: int, what: str, disturbed: Callable[[Nodes, Path, int], tuple[float, int]]
) -> Iterator[faults.Kill]:
    """Each time a run of its own that only labels, on the same cluster, beside a calm one."""
    with Nodes(folder) as nodes:
        calm = folder / "calm"
        faults.finish(nodes.start(calm, LABELS), calm)
        for number in range(times):
            out = folder / f"labels-{number}"
            seconds, batches = disturbed(nodes, out, number)
            problems = faults.compare(faults.outcome(out), faults.outcome(calm))
            yield faults.Kill(f"{what}; {batches} batches by who joined", seconds, problems)


def label_kills(folder: Path, times: int, seed: int) -> Iterator[faults.Kill]:
    """A node is killed while it labels, another joins."""
    return label_runs(
        folder, times, "labelling", lambda nodes, out, n: kill_while_labelling(nodes, out, random.Random(seed + n))
    )


def label_joins(folder: Path, times: int, seed: int) -> Iterator[faults.Kill]:
    """A node joins while another one labels."""
    return label_runs(folder, times, "none", lambda nodes, out, n: join_while_labelling(nodes, out))


def kill_a_rank_and_a_node(nodes: Nodes, out: Path, at: random.Random) -> float:
    """Kill a rank of a cohort, then the node of one; another joins. The seconds from the node's end to that of the run."""
    log = out.with_name(f"{out.name}.log")
    driver = nodes.start(out, PEERS)
    ranks = wait_for_ranks(nodes, driver, log, other_than=set())
    time.sleep(at.uniform(1.0, 3.0))
    at.choice(ranks).kill()
    wait_for_ranks(nodes, driver, log, other_than={rank.pid for rank in ranks})
    time.sleep(at.uniform(1.0, 3.0))
    assert driver.poll() is None, "the run ended before there was anything to kill"
    killed = time.monotonic()
    nodes.left = nodes.replace(nodes.left, LEFT)
    faults.finish(driver, out)
    return time.monotonic() - killed


def wait_for_ranks(
    nodes: Nodes, driver: "subprocess.Popen[bytes]", log: Path, other_than: set[int]
) -> list[psutil.Process]:
    """One on each side, other processes than these."""

    def found() -> list[psutil.Process]:
        ranks = [rank for node in (nodes.left, nodes.right) for rank in node.workers("RayTrainWorker")[:1]]
        return [rank for rank in ranks if rank.pid not in other_than]

    until(lambda: len(found()) == 2, or_dead=driver, log=log)
    return found()


def cohort_kills(folder: Path, times: int, seed: int) -> Iterator[faults.Kill]:
    with Nodes(folder) as nodes:
        calm = folder / "calm"
        faults.finish(nodes.start(calm, PEERS), calm)
        for number in range(times):
            out = folder / f"cohort-{number}"
            seconds = kill_a_rank_and_a_node(nodes, out, random.Random(seed + number))
            yield faults.Kill("a rank, then a node", seconds, faults.compare(faults.outcome(out), faults.outcome(calm)))
            shutil.rmtree(out)


KINDS: dict[str, Callable[[Path, int, int], Iterator[faults.Kill]]] = {
    "node that labels": label_kills,
    "node that joins": label_joins,
    "node of a cohort": cohort_kills,
}
