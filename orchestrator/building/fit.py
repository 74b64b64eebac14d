"""Trainings in one group of workers, or in one task, beside the live teachers that they ask; their budgets and what they leave."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from students.config.cohort import CodistillationCohort, CohortCommon
from students.config.estimator import EstimatorStudent, EstimatorStudentTrain
from students.config.hints import check_heard, first_stage
from students.config.student import StudentTrain
from students.config.terms import check_ramps
from teachers.config.teacher import TeacherConfig
from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.resources.bundles import num_threads, room_for
from teachers.storage.seal import Seal, read_seal, write_seal

from ..cluster.capacity import request_of, wait_for_room_s, workers_of
from ..recipe.model import Learner
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught
from .turns import Turn

if TYPE_CHECKING:
    from students.runs.run import CohortRun, Run, RunResult
    from teachers.transfer_set.folds import Folds

Replicas = Mapping[str, Sequence[Any]]
"""Actor handles by the teacher's name."""


@contextmanager
def live_teachers(
    context: Context, prepared: Built, taught: Mapping[str, Taught], learners: Sequence[str]
) -> Iterator[Replicas]:
    """Replicas of the live teachers of `learners`, who share them and a worker group.

    Raises EnvironmentUnfit when the cluster has no room for replicas and workers at once.
    """
    from teachers.labelling.live import live_replicas
    from teachers.labelling.shard import TeacherSpec
    from teachers.resources.reservation import Request

    names, trust = context.recipe.live_teachers(learners[0]), context.recipe.trusted()
    specs = [TeacherSpec(name, taught[name].config, taught[name].trained, trust, context.user_path) for name in names]
    config = context.recipe.learners[learners[0]]
    workers = Request.of(f"workers of {', '.join(learners)}", config.resources, workers_of(config))
    with live_replicas(specs, prepared.folder, [workers], wait_for_room_s()) as replicas:
        yield replicas


Trained = TypeVar("Trained", bound=TrainConfig)


def starts_alone(config: Learner | TeacherConfig) -> bool:
    """Whether one worker trains it, which is a plain task of Ray: that starts in seconds less than a group of workers."""
    return workers_of(config) == 1 and not isinstance(config, CohortCommon)


def fit_runs(
    context: Context,
    runs: "Sequence[Run | CohortRun]",
    config: Learner | TeacherConfig,
    turn: Turn,
    live: Replicas | None = None,
) -> "dict[Path, RunResult]":
    """Train `runs` in turn, as the resources and workers of `config` say; the result of every network by its folder."""
    from students.runs.curves import gather_metrics

    resources, workers = config.resources, workers_of(config)
    gpus = context.cluster.gpus(resources)
    context.journal.on(context.cluster.nodes)
    for run in runs:
        context.tracker.follow(run.stage_name, run.stage / "metrics.jsonl")
        given = {"workers": workers * turn.beside(), "cpus": resources.cpus, "gpus": gpus}
        context.journal.work(run.stage_name, **given, trainings=budgets_of(run))
    mailbox = context.tracker.mailbox()
    try:
        if starts_alone(config) and not live:
            results = _fit_in_task(context, runs, config, turn, gpus, mailbox)
        else:
            results = _fit_in_group(
                runs, config, resources=resources, workers=workers, gpus=gpus, mailbox=mailbox, live=live
            )
    finally:
        for folder in {run.stage for run in runs}:
            gather_metrics(folder)
    networks = [network for run in runs for network in run.networks]
    return {network.folder: result for network, result in zip(networks, results, strict=True)}


def _fit_in_group(
    runs: "Sequence[Run | CohortRun]", config: Learner | TeacherConfig, **given: Any
) -> "list[RunResult]":
    from students.fitting.codistil import codistil_on_ray
    from students.fitting.on_ray import fit_on_ray

    if isinstance(config, CodistillationCohort) and config.workers_per_member is not None:
        return codistil_on_ray(runs, **given, placement=config.placement)  # type: ignore[arg-type]  # cohorts
    placement = config.placement if isinstance(config, CohortCommon) else "PACK"
    return fit_on_ray(runs, **given, placement=placement)


def _fit_in_task(
    context: Context,
    runs: "Sequence[Run | CohortRun]",
    config: Learner | TeacherConfig,
    turn: Turn,
    gpus: float,
    mailbox: Any,
) -> "list[RunResult]":
    """Beside as many others as there is room for, which share a machine's memory."""
    up = [node["Resources"] for node in context.cluster.nodes]
    at_once = max(1, min(turn.most, room_for(request_of(up, config.resources), up)))
    results: list[RunResult] = context.cluster.call(
        "students.fitting.in_task:fit_in_task",
        *(runs, num_threads(config.resources), gpus, mailbox, at_once),
        resources=config.resources,
        user_path=context.user_path,
        node=turn.node,
    )
    return results


def budgets_of(run: "Run | CohortRun") -> dict[str, dict[str, Any]]:
    """Of each of its networks, by name."""
    return dict(map(_budget, run.networks))


def _budget(run: "Run") -> tuple[str, dict[str, Any]]:
    """Name and size of one training: its optimiser steps, the rows that it draws from, and its stage's folder in OUT."""
    _, shares = run.membership.share_of_rows
    whose: dict[str, Any] = {"labelled_only": run.labelled_only, "teaches": run.teaches}
    rows = rows_drawn(run.transfer_set, classes=run.classes, part=run.part, **whose) / shares
    budget = {"steps": run.train.steps, "batch_size": run.train.batch_size, "rows": rows}
    return run.name, {**budget, "folder": "/".join(run.stage.parts[-2:])}


def sealed(folder: Path, results: "Sequence[RunResult]", more: Sequence[str] = ()) -> tuple[Seal, Facts]:
    """Seal a training stage, whose outputs are every file of its sealed runs, and `more`."""
    outputs = [*more]
    for result in results:
        seal = read_seal(folder / result.name)
        assert seal is not None
        outputs += [f"{result.name}/{path}" for path in (*(output.path for output in seal.outputs), "SEAL.json")]
    return write_seal(folder, outputs), {"steps": sum(result.steps for result in results)}


def seal_all(
    folders: Mapping[Stage, Path], results: "Mapping[Stage, Sequence[RunResult]]", began: float, on: Sequence[str]
) -> dict[Stage, tuple[Seal, Facts]]:
    """Seal stages that were trained in turn `on` these nodes since `began`, and share out the time that it took by steps."""
    seconds = time.time() - began
    done = {stage: sealed(folders[stage], mine) for stage, mine in results.items()}
    all_steps, found = max(sum(facts["steps"] for _, facts in done.values()), 1), dict[Stage, tuple[Seal, Facts]]()
    for stage, (seal, facts) in done.items():
        took = seconds * facts["steps"] / all_steps
        found[stage] = seal, {**facts, "begun": began, "ended": began + took, "seconds": took, "on": [*on]}
        began += took
    return found


def in_steps(train: Trained, prepared: Path, **whose: Any) -> Trained:
    """The budget in steps, from the rows that the student (not its control) draws from, which are `whose` (`rows_drawn`)."""
    from students.training.optimize import resolve_steps

    steps = resolve_steps(train, rows_drawn(prepared, **whose))
    return train.model_copy(update={"steps": steps, "epochs": None})


def budget_of(key: str, learner: Learner, prepared: Path) -> StudentTrain | EstimatorStudentTrain:
    """`train` of a student or cohort, in steps. Raises RecipeError, which begins with `key`, for a ramp that is longer."""
    if isinstance(learner, EstimatorStudent):
        return learner.train
    train = in_steps(learner.train, prepared, labelled_only=False)
    try:
        hints = getattr(learner, "hints", [])
        check_ramps(learner.objective, train, first_stage=first_stage(hints))
        check_ramps(hints, train, "hints", first_stage(hints))
        check_heard(hints, train, rows_drawn(prepared, labelled_only=False))
    except ValueError as error:
        raise RecipeError(f"{key}.{error}") from None
    return train


def rows_drawn(
    prepared: Path,
    *,
    labelled_only: bool,
    teaches: bool = False,
    classes: Sequence[str] = (),
    part: "tuple[Folds, int] | None" = None,
) -> int:
    """How many rows of the transfer set in `prepared` a training draws from.

    `teaches`: of a teacher; `classes`: of a network that learns these only; `part`: of a teacher in folds.
    """
    from teachers.transfer_set.folds import labelled_keys
    from teachers.transfer_set.own_rows import of_teachers
    from teachers.transfer_set.transfer_set import TransferSet

    transfer_set = of_teachers(TransferSet.open(prepared)) if teaches else TransferSet.open(prepared)
    if classes:
        transfer_set = transfer_set.of_classes(classes)
    if part is not None:
        folds, number = part
        return int(folds.learnt_by(number, labelled_keys(transfer_set)[1]).sum())
    return transfer_set.num_labelled if labelled_only else sum(each.num_rows for each in transfer_set.of("train"))
