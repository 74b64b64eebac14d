"""How networks and estimators are trained: teachers, students, controls; equal needs share one worker group."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig
from students.config.terms import HardTerm
from teachers.config.teacher import ModuleTeacher, SklearnTeacher, TeacherConfig, TeacherTrain
from teachers.storage import mirror
from teachers.storage.seal import Seal, digest_of, write_seal
from teachers.transfer_set.folds import FOLDS, PARTS, checked
from teachers.users_code.calls import within

from ..cluster.capacity import workers_of
from ..recipe.model import Recipe
from ..stages import keys
from ..stages.stages import Built, Stage
from ..stages.trainings import Kind, training_stages
from .context import Context, Facts, Taught, segments_heard, sources, weights_begun_with
from .fit import budget_of, fit_beside_live, fit_group, in_steps, seal_all, sealed
from .learned import Learned

if TYPE_CHECKING:
    from students.runs.run import Run, Source


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
    start, gpus = time.monotonic(), context.cluster.gpus(config.resources)
    config = config.model_copy(update={"preprocess": config.preprocess.absolute()})
    with within(f"teachers.{stage.name}"):
        given = f"{__name__}:fit_estimator", config, prepared.folder, folder, gpus
        outputs = context.cluster.call(*given, resources=config.resources, user_path=context.user_path)
    mirror.pull_all(folder)
    return write_seal(folder, outputs), {"train_s": round(time.monotonic() - start, 3)}


def fit_estimator(config: SklearnTeacher, prepared: Path, folder: Path, gpus: float) -> list[str]:
    from teachers.models.estimators import fit_sklearn
    from teachers.transfer_set.transfer_set import TransferSet

    return fit_sklearn(config, TransferSet.open(prepared), folder, gpus=gpus)


def _fit_networks(context: Context, prepared: Built, folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Facts]]:
    runs = {stage: _teacher_runs(context, stage, prepared, folder) for stage, folder in folders.items()}
    config = context.recipe.teachers[next(iter(folders)).name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    in_turn = [run for mine in runs.values() for run in mine]
    results = fit_group(context, in_turn, config.resources, config.train.workers)
    return {
        stage: sealed(folders[stage], [results[run.folder] for run in mine], _folds_file(folders[stage]))
        for stage, mine in runs.items()
    }


def folder_of(recipe: Recipe, name: str, built: Built) -> Path:
    """What a teacher that was trained here is loaded from: its model folder, or the stage's of an estimator or of folds."""
    config = recipe.teachers[name]
    if isinstance(config, ModuleTeacher) and config.train is not None and config.train.folds is None:
        return built.folder / f"{PARTS}/seed-{config.train.seed}"
    return built.folder


def _teacher_runs(context: Context, stage: Stage, prepared: Built, folder: Path) -> "list[Run]":
    """The training of a teacher that is a network; of one in folds those of its parts."""
    from teachers.models.adapters import folds_of
    from teachers.transfer_set.transfer_set import TransferSet

    config = context.recipe.teachers[stage.name]
    assert isinstance(config, ModuleTeacher) and config.train is not None
    where: dict[str, Any] = {"folder": folder, "transfer_set": prepared.folder, "user_path": context.user_path}
    where |= {"trust": context.recipe.trusted()}
    classes, folds = config.classes or (), folds_of(config)
    if folds is None:
        train = in_steps(config.train, prepared.folder, labelled_only=True, teaches=True, classes=classes)
        return [teacher_run(stage.name, config, train, **where)]
    transfer_set = TransferSet.open(prepared.folder)
    transfer_set = transfer_set.of_classes(classes) if classes else transfer_set
    with within(f"teachers.{stage.name}"):
        learnt = checked(folds, transfer_set)
    folds.save(folder, learnt)
    parts = [(name, (folds, number)) for number, name in enumerate(folds.parts)]
    return [
        teacher_run(
            stage.name,
            config,
            in_steps(config.train, prepared.folder, labelled_only=True, classes=classes, part=part),
            run=f"{PARTS}/{name}",
            part=part,
            **where,
        )
        for name, part in parts
    ]


def _folds_file(folder: Path) -> list[str]:
    return [FOLDS] if (folder / FOLDS).is_file() else []


def teacher_run(
    name: str, config: ModuleTeacher, train: TeacherTrain, *, folder: Path, run: str = "", **common: Any
) -> "Run":
    """The training of a teacher that is a network, or of a part of one, named `run`; `train` is in steps."""
    from students.runs.run import Run

    run = run or f"{PARTS}/seed-{train.seed}"
    return Run(
        name=run,
        folder=folder / run,
        stage=folder,
        stage_name=f"train_teacher/{name}",
        model=config.model,
        arguments=config.arguments,
        preprocess=config.preprocess.absolute(),
        objective=(HardTerm(loss="hard"),),
        train=train,
        seed=train.seed,
        labelled_only=True,
        teaches=True,
        classes=tuple(config.classes or ()),
        **common,
    )


def distill(
    context: Context, names: Sequence[str], prepared: Built, taught: Mapping[str, Taught]
) -> dict[str, Learned]:
    """Train students whose teachers have all labelled, with their controls; equal needs share a worker group."""
    wanted: dict[Stage, tuple[Kind, int]] = {}
    for name in names:
        config = context.recipe.students[name]
        heard = segments_heard(context.recipe, prepared, config)
        labels = {teacher: taught[teacher].digests(heard) for teacher in config.teachers}
        begun = weights_begun_with(config, taught)
        stages = training_stages(context.recipe, name, prepared.digest, labels, begun)
        wanted |= {stage: training for training, stage in stages.items()}
    built: dict[Stage, Built] = {}
    for group in _groups([*wanted], lambda stage: _needs_of_student(context.recipe, stage.name)):
        built |= context.stages.build_together(group, partial(_distill, context, prepared, taught, wanted))
    return {name: Learned({wanted[stage]: built[stage] for stage in wanted if stage.name == name}) for name in names}


def _distill(
    context: Context,
    prepared: Built,
    taught: Mapping[str, Taught],
    wanted: Mapping[Stage, tuple[Kind, int]],
    folders: Mapping[Stage, Path],
) -> dict[Stage, tuple[Seal, Facts]]:
    start = time.monotonic()
    students = {stage.name: context.recipe.students[stage.name] for stage in folders}
    heard = {
        name: sources(context.recipe, config, taught, segments_heard(context.recipe, prepared, config))
        for name, config in students.items()
    }
    runs = {
        stage: training_of(context, stage.name, *wanted[stage], prepared, folder, heard[stage.name])
        for stage, folder in folders.items()
    }
    config = next(iter(students.values()))
    in_turn = sorted(runs.values(), key=lambda run: run.labelled_only)  # students before controls
    results = fit_beside_live(context, prepared, taught, [*students], in_turn, config.resources, workers_of(config))
    mine = {stage: [results[run.folder]] for stage, run in runs.items()}
    return seal_all(folders, mine, time.monotonic() - start)


def training_of(
    context: Context, name: str, kind: Kind, seed: int, prepared: Built, folder: Path, heard: "tuple[Source, ...]"
) -> "Run":
    """The training of a student, or of its control, from what it hears; `folder`: of its stage."""
    from students.runs.of_student import student_run

    assert kind != "offline"
    config = context.recipe.students[name]
    train = budget_of(f"students.{name}", config, prepared.folder)
    return student_run(
        kind,
        config.model_copy(update={"train": train}),
        seed,
        folder=folder,
        stage=folder,
        stage_name=f"distill/{name}",
        transfer_set=prepared.folder,
        sources=heard,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
    )


def _needs(config: StudentConfig | EstimatorStudent | TeacherConfig) -> str:
    return digest_of(
        [isinstance(config, EstimatorStudent), config.resources.model_dump(mode="json"), workers_of(config)]
    )


def _needs_of_student(recipe: Recipe, name: str) -> str:
    """Students with the same live teachers may train one after the other beside them."""
    return digest_of([_needs(recipe.students[name]), recipe.live_teachers(name)])


def _groups(stages: Sequence[Stage], key: Callable[[Stage], str]) -> list[list[Stage]]:
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    return list(groups.values())
