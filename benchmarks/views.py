"""What views cost a step: rows in a view that is made anew for every batch, over the same training without.

    python benchmarks/views.py [--rounds 15] [--steps 10] [--clock cpu]

All sides train one conv net by the engine on Fashion-MNIST's first rows (else noise of their shape), 256 a batch, by soft targets
from a store. They take their steps in turn; a figure is the median over rounds. `plain` sees rows as they are, prepared once for
all; `augmented` moves each batch by `train.augment`, which nobody has labelled; `views` shows view after view by the same
transforms, `mixed` such views, each row mixed with a partner. The last line printed is one JSON object:

    views_over_plain       a step with views over one without (goal 1.1)
    views_over_augmented   over one with fresh augmentation
    mixed_over_plain       a step with views that are mixed over one without
    plain_step_ms          the step without
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from benchmarks.rows import CLASSES, FASHION, fashion, noise, prepared, stored
from benchmarks.training import under_cudnn_flags_of_the_engine
from benchmarks.turns import Side, begun, ended, in_turn, ratio, repeated, step_parser
from students.config.terms import Term
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.transfer_set.viewing import Viewing

BATCH_SIZE, ROWS, GOAL = 256, 2048, 1.1
TRANSFORM = ("flip", "pad_and_crop")
VIEWS = {"views": Viewing(4, TRANSFORM), "mixed": Viewing(4, (*TRANSFORM, "mixup"))}
SIDES = ("plain", "augmented", *VIEWS)
TERMS: TypeAdapter[tuple[Term, ...]] = TypeAdapter(tuple[Term, ...])


def main() -> None:
    parser = step_parser(__doc__)
    parser.add_argument("--steps", type=int, default=16, help="of each side in a round; 8 are an epoch")
    arguments = parser.parse_args()
    asked = begun(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), torch.device(arguments.device))
        times = in_turn({name: bench.side(name) for name in SIDES}, steps=arguments.steps, **asked)
    figures: dict[str, Any] = {
        "plain_step_ms": round(1e3 * median(times["plain"]), 3),
        "views_over_plain": round(ratio(times["views"], times["plain"]), 4),
        "views_over_augmented": round(ratio(times["views"], times["augmented"]), 4),
        "mixed_over_plain": round(ratio(times["mixed"], times["plain"]), 4),
    }
    print(f"views over plain {figures['views_over_plain']:.3f} (goal {GOAL})")
    ended("views", figures, arguments)


class Bench:
    """The data, a teacher's stores of all views, and what each side trains."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.session = folder, PlainSession(device)
        self.transfer_set = prepared(folder, *(fashion if FASHION.exists() else noise)(ROWS))
        random = np.random.default_rng(0)
        said = stored(
            folder / "wide", self.transfer_set, lambda _, rows: random.normal(size=(rows, CLASSES)).astype(np.float32)
        )
        (store,) = said.stores.values()
        names = [segment.name for segment in self.transfer_set.viewing(VIEWS["views"]).in_views()]
        self.source = replace(said, stores=dict.fromkeys(names, store))  # time does not depend on what is said

    def side(self, name: str) -> Side:
        """The engine, on rows as that side sees them."""
        run = Run(
            name=name,
            folder=self.folder / name,
            stage=self.folder,
            stage_name="benchmark",
            model="teachers.zoo:conv_net",
            arguments={"width": 8},
            preprocess=Preprocess(),
            objective=TERMS.validate_python([{"loss": "soft", "weight": 0.9}, {"loss": "hard", "weight": 0.1}]),
            train=TrainConfig(
                steps=10**6,
                batch_size=BATCH_SIZE,
                learning_rate=1e-3,
                augment=[*TRANSFORM] if name == "augmented" else None,
            ),
            seed=0,
            transfer_set=self.transfer_set.folder,
            sources=(self.source,),
            views=VIEWS.get(name),
        )
        (data,) = SharedData().of([run], self.session)
        training = Training(run, self.session, data)
        batches = Batches(data.rows, run, self.session).from_step(0)
        return under_cudnn_flags_of_the_engine(repeated(lambda: training.advance(next(batches))))


if __name__ == "__main__":
    main()
