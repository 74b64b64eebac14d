"""The command `collegium`. Results go to stdout, progress and logs to stderr; heavy packages are imported when needed."""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from . import neighbours  # noqa: F401  (before all that imports `teachers`)

# isort: split
from .bundle import bundle
from .carry_out import carry_out
from .compare import compare
from .endings import end_well
from .evaluate import evaluate
from .export import export
from .jobs import jobs, submit
from .listing import students, teachers
from .options import with_address, with_json, with_log_format, with_overrides, with_recipe, with_verbose
from .out import Out
from .planned import tell_plan
from .predict import predict
from .report import report
from .review import review
from .serve import serve
from .status import status
from .store import store
from .verify_model import verify_model

with_out = click.option(
    "--out", type=Out(), help="Folder of all results, or s3://, gs://.  [default: out/<name of the recipe>]"
)


COLLECT_EVERY = 50_000
"""New objects before Python looks for circles again (700 by itself): what is imported stays, and is looked at each time."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(COLLECT_EVERY)
    end_well(collegium.main)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="collegium")
def collegium() -> None:
    """Distil many teachers into one small student on a Ray cluster.

    Start with `collegium run`: it does the shipped recipe `digits` on this machine in about two minutes.
    """


@collegium.command()
@click.argument("target", type=click.Path(path_type=Path), default="recipe.yaml")
@click.option(
    "--from",
    "name",
    default="digits",
    show_default=True,
    help="Your job (image_folder, table, ...), or a shipped recipe.",
)
@click.option("--list", "listing", is_flag=True, help="List what there is to start from.")
def init(target: Path, name: str, listing: bool) -> None:
    """Write a starter recipe, named after its file."""
    from ..recipe.shipped import recipes, starter, starters

    if listing:
        for title, known in (("for your data", starters()), ("run as they are", recipes())):
            click.echo(f"{title}:")
            for each, path in known.items():
                purpose = next(
                    (line.removeprefix("# ") for line in path.read_text().splitlines()[1:] if line.startswith("#")), ""
                )
                click.echo(f"  {each:<14} {purpose}")
        return
    text = starter(name, target)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{target} is there already; choose another name") from None
    except FileNotFoundError:
        raise click.UsageError(f"{target}: there is no folder {target.parent}; make it first") from None
    except OSError as error:
        raise click.UsageError(f"{target}: cannot be written ({error.strerror})") from None
    click.echo(f"wrote {target}; next: collegium plan {target}")


@collegium.command()
@with_recipe
@with_overrides
@with_out
@with_address
@with_json
@click.option(
    "--check", is_flag=True, help="Also count every class, and try all who teach or learn on a batch of real rows."
)
@click.option("--autoscaling", is_flag=True, help="The cluster adds nodes: tell what waits for them, refuse nothing.")
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    out: Path | None,
    address: str | None,
    as_json: bool,
    check: bool,
    autoscaling: bool,
) -> None:
    """Validate a recipe; show its stages, what would be reused, what is needed; of a cluster, which nodes."""
    from ..cluster.capacity import AUTOSCALING
    from ..planning.planning import plan as make_plan
    from ..recipe.load import load_recipe
    from ..recipe.shipped import find

    if autoscaling:
        os.environ[AUTOSCALING] = "1"
    loaded = load_recipe(find(recipe), overrides)
    made = make_plan(loaded, out or Path("out") / loaded.name, check=check, address=address)
    tell_plan(made, as_json)


def _verb(name: str, help_text: str) -> None:
    """`label`, `distill`: `run` up to that stage."""

    @collegium.command(name, help=help_text)
    @with_recipe
    @with_overrides
    @with_out
    @with_address
    @with_json
    @with_verbose
    @with_log_format
    def command(**given: Any) -> None:
        carry_out(until=name, **given)


@collegium.command()
@with_recipe
@with_overrides
@with_out
@with_address
@with_json
@with_verbose
@with_log_format
@click.option("--smoke", is_flag=True, help="The whole recipe on a few rows and steps, in an OUT of its own.")
def run(**given: Any) -> None:
    """Label, distil, evaluate, export, report. The same command again does only what is missing."""
    carry_out(**given)


@collegium.command()
@with_recipe
@with_overrides
@with_out
@with_address
@with_json
@with_verbose
@with_log_format
@click.option("--fresh", is_flag=True, help="Set an earlier study of this OUT aside, and begin anew.")
def tune(**given: Any) -> None:
    """Search the settings under `search` on the cached labels; train the best again. The same command goes on."""
    carry_out(searching=True, **given)


_verb("label", "Ask the teachers; fill the soft-target stores.")
_verb("distill", "Label, then train the students and their controls.")


@collegium.command()
@click.argument("out", type=Out(exists=True))
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="On 127.0.0.1.")
def ui(out: Path, port: int) -> None:
    """Open the MLflow page of OUT: starts a light server on loopback, prints the link, stops with Ctrl-C."""
    from .ui import serve

    serve(out, port, tell=click.echo)


@collegium.command()
@with_out
@click.option("--tracking-uri", help="MLflow server to look for.  [default: MLFLOW_TRACKING_URI, else SQLite]")
@with_json
def doctor(out: Path | None, tracking_uri: str | None, as_json: bool) -> None:
    """Check Python, packages, CPUs and GPUs, Ray, storage, MLflow; each finding with its cure.

    `BAD` is what a run would fail of, then the command ends with code 4; with what is `slow` runs are whole, and take longer.
    """
    from .doctor import examine

    findings = []
    for finding in examine(out or Path("out"), tracking_uri):
        findings.append(finding)
        if not as_json:
            click.echo(
                f"{'ok' if not finding.cure else 'slow' if finding.is_slow else 'BAD':<4} {finding.subject:<42} {finding.found}"
            )
            if finding.cure:
                click.echo(f"     {finding.cure}")
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    sys.exit(4 if any(finding.cure and not finding.is_slow for finding in findings) else 0)


@collegium.command()
@with_recipe
@with_overrides
@click.option("--recipe", "resolved", is_flag=True, help="Print the recipe with every default filled in instead.")
def schema(recipe: str, overrides: tuple[str, ...], resolved: bool) -> None:
    """Print the JSON schema of recipes, for completion in editors."""
    if resolved:
        import yaml

        from ..recipe.load import load_recipe
        from ..recipe.model import public
        from ..recipe.shipped import find

        click.echo(yaml.safe_dump(public(load_recipe(find(recipe), overrides)), sort_keys=False), nl=False)
        return
    from ..recipe.reference import json_schema

    click.echo(json_schema(), nl=False)


for command in (
    evaluate,
    compare,
    export,
    predict,
    serve,
    verify_model,
    report,
    review,
    store,
    bundle,
    teachers,
    students,
    submit,
    jobs,
    status,
):
    collegium.add_command(command)
