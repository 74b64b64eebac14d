"""Two peers on two Ray nodes of this machine: a rank is killed, then a whole node, and another node takes its place.

`python -m tests.node_faults FOLDER SEED` writes to FOLDER/seconds those from the node's end to that of the training, and fails when
the members' weights are not those of a cohort that nobody disturbed.
"""

import random
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import ray
import torch
from ray.cluster_utils import Cluster

from students.checkpoint import newest_common
from students.ray_train import fit_on_ray
from students.session import CohortRun, PlainSession
from students.train import fit
from teachers.config import Resources, SklearnSource, TransferSetConfig
from teachers.prepare import prepare
from tests.cohort_runs import cohort_config, make_cohort

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
STEPS = 4000
PATIENCE_S = 300.0


def main(folder: Path, seed: int) -> float:
    source = SklearnSource(kind="sklearn", name="digits")
    transfer_set = prepare(
        TransferSetConfig(source=source, inputs="image", label="digit", labelled=100), folder / "set"
    )
    config = cohort_config("mutual", train={"steps": STEPS, "evaluate_every": 500}, placement="SPREAD")
    calm, run = (make_cohort(folder / name, transfer_set, config) for name in ("calm", "disturbed"))
    torch.set_num_threads(1)  # as a worker has: sums are in the same order
    fit([calm], PlainSession())
    # the driver's node has no room for a member, so each member has a node of its own
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK_TO_NOTICE})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    failed: list[Exception] = []
    training = Thread(target=train, args=(run, failed), daemon=True)
    training.start()
    at = random.Random(seed)
    step = wait_for_a_checkpoint(run, training, after=0)
    time.sleep(at.uniform(0, 2))
    at.choice(ranks()).kill()
    wait_for_a_checkpoint(run, training, after=step)
    time.sleep(at.uniform(0, 2))
    assert training.is_alive(), "the training ended before there was anything to kill"
    killed = time.monotonic()
    cluster.remove_node(nodes[seed % 2], allow_graceful=False)
    cluster.add_node(num_cpus=1)
    training.join(PATIENCE_S)
    assert not training.is_alive() and not failed, failed
    seconds = time.monotonic() - killed
    ray.shutdown()
    cluster.shutdown()
    for one, other in zip(run.members, calm.members, strict=True):
        weights = [(member.folder / "model.safetensors").read_bytes() for member in (one, other)]
        assert weights[0] == weights[1], f"{one.name} has other weights"
    return seconds


def train(run: CohortRun, failed: list[Any]) -> None:
    try:
        fit_on_ray([run], resources=Resources(), workers=2, placement="SPREAD", checkpoint_every_s=0.5)
    except Exception as error:
        failed.append(error)


def ranks() -> list[psutil.Process]:
    """Processes in which a member trains."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if " ".join(process.cmdline()).startswith("ray::RayTrainWorker")]


def wait_for_a_checkpoint(run: CohortRun, training: Thread, *, after: int) -> int:
    """The step of a common checkpoint beyond step `after`."""
    end = time.monotonic() + PATIENCE_S
    step = 0
    while step <= after:
        assert training.is_alive() and time.monotonic() < end, "there was no further checkpoint"
        time.sleep(0.1)
        step = int((newest_common(run.members) or "-0").rpartition("-")[2])
    return step


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "seconds").write_text(f"{main(folder, int(sys.argv[2])):.1f}")
