"""How networks and estimators are trained: teachers, students, controls; equal needs share one worker group."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from students.cohort_config import CohortCommon
from students.config import HardTerm, StudentConfig, StudentTrain, check_ramps
from teachers.config import ModuleTeacher, Resources, SklearnTeacher, TeacherConfig, TrainConfig
from teachers.errors import RecipeError
from teachers.seal import Seal, digest_of, publish, read_seal, write_seal
from teachers.storage import mirror
from teachers.users_code import within

from . import graph
from .context import Context, Facts, Taught, segments_of, sources
from .live_builder import Replicas, live_teachers
from .recipe import Recipe
from .stages import Built, Stage

if TYPE_CHECKING:
    from students.session import CohortRun, Run, RunResult, Source

Trained = TypeVar("Trained", bound=TrainConfig)


def train_networks(context: Context, prepared: Built) -> dict[str, Built]:
    """All teachers that are networks trained here."""
    mine = [name for name, teacher in context.recipe.teachers.items() if teacher.kind == "module" and teacher.train]
    stages = [graph.train_teacher_stage(context.recipe, name, prepared.digest) for name in mine]
    built: dict[Stage, Built] = {}
    for group in _groups(stages, lambda stage: _needs(context.recipe.teachers[stage.name])):
        built |= context.stages.build_together(group, partial(_fit_networks, context, prepared))
    return {stage.name: built[stage] for stage in stages}


def train_estimator(context: Context, name: str, prepared: Built) -> Built:
    """A teacher that is a scikit-learn estimator trained here."""
    stage = graph.train_teacher_stage(context.recipe, name, prepared.digest)
    return context.stages.build(stage, partial(_fit_sklearn, context, stage, prepared))


def _fit_sklearn(context: Context, stage: Stage, prepared: Built, folder: Path) -> tuple[Seal, Facts]:
    config = context.recipe.teachers[stage.name]
    assert isinstance(config, SklearnTeacher)
    start = time.monotonic()
    with within(f"teachers.{stage.name}"):
        context.cluster.call(
            _fit_estimator, config, prepared.folder, folder, resources=config.resources, user_path=context.user_path
        )
    mirror.pull_all(folder)
    outputs = [path.name for path in folder.iterdir() if path.name in ("model.skops", "teacher.json")]
    return write_seal(folder, outputs), {"train_s": round(time.monotonic() - start, 3)}


def _fit_estimator(config: SklearnTeacher, prepared: Path, folder: Path) -> None:
    from teachers.estimators import fit_sklearn
    from teachers.transfer_set import TransferSet

    fit_sklearn(config, TransferSet.open(prepared), folder)


def _fit_networks(context: Context, prepared: Built, folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Facts]]:
    runs = {stage: _teacher_run(context, stage, prepared, folder) for stage, folder in folders.items()}
    config = context.recipe.teachers[next(iter(folders)).name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    results = fit_group(context, list(runs.values()), config.resources, config.train.workers)
    return {stage: _seal_runs(folders[stage], [results[run.folder]]) for stage, run in runs.items()}


def _teacher_run(context: Context, stage: Stage, prepared: Built, folder: Path) -> "Run":
    from students.session import Run

    config = context.recipe.teachers[stage.name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    name = f"teacher/seed-{config.train.seed}"
    return Run(
        name=name,
        folder=folder / name,
        stage=folder,
        stage_name=stage.title,
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess,
        objective=(HardTerm(loss="hard"),),
        train=in_steps(config.train, prepared.folder, labelled_only=True),
        seed=config.train.seed,
        transfer_set=prepared.folder,
        sources=(),
        labelled_only=True,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
    )


def distill(context: Context, names: Sequence[str], prepared: Built, taught: Mapping[str, Taught]) -> dict[str, Built]:
    """Train students whose teachers have all labelled, with their controls; equal needs share a worker group."""
    train = segments_of(prepared, "train")
    stages = []
    for name in names:
        labels = {teacher: taught[teacher].digests(train) for teacher in context.recipe.students[name].teachers}
        stages.append(graph.distill_stage(context.recipe, name, prepared.digest, labels))
    built: dict[Stage, Built] = {}
    for group in _groups(stages, lambda stage: _needs_of_student(context.recipe, stage.name)):
        built |= context.stages.build_together(group, partial(_distill, context, prepared, taught, train))
    return {stage.name: built[stage] for stage in stages}


def _distill(
    context: Context,
    prepared: Built,
    taught: Mapping[str, Taught],
    train: Sequence[str],
    folders: Mapping[Stage, Path],
) -> dict[Stage, tuple[Seal, Facts]]:
    runs: dict[Stage, list[Run]] = {}
    for stage, folder in folders.items():
        config = context.recipe.students[stage.name]
        heard = sources(context.recipe, config, taught, train)
        runs[stage] = _student_runs(context, stage, prepared, folder, heard)
    config = context.recipe.students[next(iter(folders)).name]
    all_runs = [run for each in runs.values() for run in each]
    learners = [stage.name for stage in folders]
    results = fit_beside_live(context, prepared, taught, learners, all_runs, config.resources, config.train.workers)
    return {stage: _seal_runs(folders[stage], [results[run.folder] for run in each]) for stage, each in runs.items()}


def _student_runs(
    context: Context, stage: Stage, prepared: Built, folder: Path, heard: "tuple[Source, ...]"
) -> "list[Run]":
    from students.student_runs import student_run

    config = context.recipe.students[stage.name]
    train = budget_of(f"students.{stage.name}", config, prepared.folder)
    resolved = config.model_copy(update={"train": train})
    common: dict[str, Any] = {
        "folder": folder,
        "stage": folder,
        "stage_name": stage.title,
        "transfer_set": prepared.folder,
        "sources": heard,
        "user_path": context.user_path,
        "trust": context.recipe.trusted(),
    }
    seeds = config.train.seeds
    runs = [student_run("student", resolved, seed, **common) for seed in seeds]
    return runs + [student_run("control", resolved, seed, **common) for seed in seeds if config.control]


def fit_beside_live(
    context: Context,
    prepared: Built,
    taught: Mapping[str, Taught],
    learners: Sequence[str],
    runs: "Sequence[Run | CohortRun]",
    resources: Resources,
    workers: int,
    **options: Any,
) -> "dict[Path, RunResult]":
    """As `fit_group`; who asks live teachers comes first, so that these do not idle on their GPUs while controls are trained."""
    asking, others = by_who_asks(runs)
    with live_teachers(context, prepared, taught, learners) as live:
        results = fit_group(context, asking or others, resources, workers, live=live, **options)
    if asking and others:
        results |= fit_group(context, others, resources, workers, **options)
    return results


def by_who_asks(runs: "Sequence[Run | CohortRun]") -> "tuple[list[Run | CohortRun], list[Run | CohortRun]]":
    """Runs with a network that asks live teachers, and those without."""
    asks = [any(source.live for network in run.networks for source in network.sources) for run in runs]
    paired = list(zip(runs, asks, strict=True))
    return [run for run, does in paired if does], [run for run, does in paired if not does]


def fit_group(
    context: Context,
    runs: "Sequence[Run | CohortRun]",
    resources: Resources,
    workers: int,
    *,
    placement: str = "PACK",
    live: "Replicas | None" = None,
    apart: bool = False,
) -> "dict[Path, RunResult]":
    """Train `runs` in one group of `workers` (`apart`: in one a member); the result of every network by its folder."""
    from students.curves import gather_metrics
    from students.ray_codistil import codistil_on_ray
    from students.ray_train import fit_on_ray

    gpus = context.cluster.gpus(resources)
    context.journal.on(context.cluster.nodes)
    for stage_name, folder in {run.stage_name: run.stage for run in runs}.items():
        context.tracker.follow(stage_name, folder / "metrics.jsonl")
        budgets = dict(_budget(network) for run in runs if run.stage_name == stage_name for network in run.networks)
        context.journal.work(stage_name, workers=workers, cpus=resources.cpus, gpus=gpus, trainings=budgets)
    mailbox = context.tracker.mailbox()
    keywords = {"resources": resources, "workers": workers, "gpus": gpus, "mailbox": mailbox, "placement": placement}
    fit: Callable[..., list[RunResult]] = codistil_on_ray if apart else fit_on_ray
    try:
        results = fit(runs, **keywords, live=live)
    finally:
        for folder in {run.stage for run in runs}:
            gather_metrics(folder)
    for stage_name in {run.stage_name for run in runs}:
        context.tracker.stage_done(stage_name)
    networks = [network for run in runs for network in run.networks]
    return {network.folder: result for network, result in zip(networks, results, strict=True)}


def _budget(run: "Run") -> tuple[str, dict[str, Any]]:
    """Name and size of one training: its optimiser steps, and the rows that it draws from."""
    _, shares = run.membership.share_of_rows
    rows = rows_drawn(run.transfer_set, labelled_only=run.labelled_only) / shares
    return run.name, {"steps": run.train.steps, "batch_size": run.train.batch_size, "rows": rows}


def _seal_runs(folder: Path, results: "list[RunResult]") -> tuple[Seal, Facts]:
    """Seal a training stage; delivered is the seed with the best validation metric, ties to the lower seed."""
    from students.evaluate import delivered as best_seed

    mine = {result.seed: result for result in results if not result.name.startswith("control/")}
    best = mine[best_seed({seed: result.folder for seed, result in mine.items()})]
    publish(folder / "delivered.json", json.dumps({"format": 1, "run": best.name, "seed": best.seed}).encode())
    outputs = ["delivered.json", *outputs_of(folder, results)]
    facts = {"steps": sum(result.steps for result in results)}
    return write_seal(folder, outputs), facts


def outputs_of(folder: Path, results: "Sequence[RunResult]") -> Iterator[str]:
    """Every file of the sealed runs of a training stage, relative."""
    for result in results:
        seal = read_seal(folder / result.name)
        assert seal is not None
        yield from (f"{result.name}/{path}" for path in (*(output.path for output in seal.outputs), "SEAL.json"))


def in_steps(train: Trained, prepared: Path, *, labelled_only: bool) -> Trained:
    """The budget in steps, from the rows that the student (not its control) draws from. `prepared`: the transfer set."""
    from students.optimize import resolve_steps

    steps = resolve_steps(train, rows_drawn(prepared, labelled_only=labelled_only))
    return train.model_copy(update={"steps": steps, "epochs": None})


def budget_of(key: str, learner: StudentConfig | CohortCommon, prepared: Path) -> StudentTrain:
    """`train` of a student or cohort, in steps. Raises RecipeError, which begins with `key`, for a ramp that is longer."""
    train = in_steps(learner.train, prepared, labelled_only=False)
    try:
        check_ramps(learner.objective, train)
    except ValueError as error:
        raise RecipeError(f"{key}.{error}") from None
    return train


def rows_drawn(prepared: Path, *, labelled_only: bool) -> int:
    """How many rows a training draws from."""
    from teachers.transfer_set import TransferSet

    transfer_set = TransferSet.open(prepared)
    return transfer_set.num_labelled if labelled_only else sum(each.num_rows for each in transfer_set.of("train"))


def _needs(config: ModuleTeacher | StudentConfig | TeacherConfig) -> str:
    train = getattr(config, "train", None)
    workers = train.workers if isinstance(train, TrainConfig) else 1
    return digest_of([config.resources.model_dump(mode="json"), workers])


def _needs_of_student(recipe: Recipe, name: str) -> str:
    """Students with the same live teachers may train one after the other beside them."""
    return digest_of([_needs(recipe.students[name]), recipe.live_teachers(name)])


def _groups(stages: Sequence[Stage], key: Callable[[Stage], str]) -> list[list[Stage]]:
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    return list(groups.values())
