"""The report of a run in which no row has a label: what everybody says, who agrees with whom, and that nobody was judged."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from teachers.transfer_set.transfer_set import TransferSet

from .environment import environment
from .headline import NOTHING, decimals, percent

SAID = "Nothing was judged: no row has a label, so no accuracy, gain or verdict is known."
OVER_SEEDS = ("agreement", "entropy", "coverage")
Report = Mapping[str, Any]


def is_unjudged(evaluations: Mapping[str, Report]) -> bool:
    return any(not found.get("judged", True) for found in evaluations.values())


def unjudged_report(
    *,
    format: int,
    recipe: Report,
    stages: Sequence[Report],
    evaluations: Mapping[str, Report],
    mlflow: Mapping[str, str],
    prepared: Path,
    seconds: float,
) -> dict[str, Any]:
    """`report.json`: figures that need no label, by who says what."""
    transfer_set = TransferSet.open(prepared)
    teachers = evaluations.get("teachers", {"teachers": {}, "ensemble": None, "agreement": None})
    return {
        "format": format,
        "recipe": dict(recipe),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
        "stages": [dict(stage) for stage in stages],
        "unjudged": {
            "rows": next(iter(evaluations.values()))["rows"],
            "teachers": teachers["teachers"],
            "ensemble": teachers["ensemble"],
            "agreement": teachers["agreement"],
            "students": dict(_learners(evaluations)),
        },
        "transfer_set": {**transfer_set.report, "judged_on": transfer_set.judged_on()},
        "notes": [SAID],
        "mlflow": dict(mlflow),
        "environment": environment(),
    }


def _learners(evaluations: Mapping[str, Report]) -> Iterator[tuple[str, Report]]:
    for name, found in evaluations.items():
        if "members" in found:
            yield from ((f"{name}.{member}", own) for member, own in found["members"].items())
        elif name != "teachers":
            yield name, found


def lines(report: Report) -> Iterator[str]:
    """What a person reads first."""
    found = report["unjudged"]
    yield SAID
    for name, learner in found["students"].items():
        yield f"{name}: {_in_words(_mean(learner))}, of {found['rows']:,} rows"


def _in_words(figures: Report) -> str:
    told = [f"says the same class as its teachers together in {percent(figures['agreement'])}"]
    if figures["entropy"] is not None:
        told.append(f"mean entropy {decimals(figures['entropy'])} nats")
    return "; ".join([*told, f"{percent(figures['coverage'])} of the classes are said"])


def _mean(learner: Report) -> dict[str, float | None]:
    runs = learner["student"]["runs"]
    found: dict[str, float | None] = {}
    for key in OVER_SEEDS:
        values = [run[key] for run in runs]
        found[key] = None if None in values else sum(values) / len(values)
    return found


def rows(report: Report) -> Iterator[dict[str, str]]:
    """Of the table: who, agreement with the teachers together, entropy, coverage, the classes that are said most."""
    found = report["unjudged"]
    matrix = found["agreement"]
    for name, figures in found["teachers"].items():
        with_all = matrix["matrix"][matrix["names"].index(name)][matrix["names"].index("ensemble")]
        yield _row(f"teacher {name}", {**figures, "agreement": with_all}, figures["said"])
    if found["ensemble"]:
        yield _row("teachers together", {**found["ensemble"], "agreement": None}, found["ensemble"]["said"])
    for name, learner in found["students"].items():
        yield _row(f"student {name}", _mean(learner), learner["student"]["runs"][0]["said"])


def _row(who: str, figures: Report, said: Mapping[str, float]) -> dict[str, str]:
    most = sorted(said.items(), key=lambda pair: -pair[1])[:3]
    return {
        "who": who,
        "agreement": percent(figures["agreement"]),
        "entropy": decimals(figures["entropy"]),
        "coverage": percent(figures["coverage"]),
        "said": ", ".join(f"{name} {percent(share)}" for name, share in most) or NOTHING,
    }


def figures(report: Report) -> Iterator[tuple[str, float | None]]:
    """Flat names to figures, for MLflow."""
    for name, found in report["unjudged"]["teachers"].items():
        yield f"teachers.{name}.entropy", found["entropy"]
    for name, learner in report["unjudged"]["students"].items():
        yield from ((f"students.{name}.{key}", value) for key, value in _mean(learner).items())
    yield "seconds", report["seconds"]


def table(report: Report) -> list[str]:
    """In Markdown, for the run's page in MLflow."""
    cells = [f"| {row['who']} | {row['agreement']} | {row['entropy']} | {row['coverage']} |" for row in rows(report)]
    return ["| who | same class as the teachers together | entropy, nats | classes said |", "|---|---|---|---|", *cells]
