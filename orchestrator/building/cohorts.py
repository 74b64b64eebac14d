"""How cohorts are built: their members together, and their controls and offline twins, each seed a stage of its own."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from students.config.cohort import CodistillationCohort
from teachers.storage.seal import Seal

from ..stages.stages import Built, Stage
from ..stages.trainings import Kind, training_stages, views_of_learner
from .context import Context, Facts, Taught, segments_heard, sources
from .fit import budget_of, fit_beside_live, seal_all
from .learned import Learned

if TYPE_CHECKING:
    from students.runs.run import CohortRun, Source


def train_cohort(context: Context, name: str, prepared: Built, taught: Mapping[str, Taught]) -> Learned:
    """Train one cohort whose frozen teachers have all labelled; it has a worker group of its own."""
    config = context.recipe.cohorts[name]
    heard = segments_heard(context.recipe, prepared, config)
    labels = {teacher: taught[teacher].digests(heard) for teacher in config.teachers}
    stages = training_stages(context.recipe, name, prepared.digest, labels)
    wanted = {stage: training for training, stage in stages.items()}
    built = context.stages.build_together([*wanted], partial(_train, context, name, prepared, taught, wanted))
    return Learned({training: built[stage] for stage, training in wanted.items()})


def _train(
    context: Context,
    name: str,
    prepared: Built,
    taught: Mapping[str, Taught],
    wanted: Mapping[Stage, tuple[Kind, int]],
    folders: Mapping[Stage, Path],
) -> dict[Stage, tuple[Seal, Facts]]:
    """The cohort first, seed by seed; then its members alone."""
    start, config = time.monotonic(), context.recipe.cohorts[name]
    heard = sources(context.recipe, config, taught, segments_heard(context.recipe, prepared, config))
    in_turn = sorted(folders, key=lambda stage: [*wanted.values()].index(wanted[stage]))
    runs = {stage: _run(context, name, *wanted[stage], prepared, folders[stage], heard) for stage in in_turn}
    apart = isinstance(config, CodistillationCohort) and config.workers_per_member is not None
    results = fit_beside_live(
        context, prepared, taught, [name], [*runs.values()], config.resources, config.workers,
        placement=config.placement, apart=apart,
    )  # fmt: skip
    mine = {stage: [results[network.folder] for network in run.networks] for stage, run in runs.items()}
    return seal_all(folders, mine, time.monotonic() - start)


def _run(
    context: Context, name: str, kind: Kind, seed: int, prepared: Built, folder: Path, heard: "tuple[Source, ...]"
) -> "CohortRun":
    from students.runs.of_cohort import alone_runs, member_runs

    config = context.recipe.cohorts[name]
    make = member_runs if kind == "student" else partial(alone_runs, kind)
    return make(
        name,
        config.model_copy(update={"train": budget_of(f"cohorts.{name}", config, prepared.folder)}),
        seed,
        folder=folder,
        stage=folder,
        stage_name=f"distill/{name}",
        transfer_set=prepared.folder,
        views=views_of_learner(context.recipe, config),
        user_path=context.user_path,
        trust=context.recipe.trusted(),
        sources=heard,
    )
