"""`collegium predict`: what a delivered model says of new rows."""

import sys
from pathlib import Path

import click

from .out import Out, brought

SOME_BAD = 5
"""Exit code: the predictions are there, but not of every row."""


@click.command()
@click.argument("model")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=Out(exists=True), help="Where a MODEL that is named lies.  [default: out/<recipe>]")
@click.option(
    "--output", type=click.Path(path_type=Path), help="*.parquet, *.csv or *.jsonl.  [default: JSON lines on stdout]"
)
@click.option(
    "--inputs",
    multiple=True,
    metavar="NEW[=OLD]",
    help="Column NEW of SOURCE is the OLD of the model.  [default: columns are found by name]",
)
@click.option("--probabilities", is_flag=True, help="Of every class, in a column of its name; of a model of classes.")
@click.option(
    "--uncertainty",
    is_flag=True,
    help="Of a student with `hydra`: columns `total`, `aleatoric` and `epistemic`, in nats; of numbers the last, in their units.",
)
@click.option("--trust", multiple=True, metavar="MODULE:NAME", help="Code of yours that the folder may name.")
def predict(
    model: str,
    source: Path,
    out: Path | None,
    output: Path | None,
    inputs: tuple[str, ...],
    probabilities: bool,
    uncertainty: bool,
    trust: tuple[str, ...],
) -> None:
    """What MODEL says of every row of SOURCE: a folder, or a name as digits-small (the newest).

    Of one class of many that is the class and its probability; of classes that each hold or not those that reach their
    thresholds, by semicolons; of numbers a column each, in the units of the label.

    SOURCE is a table (CSV, JSON lines, Parquet, Arrow, NumPy), an image, or a folder of these. A row that cannot be used
    has a null, its reason is on stderr, and the exit code is 5.
    """
    from students.delivering.predict import predict_file
    from teachers.users_code.imports import use_user_path

    from .named_model import folder_of

    use_user_path(Path.cwd())
    done = predict_file(
        brought(folder_of(model, out)),
        source,
        output,
        inputs=inputs,
        trust=trust,
        probabilities=probabilities,
        uncertainty=uncertainty,
        vouching="command",
        write_line=click.echo,
        tell_bad=lambda line: click.echo(line, err=True),
    )
    if output is not None:
        click.echo(f"wrote {done.num_rows:,} rows to {output}")
    for name, rows in done.unknown.items():
        click.echo(f"{name}: {rows:,} of {done.num_rows:,} rows have a value that no training row had", err=True)
    if done.num_bad:
        click.echo(f"{done.num_bad:,} of {done.num_rows:,} rows have no prediction", err=True)
        sys.exit(SOME_BAD)
