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
with_address = click.option("--address", help="Ray cluster to join.  [default: RAY_ADDRESS, else start one here]")
with_log_format = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="COLLEGIUM_LOG_FORMAT",
    show_envvar=True,
    help="Of the log on stderr; json: one object a line.  [default: text]",
)
# of commands that give boxes away
with_whose_boxes = click.option(
    "--teachers", help="Whose boxes, separated by commas.  [default: all who have labelled]"
)
with_rule_of_boxes = click.option(
    "--combine", metavar="RULE", default="wbf", show_default=True, help="How several boxes become one."
)
with_least_score = click.option(
    "--keep-above",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="The lowest score of a box that becomes a label.",
)
with_copies = click.option(
    "--copy", "copies", is_flag=True, help="Copy the images of boxes; by default they are linked."
)
