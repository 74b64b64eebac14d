"""What a live teacher costs a step, beside the teacher alone, the student alone, and the same training from a store.

    python benchmarks/live.py [--rounds 9] [--steps 30] [--batch-size 256] [--teachers 16] [--student 8] [--device cuda]

The student trains in this process on one thread, each teacher answers in a Ray actor with a core of its own: have a core
for each of them, or the figures say nothing. With fresh augmentation (`pad_and_crop`) on all sides. Sides take turns
in this process, every other round backwards; a figure is the median over rounds. A turn of the live side begins with
nothing asked and ends with nothing left over, so it includes the wait for its first answers. The last line printed is
one JSON object:

    live_over_max               step with live teachers over the larger of: a batch by the slowest teacher alone, in a plain loop,
                                and a step of the student alone, from a store (goal <= 1.15)
    live_over_cached_training   the same step over that of the student alone
    wait_share                  share of the live step in which the student waited for answers
"""

import argparse
import itertools
import logging
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.record import finish, settings, with_record
from benchmarks.rows import CLASSES, SHAPE, noise, prepared, stored
from benchmarks.turns import Side, in_turn, ratio, repeated
from orchestrator.cluster.environment import set_environment
from students.config.terms import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Live, Run, Source
from students.runs.session import PlainSession
from students.training.look_ahead import LookAhead
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.resources import Resources
from teachers.config.teacher import ModuleTeacher
from teachers.config.training import TrainConfig
from teachers.labelling.questioner import Questioner
from teachers.labelling.shard import TeacherSpec, loaded
from teachers.zoo import conv_net

PREFETCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=30, help="of a turn")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--teachers", type=int, nargs="+", default=[16], help="width of the conv net of each")
    parser.add_argument("--student", type=int, default=8, help="width of its conv net")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    with_record(parser)
    arguments = parser.parse_args()
    set_environment()  # before ray is imported
    import ray

    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=len(arguments.teachers) + 1, object_store_memory=1 << 30, **quiet)
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = measured(Bench(Path(folder), arguments), arguments)
    finally:
        ray.shutdown()
    name = "live" if arguments.device == "cpu" else "live-cuda"
    finish(name, figures | settings(arguments) | {"prefetch": PREFETCH}, keep=arguments.record)


def measured(bench: "Bench", arguments: argparse.Namespace) -> dict[str, float]:
    from teachers.labelling.live import ReplicaClient, live_replicas

    with live_replicas(bench.teachers, bench.transfer_set.folder, [], 60) as replicas:
        live = LiveSide(bench, ReplicaClient(replicas))
        sides: dict[str, Side] = {"live": live, "student": bench.student_alone()}
        sides |= {f"teacher {spec.name}": bench.teacher_alone(spec) for spec in bench.teachers}
        times = in_turn(sides, steps=arguments.steps, rounds=arguments.rounds)
    apart = [times[name] for name in sides if name != "live"]
    longest = [max(values) for values in zip(*apart, strict=True)]
    for name, values in times.items():
        print(f"{name}: {1e3 * median(values):.2f} ms")
    return {
        "live_over_max": round(ratio(times["live"], longest), 4),
        "live_over_cached_training": round(ratio(times["live"], times["student"]), 4),
        "wait_share": round(live.waited_s / sum(live.took_s), 4),
        **{f"{name.replace(' ', '_')}_ms": round(1e3 * median(values), 3) for name, values in times.items()},
    }


class Bench:
    """The rows, the teachers' weights and stores, and what each side does with them."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments, self.device = folder, arguments, torch.device(arguments.device)
        self.transfer_set = prepared(folder, *noise(arguments.rows))
        gpus = 0.4 / len(arguments.teachers) if arguments.device == "cuda" else 0.0
        self.teachers = [self.teacher(f"wide{number}", width, gpus) for number, width in enumerate(arguments.teachers)]

    def teacher(self, name: str, width: int, gpus: float) -> TeacherSpec:
        torch.manual_seed(0)
        weights = self.folder / f"{name}.safetensors"
        save_file(conv_net(width, num_classes=CLASSES, input_shape=SHAPE).state_dict(), weights)
        config = ModuleTeacher(
            kind="module",
            model="teachers.zoo:conv_net",
            arguments={"width": width},
            weights=str(weights),
            preprocess=Preprocess(normalise="auto"),
            resources=Resources(cpus=1, gpus=gpus),
        )
        return TeacherSpec(name, config, None, (), self.folder)

    def run(self, name: str, sources: tuple[Source, ...]) -> Run:
        batch_size = self.arguments.batch_size
        return Run(
            name=name,
            folder=self.folder / name,
            stage=self.folder,
            stage_name="benchmark/small",
            model="teachers.zoo:conv_net",
            arguments={"width": self.arguments.student},
            preprocess=Preprocess(),
            objective=(SoftTerm(loss="soft", weight=0.9), HardTerm(loss="hard", weight=0.1)),
            train=TrainConfig(steps=10**6, batch_size=batch_size, learning_rate=1e-3, augment="pad_and_crop"),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=sources,
        )

    def student_alone(self) -> Side:
        """The engine, from stores: gather, augmentation, preprocessing, one-cycle, curves and all."""
        session = PlainSession(self.device)
        run = self.run("cached", tuple(self.stored(spec) for spec in self.teachers))
        training = Training(run, session, SharedData().of([run], session)[0])
        batches = training.batches()
        return repeated(lambda: training.advance(next(batches)))

    def teacher_alone(self, spec: TeacherSpec) -> Side:
        """A plain loop over batches that lie ready."""
        questioner = self.questioner(spec)
        (segment,) = self.transfer_set.of("train")
        size = self.arguments.batch_size
        firsts = range(0, segment.num_rows - size + 1, size)
        parts = itertools.cycle([self.rows(first, size) for first in firsts])
        return repeated(lambda: questioner.ask(*next(parts)))

    def questioner(self, spec: TeacherSpec) -> Questioner:
        return loaded(spec, self.transfer_set, self.arguments.device)

    def rows(self, first: int, num: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        (segment,) = self.transfer_set.of("train")
        inputs = {name: np.array(column) for name, column in self.transfer_set.inputs(segment, first, num).items()}
        return inputs, self.transfer_set.keys(segment)[first : first + num]

    def stored(self, spec: TeacherSpec) -> Source:
        questioner = self.questioner(spec)
        return stored(
            self.folder / "stores" / spec.name,
            self.transfer_set,
            lambda first, num: questioner.ask(*self.rows(first, num)),
        )


class LiveSide:
    """The engine with live teachers; every turn asks ahead anew."""

    def __init__(self, bench: Bench, client: Any) -> None:
        self.session = PlainSession(bench.device, live=client)
        about = Live(bench.transfer_set.classes, PREFETCH)
        run = bench.run("live", tuple(Source(spec.name, {}, live=about) for spec in bench.teachers))
        self.training = Training(run, self.session, SharedData().of([run], self.session)[0])
        self.endless = Batches(self.training.data.rows, run, self.session).from_step(0)
        self.waited_s, self.took_s = 0.0, [0.0]

    def __call__(self, steps: int) -> None:
        start, first = time.perf_counter(), self.training.progress.step
        rows = self.training.data.rows.live
        assert rows is not None
        ahead = LookAhead(self.endless, rows, self.training.run, self.session, range(first, first + steps))
        for batch in ahead:
            self.training.advance(batch)
        if first:  # the first turn warms up
            self.waited_s += steps * ahead.take_wait_s()
            self.took_s.append(time.perf_counter() - start)


if __name__ == "__main__":
    main()
