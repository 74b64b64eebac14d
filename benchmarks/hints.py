"""What hints cost a step: a student that compares its layers with stored ones of a teacher, over the same without.

    python benchmarks/hints.py [--rounds 15] [--steps 10] [--only hint,relation] [--clock cpu]

All sides train one conv net by the engine on the same batches of 256 rows, soft targets 0.9 to labels 0.1; a side more has one
hint. They take their steps in turn; a figure is the median over rounds. The last line printed is one JSON object:

    <loss>_over_soft   step with that hint over the step without (goal 1.3)
    soft_step_ms       the step without

Fashion-MNIST where ../shared/data has it, else noise of its shape: time does not depend on it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from benchmarks.rows import CLASSES, FASHION, SHAPE, fashion, noise, prepared
from benchmarks.training import under_cudnn_flags_of_the_engine
from benchmarks.turns import Side, begun, dearest, ended, in_turn, names_of, ratio, repeated, step_parser, with_names
from students.config.hints import Hint
from students.config.terms import Term
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.models.captured import Captured, layers_of
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from teachers.zoo import conv_net

BATCH_SIZE, ROWS, GOAL = 256, 8192, 1.3
TEACHER = 32
"""Width of its conv net."""
STUDENT: Mapping[str, Any] = {"model": "teachers.zoo:conv_net", "arguments": {"width": 8}}
OUTPUTS = {"early": "stages.1", "late": "stages.2"}
"""By name, layers of the teacher."""
HINTS: dict[str, Mapping[str, Any]] = {
    "hint": {"loss": "hint", "output": "late"},
    "attention": {"loss": "attention", "output": "late"},
    "channel_wise": {"loss": "channel_wise", "output": "late"},
    "linear_embedding": {"loss": "linear_embedding", "output": "late"},
    "similarity": {"loss": "similarity", "output": "late"},
    "correlation": {"loss": "correlation", "output": "late"},
    "distances": {"loss": "relation", "output": "late", "angle_weight": 0.0},
    "relation": {"loss": "relation", "output": "late"},
    "review": {"loss": "review", "output": ["early", "late"], "width": 16},
    "contrastive": {"loss": "contrastive", "output": "late", "negatives": 1024},
}
"""A row more is a figure more."""
TERMS: TypeAdapter[tuple[Term, ...]] = TypeAdapter(tuple[Term, ...])
GIVEN: TypeAdapter[tuple[Hint, ...]] = TypeAdapter(tuple[Hint, ...])


def main() -> None:
    parser = step_parser(__doc__)
    with_names(parser)
    arguments = parser.parse_args()
    names = names_of(parser, arguments, HINTS)
    asked = begun(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), torch.device(arguments.device))
        times = in_turn({name: bench.side(name) for name in ("soft", *names)}, steps=arguments.steps, **asked)
    figures: dict[str, Any] = {"soft_step_ms": round(1e3 * median(times["soft"]), 3)}
    for name in names:
        figures[f"{name}_over_soft"] = found = round(ratio(times[name], times["soft"]), 4)
        print(f"{name}: {1e3 * median(times[name]):.2f} ms, over soft {found:.3f} (goal {GOAL})")
    ended("hints", figures | dearest(figures, "_over_soft"), arguments)


class Bench:
    """The data, a teacher's store, and what each side trains."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.session = folder, PlainSession(device)
        self.transfer_set = prepared(folder, *(fashion if FASHION.exists() else noise)(ROWS))
        self.source = teacher(folder, self.transfer_set)

    def side(self, name: str) -> Side:
        """The engine, with a hint of that name; `soft`: without."""
        run = Run(
            name=name,
            folder=self.folder / name,
            stage=self.folder,
            stage_name="benchmark",
            **STUDENT,
            preprocess=Preprocess(),
            objective=TERMS.validate_python([{"loss": "soft", "weight": 0.9}, {"loss": "hard", "weight": 0.1}]),
            train=TrainConfig(steps=10**6, batch_size=BATCH_SIZE, learning_rate=1e-3),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=(self.source,),
        )
        if name != "soft":
            run = replace(run, hints=GIVEN.validate_python([{"teacher": "wide", **HINTS[name]}]))
        (data,) = SharedData().of([run], self.session)
        training = Training(run, self.session, data)
        batches = Batches(data.rows, run, self.session).from_step(0)
        return under_cudnn_flags_of_the_engine(repeated(lambda: training.advance(next(batches))))


def teacher(folder: Path, transfer_set: TransferSet) -> Source:
    """What an untrained network and its layers say of the training rows."""
    torch.manual_seed(TEACHER)
    network = conv_net(TEACHER, num_classes=CLASSES, input_shape=SHAPE).eval()
    (segment,) = transfer_set.of("train")
    images = torch.tensor(transfer_set.inputs(segment)["image"]).permute(0, 3, 1, 2).float() / 255
    shapes = {layer.path: layer.shape or () for layer in layers_of(network, images[:2])}
    more = tuple(Output.of_layer(name, shapes[path]) for name, path in OUTPUTS.items())
    classes, rows = tuple(transfer_set.classes), segment.num_rows
    spec = Spec("wide", "benchmark", segment.name, segment.digest, "dense", classes, rows, 1024, more=more)
    store = SoftTargetStore.create(folder / "wide", spec)
    keys, captured = transfer_set.keys(segment), Captured(network, [*OUTPUTS.values()])
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        with torch.inference_mode():
            said, seen = captured(images[first : first + num])
        given: dict[str, np.ndarray] = {name: seen[path].numpy() for name, path in OUTPUTS.items()}
        store.commit(number, keys[first : first + num], {"logits": said.numpy(), **given})
    store.seal()
    return Source("wide", {segment.name: store.folder}, outputs={each.name: each.shape for each in more})


if __name__ == "__main__":
    main()
