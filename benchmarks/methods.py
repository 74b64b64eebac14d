"""What ways to distil cost a step: each loss of logits, and rules for three teachers, over plain cross-entropy.

    python benchmarks/methods.py [--rounds 15] [--steps 10] [--only dkd,dist] [--clock cpu]

All sides train the same conv net by the engine, on the same batches of 256 rows with all their labels, from stores; cross-entropy
with the labels is beside every loss, 0.9 to 0.1. They take their steps in turn; a figure is the median over rounds. The last line
printed is one JSON object:

    <loss>_over_hard      step with that loss and cross-entropy over a step with cross-entropy alone (goal 1.15)
    <rule>_of_three_over_soft   step of `soft` from three teachers by that rule over the same from one of them (goal 1.10)
    <loss>_extra_us       microseconds that the loss adds to the step of a small MLP at the same batch
    hard_step_ms          a step with cross-entropy alone

Fashion-MNIST where ../shared/data has it, else noise of its shape: time does not depend on it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pydantic import TypeAdapter

from benchmarks.rows import CLASSES, FASHION, SHAPE, fashion, noise, prepared, stored
from benchmarks.training import under_cudnn_flags_of_the_engine
from benchmarks.turns import Side, begun, dearest, ended, in_turn, names_of, ratio, repeated, step_parser, with_names
from students.config.terms import Term
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.zoo import conv_net

BATCH_SIZE, ROWS = 256, 8192
TEACHERS = {"wide": 16, "wider": 24, "widest": 32}
"""Widths of their conv nets."""
NETWORKS: dict[str, dict[str, Any]] = {
    "conv": {"model": "teachers.zoo:conv_net", "arguments": {"width": 8}},
    "mlp": {"model": "students.models:mlp", "arguments": {"hidden": 128}},
}
TERM: TypeAdapter[Term] = TypeAdapter(Term)


@dataclass(frozen=True)
class Method:
    """One way to distil: the term that listens, whom it hears, and beside which other method it is measured."""

    term: Mapping[str, Any]
    heard: Sequence[str] = ("wide",)
    over: str = "hard"
    goal: float = 1.15


LOSSES: dict[str, Method] = {
    "soft": Method({"loss": "soft"}),
    "soft_standardised": Method({"loss": "soft", "standardise": True}),
    "teacher_label": Method({"loss": "teacher_label"}),
    "reverse_kl": Method({"loss": "reverse_kl"}),
    "jensen_shannon": Method({"loss": "jensen_shannon"}),
    "logit_mse": Method({"loss": "logit_mse"}),
    "logit_mse_standardised": Method({"loss": "logit_mse", "standardise": True}),
    "dkd": Method({"loss": "dkd"}),
    "dkd_standardised": Method({"loss": "dkd", "standardise": True}),
    "dist": Method({"loss": "dist"}),
    "logit_standardized": Method({"loss": "logit_standardized"}),
    "label_smoothing_teacher": Method({"loss": "label_smoothing_teacher"}, heard=()),
}
RULES: dict[str, Method] = {
    f"{rule}_of_three": Method({"loss": "soft", "combine": rule}, tuple(TEACHERS), over="soft", goal=1.10)
    for rule in ("mean_probability", "mean_logits", "vote", "confidence", "entropy", "correctness", "gradient")
}
METHODS = LOSSES | RULES
"""A row more is a figure more."""


def main() -> None:
    parser = step_parser(__doc__)
    with_names(parser)
    arguments = parser.parse_args()
    names = names_of(parser, arguments, METHODS)
    asked = begun(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), torch.device(arguments.device))
        figures: dict[str, Any] = {
            **on_conv_net(bench, names, steps=arguments.steps, **asked),
            **on_mlp(bench, [name for name in names if name in LOSSES], steps=20 * arguments.steps, **asked),
        }
    ended("methods", figures | dearest(figures, "_over_hard") | dearest(figures, "_of_three_over_soft"), arguments)


def on_conv_net(bench: "Bench", names: Sequence[str], **asked: Any) -> dict[str, float]:
    needed = [*dict.fromkeys([*names, *(METHODS[name].over for name in names)])]
    times = in_turn({name: bench.side(name, "conv") for name in needed}, **asked)
    figures = {}
    for name in names:
        method = METHODS[name]
        found = round(ratio(times[name], times[method.over]), 4)
        figures[f"{name}_over_{method.over}"] = found
        print(f"{name}: {1e3 * median(times[name]):.2f} ms, over {method.over} {found:.3f} (goal {method.goal})")
    return figures | ({"hard_step_ms": round(1e3 * median(times["hard"]), 3)} if "hard" in times else {})


def on_mlp(bench: "Bench", names: Sequence[str], **asked: Any) -> dict[str, float]:
    times = in_turn({name: bench.side(name, "mlp") for name in ("hard", *names)}, **asked)
    figures = {"hard_mlp_step_us": round(1e6 * median(times["hard"]), 1)}
    for name in names:
        extra = 1e6 * median(own - plain for own, plain in zip(times[name], times["hard"], strict=True))
        figures[f"{name}_extra_us"] = round(extra, 1)
        print(f"{name}: {extra:.0f} us more than {figures['hard_mlp_step_us']:.0f} us of a small MLP")
    return figures


class Bench:
    """The data, three teachers' stores, and what each side trains."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.session = folder, PlainSession(device)
        self.transfer_set = prepared(folder, *(fashion if FASHION.exists() else noise)(ROWS))
        self.sources = {name: self.source(name, width) for name, width in TEACHERS.items()}

    def source(self, name: str, width: int) -> Source:
        """What an untrained network of that width says: time does not depend on how right it is."""
        torch.manual_seed(width)
        network = conv_net(width, num_classes=CLASSES, input_shape=SHAPE).eval()
        inputs = self.training("hard", "conv").data.rows.columns["input."]
        with torch.inference_mode():
            return stored(
                self.folder / name,
                self.transfer_set,
                lambda first, num: network(inputs[first : first + num]).numpy(),  # type: ignore[index]
            )

    def training(self, name: str, network: str) -> Training:
        """Of a method; `hard`: cross-entropy alone."""
        hard: dict[str, Any] = {"loss": "hard", "weight": 1.0 if name == "hard" else 0.1}
        heard = METHODS[name].heard if name in METHODS else ()
        terms = [hard] if name == "hard" else [{**METHODS[name].term, "weight": 0.9}, hard]
        run = Run(
            name=name,
            folder=self.folder / network / name,
            stage=self.folder,
            stage_name="benchmark",
            **NETWORKS[network],
            preprocess=Preprocess(),
            objective=tuple(TERM.validate_python(term) for term in terms),
            train=TrainConfig(steps=10**6, batch_size=BATCH_SIZE, learning_rate=1e-3),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=tuple(self.sources[teacher] for teacher in heard),
        )
        return Training(run, self.session, SharedData().of([run], self.session)[0])

    def side(self, name: str, network: str) -> Side:
        """The engine: gather, one-cycle, seeds, curves and all."""
        training = self.training(name, network)
        batches = Batches(training.data.rows, training.run, self.session).from_step(0)
        return under_cudnn_flags_of_the_engine(repeated(lambda: training.advance(next(batches))))


if __name__ == "__main__":
    main()
