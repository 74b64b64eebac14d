"""How networks and estimators are trained: teachers, students, controls; equal needs share one worker group."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.student import HardTerm, StudentConfig
from teachers.config.teacher import ModuleTeacher, SklearnTeacher, TeacherConfig
from teachers.storage import mirror
from teachers.storage.seal import Seal, digest_of, publish, write_seal
from teachers.users_code.calls import within

from ..cluster.capacity import workers_of
from ..recipe.model import Recipe
from ..stages import keys
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught, segments_of, sources
from .fit import budget_of, fit_beside_live, fit_group, in_steps, outputs_of

if TYPE_CHECKING:
    from students.runs.run import Run, RunResult, Source


def train_networks(context: Context, names: Sequence[str], prepared: Built) -> dict[str, Built]:
    """Teachers that are networks trained here; equal needs share a worker group."""
    stages = [keys.train_teacher_stage(context.recipe, name, prepared.digest) for name in names]
    built: dict[Stage, Built] = {}
    for group in _groups(stages, lambda stage: _needs(context.recipe.teachers[stage.name])):
        built |= context.stages.build_together(group, partial(_fit_networks, context, prepared))
    return {stage.name: built[stage] for stage in stages}


def train_alone(context: Context, name: str, prepared: Built) -> Built:
    """A teacher trained here that needs no worker group: an estimator, or a network of one worker."""
    if context.recipe.teachers[name].kind == "module":
        return train_networks(context, [name], prepared)[name]
    stage = keys.train_teacher_stage(context.recipe, name, prepared.digest)
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
    from teachers.models.estimators import fit_sklearn
    from teachers.transfer_set.transfer_set import TransferSet

    fit_sklearn(config, TransferSet.open(prepared), folder)


def _fit_networks(context: Context, prepared: Built, folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Facts]]:
    runs = {stage: _teacher_run(context, stage, prepared, folder) for stage, folder in folders.items()}
    config = context.recipe.teachers[next(iter(folders)).name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    workers = config.train.workers
    results = fit_group(context, list(runs.values()), config.resources, workers, in_task=workers == 1)
    return {stage: _seal_runs(folders[stage], [results[run.folder]]) for stage, run in runs.items()}


def _teacher_run(context: Context, stage: Stage, prepared: Built, folder: Path) -> "Run":
    from students.runs.run import Run

    config = context.recipe.teachers[stage.name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    name = f"teacher/seed-{config.train.seed}"
    classes = tuple(config.classes or ())
    return Run(
        name=name,
        folder=folder / name,
        stage=folder,
        stage_name=stage.title,
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess,
        objective=(HardTerm(loss="hard"),),
        train=in_steps(config.train, prepared.folder, labelled_only=True, classes=classes),
        seed=config.train.seed,
        transfer_set=prepared.folder,
        sources=(),
        labelled_only=True,
        classes=classes,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
    )


def distill(context: Context, names: Sequence[str], prepared: Built, taught: Mapping[str, Taught]) -> dict[str, Built]:
    """Train students whose teachers have all labelled, with their controls; equal needs share a worker group."""
    train = segments_of(prepared, "train")
    stages = []
    for name in names:
        labels = {teacher: taught[teacher].digests(train) for teacher in context.recipe.students[name].teachers}
        stages.append(keys.distill_stage(context.recipe, name, prepared.digest, labels))
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
    from students.runs.of_student import student_run

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


def _seal_runs(folder: Path, results: "list[RunResult]") -> tuple[Seal, Facts]:
    """Seal a training stage; delivered is the seed with the best validation metric, ties to the lower seed."""
    from students.measuring.evaluate import delivered as best_seed

    mine = {result.seed: result for result in results if not result.name.startswith("control/")}
    best = mine[best_seed({seed: result.folder for seed, result in mine.items()})]
    publish(folder / "delivered.json", json.dumps({"format": 1, "run": best.name, "seed": best.seed}).encode())
    outputs = ["delivered.json", *outputs_of(folder, results)]
    facts = {"steps": sum(result.steps for result in results)}
    return write_seal(folder, outputs), facts


def _needs(config: StudentConfig | TeacherConfig) -> str:
    return digest_of([config.resources.model_dump(mode="json"), workers_of(config)])


def _needs_of_student(recipe: Recipe, name: str) -> str:
    """Students with the same live teachers may train one after the other beside them."""
    return digest_of([_needs(recipe.students[name]), recipe.live_teachers(name)])


def _groups(stages: Sequence[Stage], key: Callable[[Stage], str]) -> list[list[Stage]]:
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    return list(groups.values())
