"""`collegium teachers ls` and `collegium students ls`: what can be named in a recipe, and what an OUT holds."""

import inspect
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from .options import with_json
from .out import Out

if TYPE_CHECKING:
    from ..stages.stages import Kind

log = logging.getLogger(__name__)

with_out = click.argument("where", metavar="[OUT|RECIPE]", required=False)
with_layers = click.option(
    "--layers",
    is_flag=True,
    help="Of the networks of a RECIPE: the path of every module, what it is, what it gives of a row, its parameters.",
)


@click.group()
def teachers() -> None:
    """What can teach."""


@teachers.command("ls")
@with_out
@with_layers
@with_json
def list_teachers(where: str | None, layers: bool, as_json: bool) -> None:
    """List kinds of teachers and the networks of teachers.zoo; with OUT, the teachers trained there.

    With a RECIPE and --layers, the layers of its networks, which `outputs` of a teacher can name: collegium teachers ls
    recipe.yaml --layers
    """
    if layers or where is not None:
        _tell_those_of(where, "teachers", layers, as_json)
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
@with_layers
@with_json
def list_students(where: str | None, layers: bool, as_json: bool) -> None:
    """List the networks of students.models and teachers.zoo; with OUT, the students trained there.

    With a RECIPE and --layers, the layers of its students and of the members of its cohorts: collegium students ls
    recipe.yaml --layers
    """
    if layers or where is not None:
        _tell_those_of(where, "students", layers, as_json)
        return
    _tell([*_networks("students.models"), *_networks("teachers.zoo")], as_json)


def _tell_those_of(where: str | None, kind: Literal["teachers", "students"], layers: bool, as_json: bool) -> None:
    """Layers of the networks of a recipe, or what was trained in an OUT, which must be there."""
    if layers or where is None:
        _tell_layers(where, kind, as_json)
        return
    context = click.get_current_context()
    out: Path = Out(exists=True).convert(where, context.command.params[0], context)
    _tell(_stages(out, "train_teacher" if kind == "teachers" else "distill"), as_json)


def _tell_layers(where: str | None, kind: Literal["teachers", "students"], as_json: bool) -> None:
    """Of every network of a recipe, by default the one that is shipped as `digits`."""
    from ..planning.layers import layers_in
    from ..recipe.load import load_recipe
    from ..recipe.shipped import find

    found = layers_in(load_recipe(find(where or "digits")), kind)
    if as_json:
        click.echo(json.dumps({name: [asdict(layer) for layer in layers] for name, layers in found.items()}, indent=1))
        return
    for name, layers in found.items():
        wide = max((len(layer.path) for layer in layers), default=0)
        kinds = max((len(layer.kind) for layer in layers), default=0)
        click.echo(f"{name}:")
        for layer in layers:
            gives = "-" if layer.shape is None else str([*layer.shape])
            called = {0: "  never called", 1: ""}.get(
                layer.num_calls, f"  called {layer.num_calls} times, the last counts"
            )
            click.echo(
                f"  {layer.path:<{wide}}  {layer.kind:<{kinds}}  {gives:<16}  {layer.num_parameters:>11,}{called}"
            )


def _networks(module_name: str) -> list[dict[str, str]]:
    from importlib import import_module

    module = import_module(module_name)
    public = getattr(module, "__all__", vars(module))  # beside its networks a module has functions of its own
    return [
        {"name": f"{module_name}:{name}{inspect.signature(made)}", "what": (made.__doc__ or "").strip().splitlines()[0]}
        for name, made in vars(module).items()
        if inspect.isfunction(made) and made.__module__ == module_name and name in public and not name.startswith("_")
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
