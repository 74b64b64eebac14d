"""Trainings in one worker group, beside the live teachers that they ask; their budgets and what they leave."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from students.config.estimator import EstimatorStudent, EstimatorStudentTrain
from students.config.hints import first_stage
from students.config.student import StudentTrain
from students.config.terms import check_ramps
from teachers.config.resources import Resources
from teachers.config.training import TrainConfig
from teachers.errors import RecipeError
from teachers.process.waiting import SideBySide
from teachers.resources.bundles import num_threads, room_for
from teachers.storage.seal import Seal, read_seal, write_seal
from teachers.users_code.imports import UserPath

from ..cluster.capacity import request_of, wait_for_room_s, workers_of
from ..cluster.cluster import Cluster
from ..recipe.model import Learner
from ..stages.stages import Built, Stage
from .context import Context, Facts, Taught

if TYPE_CHECKING:
    from students.runs.run import CohortRun, Run, RunResult
    from teachers.transfer_set.folds import Folds

Replicas = Mapping[str, Sequence[Any]]
"""Actor handles by the teacher's name."""


@contextmanager
def live_teachers(
    context: Context, prepared: Built, taught: Mapping[str, Taught], learners: Sequence[str]
) -> Iterator[Replicas]:
    """Replicas of the live teachers of `learners`, who share them and a worker group; nothing is started without any.

    Raises EnvironmentUnfit when the cluster has no room for replicas and workers at once.
    """
    names = context.recipe.live_teachers(learners[0])
    if not names:
        yield {}
        return
    from teachers.labelling.live import live_replicas
    from teachers.labelling.shard import TeacherSpec
    from teachers.resources.reservation import Request

    context.cluster.join()
    trust = context.recipe.trusted()
    specs = [TeacherSpec(name, taught[name].config, taught[name].trained, trust, context.user_path) for name in names]
    config = context.recipe.learners[learners[0]]
    workers = Request.of(f"workers of {', '.join(learners)}", config.resources, workers_of(config))
    with live_replicas(specs, prepared.folder, [workers], wait_for_room_s()) as replicas:
        yield replicas


Trained = TypeVar("Trained", bound=TrainConfig)


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
    results: dict[Path, RunResult] = {}
    if asking:
        with live_teachers(context, prepared, taught, learners) as live:
            results |= fit_group(context, asking, resources, workers, live=live, **options)
    if others:
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
    """Train `runs` in one group of `workers` (`apart`: in one a member); the result of every network by its folder.

    Students that one worker trains and that ask nobody are plain Ray tasks, which start in seconds less than a trainer,
    as many side by side as there is room for.
    """
    from students.runs.curves import gather_metrics
    from students.runs.run import CohortRun

    gpus = context.cluster.gpus(resources)
    context.journal.on(context.cluster.nodes)
    in_tasks = workers == 1 and not live and not any(isinstance(run, CohortRun) for run in runs)
    if in_tasks:
        up = [node["Resources"] for node in context.cluster.nodes]
        workers = max(1, min(len(runs), room_for(request_of(up, resources), up)))
    for run in runs:
        context.tracker.follow(run.stage_name, run.stage / "metrics.jsonl")
        budgets = dict(_budget(network) for network in run.networks)
        context.journal.work(run.stage_name, workers=workers, cpus=resources.cpus, gpus=gpus, trainings=budgets)
    mailbox = context.tracker.mailbox()
    given = {"resources": resources, "workers": workers, "gpus": gpus, "mailbox": mailbox}
    try:
        if in_tasks:
            results = fit_in_tasks(context.cluster, runs, context.user_path, **given)
        else:
            results = _fit_on_ray(runs, **given, placement=placement, live=live, apart=apart)
    finally:
        for folder in {run.stage for run in runs}:
            gather_metrics(folder)
    for stage_name in {run.stage_name for run in runs}:
        context.tracker.stage_done(stage_name)
    networks = [network for run in runs for network in run.networks]
    return {network.folder: result for network, result in zip(networks, results, strict=True)}


def _fit_on_ray(runs: "Sequence[Run | CohortRun]", *, apart: bool, **given: Any) -> "list[RunResult]":
    from students.fitting.codistil import codistil_on_ray
    from students.fitting.on_ray import fit_on_ray

    return codistil_on_ray(runs, **given) if apart else fit_on_ray(runs, **given)  # type: ignore[arg-type]  # cohorts


def fit_in_tasks(
    cluster: Cluster,
    runs: "Sequence[Run | CohortRun]",
    user_path: UserPath,
    *,
    resources: Resources,
    workers: int,
    gpus: float,
    mailbox: Any,
) -> "list[RunResult]":
    """Train each of `runs` in a task of its own, as many at a time as `workers`; the first that fails ends the others."""
    task = "students.fitting.in_task:fit_in_task"
    settings = (num_threads(resources), gpus, mailbox, workers)
    call = partial(cluster.call, task, resources=resources, user_path=user_path)
    with SideBySide("training", workers) as threads:
        waiting = [threads.start(call, [run], *settings) for run in runs]
        return [result for future in waiting for result in threads.outcome(future)]


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
    folders: Mapping[Stage, Path], results: "Mapping[Stage, Sequence[RunResult]]", seconds: float
) -> dict[Stage, tuple[Seal, Facts]]:
    """Seal stages that were trained in one go, and share out the time that it took by steps."""
    done = {stage: sealed(folders[stage], mine) for stage, mine in results.items()}
    steps = max(sum(facts["steps"] for _, facts in done.values()), 1)
    return {
        stage: (seal, {**facts, "seconds": seconds * facts["steps"] / steps}) for stage, (seal, facts) in done.items()
    }


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
