"""How cohorts are built: their members together, and their controls and offline twins, each seed a stage of its own."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..stages.stages import Built
from ..stages.trainings import Kind, views_of_learner
from .context import Context
from .fit import budget_of

if TYPE_CHECKING:
    from students.runs.run import CohortRun, Source


def run_of_cohort(
    context: Context, name: str, kind: Kind, seed: int, prepared: Built, folder: Path, heard: "tuple[Source, ...]"
) -> "CohortRun":
    """The training of a cohort (members together), or of its members alone; `folder`: of its stage."""
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
