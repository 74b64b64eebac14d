"""The digits recipe over five further split seeds, beside a control tuned on validation and self-training.

Per split: the recipe as it stands (student, control, ensemble); the control with the learning rate and weight decay that
are best on validation (15 settings tried with one seed, the best trained with all three); and self-training, where the control's best seed is the only
teacher. Everything gets the same number of steps. Test figures, means over three seeds. The last line is one JSON object.

python benchmarks/digits.py [--splits 5]
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cluster.cluster import cluster
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run

LEARNING_RATES = (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
WEIGHT_DECAYS = (0.0, 1e-2, 1e-1)
COLUMNS = ("ensemble", "student", "control", "tuned control", "self-training")


def one_split(seed: int, out: Path) -> dict[str, float]:
    """Test accuracies of one split, means over the recipe's seeds."""
    recipe = load_recipe(find("digits"), [f"transfer_set.split.seed={seed}"])
    report = run(recipe, out).report
    small = report["students"]["small"]
    return {
        "ensemble": report["ensemble"]["test_accuracy"],
        "student": small["test_accuracy"]["mean"],
        "control": small["control_accuracy"]["mean"],
        "tuned control": tuned_control(recipe, out),
        "self-training": self_training(recipe, out),
    }


def tuned_control(recipe: Recipe, out: Path) -> float:
    """The control at the best of 15 settings on validation; its mean test accuracy."""
    seeds = recipe.students["small"].train.seeds
    tried = {
        setting: train_controls(recipe, out, seeds[:1], *setting)[0]
        for setting in itertools.product(LEARNING_RATES, WEIGHT_DECAYS)
    }
    best = max(tried, key=lambda setting: (tried[setting].validation["accuracy"], -tried[setting].validation["nll"]))
    return statistics.mean(
        test_accuracy(run.folder, prepared(out)) for run in train_controls(recipe, out, seeds, *best)
    )


def train_controls(recipe: Recipe, out: Path, seeds: list[int], learning_rate: float, weight_decay: float) -> list[Any]:
    from students.config.student import HardTerm
    from students.fitting.fit import fit
    from students.runs.run import Run
    from students.runs.session import PlainSession

    student = recipe.students["small"]
    train = student.train.model_copy(update={"learning_rate": learning_rate, "weight_decay": weight_decay})
    stage = out / "tuned" / f"{learning_rate:g}-{weight_decay:g}"
    runs = [
        Run(
            name=f"control/seed-{seed}",
            folder=stage / f"seed-{seed}",
            stage=stage,
            stage_name="tuned",
            model=student.model,
            arguments=student.arguments,
            preprocess=student.preprocess,
            objective=(HardTerm(loss="hard"),),
            train=train,
            seed=seed,
            transfer_set=prepared(out),
            labelled_only=True,
        )
        for seed in seeds
    ]
    return fit(runs, PlainSession())


def self_training(recipe: Recipe, out: Path) -> float:
    """The control's best seed labels the transfer set, and nobody else does."""
    document = recipe.model_dump(mode="json")
    stage = next((out / "students").glob("small-*"))
    results = {path: json.loads(path.read_bytes()) for path in sorted(stage.glob("control/*/result.json"))}
    best = max(results, key=lambda path: results[path]["validation"]["accuracy"]).parent
    document["teachers"] = {"itself": {"kind": "checkpoint", "path": str(best)}}
    document["students"]["small"] |= {"teachers": ["itself"], "control": False}
    report = run(Recipe.model_validate(document), out / "self").report
    return float(report["students"]["small"]["test_accuracy"]["mean"])


def prepared(out: Path) -> Path:
    return next((out / "prepared").glob("transfer_set-*"))


def test_accuracy(folder: Path, transfer_set: Path) -> float:
    import students
    from teachers.transfer_set.transfer_set import TransferSet

    opened, model = TransferSet.open(transfer_set), students.load(folder)
    segment = opened.of("test")[0]
    said = model(opened.inputs(segment)).argmax(-1).cpu().numpy()
    return float((said == opened.labels(segment)).mean())


def table(rows: Mapping[int, Mapping[str, float]]) -> str:
    lines = ["| split seed | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    lines += [f"| {seed} | " + " | ".join(f"{row[c]:.3f}" for c in COLUMNS) + " |" for seed, row in rows.items()]
    means = [f"{statistics.mean(row[c] for row in rows.values()):.3f}" for c in COLUMNS]
    spread = [f"{statistics.stdev(row[c] for row in rows.values()):.3f}" for c in COLUMNS] if len(rows) > 1 else []
    return "\n".join([*lines, f"| **mean** | {' | '.join(means)} |", f"| sd | {' | '.join(spread)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="collegium-digits-") as folder, cluster():
        for seed in range(1, arguments.splits + 1):
            rows[seed] = one_split(seed, Path(folder) / f"split-{seed}")
            print(
                f"split {seed}: " + yaml.safe_dump(rows[seed], default_flow_style=True, width=200).strip(), flush=True
            )
    print(table(rows))
    means = {c: statistics.mean(row[c] for row in rows.values()) for c in COLUMNS}
    print(
        json.dumps(
            {
                "gain_over_tuned_control": round(means["student"] - means["tuned control"], 4),
                "gain_over_control": round(means["student"] - means["control"], 4),
                "gain_over_self_training": round(means["student"] - means["self-training"], 4),
                **{name.replace(" ", "_").replace("-", "_"): round(value, 4) for name, value in means.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
