"""Which training is delivered, from what each left. Knows nothing of torch: a plan asks too."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teachers.config.task import DEFAULT_TASK, TaskName
from teachers.errors import StoreError
from teachers.storage.seal import local

from ..tasks.figure import rank


def delivered(runs: Mapping[int, Path]) -> int:
    """The seed that labels for others and is exported: the best on validation, ties to the lower seed.

    Best is by the first figure of a look in which two differ; without labelled validation rows it is the lowest seed.
    """
    ranks = {seed: rank_of_run(run) for seed, run in sorted(runs.items())}
    return max(ranks, key=lambda seed: ranks[seed])


def rank_of_run(run: Path) -> tuple[float, ...]:
    """The larger the better on validation."""
    found = validation_of(run)
    return rank(task_of(run), found) if found else (-math.inf,)


def task_of(run: Path) -> TaskName:
    """What the network of a model folder has learnt."""
    task: TaskName = _document(run, "config.json").get("task", DEFAULT_TASK)
    return task


def validation_of(run: Path) -> dict[str, float | None] | None:
    """What the best look at validation found, as training kept it in `result.json`."""
    found: dict[str, float | None] | None = _document(run, "result.json")["validation"]
    return found


def _document(run: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(local(run, name).read_bytes())
    except FileNotFoundError:
        raise StoreError(f"{run}: there is no {name}, so this training did not end; run the recipe again") from None
    return found
