"""How cohorts are built: their members with controls and offline twins, and what of them is exported."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.cohort import CodistillationCohort, CohortConfig
from teachers.storage.seal import Seal, publish, write_seal

from ..stages import keys
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught, segments_of, sources
from .evaluate import kinds_alone
from .fit import budget_of, fit_beside_live, outputs_of

if TYPE_CHECKING:
    from students.runs.run import CohortRun, RunResult


def train_cohort(context: Context, name: str, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    """Train one cohort whose frozen teachers have all labelled; it has a worker group of its own."""
    train = segments_of(prepared, "train")
    labels = {teacher: taught[teacher].digests(train) for teacher in context.recipe.cohorts[name].teachers}
    stage = keys.distill_stage(context.recipe, name, prepared.digest, labels)
    return context.stages.build(stage, partial(_train, context, stage, prepared, taught, train))


def _train(
    context: Context,
    stage: Stage,
    prepared: Built,
    taught: Mapping[str, Taught],
    train: Sequence[str],
    folder: Path,
) -> tuple[Seal, Facts]:
    config = context.recipe.cohorts[stage.name]
    heard = sources(context.recipe, config, taught, train)
    steps = budget_of(f"cohorts.{stage.name}", config, prepared.folder)
    resolved = config.model_copy(update={"train": steps})
    common = {
        "folder": folder,
        "stage": folder,
        "stage_name": stage.title,
        "transfer_set": prepared.folder,
        "user_path": context.user_path,
        "trust": context.recipe.trusted(),
        "sources": heard,
    }
    runs = list(_runs(stage.name, resolved, common))
    apart = isinstance(config, CodistillationCohort) and config.workers_per_member is not None
    results = fit_beside_live(
        context, prepared, taught, [stage.name], runs, config.resources, config.workers,
        placement=config.placement, apart=apart,
    )  # fmt: skip
    return _seal(folder, resolved, list(results.values()))


def _runs(name: str, config: CohortConfig, common: dict[str, Any]) -> "Iterator[CohortRun]":
    """The cohort first, seed by seed; then its members alone."""
    from students.runs.of_cohort import alone_runs, member_runs

    for seed in config.train.seeds:
        yield member_runs(name, config, seed, **common)
    for kind, wanted in kinds_alone(config).items():
        if wanted:
            for seed in config.train.seeds:
                yield alone_runs(kind, name, config, seed, **common)


def _seal(folder: Path, config: CohortConfig, results: "Sequence[RunResult]") -> tuple[Seal, Facts]:
    """Each member delivers its best seed on validation; the cohort the best of these, ties to the first member."""
    from students.measuring.evaluate import delivered as best_seed
    from students.measuring.evaluate import rank_of_run

    members = {}
    for member in config.members:
        seed = best_seed({seed: folder / member / f"seed-{seed}" for seed in config.train.seeds})
        members[member] = {"run": f"{member}/seed-{seed}", "seed": seed}
    best = max(members, key=lambda member: rank_of_run(folder / str(members[member]["run"])))
    document = {"format": 1, **members[best], "member": best, "members": members}
    publish(folder / "delivered.json", json.dumps(document).encode())
    outputs = ["delivered.json", *outputs_of(folder, results)]
    return write_seal(folder, outputs), {"steps": sum(result.steps for result in results)}
