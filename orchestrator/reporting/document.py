"""What a run found: `report.json`, from which `report.html` can be made again at any time.

Puts together what stages left; measures nothing itself.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from students.runs.curves import read_records
from students.tasks.figure import TABLES, headline
from teachers.config.task import ANSWER_OF, TaskName
from teachers.tasks.labels import per_name
from teachers.transfer_set.transfer_set import SPLITS, TransferSet

from .beside import about_beside
from .calibration import about_calibration
from .cautions import cautions
from .chains import about_assistants, about_beginnings
from .columns import about_columns
from .compared import compared_section, with_corrected
from .comparison import comparison_of
from .energy import about_energy
from .environment import environment
from .fairness import about_augmentation, about_controls, about_labels
from .headline import about_units, means_of
from .in_sample import about_folds
from .shots import by_shots
from .standing import told
from .study import with_test_figures
from .together import about_rules, about_unknown, about_weights
from .uncertainty import about_heads

FORMAT = 4
POINTS_OF_A_CURVE = 400


def build_report(
    *,
    recipe: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    evaluations: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Sequence[Path]],
    mlflow: Mapping[str, str],
    prepared: Path,
    seconds: float,
    standings: Mapping[str, Mapping[str, Any]] | None = None,
    search: Mapping[str, Any] | None = None,
    compared: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of one run.

    `recipe` is the resolved one without secrets; `evaluations` holds the evaluation of `teachers` and of every student by
    its name; `metrics` every `metrics.jsonl` of every student; `prepared` is the folder of the transfer set; `standings` says
    how everybody who teaches stood before students learnt; `search` is the part of a study, `compared` what is known of
    variants, if there were some.
    """
    teachers = evaluations.get("teachers", NO_TEACHERS)
    drawn = {
        name: {run: found for path in paths for run, found in curves(path).items()} for name, paths in metrics.items()
    }
    task: TaskName = recipe["task"]
    transfer_set, some, standings = TransferSet.open(prepared), next(iter(evaluations.values())), standings or {}
    counted = _counted(transfer_set)
    document = {
        "format": FORMAT,
        "recipe": dict(recipe),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "stages": [dict(stage) for stage in stages],
        "teachers": {name: _headline_first(task, figures) for name, figures in teachers["teachers"].items()},
        "ensemble": _headline_first(task, teachers["ensemble"]) if teachers["ensemble"] else None,
        "agreement": teachers["agreement"],
        **{key: teachers.get(key) for key in TABLES[task]},
        "mistakes": teachers["mistakes"],
        **{key: teachers.get(key, nothing) for key, nothing in OF_SEVERAL.items()},
        "students": {name: _student(task, evaluations[name]) for name in recipe["students"]},
        "cohorts": {
            name: _cohort(task, recipe["cohorts"][name], evaluations[name], drawn[name]) for name in recipe["cohorts"]
        },
        "curves": drawn,
        "transfer_set": {**counted, "test_rows_evaluated": some["rows"], "commonest": some["commonest"]},
        "standings": {name: dict(found) for name, found in standings.items()},
        "notes": [
            *told(headline(task), standings),
            *about_units(task, transfer_set.space.names),
            *_notes(recipe, counted, teachers["teachers"]),
        ],
        "mlflow": dict(mlflow),
        "environment": environment(),
    }
    document |= _side_by_side(_of_learners(recipe, evaluations), transfer_set, counted)
    document["notes"] += [*about_energy(recipe, evaluations), *_about_teaching(document)]
    document["cautions"] = cautions(document)
    if compared:
        return with_corrected(document, compared_section(compared, document))
    return document | {"search": with_test_figures(search, document)} if search else document


def _about_teaching(document: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on those who teach, from all that the report has."""
    yield from (*about_weights(document), *about_rules(document), *about_heads(document), *about_assistants(document))


def _side_by_side(
    learners: Mapping[str, Mapping[str, Any]], transfer_set: TransferSet, counted: Mapping[str, Any]
) -> dict[str, Any]:
    """Students beside each other, and where classes are uneven by how many rows these have."""
    shots = by_shots(learners, transfer_set, counted["labelled_of_classes"]["train"])
    return {"comparison": comparison_of(learners, transfer_set), "by_shots": shots}


def _counted(transfer_set: TransferSet) -> dict[str, Any]:
    of_classes = labelled_of_classes(transfer_set)
    return {**transfer_set.report, "judged_on": transfer_set.judged_on(), "labelled_of_classes": of_classes}


def _notes(recipe: Mapping[str, Any], counted: Mapping[str, Any], teachers: Mapping[str, Any]) -> Iterator[str]:
    yield from (*notes(recipe, counted), *about_unknown(teachers), *about_calibration(recipe, teachers))


OF_SEVERAL: dict[str, list[Any] | None] = {"combinations": [], "known_by_few": [], "recommended": None}
"""What an evaluation tells of several teachers as one, and what stands for nothing."""
NO_TEACHERS: dict[str, Any] = {
    "teachers": {},
    "ensemble": None,
    "agreement": None,
    "mistakes": [],
}


def _of_learners(
    recipe: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """The evaluations of students, and of members as `cohort.member`."""
    members = {
        f"{name}.{member}": found
        for name in recipe["cohorts"]
        for member, found in evaluations[name]["members"].items()
    }
    return {name: evaluations[name] for name in recipe["students"]} | members


def labelled_of_classes(transfer_set: TransferSet) -> dict[str, dict[str, int]]:
    """By split and class (or number), rows whose label may be used."""
    found: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        counts = np.zeros(len(transfer_set.classes), np.int64)
        for segment in transfer_set.of(split):
            counts += per_name(transfer_set.usable_labels(segment), len(counts), transfer_set.space.task)
        found[split] = dict(zip(transfer_set.classes, counts.tolist(), strict=True))
    return found


def _headline_first(task: TaskName, figures: Mapping[str, Any]) -> dict[str, Any]:
    key = headline(task).key
    return {f"test_{key}": figures[key], **figures}


def _student(task: TaskName, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    key, runs = headline(task).key, evaluation["student"]["runs"]
    control = _runs_of(evaluation, "control")
    offline = _runs_of(evaluation, "offline")
    delivered = next(run for run in runs if run["seed"] == evaluation["delivered"])
    return {
        "verdict": evaluation["verdict"],
        f"test_{key}": over_seeds(runs, key),
        f"control_{key}": over_seeds(control, key) if control else None,
        f"offline_{key}": over_seeds(offline, key) if offline else None,
        "gain": evaluation["gain"],
        "gain_over_offline": evaluation.get("gain_over_offline"),
        **means_of(task, runs),
        **{key: delivered[key] for key in ("parameters", "bytes", "latency")},
        "delivered": evaluation["delivered"],
        "runs": runs,
        "control_runs": control,
        "offline_runs": offline,
        "ensemble": evaluation["ensemble"],
        **{key: evaluation[key] for key in ("energy",) if key in evaluation},
        "agreement_matrix": evaluation.get("agreement"),
        **{table: evaluation.get(table) for table in TABLES[task]},
        "mistakes": evaluation.get("mistakes", []),
        **{key: evaluation.get(key, nothing) for key, nothing in OF_SEVERAL.items()},
        **({"uncertainty": evaluation["uncertainty"]} if "uncertainty" in evaluation else {}),
    }


def _runs_of(evaluation: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]] | None:
    return evaluation[kind]["runs"] if evaluation.get(kind) else None


def _cohort(
    task: TaskName, config: Mapping[str, Any], evaluation: Mapping[str, Any], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    key = headline(task).key
    members = {name: _student(task, found) for name, found in evaluation["members"].items()}
    delivered = config["deliver"] if config["deliver"] in members else evaluation["best"]
    return {
        "method": config["method"],
        "deliver": config["deliver"],
        "members": members,
        "delivered": _student(task, evaluation["as_one"]) if evaluation["as_one"] else members[delivered],
        "ensemble": {f"test_{key}": over_seeds(evaluation["ensemble"]["runs"], key)},
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
    known = None not in values
    return {
        "mean": statistics.fmean(values) if known else None,
        "std": statistics.stdev(values) if known and len(values) > 1 else None,
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
    told = [about_labels(counted), *about_augmentation(recipe), *about_controls(recipe)]
    told += about_beginnings(recipe)
    told += [
        f"Teacher {name} gives probabilities; they were floored at {teacher['probability_floor']:g}, which decides what a 0 means."
        for name, teacher in recipe["teachers"].items()
        if ANSWER_OF[recipe["task"]] != "values"
        and (teacher["kind"] == "sklearn" or teacher.get("output") == "probabilities")
    ]
    told += about_folds(recipe, counted)
    live = [name for name, teacher in recipe["teachers"].items() if teacher.get("mode") == "live"]
    told += [
        f"Teacher {name} was live: asked about each batch as the student saw it, so no store keeps what it said of training rows."
        for name in live
    ]
    if bad := counted.get("bad_rows"):
        told.append(
            f"{bad} rows could not be used and were dropped, first: {'; '.join(counted['first_bad_rows'][:3])}."
        )
    told += [*about_columns(counted), *_about_duplicates(counted)]
    if divided := counted["stratified"]:
        named = ", ".join(divided[:5]) + (f" and {len(divided) - 5} more" if len(divided) > 5 else "")
        why = "" if recipe["transfer_set"]["split"]["stratify"] else "; each would have missed a split"
        told.append(
            f"Rows of {named} were divided by the shares of the split, not by their hash alone{why} (`split.stratify`)."
        )
    if without := counted.get("without_label"):
        told.append(f"{without} training rows have no label; they are transfer data.")
    return [*told, *about_beside(counted)]


def _about_duplicates(counted: Mapping[str, Any]) -> Iterator[str]:
    pairs = [(*pair.split("/"), rows) for pair, rows in counted.get("duplicates_across_splits", {}).items() if rows]
    if not pairs:
        return
    found = ", ".join(f"{rows:,} {later} rows those of {earlier} rows" for earlier, later, rows in pairs)
    dropped = [f"{rows:,} {split} rows" for split, rows in counted["dropped_duplicates"].items() if rows]
    if dropped:
        yield f"Some rows had the inputs of a row of another split: {found}. Dropped were {' and '.join(dropped)}."
    else:
        flatters = (
            "test figures may flatter" if any(later == "test" for _, later, _ in pairs) else "validation may flatter"
        )
        yield f"Some rows have the inputs of a row of another split: {found}; {flatters} (`transfer_set.duplicates: drop`)."
