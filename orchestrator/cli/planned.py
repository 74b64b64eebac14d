"""What a plan prints: of `collegium plan`, and of a comparison that is only planned."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..planning.planning import Plan


def tell_plan(made: "Plan", as_json: bool) -> None:
    """Stages and why, where and when they would run, what they hold, notes; or one JSON document."""
    from ..planning.memory import in_units
    from ..planning.placement import table
    from ..planning.price_table import caching
    from ..planning.price_table import table as prices

    if as_json:
        click.echo(json.dumps(made.record(), indent=1))
        return
    for stage in made.stages:
        title = "/".join(part for part in (stage.stage, stage.name, stage.part) if part)
        click.echo(f"{stage.action:<8} {title:<32} {stage.reason}")
    for line in ["", *table(made.placement)] if made.placement else []:
        click.echo(line)
    for line in ["", *(f"memory   {holding.line()}" for holding in made.memory)] if made.memory else []:
        click.echo(line)
    for line in ["", *prices(made.prices), *(f"caching  {line}" for line in caching(made.prices))]:
        click.echo(line)
    for line in ["", *made.schedule.lines()] if made.schedule.bars else []:
        click.echo(line)
    needed = f"about {in_units(made.bytes_needed)}" if made.bytes_needed else "as much as `prepare` finds"
    click.echo(f"\n{needed} of {in_units(made.bytes_free)} free; nothing was written")
    for note in made.notes:
        click.echo(f"note: {note}")
