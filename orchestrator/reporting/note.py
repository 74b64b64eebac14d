"""The description of a run on its MLflow page: verdicts, the table of figures, what it cost, and where the rest is.

Links are relative to the page itself, so they hold under whatever name the server is reached.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from students.measuring.gain import with_interval
from students.tasks.figure import headline

from . import compared, unjudged
from .headline import learners, remarks, spread, task_of, teachers_alone
from .study import short

CHARACTERS = 8000
"""MLflow shows no more."""


def note(report: Mapping[str, Any], *, out: Path | None = None, models: Sequence[str] = ()) -> str:
    """In Markdown. `out`: the folder of all results; `models`: the students and members that are registered."""
    if "unjudged" in report:
        return _fitted(
            [*unjudged.lines(report), "", *unjudged.table(report)], [], ["", *_cost(report), *_links(report, models)]
        )
    head = (
        [] if "compared" in report else [f"**{n}**: {learner['verdict']}\n" for n, learner in learners(report).items()]
    )
    head += [*_compared(report)] if "compared" in report else []
    head += [f"{remark}\n" for remark in [*teachers_alone(report), *remarks(report), *report["cautions"]]]
    head += [*_study(report["search"])] if "search" in report else []
    head += [f"| who | test {headline(task_of(report)).label} | gain over control (95%) |", "|---|---|---|"]
    tail = ["", *_cost(report), *_links(report, models)]
    tail += [f"- results: `{out}`"] if out is not None else []
    return _fitted(head, [*_rows(report)], tail)


def _fitted(head: Sequence[str], rows: Sequence[str], tail: Sequence[str]) -> str:
    """All of it, with fewer rows where they are too many."""
    kept = len(rows)
    while True:
        left_out = [f"| and {len(rows) - kept} more, in the report | | |"] if kept < len(rows) else []
        text = "\n".join([*head, *rows[:kept], *left_out, *tail])
        if len(text) <= CHARACTERS or not kept:
            return text[:CHARACTERS]
        kept -= 1


def _rows(report: Mapping[str, Any]) -> Iterator[str]:
    figure = headline(task_of(report))
    test, told = f"test_{figure.key}", partial(spread, figure)
    for name, learner in learners(report).items():
        gain = learner["gain"]
        interval = with_interval(figure, gain) if gain else ""
        yield f"| student {name} | {told(learner[test])} | {interval} |"
        if control := learner[f"control_{figure.key}"]:
            yield f"| control of {name} | {told(control)} | |"
        if offline := learner.get(f"offline_{figure.key}"):
            yield f"| {name} from its teachers alone | {told(offline)} | |"
    for name, cohort in report.get("cohorts", {}).items():
        yield f"| cohort {name} together | {told(cohort['ensemble'][test])} | |"
    if report["ensemble"]:
        yield f"| teachers together | {figure.shown(report['ensemble'][test])} | |"
    yield from (f"| teacher {name} | {figure.shown(t[test])} | |" for name, t in report["teachers"].items())


def _compared(report: Mapping[str, Any]) -> Iterator[str]:
    """What a comparison of variants showed, and its first table."""
    yield from (f"{line}\n" for line in report["compared"]["sentences"])
    table = compared.tables(report)[0]
    yield from (f"| {' | '.join(table['columns'])} |", f"|{'---|' * len(table['columns'])}")
    yield from (f"| {' | '.join(cell.text for cell in row)} |" for row in table["rows"])
    yield ""


def _study(found: Mapping[str, Any]) -> Iterator[str]:
    """What the study of a student showed, and the table of its best trial."""
    counts = ", ".join(f"{found[state]} {state}" for state in ("finished", "pruned", "failed"))
    yield f"**Study of {found['student']}**, {found['trials']} trials ({counts}): {found['advice'][0]}\n"
    yield from (f"| best, trial {found['best']['number']} | |", "|---|---|")
    yield from (f"| {path} | {short(value)} |" for path, value in found["best"]["params"].items())
    yield from (f"| validation {name} | {short(value)} |" for name, value in found["best"]["validation"].items())
    yield ""


def _cost(report: Mapping[str, Any]) -> Iterator[str]:
    stages = report.get("stages", [])
    built = [stage for stage in stages if not stage["reused"]]
    told = [f"{report['seconds']:,.0f} s in all"] if report.get("seconds") else []
    for kind, what, key in (("label", "rows labelled", "rows"), ("distill", "steps of students trained", "steps")):
        mine = [stage for stage in built if stage["stage"] == kind and key in stage]
        if mine:
            seconds = sum(stage["seconds"] for stage in mine)
            told.append(f"{sum(stage[key] for stage in mine):,} {what} in {seconds:,.0f} s")
    if stages:
        told.append(f"{len(stages) - len(built)} of {len(stages)} stages reused")
    if told:
        yield f"Cost: {'; '.join(told)}.\n"


def _links(report: Mapping[str, Any], models: Sequence[str]) -> Iterator[str]:
    if "mlflow" not in report:
        return
    experiment, run = report["mlflow"]["experiment_id"], report["mlflow"]["run_id"]
    children = quote(f"tags.`mlflow.parentRunId` = '{run}'")
    yield f"- [report.html](#/experiments/{experiment}/runs/{run}/artifacts/report.html)"
    yield f"- [trainings of this run](#/experiments/{experiment}/runs?searchFilter={children})"
    for name in models:
        registered = f"{report['recipe']['name']}-{name}"
        yield f"- registered model [{registered}](#/models/{registered})"
