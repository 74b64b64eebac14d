"""What `run`, `tune` and the verbs between them have in common: a recipe that is carried out, up to a stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .interrupts import going_on
from .out import for_smoke
from .telling import tell_and_leave


def carry_out(
    recipe: str,
    overrides: tuple[str, ...],
    out: Path | None,
    address: str | None,
    as_json: bool,
    verbose: bool,
    log_format: str,
    **how: Any,
) -> None:
    """Load the recipe, do what `how` says of it, tell the figures, and leave with the exit code of a missed gate."""
    from ..cluster.joining import check_address
    from ..recipe.load import load_recipe
    from ..recipe.shipped import find
    from ..running.run import Finished, run, smoke
    from ..watching.progress import Watch, show_logs

    show_logs(Watch().console, verbose=verbose, as_json=log_format == "json")
    loaded = load_recipe(find(recipe), overrides)
    out = out or Path("out") / loaded.name
    if how.pop("smoke", False):
        loaded, out = smoke(loaded), for_smoke(out)
    check_address(address)
    work: Callable[..., Finished] = run
    if how.pop("searching", False):
        from ..running.tune import tune

        work = tune
    if how.pop("comparing", False):
        from ..running.compare import compare

        work = compare
    with going_on():
        finished = work(loaded, out, address=address, quiet=False, source=recipe, **how)
    tell_and_leave(finished, out, as_json)
