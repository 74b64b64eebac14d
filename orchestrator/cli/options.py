"""Options that several commands have."""

import click

with_recipe = click.argument("recipe", default="digits", metavar="[RECIPE]")
with_overrides = click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set a key of the recipe: -o students.small.train.steps=5",
)
with_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
with_verbose = click.option("-v", "--verbose", is_flag=True, help="More of what is going on.")
