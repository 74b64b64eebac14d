"""`collegium compare`: which way to distil pays, or which teacher helped, on the recipe's own rows."""

from pathlib import Path
from typing import Any

import click

from .carry_out import carry_out
from .options import with_address, with_json, with_log_format, with_overrides, with_recipe, with_verbose
from .out import Out
from .planned import tell_plan


@click.command()
@with_recipe
@with_overrides
@click.option("--out", type=Out(), help="Folder of all results, or s3://, gs://.  [default: out/<name of the recipe>]")
@click.option(
    "--methods", metavar="NAMES", help="soft,dkd,...: by name; `all`: what the teachers can serve.  [default: all]"
)
@click.option("--teachers", is_flag=True, help="Instead: all teachers, all but each, and each alone. Which one helped?")
@click.option("--student", metavar="NAME", help="Which one, where the recipe has several.")
@click.option("--seeds", type=int, metavar="N", help="So many of each.  [default: the recipe's]")
@click.option("--tune", is_flag=True, help="Try settings of each method first, on validation rows, with another seed.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be trained and what is there; do nothing.")
@click.option("--list", "listing", is_flag=True, help="List the methods, with what each is.")
@with_address
@with_json
@with_verbose
@with_log_format
def compare(only_plan: bool, listing: bool, **given: Any) -> None:
    """Train one student in several ways on the same stores, and say which pays.

    Equal steps, batches and seeds; one control; the cost of a step beside; every claim corrected for how many there are.
    The same command again does only what is missing.
    """
    if listing:
        _list_methods()
    elif only_plan:
        _plan(**given)
    else:
        carry_out(comparing=True, **given)


def _list_methods() -> None:
    from students.config.methods import METHODS

    for name, method in METHODS.items():
        click.echo(f"{name:<20} {method.says}")


def _plan(
    recipe: str, overrides: tuple[str, ...], out: Path | None, address: str | None, as_json: bool, **given: Any
) -> None:
    """As `collegium plan`, of all that is trained and measured."""
    from ..planning.comparison import plan_of
    from ..recipe.load import load_recipe
    from ..recipe.shipped import find
    from ..recipe.tries import tries_of
    from ..running.compare import variants

    loaded = load_recipe(find(recipe), overrides)
    asked = {key: given[key] for key in ("methods", "teachers", "student", "seeds")}
    found = variants(loaded, **asked)
    tries = tries_of(loaded, found) if given["tune"] else None
    tell_plan(plan_of(found, tries, out or Path("out") / loaded.name, address), as_json)
