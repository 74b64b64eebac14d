"""Reference pages from tables in the code: commands, figures for Prometheus, environment variables."""

from collections.abc import Iterator
from typing import get_args

import click

from orchestrator.cli.main import collegium
from teachers.process import prometheus
from teachers.process.environment import VARIABLES, Group

NOTE = "<!-- Made by `make docs`; do not edit. -->"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commands() -> str:
    text = (
        "`collegium COMMAND --help` prints the same. Results go to stdout (`--json`: one document), progress and logs to "
        "stderr; how a command ends is its [exit code](exit-codes.md)."
    )
    parts = [NOTE, "# Commands", text]
    for path, command in walked(collegium):
        parts += _command(path, command)
    return "\n\n".join(parts) + "\n"


def walked(
    group: click.Group, path: tuple[str, ...] = ("collegium",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from walked(command, (*path, name))
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(path))
    yield f"## {' '.join(path)}"
    yield f"```\n{' '.join([*path, *command.collect_usage_pieces(context)])}\n```"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    records = [record for param in command.params if (record := param.get_help_record(context)) and record[1]]
    if records:
        lines = [row("option", "meaning"), "|---|---|"]
        yield "\n".join([*lines, *(row(f"`{names}`", " ".join(meaning.split())) for names, meaning in records)])


def metrics() -> str:
    """Ray puts `ray_` before the names, and `_total` behind those of counters."""
    text = (
        "Prometheus finds these through Ray's agent on every node, as it finds Ray's own (`ray metrics launch-prometheus`); nothing "
        "needs to be switched on. They are counted by the shard and by the evaluation, never by the row or the step. All have the label "
        "`run`, the id of the command's run."
    )
    lines = [row("metric", "kind", "labels", "meaning"), "|---|---|---|---|"]
    for name, figure in prometheus.FIGURES.items():
        told = f"`ray_{name}{'_total' * (figure.kind == 'Counter')}`"
        lines.append(row(told, figure.kind.lower(), ", ".join(figure.labels), figure.meaning))
    return "\n\n".join([NOTE, "# Metrics", text, "\n".join(lines)]) + "\n"


def environment() -> str:
    text = (
        "What Collegium reads, or sets for Ray, MLflow and numerical libraries. What it sets gives way to a value of yours, but for "
        "`OMP_NUM_THREADS` and what `collegium ui` gives its server."
    )
    parts = [NOTE, "# Environment variables", text]
    for group in get_args(Group):
        lines = [row("variable", "default" if group != "Set by Collegium" else "value", "meaning"), "|---|---|---|"]
        lines += [row(f"`{name}`", v.default, v.meaning) for name, v in VARIABLES.items() if v.group == group]
        parts += [f"## {group}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
