"""`collegium verify-model`: whether a delivered or exported model still says what it said."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from .out import Out, brought


@click.command("verify-model")
@click.argument("model")
@click.option("--out", type=Out(exists=True), help="Where a MODEL that is named lies.  [default: out/<recipe>]")
@click.option("--trust", multiple=True, metavar="MODULE:NAME", help="Code of yours that the folder may name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify_model(model: str, out: Path | None, trust: tuple[str, ...], as_json: bool) -> None:
    """Check the files of MODEL against their checksums and ask it its golden rows.

    MODEL is a folder that `run` delivered, or a name as digits-small (the newest); or one that `export --onnx`, `--int8` or
    `--pt2` wrote. Exit code 1 where a file is another, or an answer is.
    """
    from students.delivering.manifest import verified
    from teachers.users_code.imports import use_user_path

    from .named_model import folder_of

    use_user_path(Path.cwd())
    found = verified(brought(folder_of(model, out)), trust)
    if as_json:
        click.echo(json.dumps({file: asdict(agreement) for file, agreement in found.items()}, indent=1))
        return
    for file, agreement in found.items():
        click.echo(f"{file}: {agreement}")
