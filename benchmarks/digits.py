"""The digits recipe over five further split seeds, beside three other rivals of the student.

Per split: the recipe as it stands (student, ensemble, and the control, which has the teachers' augmentation); the control
that sees the rows as they are; the control with the learning rate and weight decay that are best on validation (15
settings tried with one seed, the best trained with all of the recipe's); and self-training, where the control's best seed
is the only teacher. All have the same number of steps, and the same labels: the 100 training rows that all learn from, and
those of the validation rows, by which weights, settings and seeds are chosen. Test figures, means over the recipe's seeds.
The last line is one JSON object.

python benchmarks/digits.py [--splits 5]
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import finish, with_record
from orchestrator.cluster.cluster import cluster
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from students.config.student import ControlTrain

LEARNING_RATES = (1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
WEIGHT_DECAYS = (0.0, 1e-2, 1e-1)
PLAIN = "control, rows as they are"
COLUMNS = ("ensemble", "student", "control", PLAIN, "tuned control", "self-training")


def one_split(seed: int, out: Path) -> dict[str, float]:
    """Test accuracies of one split, means over the recipe's seeds."""
    recipe = load_recipe(find("digits"), [f"transfer_set.split.seed={seed}"])
    report = run(recipe, out).report
    small = report["students"]["small"]
    return {
        "ensemble": report["ensemble"]["test_accuracy"],
        "student": small["test_accuracy"]["mean"],
        "control": small["control_accuracy"]["mean"],
        PLAIN: plain_control(recipe, out),
        "tuned control": tuned_control(recipe, out),
        "self-training": self_training(recipe, out),
    }


def plain_control(recipe: Recipe, out: Path) -> float:
    """The control without the teachers' augmentation; its mean test accuracy."""
    trained = train_controls(recipe, out, "plain", recipe.students["small"].train.seeds, True)
    return statistics.mean(test_accuracy(run.folder, prepared(out)) for run in trained)


def tuned_control(recipe: Recipe, out: Path) -> float:
    """The control at the best of 15 settings on validation; its mean test accuracy."""
    seeds = recipe.students["small"].train.seeds

    def train(setting: tuple[float, float], seeds: list[int]) -> list[Any]:
        learning_rate, weight_decay = setting
        own = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        control = recipe.students["small"].control
        assert isinstance(control, ControlTrain)
        name = f"tuned/{learning_rate:g}-{weight_decay:g}"
        return train_controls(recipe, out, name, seeds, control.model_copy(update=own))

    tried = {setting: train(setting, seeds[:1])[0] for setting in itertools.product(LEARNING_RATES, WEIGHT_DECAYS)}
    best = max(tried, key=lambda setting: (tried[setting].validation["accuracy"], -tried[setting].validation["nll"]))
    return statistics.mean(test_accuracy(run.folder, prepared(out)) for run in train(best, seeds))


def train_controls(recipe: Recipe, out: Path, name: str, seeds: list[int], control: bool | ControlTrain) -> list[Any]:
    from students.fitting.fit import fit
    from students.runs.of_student import student_run
    from students.runs.session import PlainSession

    config = recipe.students["small"].model_copy(update={"control": control})
    folder, rows = out / name, prepared(out)
    runs = [
        student_run(
            "control", config, seed, folder=folder, sources=(), stage=folder, stage_name=name, transfer_set=rows
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
    for name, values in (("**mean**", over(statistics.mean, rows)), ("sd", over(statistics.stdev, rows))):
        lines.append(f"| {name} | " + " | ".join(f"{values[c]:.3f}" for c in COLUMNS) + " |")
    return "\n".join(lines)


def over(statistic: Callable[[list[float]], float], rows: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Of each column; needs two splits or more."""
    return {column: round(statistic([row[column] for row in rows.values()]), 4) for column in COLUMNS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5, help="two or more")
    with_record(parser)
    arguments = parser.parse_args()
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="collegium-digits-") as folder, cluster():
        for seed in range(1, arguments.splits + 1):
            rows[seed] = one_split(seed, Path(folder) / f"split-{seed}")
            print(
                f"split {seed}: " + yaml.safe_dump(rows[seed], default_flow_style=True, width=200).strip(), flush=True
            )
    print(table(rows))
    mean = over(statistics.mean, rows)
    figures = {
        "gain_over_tuned_control": round(mean["student"] - mean["tuned control"], 4),
        "gain_over_control": round(mean["student"] - mean["control"], 4),
        "gain_over_control_on_rows_as_they_are": round(mean["student"] - mean[PLAIN], 4),
        "gain_over_self_training": round(mean["student"] - mean["self-training"], 4),
        "mean": mean,
        "sd": over(statistics.stdev, rows),
        "splits": rows,
    }
    finish("digits", figures, keep=arguments.record)


if __name__ == "__main__":
    main()
