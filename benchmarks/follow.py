"""What it brings that a student follows its teacher: labelling alone, training alone, and both at once, on Fashion-MNIST.

    python benchmarks/follow.py [--seeds 0,1,2] [--rows 60000] [--width 24] [--epochs 5]

One teacher, a conv net that was trained before the clock runs, labels all rows on one CPU; a small conv net learns from its labels
on another, for as many epochs. Times are of stages, from the first's beginning to the last's end, start of actors and of the
training's process included; each seed is followed in an OUT of its own, where nothing is labelled. The last line printed is one
JSON object:

    follow_over_max     following end to end over the longer of labelling alone and training alone, the median over seeds
    follow_over_sum     over both one after the other
    label_s, train_s, follow_s    medians
    sealed_accuracy, follow_accuracy    test accuracy of each seed
    accuracy_gap        mean of the follower's less the other's
    noise               two standard errors of that difference

Nothing is measured, and a sentence says so, where the data is not there.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import finish, with_record
from benchmarks.rows import FASHION, fashion
from orchestrator.running.run import run

KEPT = ("prepared", "teachers")
"""Of an OUT, what a follower finds there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=60_000, help="of Fashion-MNIST")
    parser.add_argument("--width", type=int, default=24, help="of the teacher")
    parser.add_argument("--epochs", type=int, default=5, help="of the student")
    with_record(parser)
    arguments = parser.parse_args()
    if not FASHION.exists():
        print(f"there is no {FASHION}, so nothing is measured: put Fashion-MNIST's Parquet file there")
        return
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        images, labels = fashion(arguments.rows)
        np.savez(Path(folder) / "rows.npz", image=images, label=labels)
        figures = measured(Path(folder), seeds, partial(recipe, Path(folder), arguments.width, arguments.epochs))
    figures |= {"rows": arguments.rows, "epochs": arguments.epochs, "teacher_width": arguments.width}
    finish("follow", figures, keep=arguments.record)


def measured(folder: Path, seeds: Sequence[int], recipe: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    sealed = folder / "sealed"
    labels = stages_of(run(recipe(seeds), sealed, until="label").report, "label")
    label_s, train_s, follow_s, alone, accuracy = spent(labels), [], [], [], []
    for seed in seeds:
        report = run(recipe([seed]), sealed, until="evaluate").report
        train_s.append(spent(stages_of(report, "distill")))
        alone += report["students"]["small"]["test_accuracy"]["runs"]
        out = folder / f"follow-{seed}"
        for name in KEPT:
            shutil.copytree(sealed / name, out / name)
        report = run(recipe([seed], follow=True), out, until="evaluate").report
        follow_s.append(spent(stages_of(report, "label", "distill")))
        accuracy += report["students"]["small"]["test_accuracy"]["runs"]
        print(f"label {label_s:.1f} s, train {train_s}, follow {follow_s}", file=sys.stderr)
    longer = [took / max(label_s, train) for took, train in zip(follow_s, train_s, strict=True)]
    both = [took / (label_s + train) for took, train in zip(follow_s, train_s, strict=True)]
    return {
        "follow_over_max": round(statistics.median(longer), 3),
        "follow_over_sum": round(statistics.median(both), 3),
        "label_s": round(label_s, 1),
        "train_s": round(statistics.median(train_s), 1),
        "follow_s": round(statistics.median(follow_s), 1),
        "sealed_accuracy": alone,
        "follow_accuracy": accuracy,
        "accuracy_gap": round(statistics.mean(accuracy) - statistics.mean(alone), 4),
        "noise": round(2 * sum(statistics.variance(each) / len(each) for each in (alone, accuracy)) ** 0.5, 4)
        if len(seeds) > 1
        else None,
    }


def stages_of(report: Mapping[str, Any], *kinds: str) -> list[Mapping[str, Any]]:
    return [each for each in report["stages"] if each["stage"] in kinds]


def spent(stages: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the beginning of the first of them to the end of the last."""
    return float(max(each["ended"] for each in stages) - min(each["begun"] for each in stages))


def recipe(folder: Path, width: int, epochs: int, seeds: Sequence[int], *, follow: bool = False) -> dict[str, Any]:
    teacher = {
        "kind": "module",
        "model": "teachers.zoo:conv_net",
        "arguments": {"width": width},
        "train": {"steps": 60, "batch_size": 128, "learning_rate": 1e-2},
        "replicas": 1,
    }
    student = {
        "model": "students.models:small_conv_net",
        "arguments": {"width": 6},
        "teachers": ["wide"],
        "objective": [{"loss": "soft", "temperature": 2.0}],
        "train": {"epochs": epochs, "batch_size": 128, "learning_rate": 5e-3, "seeds": [*seeds]},
        "control": False,
        "require": None,
        **({"follow": True} if follow else {}),
    }
    return {
        "format": 1,
        "name": "follow",
        "task": "classification",
        "transfer_set": {
            "source": {"kind": "numpy", "path": str(folder / "rows.npz")},
            "inputs": "image",
            "label": "label",
            "split": {"train": 0.8, "validation": 0.05, "test": 0.15},
        },
        "teachers": {"wide": teacher},
        "students": {"small": student},
    }


if __name__ == "__main__":
    main()
