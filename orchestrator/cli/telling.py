"""What a run or a study prints when it is done: on stdout, for people or as one JSON document."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from teachers.storage.place import remote_of, spoken

from .endings import say

if TYPE_CHECKING:
    from ..running.run import Finished

FRONT_ROWS = 30


def tell_and_leave(finished: "Finished", out: Path, as_json: bool) -> None:
    """Print what a run or a study came to; exit code 3 when it missed a quality gate."""
    if as_json:
        click.echo(json.dumps(finished.report, indent=1))
    else:
        _tell(finished.report, finished.folder, out)
    if finished.missed:
        say("quality gate missed: " + "; ".join(finished.missed))
        sys.exit(3)


def _tell(report: Mapping[str, Any], folder: Path, out: Path) -> None:
    from students.tasks.figure import headline

    from ..reporting import unjudged
    from ..reporting.comparison import text_table
    from ..reporting.headline import besides, learners, remarks, task_of, teachers_alone

    reused = sum(stage["reused"] for stage in report["stages"])
    click.echo(f"{len(report['stages'])} stages, {reused} of them reused")
    if "unjudged" in report:
        for line in unjudged.lines(report):
            click.echo(line)
    if "compared" in report:
        tell_variants(report)
        for line in report["cautions"]:
            click.echo(line)
    elif "students" in report:
        for name, student in learners(report).items():
            click.echo(f"{name}: {student['verdict']}")
        compared = text_table(headline(task_of(report)), report["comparison"])
        for line in [*besides(report), *teachers_alone(report), *compared, *remarks(report), *report["cautions"]]:
            click.echo(line)
    if search := report.get("search"):
        _tell_study(search)
    if (folder / "found.yaml").exists():
        click.echo(f"found: {folder / 'found.yaml'}")
    if (folder / "report.html").exists():
        click.echo(f"report: {folder / 'report.html'}")
        click.echo(f"also in {spoken(folder)}" if remote_of(folder) else f"curves: collegium ui {out}")


def tell_variants(report: Mapping[str, Any], *, err: bool = False) -> None:
    """The tables of a comparison, and what it shows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..reporting.compared import tables

    console = Console(markup=False, highlight=False, stderr=err)
    if not console.is_terminal:
        console.width = EDGELESS
    for found in tables(report):
        table = Table(title=found["title"], title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(found["columns"]):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number, overflow="fold")
        for row in found["rows"]:
            table.add_row(*(Text(cell.text, style=TONES[cell.tone]) for cell in row))
        console.print(table)
    for line in report["compared"]["sentences"]:
        click.echo(f"- {line}", err=err)


TONES = {"helps": "green", "hurts": "red", "": ""}
EDGELESS = 1_000
"""Columns of what is no terminal: a file has no edge."""


def _tell_study(search: Mapping[str, Any]) -> None:
    from ..reporting.study import front_table

    counts = ", ".join(f"{search[state]} {state}" for state in ("finished", "pruned", "failed"))
    click.echo(
        f"study of {search['student']}: {search['trials']} trials ({counts}), {search['control']['trials']} of its control"
    )
    for line in search["advice"]:
        click.echo(f"- {line}")
    if search["front"]:
        rows = front_table(search)[: FRONT_ROWS + 1]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        click.echo(f"Pareto front ({len(rows) - 1} of {len(search['front'])}):")
        for row in rows:
            click.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
