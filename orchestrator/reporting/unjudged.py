"""The report of a run in which no row has a label: what everybody says, who agrees with whom, and that nobody was judged."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from students.tasks.figure import AGREES, BESIDE, NOTHING, SAID_AS, UNJUDGED, Figure
from teachers.config.task import TaskName
from teachers.transfer_set.transfer_set import TransferSet

from .cautions import cut_off
from .environment import environment
from .headline import mean_of, task_of
from .together import about_unknown

SAID = "Nothing was judged: no row has a label, so no figure of merit, gain or verdict is known."
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
        "notes": [SAID, *about_unknown(teachers["teachers"]), *cut_off(stages)],
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
    found, task = report["unjudged"], task_of(report)
    yield SAID
    for name, learner in found["students"].items():
        means = _means(task, learner)
        told = [AGREES[task].format(BESIDE[task][0].shown(means["agreement"]))]
        told += [f"{figure.label} {figure.shown(means[figure.key])}" for figure in UNJUDGED[task] if means[figure.key] is not None]  # fmt: skip
        yield f"{name}: {'; '.join(told)}, of {found['rows']:,} rows"


def columns(task: TaskName) -> tuple[Figure, ...]:
    """Of the table."""
    return BESIDE[task][0], *UNJUDGED[task]


def _means(task: TaskName, learner: Report) -> dict[str, float | None]:
    """Over seeds."""
    return {figure.key: mean_of(learner["student"]["runs"], figure.key) for figure in columns(task)}


def rows(report: Report) -> Iterator[dict[str, Any]]:
    """Of the table: who, the figures as text, and what is said most (or of numbers: on average)."""
    found, task = report["unjudged"], task_of(report)
    matrix = found["agreement"]
    for name, figures in found["teachers"].items():
        with_all = matrix["matrix"][matrix["names"].index(name)][matrix["names"].index("ensemble")]
        yield _row(task, f"teacher {name}", {**figures, "agreement": with_all}, figures["said"])
    if found["ensemble"]:
        yield _row(task, "teachers together", {**found["ensemble"], "agreement": None}, found["ensemble"]["said"])
    for name, learner in found["students"].items():
        yield _row(task, f"student {name}", _means(task, learner), learner["student"]["runs"][0]["said"])


def _row(task: TaskName, who: str, figures: Report, said: Mapping[str, float | None]) -> dict[str, Any]:
    most = sorted(said.items(), key=lambda pair: -(pair[1] or 0.0))[:3]
    shown = SAID_AS[task].shown
    return {
        "who": who,
        "cells": [figure.shown(figures[figure.key]) for figure in columns(task)],
        "said": ", ".join(f"{name} {shown(share)}" for name, share in most) or NOTHING,
    }


def figures(report: Report) -> Iterator[tuple[str, float | None]]:
    """Flat names to figures, for MLflow."""
    task = task_of(report)
    first = UNJUDGED[task][0].key
    for name, found in report["unjudged"]["teachers"].items():
        yield f"teachers.{name}.{first}", found[first]
    for name, learner in report["unjudged"]["students"].items():
        yield from ((f"students.{name}.{key}", value) for key, value in _means(task, learner).items())
    yield "seconds", report["seconds"]


def table(report: Report) -> list[str]:
    """In Markdown, for the run's page in MLflow."""
    named = columns(task_of(report))
    head = ["who", *(figure.label for figure in named)]
    cells = [f"| {row['who']} | {' | '.join(row['cells'])} |" for row in rows(report)]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *cells]
