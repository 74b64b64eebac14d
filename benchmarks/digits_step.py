"""Steps of the digits student, timed on demand, by whatever Collegium is found on the path: one that is older, say.

    PYTHONPATH=TREE python benchmarks/digits_step.py wall|cpu

Writes a line when it is ready; then it reads a number of steps a line and answers with the seconds that they took. What it
asks of Collegium is spelt as it was before tasks had a seam, and still is.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from students.config.terms import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.config.transfer_set import SklearnSource, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BATCH_SIZE = 64


def main() -> None:
    torch.set_num_threads(1)
    clock = CLOCKS[sys.argv[1]]
    session = PlainSession()
    with tempfile.TemporaryDirectory() as folder:
        training = student(Path(folder), session)
        batches = Batches(training.data.rows, training.run, session).from_step(0)
        print("ready", flush=True)
        for line in sys.stdin:
            begun = clock()
            for _ in range(int(line)):
                training.advance(next(batches))
            print(clock() - begun, flush=True)


def student(folder: Path, session: PlainSession) -> Training:
    """With one teacher and the labels of 100 rows, as in `recipes/digits.yaml`."""
    source = SklearnSource(kind="sklearn", name="digits")
    config = TransferSetConfig(source=source, inputs="image", label="digit", labelled=100)
    transfer_set = prepare(config, folder / "prepared")
    run = Run(
        name="small/seed-0",
        folder=folder / "small",
        stage=folder,
        stage_name="distill/small",
        model="students.models:mlp",
        arguments={"hidden": 16},
        preprocess=Preprocess(),
        objective=(SoftTerm(loss="soft", weight=0.9), HardTerm(loss="hard", weight=0.1)),
        train=TrainConfig(steps=10**6, batch_size=BATCH_SIZE),
        seed=0,
        transfer_set=transfer_set.folder,
        sources=(Source("wide", {"train-0": stored(folder / "wide", transfer_set)}),),
    )
    return Training(run, session, SharedData().of([run], session)[0])


def stored(folder: Path, transfer_set: TransferSet) -> Path:
    """A store of noise: time does not depend on what is said."""
    (segment,) = transfer_set.of("train")
    rows = segment.num_rows
    store = SoftTargetStore.create(
        folder, Spec("wide", "0", segment.name, segment.digest, "dense", transfer_set.classes, rows, rows)
    )
    said = np.random.default_rng(0).standard_normal((rows, len(transfer_set.classes))).astype(np.float32)
    store.commit(0, transfer_set.keys(segment), {"logits": said})
    store.seal()
    return folder


if __name__ == "__main__":
    main()
