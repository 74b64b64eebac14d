"""What a run found: `report.json`, from which `report.html` can be made again at any time.

Puts together what stages left; measures nothing itself.
"""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from students.runs.curves import read_records
from teachers.storage.seal import replace
from teachers.transfer_set.transfer_set import TransferSet

from .study import short, with_test_figures

FORMAT = 1
POINTS_OF_A_CURVE = 400
PACKAGES = ("collegium", "torch", "ray", "pyarrow", "mlflow", "scikit-learn", "numpy")


def build_report(
    *,
    recipe: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Sequence[Path]],
    mlflow: Mapping[str, str],
    prepared: Path,
    seconds: float,
    search: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of one run.

    `recipe` is the resolved one without secrets; `evaluations` holds the evaluation of `teachers` and of every student by
    its name; `metrics` every `metrics.jsonl` of every student; `prepared` is the folder of the transfer set; `search` is the
    part of a study, if there was one.
    """
    teachers = evaluations.get("teachers", NO_TEACHERS)
    drawn = {
        name: {run: found for path in paths for run, found in curves(path).items()} for name, paths in metrics.items()
    }
    counted = TransferSet.open(prepared).report
    document = {
        "format": FORMAT,
        "recipe": dict(recipe),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "stages": [dict(stage) for stage in stages],
        "teachers": {name: _accuracy_first(figures) for name, figures in teachers["teachers"].items()},
        "ensemble": _accuracy_first(teachers["ensemble"]) if teachers["ensemble"] else None,
        "agreement": teachers["agreement"],
        "students": {name: _student(evaluations[name]) for name in recipe["students"]},
        "cohorts": {
            name: _cohort(recipe["cohorts"][name], evaluations[name], drawn[name]) for name in recipe["cohorts"]
        },
        "curves": drawn,
        "transfer_set": {**counted, "test_rows_evaluated": next(iter(evaluations.values()))["rows"]},
        "notes": notes(recipe, counted),
        "mlflow": dict(mlflow),
        "environment": environment(),
    }
    return document | {"search": with_test_figures(search, document)} if search else document


NO_TEACHERS: dict[str, Any] = {"teachers": {}, "ensemble": None, "agreement": None}


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into a run's folder, over what was there."""
    from .page import page

    written = folder / "report.json", folder / "report.html"
    replace(written[0], json.dumps(report, indent=1, allow_nan=False).encode())
    replace(written[1], page(report).encode())
    return written


def _accuracy_first(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {"test_accuracy": figures["accuracy"], **figures}


def _student(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    runs = evaluation["student"]["runs"]
    control = _runs_of(evaluation, "control")
    offline = _runs_of(evaluation, "offline")
    delivered = next(run for run in runs if run["seed"] == evaluation["delivered"])
    return {
        "verdict": evaluation["verdict"],
        "test_accuracy": over_seeds(runs, "accuracy"),
        "control_accuracy": over_seeds(control, "accuracy") if control else None,
        "offline_accuracy": over_seeds(offline, "accuracy") if offline else None,
        "gain": evaluation["gain"],
        "gain_over_offline": evaluation.get("gain_over_offline"),
        **{key: statistics.fmean(run[key] for run in runs) for key in ("macro_f1", "nll", "ece", "agreement", "kl")},
        **{key: delivered[key] for key in ("parameters", "bytes", "latency")},
        "delivered": evaluation["delivered"],
        "runs": runs,
        "control_runs": control,
        "offline_runs": offline,
        "ensemble": evaluation["ensemble"],
        "agreement_matrix": evaluation.get("agreement"),
    }


def _runs_of(evaluation: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]] | None:
    return evaluation[kind]["runs"] if evaluation.get(kind) else None


def _cohort(config: Mapping[str, Any], evaluation: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    members = {name: _student(found) for name, found in evaluation["members"].items()}
    delivered = config["deliver"] if config["deliver"] in members else evaluation["best"]
    return {
        "method": config["method"],
        "deliver": config["deliver"],
        "members": members,
        "delivered": _student(evaluation["as_one"]) if evaluation["as_one"] else members[delivered],
        "ensemble": {"test_accuracy": over_seeds(evaluation["ensemble"]["runs"], "accuracy")},
        "agreement_matrix": evaluation["agreement"],
        "exchange": _exchange(drawn),
    }


def _exchange(drawn: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, float] | None:
    """What a step sends a worker, and the share of its time that this takes; None where nothing travels."""
    points = {
        key: [value for run in drawn.values() for _, value in run.get(f"cohort.{key}", ())]
        for key in ("exchange_bytes", "exchange_ms", "step_ms")
    }
    if not points["exchange_bytes"]:
        return None
    means = {key: statistics.fmean(values) for key, values in points.items()}
    return {"bytes": means["exchange_bytes"], "share": means["exchange_ms"] / means["step_ms"]}


def over_seeds(runs: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """`mean`, sample standard deviation `std` (null for one seed) and every value in the order of seeds."""
    values = [run[key] for run in runs]
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "runs": values,
    }


def curves(path: Path) -> dict[str, dict[str, list[list[float]]]]:
    """{run: {key: [[step, value], ...]}}, thinned to what a plot can show; of two points for one step the last counts."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for record in read_records(path):
        if math.isfinite(record["value"]):
            found.setdefault(record["run"], {}).setdefault(record["key"], {})[record["step"]] = record["value"]
    return {run: {key: _thinned(points) for key, points in by_key.items()} for run, by_key in found.items()}


def _thinned(points: Mapping[int, float]) -> list[list[float]]:
    ordered = [[step, points[step]] for step in sorted(points)]
    stride = -(-len(ordered) // POINTS_OF_A_CURVE)
    return ordered[::-1][::stride][::-1]  # the last point is always among them


def notes(recipe: Mapping[str, Any], counted: Mapping[str, Any]) -> list[str]:
    """What a reader must know to judge the figures."""
    told = [*_about_augmentation(recipe), *_about_controls(recipe)]
    told += [
        f"Teacher {name} gives probabilities; they were floored at {teacher['probability_floor']:g}, which decides what a 0 means."
        for name, teacher in recipe["teachers"].items()
        if teacher["kind"] == "sklearn" or teacher.get("output") == "probabilities"
    ]
    live = [name for name, teacher in recipe["teachers"].items() if teacher.get("mode") == "live"]
    told += [
        f"Teacher {name} was live: asked about each batch as the student saw it, so no store keeps what it said of training rows."
        for name in live
    ]
    if bad := counted.get("bad_rows"):
        told.append(
            f"{bad} rows could not be used and were dropped, first: {'; '.join(counted['first_bad_rows'][:3])}."
        )
    if twice := counted.get("duplicates_across_splits"):
        told.append(f"{twice} rows of one split have the same content as a row of another: test figures may flatter.")
    if without := counted.get("without_label"):
        told.append(f"{without} training rows have no label; they are transfer data.")
    return told


def _about_augmentation(recipe: Mapping[str, Any]) -> Iterator[str]:
    everyone = {f"teacher {name}": config for name, config in recipe["teachers"].items()}
    everyone |= {f"student {name} and its control": config for name, config in recipe["students"].items()}
    everyone |= {f"cohort {name} and its controls": config for name, config in recipe["cohorts"].items()}
    augmented: dict[str, list[str]] = {}
    for name, config in everyone.items():
        if augment := (config.get("train") or {}).get("augment"):
            told = augment if isinstance(augment, str) else ", then ".join(augment)
            augmented.setdefault(told, []).append(name)
    for augment, names in augmented.items():
        yield f"Trained with augmentation ({augment}): {', '.join(names)}. All others saw the rows as they are."


def _about_controls(recipe: Mapping[str, Any]) -> Iterator[str]:
    for name, config in {**recipe["students"], **recipe["cohorts"]}.items():
        if isinstance(config["control"], Mapping):
            own = ", ".join(f"{key} {short(value)}" for key, value in config["control"].items() if value is not None)
            if own:
                yield f"The control of {name} is trained by settings of its own ({own}); the budget is the same."


def environment() -> dict[str, Any]:
    """Versions and the machine that wrote the report."""
    packages = {name: version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
    }
