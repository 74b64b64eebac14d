"""`collegium teachers ls` and `collegium students ls`: what can be named in a recipe, and what an OUT holds."""

import inspect
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from .options import with_json
from .out import Out

if TYPE_CHECKING:
    from ..stages.stages import Kind

log = logging.getLogger(__name__)

with_out = click.argument("out", type=Out(exists=True), required=False)


@click.group()
def teachers() -> None:
    """What can teach."""


@teachers.command("ls")
@with_out
@with_json
def list_teachers(out: Path | None, as_json: bool) -> None:
    """List kinds of teachers and the networks of teachers.zoo; with OUT, the teachers trained there."""
    if out is not None:
        _tell(_stages(out, "train_teacher"), as_json)
        return
    from teachers.config.teacher import TeacherConfig

    kinds = [
        {"name": get_args(model.model_fields["kind"].annotation)[0], "what": (model.__doc__ or "").splitlines()[0]}
        for model in get_args(get_args(TeacherConfig)[0])
    ]
    _tell([*kinds, *_networks("teachers.zoo")], as_json)


@click.group()
def students() -> None:
    """What can learn."""


@students.command("ls")
@with_out
@with_json
def list_students(out: Path | None, as_json: bool) -> None:
    """List the networks of students.models and teachers.zoo; with OUT, the students trained there."""
    _tell(
        _stages(out, "distill") if out is not None else [*_networks("students.models"), *_networks("teachers.zoo")],
        as_json,
    )


def _networks(module_name: str) -> list[dict[str, str]]:
    from importlib import import_module

    module = import_module(module_name)
    return [
        {"name": f"{module_name}:{name}{inspect.signature(made)}", "what": (made.__doc__ or "").strip().splitlines()[0]}
        for name, made in vars(module).items()
        if inspect.isfunction(made) and made.__module__ == module_name and not name.startswith("_")
    ]


def _stages(out: Path, kind: "Kind") -> list[dict[str, Any]]:
    from teachers.errors import StoreError
    from teachers.process.log_lines import once
    from teachers.storage.seal import read_document

    from ..stages.stages import FOLDERS, FORMAT

    found = []
    for stage in sorted((out / FOLDERS[kind]).glob("*/STAGE.json")):
        try:
            document = read_document(stage, FORMAT, "remove its folder, and the next run builds it again")
        except StoreError as error:
            once(log, str(error))
            continue
        sealed = (stage.parent / "SEAL.json").exists()
        found.append(
            {
                "name": "/".join(filter(None, (document["name"], document["part"]))),
                "what": "whole" if sealed else "unfinished",
                "folder": str(stage.parent),
            }
        )
    return found


def _tell(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo("  ".join(str(value) for value in row.values()))
