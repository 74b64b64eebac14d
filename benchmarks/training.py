"""What a step of cached distillation costs, beside a plain step, live teachers and TextBrewer.

    python benchmarks/training.py [--rounds 15] [--clock cpu] [--device cuda]

All sides train in this process on the same threads and in turn; a figure is the median over rounds. The last line
printed is one JSON object:

    cached_over_plain_training  step of cached three-teacher distillation over a plain cross-entropy step (conv net, batch 256;
                                on a GPU a wider one, batch 4096, see SCALES)
    deterministic_over_plain    what of it cuDNN's deterministic algorithms cost, which the engine asks for (GPU only)
    tiny_extra_us               microseconds that it adds to the step of a tiny MLP at batch 64
    live_over_cached            plain loop that runs the three teachers in every step, over ours
    textbrewer_over_cached      TextBrewer's MultiTeacherDistiller over ours: same models, batches and epochs (null: not installed)

Fashion-MNIST where ../shared/data has it, else noise of its shape: time does not depend on it.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import finish, with_record
from students.config.student import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.config.transfer_set import NumpySource, TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec, rows_per_shard
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from teachers.zoo import conv_net

FASHION = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist" / "train.parquet"
SHAPE = (1, 28, 28)
CLASSES = 10
TEMPERATURE = 2.0
LEARNING_RATE = 1e-3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Side = Callable[[int], Any]
"""Takes so many steps."""


@dataclass(frozen=True)
class Scale:
    """Sizes at which a step takes milliseconds."""

    num_rows: int
    batch_size: int
    student: int
    """Width of the conv net."""
    teachers: dict[str, int]
    """Their widths."""


SCALES = {
    "cpu": Scale(8192, 256, 8, {"wide": 16, "wider": 24, "widest": 32}),
    "cuda": Scale(65_536, 4096, 32, {"wide": 64, "wider": 96, "widest": 128}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of this process, for a machine with neighbours"
    )
    parser.add_argument("--device", choices=SCALES, default="cpu")
    with_record(parser)
    arguments = parser.parse_args()
    if (arguments.device, arguments.clock) == ("cuda", "cpu"):
        parser.error("--clock cpu does not see what a GPU does")
    torch.set_num_threads(arguments.threads)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), CLOCKS[arguments.clock], torch.device(arguments.device))
        figures = against_plain(bench, arguments.rounds) | tiny(bench, arguments.rounds)
        figures |= against_live(bench, arguments.rounds)
    figures |= {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "clock": arguments.clock,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "torch": torch.__version__,
    }
    finish("training" if arguments.device == "cpu" else "training-cuda", figures, keep=arguments.record)


def against_plain(bench: "Bench", rounds: int) -> dict[str, float]:
    size = bench.scale.batch_size
    plain = bench.plain("students_conv", size)
    sides = {"cached": bench.cached("students_conv", size), "plain": plain}
    if bench.device.type == "cuda":
        sides["deterministic"] = under_cudnn_flags_of_the_engine(bench.plain("students_conv", size))
    times = bench.in_turn(sides, steps=10, rounds=rounds)
    ratios = {name: median(t / p for t, p in zip(times[name], times["plain"], strict=True)) for name in sides}
    for name in set(sides) - {"plain"}:
        print(f"conv net, batch {size}: plain {ms(times['plain'])}, {name} {ms(times[name])}, ratio {ratios[name]:.3f}")
    figures = {"cached_over_plain_training": round(ratios["cached"], 4)}
    if "deterministic" in ratios:
        figures["deterministic_over_plain"] = round(ratios["deterministic"], 4)
    return figures | {"plain_step_ms": round(1e3 * median(times["plain"]), 3)}


def tiny(bench: "Bench", rounds: int) -> dict[str, float]:
    ours, plain = bench.cached("tiny_mlp", 64), bench.plain("tiny_mlp", 64)
    times = bench.in_turn({"cached": ours, "plain": plain}, steps=500, rounds=rounds)
    extra_us = 1e6 * median(c - p for c, p in zip(times["cached"], times["plain"], strict=True))
    print(f"tiny MLP, batch 64: plain {ms(times['plain'])}, cached {ms(times['cached'])}, extra {extra_us:.0f} us")
    return {"tiny_extra_us": round(extra_us, 1), "tiny_plain_us": round(1e6 * median(times["plain"]), 1)}


def against_live(bench: "Bench", rounds: int) -> dict[str, float | None]:
    size = bench.scale.batch_size
    sides = {"cached": bench.cached("students_conv", size), "live": bench.live("students_conv", size)}
    textbrewer = bench.textbrewer("students_conv", size)
    if textbrewer is None:
        print("textbrewer: not installed, its figure is null")
    else:
        sides["textbrewer"] = textbrewer
    times = bench.in_turn(sides, steps=4, rounds=rounds)
    figures: dict[str, float | None] = {"textbrewer_over_cached": None}
    for name in set(sides) - {"cached"}:
        ratio = median(t / c for t, c in zip(times[name], times["cached"], strict=True))
        print(f"{name}: {ms(times[name])}, cached {ms(times['cached'])}, ratio {ratio:.2f}")
        figures[f"{name}_over_cached"] = round(ratio, 3)
    return figures


def under_cudnn_flags_of_the_engine(side: Side) -> Side:
    """As `students.fitting.fit.fit` runs its steps: deterministic, without trying algorithms."""

    def deterministic(steps: int) -> Any:
        flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=True, deterministic=True, benchmark=False
        )
        with flags:
            return side(steps)

    return deterministic


def ms(times: list[float]) -> str:
    return f"{1e3 * median(times):.3f} ms"


class Bench:
    """The data, three teachers and their stores, and what each side does with them."""

    def __init__(self, folder: Path, clock: Callable[[], float], device: torch.device) -> None:
        self.folder, self.clock, self.device = folder, clock, device
        self.scale, self.session = SCALES[device.type], PlainSession(device)
        self.transfer_set = prepared(folder, self.scale.num_rows)
        torch.manual_seed(0)
        self.teachers = {
            name: conv_net(width, num_classes=CLASSES, input_shape=SHAPE).eval().to(device)
            for name, width in self.scale.teachers.items()
        }
        (segment,) = self.transfer_set.of("train")
        data = SharedData().of([self.run("students_conv", self.scale.batch_size, ())], self.session)[0]
        self.inputs = data.rows.columns["input."].to(device)
        self.labels = torch.from_numpy(self.transfer_set.labels(segment).astype(np.int64)).to(device)
        self.sources = tuple(self.label(name, teacher) for name, teacher in self.teachers.items())

    def in_turn(self, sides: dict[str, Side], *, steps: int, rounds: int) -> dict[str, list[float]]:
        """Seconds a step, for each side and round; a round before the first warms up. Every other round goes backwards."""
        times: dict[str, list[float]] = {name: [] for name in sides}
        for round_number in range(rounds + 1):
            for name in sorted(sides, reverse=bool(round_number % 2)):
                start = self.now()
                sides[name](steps)
                if round_number:
                    times[name].append((self.now() - start) / steps)
        return times

    def now(self) -> float:
        """The clock, once the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()

    def label(self, name: str, teacher: nn.Module) -> Source:
        (segment,) = self.transfer_set.of("train")
        shard = rows_per_shard(segment.num_rows, 2 * CLASSES + 12)
        spec = Spec(
            name, name, segment.name, segment.digest, "dense", self.transfer_set.classes, segment.num_rows, shard
        )
        store, keys = SoftTargetStore.create(self.folder / name, spec), self.transfer_set.keys(segment)
        with torch.inference_mode():
            for number in range(store.num_shards):
                first, num = store.shard_rows(number)
                logits = teacher(self.inputs[first : first + num]).cpu().numpy()
                store.commit(number, keys[first : first + num], {"logits": logits})
        store.seal()
        return Source(name, {segment.name: store.folder})

    def run(self, student: str, batch_size: int, sources: tuple[Source, ...]) -> Run:
        model = {"students_conv": "teachers.zoo:conv_net", "tiny_mlp": "students.models:mlp"}[student]
        soft = SoftTerm(loss="soft", weight=0.9, temperature=TEMPERATURE)
        hard = HardTerm(loss="hard", weight=0.1 if sources else 1.0)
        return Run(
            name=student,
            folder=self.folder / "student" / student,
            stage=self.folder,
            stage_name="benchmark",
            model=model,
            arguments={"width": self.scale.student} if student == "students_conv" else {"hidden": 16},
            preprocess=Preprocess(),
            objective=(soft, hard) if sources else (hard,),
            train=TrainConfig(steps=10**6, batch_size=batch_size, learning_rate=LEARNING_RATE),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=sources,
        )

    def cached(self, student: str, batch_size: int) -> Side:
        """The engine: gather, one-cycle, seeds, curves and all."""
        run = self.run(student, batch_size, self.sources)
        training = Training(run, self.session, SharedData().of([run], self.session)[0])
        batches = Batches(training.data.rows, run, self.session).from_step(0)
        return under_cudnn_flags_of_the_engine(
            lambda steps: [training.advance(next(batches)) for _ in range(steps)],
        )

    def student(self, name: str, batch_size: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        run = self.run(name, batch_size, ())
        stepper = Training(run, self.session, SharedData().of([run], self.session)[0]).stepper
        return stepper.module, stepper.optimizer

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As a plain loop over tensors in memory shuffles them."""
        while True:
            order = torch.randperm(len(self.labels), device=self.device)
            for index in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
                yield self.inputs[index], self.labels[index]

    def plain(self, student: str, batch_size: int) -> Side:
        """Cross-entropy with the labels, and nothing else; the engine's optimiser, which is the fused one."""
        module, optimizer = self.student(student, batch_size)
        batches = self.batches(batch_size)

        def step() -> None:
            inputs, labels = next(batches)
            F.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return lambda steps: [step() for _ in range(steps)]

    def live(self, student: str, batch_size: int) -> Side:
        """Three teachers asked in every step; their mean probability, and the labels."""
        module, optimizer = self.student(student, batch_size)
        batches = self.batches(batch_size)

        def step() -> None:
            inputs, labels = next(batches)
            with torch.inference_mode():
                said = torch.stack([teacher(inputs) for teacher in self.teachers.values()])
                target = F.softmax(said / TEMPERATURE, -1).mean(0)
            logits = module(inputs)
            soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, -1), target.clone(), reduction="batchmean")
            (0.9 * TEMPERATURE**2 * soft + 0.1 * F.cross_entropy(logits, labels)).backward()
            optimizer.step()
            optimizer.zero_grad()

        return lambda steps: [step() for _ in range(steps)]

    def textbrewer(self, student: str, batch_size: int) -> Side | None:
        """Its own training loop, given batches that are cut already."""
        try:
            from textbrewer import DistillationConfig, MultiTeacherDistiller, TrainingConfig
        except ImportError:
            return None
        module, optimizer = self.student(student, batch_size)
        distiller = MultiTeacherDistiller(
            TrainingConfig(device=self.device.type, output_dir=str(self.folder / "textbrewer")),
            DistillationConfig(temperature=TEMPERATURE, hard_label_weight=0.1, kd_loss_weight=0.9),
            [InputsOnly(teacher) for teacher in self.teachers.values()],
            InputsOnly(module),
            adaptor_T=lambda batch, logits: {"logits": logits},
            adaptor_S=lambda batch, logits: {"logits": logits, "losses": F.cross_entropy(logits, batch[1])},
        )
        batches = self.batches(batch_size)
        return lambda steps: distiller.train(optimizer, [next(batches) for _ in range(steps)], num_epochs=1)


class InputsOnly(nn.Module):
    """TextBrewer calls a model with the whole batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs)
        return logits


def prepared(folder: Path, num_rows: int) -> TransferSet:
    images, labels = fashion(num_rows) if FASHION.exists() else noise(num_rows)
    np.savez(folder / "images.npz", image=images, label=labels)
    source = NumpySource(kind="numpy", path=str(folder / "images.npz"))
    return prepare(TransferSetConfig(source=source, inputs="image", label="label"), folder / "prepared")


def fashion(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(FASHION).slice(0, num_rows)
    print(f"data: {len(table)} rows of Fashion-MNIST")
    pixels = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table.column("image").to_pylist()]
    return np.stack(pixels)[..., None], table.column("label").to_numpy()


def noise(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    print(f"data: {num_rows} rows of noise in the shape of Fashion-MNIST")
    random = np.random.default_rng(0)
    return random.integers(0, 256, (num_rows, 28, 28, 1), dtype=np.uint8), random.integers(0, CLASSES, num_rows)


if __name__ == "__main__":
    main()
