"""`collegium status`: how far a run is, from any terminal that sees its OUT."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

LINE_EVERY_S = 5.0
"""Off a terminal."""


@click.command()
@click.argument("out", required=False)
@click.option("--watch", is_flag=True, help="Go on until the run ends; exit code 1 where it did not end well.")
@click.option("--run", "run_id", metavar="ID", help="A run of `runs/`.  [default: one that goes on, else the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(out: str | None, watch: bool, run_id: str | None, as_json: bool) -> None:
    """Show stages, speeds, what is left and the curves of a run, from the files in OUT alone.

    OUT is by default the folder in `out/` in which a run goes on, else the one with the newest run.
    """
    from ..watching.status import Looker, newest_out
    from ..watching.status_lines import lines

    looker = Looker(out or newest_out(), run_id)
    found: Mapping[str, Any] = looker.look()
    if watch:
        found = _watched(looker, found, as_json)
    if as_json:
        click.echo(json.dumps(found, indent=1, allow_nan=False))
    elif not watch or not sys.stdout.isatty():
        click.echo("\n".join(lines(found)))
    if watch and found["run"]["state"] != "finished":
        sys.exit(1)


def _watched(looker: Any, found: Mapping[str, Any], as_json: bool) -> Mapping[str, Any]:
    """Show how a run goes on until it ends; what was found last."""
    if sys.stdout.isatty() and not as_json:
        return _drawn(looker, found)
    told = 0.0
    while found["run"]["state"] == "running":
        if not as_json and time.monotonic() - told >= LINE_EVERY_S:
            from ..watching.status_lines import one_line

            told = time.monotonic()
            click.echo(one_line(found))
        time.sleep(looker.every_s)
        found = looker.look()
    return found


def _drawn(looker: Any, found: Mapping[str, Any]) -> Mapping[str, Any]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from ..watching.status_lines import lines

    def page(found: Mapping[str, Any]) -> Text:
        return Text("\n".join(lines(found)), no_wrap=True, overflow="ellipsis")

    with Live(page(found), console=Console(), auto_refresh=False) as live:
        while found["run"]["state"] == "running":
            time.sleep(looker.every_s)
            found = looker.look()
            live.update(page(found), refresh=True)
    return found
