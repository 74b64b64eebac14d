"""What a step of cached distillation costs, beside a plain step, live teachers and TextBrewer.

    python benchmarks/training.py [--rounds 15] [--clock cpu] [--device cuda]

All sides train in this process on the same threads and in turn; a figure is the median over rounds. The last line
printed is one JSON object:

    cached_over_plain_training  step of cached three-teacher distillation over a plain cross-entropy step (conv net, batch 256;
                                on a GPU a wider one, batch 4096, see SCALES)
    deterministic_over_plain    what of it cuDNN's deterministic algorithms cost, which the engine asks for (GPU only)
    tiny_extra_us               microseconds that it adds to the step of a tiny MLP at batch 64
    tiny_extra_over_plain       the same over the plain step (goal .4)
    tiny_over_by_hand           its step over a plain loop of the same loss with the target in memory: the least that torch asks
    live_over_cached            plain loop that runs the three teachers in every step, over ours
    textbrewer_over_cached      TextBrewer's MultiTeacherDistiller over ours: same models, batches and epochs (null: not installed)

Fashion-MNIST where ../shared/data has it, else noise of its shape: time does not depend on it.
"""

import tempfile
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

from benchmarks.rows import CLASSES, FASHION, SHAPE, fashion, noise, prepared, stored
from benchmarks.turns import Side, begun, ended, in_turn, ratio, repeated, step_parser
from students.config.terms import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.zoo import conv_net

TEMPERATURE = 2.0
Times = dict[str, list[float]]


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
    parser = step_parser(__doc__, devices=SCALES)
    arguments = parser.parse_args()
    asked = begun(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), torch.device(arguments.device))
        figures: dict[str, Any] = {
            **against_plain(bench, **asked),
            **tiny(bench, **asked),
            **against_live(bench, **asked),
        }
    ended("training", figures, arguments)


def against_plain(bench: "Bench", **asked: Any) -> dict[str, float]:
    sides = {"cached": bench.cached("conv"), "plain": bench.plain("conv")}
    if bench.device.type == "cuda":
        sides["deterministic"] = under_cudnn_flags_of_the_engine(bench.plain("conv"))
    times = in_turn(sides, steps=10, **asked)
    ratios = shown("conv net", times, over="plain")
    figures = {"cached_over_plain_training": ratios.pop("cached")}
    figures |= {f"{name}_over_plain": found for name, found in ratios.items()}
    return figures | {"plain_step_ms": round(1e3 * median(times["plain"]), 3)}


def tiny(bench: "Bench", **asked: Any) -> dict[str, float]:
    sides = {"cached": bench.cached("tiny"), "plain": bench.plain("tiny"), "by_hand": bench.by_hand("tiny")}
    times = in_turn(sides, steps=500, **asked)
    shown("tiny MLP", times, over="plain")
    extra = median(c - p for c, p in zip(times["cached"], times["plain"], strict=True))
    found = {"tiny_extra_us": round(1e6 * extra, 1), "tiny_plain_us": round(1e6 * median(times["plain"]), 1)}
    over = {name: ratio(times["cached"], times[name]) for name in ("plain", "by_hand")}
    return found | {
        "tiny_extra_over_plain": round(over["plain"] - 1, 4),
        "tiny_over_by_hand": round(over["by_hand"], 4),
    }


def against_live(bench: "Bench", **asked: Any) -> dict[str, float | None]:
    sides = {"cached": bench.cached("conv"), "live": bench.live("conv")}
    textbrewer = bench.textbrewer("conv")
    if textbrewer is None:
        print("textbrewer: not installed, its figure is null")
    else:
        sides["textbrewer"] = textbrewer
    ratios = shown("conv net", in_turn(sides, steps=4, **asked), over="cached")
    return {"textbrewer_over_cached": None, **{f"{name}_over_cached": found for name, found in ratios.items()}}


def shown(network: str, times: Times, *, over: str) -> dict[str, float]:
    """The ratio of every side but one over that one, printed too."""
    ratios = {name: round(ratio(times[name], times[over]), 4) for name in sorted({*times} - {over})}
    for name, found in ratios.items():
        ms, others = (1e3 * median(times[side]) for side in (name, over))
        print(f"{network}: {over} {others:.3f} ms, {name} {ms:.3f} ms, ratio {found:.3f}")
    return ratios


def under_cudnn_flags_of_the_engine(side: Side) -> Side:
    """As `students.fitting.fit.fit` runs its steps: deterministic, without trying algorithms."""

    def deterministic(steps: int) -> Any:
        flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=True, deterministic=True, benchmark=False
        )
        with flags:
            return side(steps)

    return deterministic


class Bench:
    """The data, three teachers and their stores, and what each side does with them."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device, self.session = folder, device, PlainSession(device)
        scale = SCALES[device.type]
        self.students: dict[str, dict[str, Any]] = {
            "conv": {"model": "teachers.zoo:conv_net", "arguments": {"width": scale.student}},
            "tiny": {"model": "students.models:mlp", "arguments": {"hidden": 16}},
        }
        self.batch_sizes = {"conv": scale.batch_size, "tiny": 64}
        self.transfer_set = prepared(folder, *(fashion if FASHION.exists() else noise)(scale.num_rows))
        torch.manual_seed(0)
        self.teachers = {
            name: conv_net(width, num_classes=CLASSES, input_shape=SHAPE).eval().to(device)
            for name, width in scale.teachers.items()
        }
        (segment,) = self.transfer_set.of("train")
        inputs = self.training("conv").data.rows.columns["input."]
        assert isinstance(inputs, Tensor)
        self.inputs = inputs.to(device)
        self.labels = torch.from_numpy(self.transfer_set.labels(segment).astype(np.int64)).to(device)
        self.sources = tuple(self.label(name, teacher) for name, teacher in self.teachers.items())

    def label(self, name: str, teacher: nn.Module) -> Source:
        with torch.inference_mode():
            return stored(
                self.folder / name,
                self.transfer_set,
                lambda first, num: teacher(self.inputs[first : first + num]).cpu().numpy(),
            )

    def training(self, student: str, sources: tuple[Source, ...] = ()) -> Training:
        soft = SoftTerm(loss="soft", weight=0.9, temperature=TEMPERATURE)
        hard = HardTerm(loss="hard", weight=0.1 if sources else 1.0)
        run = Run(
            name=student,
            folder=self.folder / "student" / student,
            stage=self.folder,
            stage_name="benchmark",
            **self.students[student],
            preprocess=Preprocess(),
            objective=(soft, hard) if sources else (hard,),
            train=TrainConfig(steps=10**6, batch_size=self.batch_sizes[student], learning_rate=1e-3),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=sources,
        )
        return Training(run, self.session, SharedData().of([run], self.session)[0])

    def cached(self, student: str) -> Side:
        """The engine: gather, one-cycle, seeds, curves and all."""
        training = self.training(student, self.sources)
        batches = Batches(training.data.rows, training.run, self.session).from_step(0)
        return under_cudnn_flags_of_the_engine(repeated(lambda: training.advance(next(batches))))

    def batches(self, student: str, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Inputs, labels and `others`, as a plain loop over tensors in memory shuffles them."""
        batch_size = self.batch_sizes[student]
        while True:
            order = torch.randperm(len(self.labels), device=self.device)
            for index in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
                yield tuple(each[index] for each in (self.inputs, self.labels, *others))

    def loop(self, student: str, loss: Callable[..., Tensor], *others: Tensor) -> Side:
        """A plain loop of `loss` of logits, inputs, labels and `others`; the engine's optimiser, which is the fused one."""
        stepper, batches = self.training(student).stepper, self.batches(student, *others)

        def step() -> None:
            inputs, *told = next(batches)
            loss(stepper.module(inputs), inputs, *told).backward()
            stepper.optimizer.step()
            stepper.optimizer.zero_grad()

        return repeated(step)

    def plain(self, student: str) -> Side:
        """Cross-entropy with the labels, and nothing else."""
        return self.loop(student, lambda logits, _, labels: F.cross_entropy(logits, labels))

    def by_hand(self, student: str) -> Side:
        """What `cached` computes, of a target that is in memory as logarithms: nothing kept for curves, seeds or a resume."""
        target = F.log_softmax(torch.randn(len(self.labels), CLASSES, device=self.device), -1)

        def loss(logits: Tensor, _: Tensor, labels: Tensor, target: Tensor) -> Tensor:
            own = F.log_softmax(logits / TEMPERATURE, -1)
            soft = F.kl_div(own, target, reduction="batchmean", log_target=True)
            return 0.9 * TEMPERATURE**2 * soft + 0.1 * F.cross_entropy(logits, labels)

        return self.loop(student, loss, target)

    def live(self, student: str) -> Side:
        """Three teachers asked in every step; their mean probability, and the labels."""

        def loss(logits: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            with torch.inference_mode():
                said = torch.stack([teacher(inputs) for teacher in self.teachers.values()])
                target = F.softmax(said / TEMPERATURE, -1).mean(0)
            soft = F.kl_div(F.log_softmax(logits / TEMPERATURE, -1), target.clone(), reduction="batchmean")
            return 0.9 * TEMPERATURE**2 * soft + 0.1 * F.cross_entropy(logits, labels)

        return self.loop(student, loss)

    def textbrewer(self, student: str) -> Side | None:
        """Its own training loop, given batches that are cut already."""
        try:
            from textbrewer import DistillationConfig, MultiTeacherDistiller, TrainingConfig
        except ImportError:
            return None
        stepper, batches = self.training(student).stepper, self.batches(student)
        distiller = MultiTeacherDistiller(
            TrainingConfig(device=self.device.type, output_dir=str(self.folder / "textbrewer")),
            DistillationConfig(temperature=TEMPERATURE, hard_label_weight=0.1, kd_loss_weight=0.9),
            [InputsOnly(teacher) for teacher in self.teachers.values()],
            InputsOnly(stepper.module),
            adaptor_T=lambda batch, logits: {"logits": logits},
            adaptor_S=lambda batch, logits: {"logits": logits, "losses": F.cross_entropy(logits, batch[1])},
        )
        return lambda steps: distiller.train(stepper.optimizer, [next(batches) for _ in range(steps)], num_epochs=1)


class InputsOnly(nn.Module):
    """TextBrewer calls a model with the whole batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.module(inputs)
        return logits


if __name__ == "__main__":
    main()
