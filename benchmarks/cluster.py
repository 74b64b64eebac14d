"""What a cluster of three nodes costs beside one machine: labelling by more replicas, many tiny shards, a job of `submit`.

    python benchmarks/cluster.py [--rounds 3] [--shards 160] [--tiny 10000] [--only scaling|tiny|submit]

Three Ray nodes of this machine, each with an address and a disk of its own where the kernel allows it (see
tests/node_cluster.py); a folder is shared. Needs two cores and nobody beside it. Figures are medians. The last line
printed is one JSON object:

    scaling_efficiency_8        labelling by a teacher that sleeps: time of 1 replica over 8 x the time of 8, same shards
                                (goal >= 0.95); `_2` and `_4` the same; the start of the actors is not in it
    driver_ms_per_shard         CPU of the whole driver process for each of 10,000 shards of 4 rows (goal <= 1)
    driver_loop_ms_per_shard    of that, the thread that hands them out: what bounds a driver's shards a second
    tiny_shards_per_s           by eight replicas on this machine's cores, all committed
    driver_rss_growth           the driver's memory after 10,000 shards over that after 1,000
    submit_extra_s              from `collegium submit` to the first labelled shard, less the same of `collegium run` that
                                starts its own Ray (goal <= 15)
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.record import finish, with_record
from tests.node_cluster import BIN, NodeCluster, until

if TYPE_CHECKING:
    from teachers.labelling.dispatch import Dispatcher
    from teachers.labelling.shard import LabelTask
    from teachers.transfer_set.transfer_set import TransferSet

REPLICAS = (1, 2, 4, 8)
SLEEP_S = 0.2
ROWS_PER_SHARD = 64
TINY_ROWS = 4
SLEEPER = f"""
import time
import numpy as np

def sleep(batch):
    time.sleep({SLEEP_S})
    return np.zeros((len(batch["x"]), 10), np.float32)

def say(batch):
    return np.zeros((len(batch["x"]), 10), np.float32)
"""
"""A user's module."""
SUBMITTED = (
    "teachers={trees: {kind: sklearn, model: 'sklearn.ensemble:ExtraTreesClassifier', arguments: {n_estimators: 10}}}",
    "students.small.teachers=[trees]",
    "students.small.train.steps=10",
    "students.small.train.seeds=[0]",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=160, help="of the teacher that sleeps")
    parser.add_argument("--tiny", type=int, default=10_000, help="shards of 4 rows")
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    with_record(parser)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(INSIDE[arguments.inside](Path.cwd(), arguments)))
        return
    figures: dict[str, Any] = {}
    for part in arguments.only:
        with tempfile.TemporaryDirectory(prefix="collegium-cluster-") as folder, three_nodes(Path(folder)) as nodes:
            figures |= PARTS[part](nodes, arguments)
    finish("cluster", figures, keep=arguments.record)


@contextmanager
def three_nodes(folder: Path) -> Iterator[NodeCluster]:
    with NodeCluster(folder, dashboard=True) as nodes:
        nodes.add(cpus=3)
        nodes.add_all([{}, {}], cpus=3)
        (nodes.shared / "sleeper.py").write_text(SLEEPER)
        yield nodes


def inside(part: str, nodes: NodeCluster, arguments: argparse.Namespace) -> dict[str, Any]:
    """What this file prints when it runs on the head."""
    options = [f"--{name}={getattr(arguments, name)}" for name in ("rounds", "shards", "tiny")]
    out = nodes.shared / f"{part}.json"
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", part, *options]
    driver = nodes.run(
        nodes.head, command, log=out, RAY_ADDRESS=nodes.address, PYTHONPATH=str(Path(__file__).parents[1])
    )
    driver.wait()
    print(*out.read_text().splitlines()[:-1], sep="\n", file=sys.stderr)
    figures: dict[str, Any] = json.loads(out.read_text().splitlines()[-1])
    return figures


def scaling(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """On the head: the same shards by 1, 2, 4 and 8 replicas that sleep."""
    transfer_set, _ = prepared(folder / "set", int(1.2 * arguments.shards * ROWS_PER_SHARD))
    seconds: dict[int, list[float]] = {num: [] for num in REPLICAS}
    with joined():
        for number in range(arguments.rounds):
            for num in REPLICAS if number % 2 else REPLICAS[::-1]:
                task = store_for(transfer_set, folder / f"sleep-{number}-{num}", ROWS_PER_SHARD)
                with dispatcher("sleep", task, folder, num, arguments.shards) as work:
                    begun = time.perf_counter()
                    assert sum(1 for _ in work.run()) == arguments.shards
                    seconds[num].append(time.perf_counter() - begun)
                print(f"round {number}, {num} replicas: {seconds[num][-1]:.2f} s", file=sys.stderr)
    one = seconds[1]
    return {
        f"scaling_efficiency_{num}": round(median(a / (num * b) for a, b in zip(one, seconds[num], strict=True)), 3)
        for num in REPLICAS[1:]
    }


def tiny(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """On the head: many shards of a few rows, by eight replicas with nothing to do but to commit them."""
    transfer_set, _ = prepared(folder / "set", int(1.1 * arguments.tiny * TINY_ROWS))
    task = store_for(transfer_set, folder / "tiny", TINY_ROWS)
    memory: dict[int, int] = {}
    driver = psutil.Process()
    with joined(), dispatcher("say", task, folder, REPLICAS[-1], arguments.tiny) as work:
        begun, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
        for num, _ in enumerate(work.run(), start=1):
            if num in (arguments.tiny // 10, arguments.tiny):
                memory[num] = driver.memory_info().rss
        seconds = time.perf_counter() - begun
        process, thread = time.process_time() - process, time.thread_time() - thread
    early, late = memory.values()
    return {
        "driver_ms_per_shard": round(1000 * process / arguments.tiny, 3),
        "driver_loop_ms_per_shard": round(1000 * thread / arguments.tiny, 3),
        "tiny_shards_per_s": round(arguments.tiny / seconds),
        "driver_rss_mib": [round(early / 2**20), round(late / 2**20)],
        "driver_rss_growth": round(late / early, 3),
    }


@contextmanager
def joined() -> Iterator[None]:
    """This cluster, as `collegium run` joins it."""
    from orchestrator.cluster.cluster import cluster

    with cluster() as found:
        found.join()
        yield


@contextmanager
def dispatcher(function: str, task: "LabelTask", folder: Path, num: int, num_shards: int) -> "Iterator[Dispatcher]":
    """Of the first shards, with replicas that are up already."""
    import ray

    from teachers.config.resources import Resources
    from teachers.config.teacher import CallableTeacher
    from teachers.labelling.dispatch import Dispatcher
    from teachers.labelling.hands import Waiting
    from teachers.labelling.replicas import replicas
    from teachers.labelling.shard import TeacherSpec
    from teachers.soft_targets.store import SoftTargetStore

    config = CallableTeacher(
        kind="callable", function=f"sleeper:{function}", output="logits", replicas=num, resources=Resources(cpus=1)
    )
    teacher = TeacherSpec("sleeper", config, None, (), folder)
    store = SoftTargetStore.open(task.store)
    shards = Waiting({0: (store, range(num_shards))})
    with replicas(teacher, [task], num, wait_s=60.0) as actors:
        ray.get([actor.ready.remote() for actor in actors.handles.values()])
        yield Dispatcher(actors, shards, teacher, [task], max_attempts=1, wait_s=60.0)


def prepared(folder: Path, num_rows: int) -> "tuple[TransferSet, int]":
    from benchmarks.labelling import prepared as images

    return images(folder, num_rows)


def store_for(transfer_set: "TransferSet", folder: Path, rows_per_shard: int) -> "LabelTask":
    from benchmarks.labelling import store_for as store

    return store(transfer_set, folder, rows_per_shard)


def submit(nodes: NodeCluster, arguments: argparse.Namespace) -> dict[str, Any]:
    """A job on the cluster and a run that starts its own Ray, in turns, each up to its first labelled shard."""
    known = subprocess.run([BIN / "collegium", "submit", "--help"], capture_output=True).returncode == 0
    if not known:
        print("`collegium submit` is not there: submit_extra_s is left out", file=sys.stderr)
        return {}
    options = [part for override in SUBMITTED for part in ("-o", override)]
    seconds: dict[str, list[float]] = {"submit": [], "run": []}
    for number in range(arguments.rounds):
        for verb in ("submit", "run") if number % 2 else ("run", "submit"):
            out = nodes.shared / f"{verb}-{number}"
            where = ["--address", f"http://{nodes.head.address}:8265"] if verb == "submit" else []
            command = [str(BIN / "collegium"), verb, "digits", "--out", str(out), *where, *options]
            seconds[verb].append(first_shard_s(nodes, command, out, nodes.shared / f"{verb}-{number}.log"))
            print(f"round {number}, {verb}: first shard after {seconds[verb][-1]:.1f} s", file=sys.stderr)
    extra = median(a - b for a, b in zip(seconds["submit"], seconds["run"], strict=True))
    return {"submit_extra_s": round(extra, 1), "first_shard_of_run_s": round(median(seconds["run"]), 1)}


def first_shard_s(nodes: NodeCluster, command: list[str], out: Path, log: Path) -> float:
    """Seconds from the start of a command on the head to the first shard that is labelled in `out`; waits for its end."""
    begun = time.time()
    driver = nodes.run(nodes.head, command, log=log)
    shards = "soft_targets/*/shards/*.arrow"
    until(lambda: any(out.glob(shards)), or_dead=driver, log=log)
    first = min(shard.stat().st_mtime for shard in out.glob(shards))
    driver.wait()
    return first - begun


INSIDE = {"scaling": scaling, "tiny": tiny}
PARTS: dict[str, Callable[[NodeCluster, argparse.Namespace], dict[str, Any]]] = {
    **{part: partial(inside, part) for part in INSIDE},
    "submit": submit,
}

if __name__ == "__main__":
    main()
