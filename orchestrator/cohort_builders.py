"""How cohorts are built: their members with controls and offline twins, and what of them is exported."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from students.cohort_config import CodistillationCohort, CohortConfig
from teachers.seal import Seal, publish, write_seal
from teachers.users_code import within

from . import graph
from .builders import evaluate_on_cluster
from .context import Context, Facts, Taught, delivered_digest, delivered_member, segments_of, sources
from .recipe import Recipe, public
from .stages import Built, Stage
from .training_builders import budget_of, fit_beside_live, outputs_of

if TYPE_CHECKING:
    from students.session import CohortRun, RunResult


def train_cohort(context: Context, name: str, prepared: Built, taught: Mapping[str, Taught]) -> Built:
    """Train one cohort whose frozen teachers have all labelled; it has a worker group of its own."""
    train = segments_of(prepared, "train")
    labels = {teacher: taught[teacher].digests(train) for teacher in context.recipe.cohorts[name].teachers}
    stage = graph.distill_stage(context.recipe, name, prepared.digest, labels)
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
    from students.cohort_runs import alone_runs, member_runs

    for seed in config.train.seeds:
        yield member_runs(name, config, seed, **common)
    for kind, wanted in kinds_alone(config).items():
        if wanted:
            for seed in config.train.seeds:
                yield alone_runs(kind, name, config, seed, **common)


def kinds_alone(config: CohortConfig) -> dict[str, bool]:
    return {"control": bool(config.control), "offline": config.offline and bool(config.teachers)}


def _seal(folder: Path, config: CohortConfig, results: "Sequence[RunResult]") -> tuple[Seal, Facts]:
    """Each member delivers its best seed on validation; the cohort the best of these, ties to the first member."""
    from students.evaluate import delivered as best_seed
    from students.evaluate import rank_of_run

    members = {}
    for member in config.members:
        seed = best_seed({seed: folder / member / f"seed-{seed}" for seed in config.train.seeds})
        members[member] = {"run": f"{member}/seed-{seed}", "seed": seed}
    best = max(members, key=lambda member: rank_of_run(folder / str(members[member]["run"])))
    document = {"format": 1, **members[best], "member": best, "members": members}
    publish(folder / "delivered.json", json.dumps(document).encode())
    outputs = ["delivered.json", *outputs_of(folder, results)]
    return write_seal(folder, outputs), {"steps": sum(result.steps for result in results)}


def evaluate_cohort(
    context: Context, name: str, prepared: Built, trained: Built, taught: Mapping[str, Taught]
) -> Built:
    config = context.recipe.cohorts[name]
    segments = segments_of(prepared, "validation", "test")
    labels = {teacher: taught[teacher].digests(segments) for teacher in config.teachers}
    stage = graph.evaluate_stage(context.recipe, name, prepared.digest, trained.digest, labels)
    kinds = ["", *(kind for kind, wanted in kinds_alone(config).items() if wanted)]
    keywords = {
        "transfer_set": prepared.folder,
        "sources": sources(context.recipe, config, taught, segments),
        "members": {
            member: {
                kind or "student": {
                    seed: trained.folder / kind / member / f"seed-{seed}" for seed in config.train.seeds
                }
                for kind in kinds
            }
            for member in config.members
        },
        "chosen": {member: delivered_member(trained.folder, member)[1] for member in config.members},
        "trust": context.recipe.trusted(),
        "threads": max(1, int(config.resources.cpus)),
        "as_one": config.deliver == "ensemble",
        **graph.own_combination(config),
    }
    with within(f"cohorts.{name}"):
        function = "students.evaluate_cohort:evaluate_cohort"
        build = partial(evaluate_on_cluster, context, config.resources, function, keywords)
        return context.stages.build(stage, build)


def to_export(recipe: Recipe, name: str, trained: Built) -> dict[str, list[str]]:
    """By the deliverable's name (the cohort's, or `cohort.member` where every member is delivered), its runs."""
    config = recipe.cohorts[name]
    document = json.loads((trained.folder / "delivered.json").read_bytes())
    runs: dict[str, str] = {member: found["run"] for member, found in document["members"].items()}
    if config.deliver == "ensemble":
        return {name: [f"{member}/seed-{document['seed']}" for member in config.members]}
    if config.deliver == "all":
        return {f"{name}.{member}": [run] for member, run in runs.items()}
    return {name: [runs[document["member"] if config.deliver == "best" else config.deliver]]}


def export_cohort(context: Context, name: str, trained: Built, evaluated: Built) -> dict[str, Built]:
    built = {}
    for title, runs in to_export(context.recipe, name, trained).items():
        digest = "+".join(delivered_digest(trained, run) for run in runs)
        stage = graph.export_stage(context.recipe, title, digest, evaluated.digest)
        folders = [trained.folder / run for run in runs]
        built[title] = context.stages.build(stage, partial(_export, context, title, folders, evaluated))
    return built


def _export(context: Context, title: str, runs: Sequence[Path], evaluated: Built, folder: Path) -> tuple[Seal, Facts]:
    """One run as it is; several as their ensemble."""
    from students.ensemble import save_ensemble
    from students.export import export_student

    evaluation = json.loads((evaluated.folder / "evaluation.json").read_bytes())
    recipe_yaml = yaml.safe_dump(public(context.recipe), sort_keys=False)
    with TemporaryDirectory(prefix="ensemble-") as scratch:
        source, figures = runs[0], evaluation["members"].get(runs[0].parent.name)
        if len(runs) > 1:
            source, figures = Path(scratch), evaluation["as_one"]
            save_ensemble(source, runs)
        outputs = export_student(source, folder, name=title, evaluation=figures, recipe_yaml=recipe_yaml)
    return write_seal(folder, outputs), {}
