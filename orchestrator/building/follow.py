"""A training that begins with its teachers' first labels: in a turn of its own, and sealed once all labels are."""

import json
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from teachers.process.waiting import outcome
from teachers.storage.seal import Seal, replace

from ..cluster.gangs import Gang
from ..stages.stages import Built
from .context import Context, Facts, segments_heard
from .fit import fit_runs, sealed
from .turns import Turn, Turns

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from students.runs.run import RunResult

    from .learn import Training

WAITED = "train.waited_s"
LABELS = "labels.json"
"""Beside the training: what its teachers' labels had become when it was sealed, by their places."""


def follow(context: Context, turns: Turns, gang: Gang, prepared: Built, wanted: "Training") -> Built:
    """Its seats are asked for when its teachers have theirs, or are done: none of them waits for it."""
    return context.stages.build(wanted.stage, partial(_followed, context, turns, gang, prepared, wanted))


def warn_of_other_labels(built: Built, digests: Sequence[str]) -> None:
    """Where a training that is reused has followed labels that were made again since, and came out otherwise."""
    learnt = json.loads((built.folder / LABELS).read_bytes())["labels"]
    if built.reused and learnt != [*digests]:
        told = "%s learnt from labels that have changed since; remove %s to train it again"
        log.warning(told, built.stage.title, built.folder)


def _followed(
    context: Context, turns: Turns, gang: Gang, prepared: Built, wanted: "Training", folder: Path
) -> tuple[Seal, Facts]:
    def fit(nothing: Sequence[None], turn: Turn) -> "list[tuple[list[RunResult], Facts]]":
        began = time.time()
        learner = context.recipe.learners[wanted.learner]
        results = fit_runs(context, [wanted.make(folder)], learner, turn)
        ended, waited = time.time(), _waited(folder, began)
        facts = {"begun": began, "ended": ended, "seconds": ended - began - waited, "waited": waited, "on": turn.on}
        return [([*results.values()], facts)]

    results, took = outcome(turns.start(wanted.stage.title, gang, fit, None))
    segments = segments_heard(context.recipe, prepared, context.recipe.learners[wanted.learner])
    assert wanted.taught is not None
    digests = [outcome(each).digests(segments) for each in wanted.taught.values()]
    replace(folder / LABELS, json.dumps({"format": 1, "labels": digests}, indent=1).encode())
    seal, facts = sealed(folder, results, [LABELS])
    return seal, {**facts, **took, "follows": [*wanted.taught]}


def _waited(folder: Path, since: float) -> float:
    """Seconds in which nothing was labelled that could be learnt, by the curves of this try."""
    from students.runs.curves import read_records

    records = read_records(folder / "metrics.jsonl")
    return max((each["value"] for each in records if each["key"] == WAITED and each["time"] >= since), default=0.0)
