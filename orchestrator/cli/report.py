"""`collegium report`: what a run found, once more: as a page, as JSON, students against each other as CSV."""

import json
from pathlib import Path

import click

from .options import with_json
from .out import Out, brought
from .telling import tell_variants


@click.command()
@click.argument("out", type=Out(exists=True))
@with_json
@click.option("--teachers", is_flag=True, help="Which teacher helped: of the newest `compare --teachers`.")
@click.option("--csv", "as_csv", is_flag=True, help="Print every student against every other and its control as CSV.")
def report(out: Path, as_json: bool, as_csv: bool, teachers: bool) -> None:
    """Write the newest run's report.html again, and send what MLflow could not take."""
    from students.tasks.figure import headline

    from ..reporting import unjudged
    from ..reporting.comparison import csv_text, text_table
    from ..reporting.headline import learners, task_of
    from ..reporting.kept import newest_of_teachers, newest_report, write_report
    from ..tracking.late import replay

    if as_json and as_csv:
        raise click.UsageError("--json and --csv both print on stdout; give one of them")
    folder, document = newest_of_teachers(out) if teachers else newest_report(out)
    if "search" in document:
        from ..reporting.study import told_again

        document["search"] = told_again(document, out)
    write_report(brought(folder), document)
    for line in replay(out, document["recipe"]["tracking"]["uri"]):
        click.echo(line, err=True)
    if as_csv and "unjudged" in document:
        raise click.UsageError(f"--csv: {unjudged.SAID}")
    if as_csv:
        click.echo(csv_text(document, learners(document)), nl=False)
        return
    if "compared" in document and not as_json:
        tell_variants(document, err=True)
        click.echo(str(folder / "report.html"))
        return
    shown = (
        unjudged.lines(document)
        if "unjudged" in document
        else text_table(headline(task_of(document)), document["comparison"])
    )
    for line in [] if as_json else shown:
        click.echo(line, err=True)
    click.echo(json.dumps(document, indent=1) if as_json else str(folder / "report.html"))
