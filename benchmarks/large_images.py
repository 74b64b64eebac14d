"""Labelling of images of 224 pixels by a network as large as ResNet-50, over a bare loop of the same batches.

    python benchmarks/large_images.py [--device cuda] [--images 16384] [--batch-size 256] [--rounds 5] [--clock cpu]

The network is timm's, with weights of chance, and the images are noise: neither changes the time. `bare` computes batches that
lie on the device already, normalised, and drops what they say; `label` is a replica's own code: it reads its shards from the
prepared set, prepares them as timm does and writes the store, several shards in flight. Sides take turns; figures are medians.
The last line printed is one JSON object:

    labelling_over_bare   rows a second of labelling over those of the bare loop (goal 0.9)
    bfloat16_over_float32 rows a second of the bare loop under autocast over those in float32
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.record import finish, with_record
from benchmarks.turns import CLOCKS, in_turn, ratio, repeated, with_clock
from teachers.config.published import TimmTeacher
from teachers.config.transfer_set import NumpySource, SplitConfig, TransferSetConfig
from teachers.labelling.hands import IN_FLIGHT
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.models.torchvision_build import make_importable
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

CLASSES, SIZE, ARCHITECTURE, GOAL = 100, 224, "resnet50.a1_in1k", 0.9
SHARD_BATCHES = 4
SIZES = {"cpu": (96, 16), "cuda": (16_384, 256)}
"""Images, and rows of a batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=[*SIZES], default="cpu")
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    with_clock(parser)
    with_record(parser)
    arguments = parser.parse_args()
    images, batch_size = SIZES[arguments.device]
    images, batch_size = arguments.images or images, arguments.batch_size or batch_size
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), images, batch_size, arguments.device)
        sides = {name: repeated(bench.synchronised(side)) for name, side in bench.sides().items()}
        times = in_turn(sides, steps=1, rounds=arguments.rounds, clock=CLOCKS[arguments.clock])
    speed = {side: bench.num_rows / median(each) for side, each in times.items()}
    print(", ".join(f"{side} {rate:,.0f} rows/s" for side, rate in speed.items()))
    found = {
        "labelling_over_bare": round(ratio(times["bare"], times["label"]), 4),
        "bfloat16_over_float32": round(ratio(times["bare"], times["bfloat16"]), 4),
        "bare_rows_per_s": round(speed["bare"]),
        "goal": GOAL,
    }
    about = {"device": arguments.device, "images": images, "batch_size": batch_size, "clock": arguments.clock}
    finish("large_images", found | about | {"torch": torch.__version__}, keep=arguments.record)


class Bench:
    """The images, prepared; the network; and what each side does with all of them."""

    def __init__(self, folder: Path, images: int, batch_size: int, device: str) -> None:
        make_importable()
        import timm

        self.folder, self.device, self.batch_size, self.number = folder, device, batch_size, count()
        self.rows = self._prepared(images)
        [self.segment] = self.rows.of("train")
        self.num_rows = self.segment.num_rows
        torch.manual_seed(0)
        weights = folder / "weights.safetensors"
        save_file(timm.create_model(ARCHITECTURE.partition(".")[0], num_classes=CLASSES).state_dict(), weights)
        config = TimmTeacher(kind="timm", architecture=ARCHITECTURE, weights=str(weights), batch_size=batch_size)
        classes = tuple(map(str, range(CLASSES)))
        about, rows = (self.segment.name, self.segment.digest), (self.num_rows, SHARD_BATCHES * batch_size)
        self.spec = Spec("bench", "0" * 64, *about, "dense", classes, *rows)
        self.labeller = Labeller(TeacherSpec("bench", config, None, (), folder), [self._task()], device)

    def _prepared(self, images: int) -> TransferSet:
        source = self.folder / "source"
        source.mkdir()
        random = np.random.default_rng(0)
        np.save(source / "x.npy", random.integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8))
        config = TransferSetConfig(
            source=NumpySource(kind="numpy", path=str(source)),
            inputs="x",
            label=None,
            classes=[*map(str, range(CLASSES))],
            split=SplitConfig(validation=0.05, test=0.05),
        )
        return prepare(config, self.folder / "prepared")

    def _task(self) -> LabelTask:
        store = SoftTargetStore.create(self.folder / f"store-{next(self.number)}", self.spec)
        return LabelTask(self.rows.folder, self.segment.name, store.folder)

    def sides(self) -> dict[str, Callable[[], Any]]:
        """The bare loop in both precisions, and labelling."""
        teacher: Any = self.labeller.questioner.teacher
        asked = teacher.forward
        images = np.array(self.rows.inputs(self.segment)["x"])
        fed = [asked.inputs(images[at : at + self.batch_size]) for at in range(0, self.num_rows, self.batch_size)]

        def bare() -> None:
            with torch.inference_mode():
                for batch in fed:
                    asked.network(batch)

        def bfloat16() -> None:
            with torch.autocast(self.device, torch.bfloat16):
                bare()

        def label() -> None:
            self.labeller.tasks = [type(self.labeller.tasks[0]).open(self._task())]
            missing = self.labeller.tasks[0].store.missing()
            with ThreadPoolExecutor(IN_FLIGHT) as callers:  # as a replica has them
                list(callers.map(lambda shard: self.labeller.label(0, shard), missing))

        return {"bare": bare, "bfloat16": bfloat16, "label": label}

    def synchronised(self, side: Callable[[], Any]) -> Callable[[], Any]:
        """The side, to the end of what the device was told."""

        def whole() -> None:
            side()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return whole


if __name__ == "__main__":
    main()
