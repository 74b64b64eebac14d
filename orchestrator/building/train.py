"""How teachers are trained, and what a training of a student is: networks and estimators."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from students.config.estimator import EstimatorStudent
from students.config.terms import HardTerm
from teachers.config.teacher import ModuleTeacher, SklearnTeacher, TeacherConfig, TeacherTrain
from teachers.process.waiting import outcome
from teachers.storage import mirror
from teachers.storage.seal import Seal, digest_of, write_seal
from teachers.transfer_set.folds import FOLDS, PARTS, checked
from teachers.users_code.calls import within

from ..cluster.capacity import workers_of
from ..cluster.gangs import GANGS
from ..recipe.following import follows
from ..recipe.model import Learner, Recipe
from ..stages import keys
from ..stages.stages import Built, Stage
from ..stages.trainings import Kind, views_of_learner
from .context import Context, Facts
from .fit import budget_of, fit_runs, in_steps, sealed, starts_alone
from .turns import Turn, Turns

if TYPE_CHECKING:
    from students.runs.run import Run, RunResult, Source


def train_teacher(context: Context, turns: Turns, name: str, prepared: Built) -> Built:
    """A teacher trained here: a network, its parts in folds in turns of their own, or an estimator."""
    stage = keys.train_teacher_stage(context.recipe, name, prepared.digest)
    build = _fit_network if context.recipe.teachers[name].kind == "module" else _fit_sklearn
    return context.stages.build(stage, partial(build, context, turns, stage, prepared))


def _fit_sklearn(context: Context, turns: Turns, stage: Stage, prepared: Built, folder: Path) -> tuple[Seal, Facts]:
    config = context.recipe.teachers[stage.name]
    assert isinstance(config, SklearnTeacher)
    config = config.model_copy(update={"preprocess": config.preprocess.absolute()})

    def fit(nothing: Sequence[None], turn: Turn) -> list[tuple[list[str], Facts]]:
        start, began = time.monotonic(), time.time()
        with within(f"teachers.{stage.name}"):
            outputs = context.cluster.call(
                f"{__name__}:fit_estimator",
                *(config, prepared.folder, folder, context.cluster.gpus(config.resources)),
                resources=config.resources,
                user_path=context.user_path,
                node=turn.node,
            )
        took = time.monotonic() - start
        return [(outputs, {"train_s": round(took, 3), "begun": began, "seconds": took, "on": turn.on})]

    gang = GANGS["train_teacher"](context.recipe, stage.name)
    outputs, facts = outcome(turns.start(stage.title, gang, fit, None))
    mirror.pull_all(folder)
    return write_seal(folder, outputs), facts


def fit_estimator(config: SklearnTeacher, prepared: Path, folder: Path, gpus: float) -> list[str]:
    from teachers.models.estimators import fit_sklearn
    from teachers.transfer_set.transfer_set import TransferSet

    return fit_sklearn(config, TransferSet.open(prepared), folder, gpus=gpus)


def _fit_network(context: Context, turns: Turns, stage: Stage, prepared: Built, folder: Path) -> tuple[Seal, Facts]:
    """Teachers with equal needs and several workers each may come in turn in one group."""
    config, recipe = context.recipe.teachers[stage.name], context.recipe

    def fit(runs: "Sequence[Run]", turn: Turn) -> "list[tuple[RunResult, float, Sequence[str]]]":
        began = time.time()
        return [(result, began, turn.on) for result in fit_runs(context, runs, config, turn).values()]

    gang = GANGS["train_teacher"](recipe, stage.name)
    group = "" if starts_alone(config) else f"teachers {needs(config)}"
    waiting = []
    for run in _teacher_runs(context, stage, prepared, folder):
        name = f"{stage.title}/{run.name.rpartition('/')[2]}" if run.part is not None else stage.title
        waiting.append(turns.start(name, gang, fit, run, group))
    found = [outcome(future) for future in waiting]
    context.tracker.stage_done(stage.title)
    seal, facts = sealed(folder, [result for result, _, _ in found], _folds_file(folder))
    began = min(began for _, began, _ in found)
    on = sorted({node for _, _, nodes in found for node in nodes})
    return seal, {**facts, "begun": began, "seconds": time.time() - began, "on": on}


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
        views=views_of_learner(context.recipe, config),
        follow=kind == "student" and follows(config),
        sources=heard,
        user_path=context.user_path,
        trust=context.recipe.trusted(),
    )


def needs(config: Learner | TeacherConfig) -> str:
    return digest_of(
        [isinstance(config, EstimatorStudent), config.resources.model_dump(mode="json"), workers_of(config)]
    )
