"""What peers are worth: every cohort method beside independent training and offline distillation, on Fashion-MNIST.

    python benchmarks/peers.py [--epochs 10] [--seeds 3] [--rows 8600]

6,000 training rows with all their labels, three networks a cohort (one conv net; online_teacher has a wide and a deep
teacher), the same epochs for everybody. *offline* spends the same compute apart: two networks are trained by labels and
teach the third. Test accuracy, mean and standard deviation over seeds, of the mean member, of the best member on
validation, and of the members' mean probability. The last line printed is one JSON object.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

import students
from benchmarks.record import finish, with_record
from benchmarks.rows import FASHION, fashion, prepared, stored
from students.config.cohort import CohortConfig
from students.config.terms import HardTerm, SoftTerm
from students.fitting.fit import fit
from students.measuring.cohort import said_together
from students.runs.of_cohort import alone_runs, member_runs
from students.runs.run import CohortRun, Run, Source
from students.runs.session import PlainSession
from students.training.optimize import resolve_steps
from teachers.config.preprocess import Preprocess
from teachers.transfer_set.transfer_set import TransferSet

CONV: dict[str, Any] = {"model": "students.models:small_conv_net", "arguments": {"width": 16}}
WIDE: dict[str, Any] = {"model": "students.models:small_conv_net", "arguments": {"width": 32}}
DEEP: dict[str, Any] = {"model": "teachers.zoo:mlp", "arguments": {"hidden": [256, 128]}}
THREE = {name: CONV for name in "abc"}
COHORTS: dict[str, dict[str, Any]] = {
    "mutual": {"members": THREE},
    "kdcl": {"members": THREE},
    "feature_exchange": {"members": {name: {**CONV, "layers": ["2"]} for name in "abc"}},
    "one": {"members": THREE, "trunk": "1"},
    "group_leader": {"members": THREE, "trunk": "1"},
    "codistillation": {"members": THREE},
    "online_teacher": {
        "members": {
            "wide": {**WIDE, "role": "wide_teacher"},
            "deep": {**DEEP, "role": "deep_teacher"},
            "small": {**CONV, "role": "student"},
        },
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8600)
    with_record(parser)
    arguments = parser.parse_args()
    if not FASHION.exists():
        raise SystemExit(f"{FASHION} is not there: this table is about real pictures")
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        rows = table_of(Path(folder), arguments)
    print(as_markdown(rows))
    finish("peers", {"rows": rows, "seeds": arguments.seeds, "epochs": arguments.epochs}, keep=arguments.record)


def table_of(folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    data = prepared(folder, *fashion(arguments.rows))
    rows: dict[str, dict[str, Any]] = {}
    for method in ("independent", "offline", *COHORTS):
        found, seconds = [], []
        for seed in range(arguments.seeds):
            begun = time.perf_counter()
            found.append(one_run(folder / method / str(seed), data, method, seed, arguments.epochs))
            seconds.append(time.perf_counter() - begun)
        rows[method] = {key: over([each[key] for each in found]) for key in found[0]}
        rows[method]["seconds"] = round(statistics.median(seconds), 1)
        print(method, rows[method], flush=True)
    return rows


def over(values: list[float]) -> list[float]:
    return [round(statistics.fmean(values), 4), round(statistics.stdev(values), 4) if len(values) > 1 else 0.0]


def one_run(folder: Path, data: TransferSet, method: str, seed: int, epochs: float) -> dict[str, float]:
    """Test accuracies of what `method` trains with one seed."""
    if method == "offline":
        taught = offline(folder, data, seed, epochs)
        return figures([taught], data)
    options = COHORTS.get(method, COHORTS["mutual"])
    name = method if method in COHORTS else "mutual"
    run = cohort(folder, data, name, options, seed, epochs, alone=method == "independent")
    fit([run], PlainSession())
    members = [member for member in run.members if method != "online_teacher" or member.folder.parts[-2] == "small"]
    return figures([member.folder for member in members], data)


def cohort(
    folder: Path, data: TransferSet, method: str, options: Mapping[str, Any], seed: int, epochs: float, *, alone: bool
) -> CohortRun:
    train = {"epochs": epochs, "batch_size": 64, "learning_rate": 5e-3, "augment": ["pad_and_crop", "flip"]}
    document = {"method": method, "train": train, "workers_per_member": None, **options}
    config: CohortConfig = TypeAdapter(CohortConfig).validate_python(document)
    steps = resolve_steps(config.train, sum(segment.num_rows for segment in data.of("train")))
    config = config.model_copy(update={"train": config.train.model_copy(update={"steps": steps, "epochs": None})})
    common: dict[str, Any] = {"stage": folder, "stage_name": "distill/bench", "transfer_set": data.folder}
    if alone:
        return alone_runs("control", "bench", config, seed, folder=folder, sources=(), **common)
    return member_runs("bench", config, seed, folder=folder, sources=(), **common)


def offline(folder: Path, data: TransferSet, seed: int, epochs: float) -> Path:
    """Two networks by labels, what they say of the training rows into stores, then the third from both."""
    alone = cohort(folder / "teachers", data, "mutual", {"members": {n: CONV for n in "ab"}}, seed, epochs, alone=True)
    fit([alone], PlainSession())
    sources = tuple(said_by(member, folder / f"teacher_{n}", data) for n, member in enumerate(alone.members))
    student = Run(
        name=f"student/seed-{seed}",
        folder=folder / "student",
        stage=folder,
        stage_name="distill/offline",
        model=CONV["model"],
        arguments=CONV["arguments"],
        preprocess=Preprocess(),
        objective=(SoftTerm(loss="soft", temperature=1.0, weight=1.0), HardTerm(loss="hard")),
        train=alone.members[0].train,
        seed=seed + 1000,
        transfer_set=data.folder,
        sources=sources,
    )
    fit([student], PlainSession())
    return student.folder


def said_by(member: Run, folder: Path, data: TransferSet) -> Source:
    (segment,), model = data.of("train"), students.load(member.folder)
    return stored(folder, data, lambda first, num: model(data.inputs(segment, first, num)).numpy())


def figures(folders: list[Path], data: TransferSet) -> dict[str, float]:
    (test,) = data.of("test")
    labels = torch.from_numpy(data.labels(test).astype(np.int64))
    said = [students.load(folder)(data.inputs(test)) for folder in folders]
    right = [float((logits.argmax(-1) == labels).double().mean()) for logits in said]
    chosen = max(
        range(len(folders)),
        key=lambda n: json.loads((folders[n] / "result.json").read_text())["validation"]["accuracy"],
    )
    together = float((said_together(said, data.space).argmax(-1) == labels).double().mean())
    return {"mean_member": statistics.fmean(right), "best_member": right[chosen], "ensemble": together}


def as_markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    def cell(found: list[float]) -> str:
        return f"{100 * found[0]:.1f} ± {100 * found[1]:.1f}"

    lines = ["| method | mean member | best on validation | ensemble | seconds a run |", "|---|---|---|---|---|"]
    for method, row in rows.items():
        shown = [cell(row[key]) for key in ("mean_member", "best_member", "ensemble")]
        lines.append(f"| {method} | {' | '.join(shown)} | {row['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
