"""`collegium evaluate`: a recipe up to its figures; or a model that was trained elsewhere, beside those of a finished run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from teachers.errors import RecipeError

from .carry_out import carry_out
from .options import with_address, with_json, with_log_format, with_overrides, with_recipe, with_verbose
from .out import Out, brought


@click.command()
@with_recipe
@with_overrides
@click.option("--out", type=Out(), help="Folder of all results, or s3://, gs://.  [default: out/<name of the recipe>]")
@with_address
@with_json
@with_verbose
@with_log_format
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.onnx",
    help="Judge this graph instead, on the test rows of the newest run of OUT, beside its teachers and students.",
)
@click.option(
    "--how",
    multiple=True,
    metavar="KEY=VALUE",
    help="How the graph is read, as a `kind: onnx` teacher says it: --how decode=yolo --how 'preprocess={normalise: null}'",
)
def evaluate(recipe: str, out: Path | None, model: Path | None, how: tuple[str, ...], **given: Any) -> None:
    """Label, distil, then measure everything on the test split."""
    if model is None:
        if how:
            raise click.UsageError("--how is of a --model")
        carry_out(recipe, out=out, until="evaluate", **given)
        return
    if given["address"]:
        raise click.UsageError("--address is of a run; a --model is judged here")
    _judge(recipe, given["overrides"], out, model, how, given["as_json"])


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Keys of a teacher are those of --how."""
    try:
        yield
    except RecipeError as error:
        what = str(error).replace(f"teachers.{name}.", "--how ", 1).replace(f"teachers.{name}:", "--model:", 1)
        raise RecipeError(what) from error.__cause__


def _judge(
    recipe: str, overrides: tuple[str, ...], out: Path | None, model: Path, how: tuple[str, ...], as_json: bool
) -> None:
    from students.measuring.elsewhere import judge_elsewhere
    from students.tasks.figure import FIGURES

    from ..recipe.load import graph_told, load_recipe
    from ..recipe.shipped import find
    from ..reporting.elsewhere import beside_a_run, folder_of, lines
    from ..reporting.headline import task_of
    from ..reporting.kept import newest_report

    config = graph_told(model, how)
    out = out or Path("out") / load_recipe(find(recipe), overrides).name
    _, report = newest_report(out)
    with _told_of(model.name):
        judged = judge_elsewhere(config, model.name, brought(folder_of(out, report, "prepare")))
    document = beside_a_run(out, report, model.name, judged)
    if as_json:
        click.echo(json.dumps(document | {"thresholds": judged.figures.get("thresholds")}, indent=1))
        return
    for line in lines(FIGURES[task_of(report)], document):
        click.echo(line)
