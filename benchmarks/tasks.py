"""What the seam between the engine and its tasks costs a step, and what steps of other tasks cost beside plain torch.

    python benchmarks/tasks.py [--rounds 15] [--clock cpu]

Sides take their steps in turn; a figure is the median over rounds. The last line printed is one JSON object:

    seam_over_before        a step of the digits student over the same step by the commit before the seam, in a process each
                            (null where git does not have that commit)
    digits_step_us          microseconds of it
    multilabel_over_plain   a step of 20 classes a row, from a teacher and from labels, over a plain loop with the same losses
    regression_over_plain   the same of 4 numbers a row
"""

import argparse
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.meters import beside_sklearn
from benchmarks.record import ROOT, finish, with_record
from benchmarks.turns import CLOCKS, Clock, in_turn, ratio, repeated, with_clock
from students.config.terms import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.task import TaskName
from teachers.config.training import TrainConfig
from teachers.config.transfer_set import TableSource, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.arrow_columns import fixed_size_list
from teachers.transfer_set.transfer_set import TransferSet

BEFORE = "6c9388cb26"
"""The last commit that knew of nothing to learn but one class of many."""
STEPS = 300
ROWS, FEATURES, HIDDEN, BATCH_SIZE = 16_384, 64, (512, 512), 1024
TEMPERATURE = 2.0
Loss = Callable[[Tensor, Tensor], Tensor]
"""Of what a network says and labels, or what a teacher says, `[rows, width]`."""


@dataclass(frozen=True)
class Plain:
    """A task as a plain loop has it."""

    width: int
    hard: Loss
    soft: Loss


def hard_of_classes(said: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(said, labels, reduction="sum") / len(said)


def soft_of_classes(said: Tensor, target: Tensor) -> Tensor:
    """The sum over classes of KL(Bernoulli || Bernoulli)."""
    own, theirs = said / TEMPERATURE, target / TEMPERATURE
    p = theirs.sigmoid()
    each = p * (F.logsigmoid(theirs) - F.logsigmoid(own)) + (1 - p) * (F.logsigmoid(-theirs) - F.logsigmoid(-own))
    return TEMPERATURE**2 * each.sum() / len(said)


PLAIN: dict[TaskName, Plain] = {
    "multilabel": Plain(20, hard_of_classes, soft_of_classes),
    "regression": Plain(4, F.mse_loss, F.mse_loss),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    with_clock(parser)
    with_record(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    figures: dict[str, Any] = seam(arguments.rounds, arguments.clock)
    for task in PLAIN:
        with tempfile.TemporaryDirectory() as folder:
            figures |= against_plain(task, Path(folder), arguments.rounds, CLOCKS[arguments.clock])
    figures |= {key: figure for key, figure in beside_sklearn(1_000_000, 3).items() if key.startswith("meter_")}
    about = {"clock": arguments.clock, "rounds": arguments.rounds, "torch": torch.__version__}
    finish("tasks", figures | about, keep=arguments.record)


def seam(rounds: int, clock: str) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as folder, stepping(ROOT, clock) as here:
        if not unpacked(BEFORE, Path(folder)):
            print(f"git does not have {BEFORE}, the step before the seam: its figure is null")
            return {"seam_over_before": None}
        with stepping(Path(folder), clock) as before:
            times = alternately({"before": before, "here": here}, rounds)
    found = round(ratio(times["here"], times["before"]), 4)
    us = {name: 1e6 * median(each) for name, each in times.items()}
    print(f"digits: before the seam {us['before']:.1f} us, now {us['here']:.1f} us, ratio {found:.3f}")
    return {"seam_over_before": found, "digits_step_us": round(us["here"], 1)}


def alternately(sides: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds a step by the sides' own clocks; a round before the first warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            seconds = sides[name](STEPS)
            if number:
                times[name].append(seconds / STEPS)
    return times


def unpacked(commit: str, folder: Path) -> bool:
    """Put the packages of `commit` into `folder`; whether git has it."""
    archive = folder / "commit.tar"
    told = subprocess.run(
        ["git", "archive", "-o", str(archive), commit, "students", "teachers"], cwd=ROOT, capture_output=True
    )
    if told.returncode:
        return False
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return True


@contextmanager
def stepping(tree: Path, clock: str) -> Iterator[Callable[[int], float]]:
    """Takes so many steps of the digits student by the code of `tree`, in a process of its own, and tells the seconds."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    script = [str(ROOT / "benchmarks" / "digits_step.py"), clock]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *script], env=environment, cwd=tree, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, said = process.stdin, process.stdout

        def steps(number: int) -> float:
            asked.write(f"{number}\n")
            asked.flush()
            return float(said.readline())

        said.readline()
        yield steps
        asked.close()


def against_plain(task: TaskName, folder: Path, rounds: int, clock: Clock) -> dict[str, float]:
    """The engine's step over that of a loop over tensors in memory, which shuffles them as plain loops do."""
    training = engine(task, folder / "engine")
    batches = Batches(training.data.rows, training.run, PlainSession()).from_step(0)
    columns = training.data.rows.columns
    inputs, labels, target = (columns[name] for name in ("input.", "label", "target.0"))
    assert isinstance(inputs, Tensor) and isinstance(labels, Tensor) and isinstance(target, Tensor)
    order, other = shuffled(len(labels)), engine(task, folder / "plain").stepper

    def plain() -> None:
        index = next(order)
        said = other.module(inputs[index])
        (0.5 * PLAIN[task].hard(said, labels[index]) + 0.5 * PLAIN[task].soft(said, target[index])).backward()
        other.optimizer.step()
        other.optimizer.zero_grad()

    sides = {"engine": repeated(lambda: training.advance(next(batches))), "plain": repeated(plain)}
    times = in_turn(sides, steps=10, rounds=rounds, clock=clock)
    found = round(ratio(times["engine"], times["plain"]), 4)
    ms = {name: 1e3 * median(each) for name, each in times.items()}
    print(f"{task}: plain {ms['plain']:.3f} ms, engine {ms['engine']:.3f} ms, ratio {found:.3f}")
    return {f"{task}_over_plain": found}


def shuffled(rows: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(rows)[: rows // BATCH_SIZE * BATCH_SIZE].view(-1, BATCH_SIZE)


def engine(task: TaskName, folder: Path) -> Training:
    """A student with one teacher and all labels."""
    transfer_set = table(task, folder)
    run = Run(
        name="small/seed-0",
        folder=folder / "small",
        stage=folder,
        stage_name="distill/small",
        model="students.models:mlp",
        arguments={"hidden": HIDDEN},
        preprocess=Preprocess(),
        objective=(SoftTerm(loss="soft", weight=0.5), HardTerm(loss="hard", weight=0.5)),
        train=TrainConfig(steps=10**6, batch_size=BATCH_SIZE, learning_rate=1e-3),
        seed=0,
        transfer_set=transfer_set.folder,
        sources=(Source("wide", {"train-0": stored(folder / "wide", transfer_set)}),),
    )
    return Training(run, PlainSession(), SharedData().of([run], PlainSession())[0])


def table(task: TaskName, folder: Path) -> TransferSet:
    """Noise: time does not depend on what is learnt."""
    folder.mkdir()
    draw, width = np.random.default_rng(0), PLAIN[task].width
    features = draw.standard_normal((ROWS, FEATURES)).astype(np.float32)
    label = draw.integers(0, 2, (ROWS, width)) if task == "multilabel" else draw.standard_normal((ROWS, width))
    columns = {"features": fixed_size_list(features), "label": fixed_size_list(label)}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    source = TableSource(kind="parquet", path=str(folder / "rows.parquet"))
    config = TransferSetConfig(source=source, inputs="features", label="label", task=task)
    return prepare(config, folder / "prepared")


def stored(folder: Path, transfer_set: TransferSet) -> Path:
    (segment,), space = transfer_set.of("train"), transfer_set.space
    rows = segment.num_rows
    spec = Spec("wide", "0", segment.name, segment.digest, "dense", space.names, rows, rows, space.answer)
    store = SoftTargetStore.create(folder, spec)
    said = np.random.default_rng(1).standard_normal((rows, space.width)).astype(np.float32)
    store.commit(0, transfer_set.keys(segment), {spec.named[0]: said})
    store.seal()
    return folder


if __name__ == "__main__":
    main()
