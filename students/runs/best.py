"""Which training is delivered, from what each left. Knows nothing of torch: a plan asks too."""

import json
from collections.abc import Mapping
from pathlib import Path

from teachers.errors import StoreError
from teachers.storage.seal import local


def delivered(runs: Mapping[int, Path]) -> int:
    """The seed that labels for others and is exported: the best on validation, ties to the lower seed.

    Best is by accuracy, then by likelihood; without labelled validation rows it is the lowest seed.
    """
    ranks = {seed: rank_of_run(run) for seed, run in sorted(runs.items())}
    return max(ranks, key=lambda seed: ranks[seed])


def rank_of_run(run: Path) -> tuple[float, float]:
    """The larger the better on validation."""
    found = validation_of(run)
    return (found["accuracy"], -found["nll"]) if found else (-1.0, 0.0)


def validation_of(run: Path) -> dict[str, float] | None:
    """Accuracy and NLL on the validation rows, as training kept them in `result.json`."""
    try:
        found: dict[str, float] | None = json.loads(local(run, "result.json").read_bytes())["validation"]
    except FileNotFoundError:
        raise StoreError(
            f"{run}: there is no result.json, so this training did not end; run the recipe again"
        ) from None
    return found
