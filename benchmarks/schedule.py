"""What it brings that a run's works are scheduled together: the planner on virtual time, and real trainings on this machine.

    python benchmarks/schedule.py [--labels] [--before CHECKOUT] [--rounds 1]

Virtual: 200 trainings over 64 GPUs, seeds drawn 5 times; most on one GPU, some four to a GPU, some gangs of four or eight,
lengths log-normal over a factor of about ten. The last line printed is one JSON object:

    gpu_busy                  share of all GPU time that trainings have until the last one ends, the least of 5
    gpu_busy_misjudged        the same when each takes between half and twice of what was thought
    makespan_over_bound       time over the larger of (all GPU time / 64) and the longest training, the most of 5
    plan_ms                   what deciding takes, a training
    labelling_makespan_over_bound  --labels: three teachers whose shards take 1:3:9 (they sleep), each by one replica to four, on a Ray
                              of four CPUs: until all labels are there, start of the actors included, over all sleep / 4
    time_over_before          --before: `collegium distill`, digits, 10 students x 3 seeds and their controls (60 trainings), over the
                              version of Collegium in CHECKOUT; abe0bb79 is the last one that trains all of them on one worker

Both sides of it run in turn, in processes of their own, start of Ray included; the figure is the median over rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.record import ROOT, finish, with_record
from orchestrator.cluster.environment import set_environment
from orchestrator.scheduling.gantt import busy
from orchestrator.scheduling.planner import Work
from orchestrator.scheduling.room import Node, Part
from orchestrator.scheduling.virtual import Bar, schedule

NODES: dict[str, Node] = {f"node{number}": {"CPU": 64.0, "GPU": 8.0} for number in range(8)}
GPUS = 64
SHAPES = {(1, 1.0): 130, (1, 0.25): 50, (4, 1.0): 14, (8, 1.0): 6}
"""(workers, GPUs of each): how many of 200 trainings."""
STUDENTS, SEEDS, STEPS = 10, 3, 1600
SEATS, ROWS, ROWS_PER_SHARD, SHARD_S = 4, 800, 8, 1.0
COSTS = {"cheap": 1, "middle": 3, "dear": 9}
SLEEPER = """
import time
import numpy as np

def say(batch, seconds):
    time.sleep(seconds)
    return np.zeros((len(batch["x"]), 10), np.float32)
"""
"""A user's module."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    parser.add_argument("--rounds", type=int, default=1)
    with_record(parser)
    arguments = parser.parse_args()
    figures = virtual()
    if arguments.labels:
        with tempfile.TemporaryDirectory() as folder:
            figures |= labels(Path(folder))
    if arguments.before:
        figures |= real(arguments.rounds, arguments.before)
    finish("schedule", figures, keep=arguments.record)


def virtual() -> dict[str, Any]:
    found, wrong, over, took = [], [], [], 0.0
    for seed in range(5):
        works, chance = trainings(seed), Random(seed)
        start = time.perf_counter()
        bars = schedule(works, NODES)
        took += time.perf_counter() - start
        misjudged = {work.name: work.length * 2 ** chance.uniform(-1, 1) for work in works}
        found.append(used(works, bars))
        wrong.append(used(works, schedule(works, NODES, misjudged)))
        bound = max(sum(gpus(work) * work.length for work in works) / GPUS, max(work.length for work in works))
        over.append(max(bar.end for bar in bars) / bound)
    return {
        "gpu_busy": round(min(found), 4),
        "gpu_busy_misjudged": round(min(wrong), 4),
        "makespan_over_bound": round(max(over), 4),
        "plan_ms": round(1e3 * took / 5 / sum(SHAPES.values()), 3),
    }


def trainings(seed: int) -> list[Work]:
    """A longest of one GPU is a good deal shorter than all of them on 64: else nothing could be busy."""
    chance = Random(1000 + seed)
    works = []
    for (workers, share), num in SHAPES.items():
        for number in range(num):
            part = Part(workers, {"CPU": 1.0, "GPU": share})
            length = min(4 * 3600.0, 3600 * chance.lognormvariate(0, 0.6))
            works.append(Work(f"distill/{workers}x{share:g}/{number}", (part,), length))
    chance.shuffle(works)
    return works


def gpus(work: Work) -> float:
    return sum(part.num * part.request["GPU"] for part in work.gang)


def used(works: list[Work], bars: list[Bar]) -> float:
    return busy(bars, {work.name: gpus(work) for work in works}, GPUS)


def labels(folder: Path) -> dict[str, Any]:
    """Three teachers that sleep, for all of whom there are four seats together, as the stages of a run ask for them."""
    set_environment()  # before ray is imported
    import ray

    from benchmarks.labelling import prepared, store_for
    from orchestrator.building.turns import MoreSeats, Turn, Turns
    from orchestrator.cluster.cluster import Cluster
    from teachers.config.any_teacher import Replicas
    from teachers.config.resources import Resources
    from teachers.config.teacher import CallableTeacher
    from teachers.labelling.label import LabelReport, Progress, label
    from teachers.labelling.shard import TeacherSpec
    from teachers.process.waiting import SideBySide

    (folder / "sleeper.py").write_text(SLEEPER)
    transfer_set, rows = prepared(folder / "set", ROWS)
    shards, one = -(-rows // ROWS_PER_SHARD), Resources(gpus=0)
    ray.init(address="local", num_cpus=SEATS, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20)  # fmt: skip

    def asked(names: Sequence[str], turn: Turn) -> list[LabelReport]:
        seconds, seats = SHARD_S * COSTS[names[0]], MoreSeats(turns, f"label/{names[0]}")
        config = CallableTeacher(
            kind="callable",
            function="sleeper:say",
            output="logits",
            arguments={"seconds": seconds},
            replicas=Replicas(max=SEATS),
            resources=one,
        )
        task = store_for(transfer_set, folder / names[0], ROWS_PER_SHARD)
        told: set[int] = set()

        def tell(now: Progress) -> None:
            if now.num_ready not in told or now.rows == now.num_rows:
                told.add(now.num_ready)
                at = f"{names[0]} after {time.perf_counter() - begun:.1f} s"
                print(f"{at}: {now.rows} rows, {now.num_ready} of {now.num_replicas} replicas ready", file=sys.stderr)

        report = label(TeacherSpec(names[0], config, None, (), folder), [task], progress=tell, seats=seats)
        return [report]

    begun = time.perf_counter()
    with SideBySide("stage", 9) as threads:
        turns = Turns(Cluster(None, None), {}, threads)
        gang = [("replicas", 1, one)]
        done = [turns.start(f"label/{name}", gang, asked, name) for name in COSTS]
        retries = sum(threads.outcome(each).num_retries for each in done)
    seconds = time.perf_counter() - begun
    ray.shutdown()
    at_best = shards * SHARD_S * sum(COSTS.values()) / SEATS
    return {
        "labelling_makespan_over_bound": round(seconds / at_best, 4),
        "labelling_s": round(seconds, 1),
        "retries": retries,
    }


def real(rounds: int, before: Path) -> dict[str, Any]:
    sides = {"now": ROOT, "before": before.resolve()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, checkout in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                times[name].append(run(checkout, Path(folder)))
            print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr)
    now, then = (median(took) for took in times.values())
    return {"time_over_before": round(now / then, 4), "run_s": round(now, 1), "cpus": os.cpu_count() or 1}


def run(checkout: Path, folder: Path) -> float:
    """Seconds of the command; raises CalledProcessError with what it said."""
    students = {
        f"s{number}": {
            "model": "students.models:mlp",
            "arguments": {"hidden": 8 + 2 * number},
            "teachers": ["trees"],
            "objective": [{"loss": "soft", "weight": 0.9}, {"loss": "hard", "weight": 0.1}],
            "train": {"steps": STEPS, "seeds": list(range(SEEDS))},
            "resources": {"cpus": 1},
            "require": None,
        }
        for number in range(STUDENTS)
    }
    trees = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
    changes = [f"students={json.dumps(students)}", f"teachers={json.dumps({'trees': trees})}"]
    options = [option for change in changes for option in ("-o", change)]
    command = [sys.executable, "-m", "orchestrator", "distill", "digits", "--out", str(folder / "out"), *options]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
