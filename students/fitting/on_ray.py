"""The engine under Ray Train: one TorchTrainer for a list of runs, on 1 to N workers.

A trainer takes several seconds before its first step, so a stage starts one and trains all its seeds in it. Ray
restarts a group whose worker died; the engine then goes on from its own checkpoints, so Ray keeps none.
"""

import os
import shutil
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
import torch.distributed as dist

from teachers.config.resources import Resources
from teachers.errors import CollegiumError, UsersCodeError
from teachers.labelling.live import ReplicaClient
from teachers.process.log_lines import Carried
from teachers.process.waiting import aside
from teachers.resources.bundles import num_threads
from teachers.resources.device import device_of
from teachers.storage.disk import is_unfit, unfit
from teachers.users_code.calls import described
from teachers.users_code.imports import check_own_packages, use_user_path

from ..runs.run import CohortRun, Run, RunResult
from ..runs.session import PlainSession, Session
from ..training.train import CHECKPOINT_EVERY_S
from .fit import fit
from .groups import Watch
from .ranks import Ranks

if TYPE_CHECKING:
    from .own_trainer import OwnTrainer

TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the controller's poll; at Ray's 2 s a short training waits for it
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",  # Ray's own collectives would wait for ever for a rank that left
}


BUGS = (
    CollegiumError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a worker's code raises the next time too."""


def ray_session(mailbox: Any = None, live: Mapping[str, Sequence[Any]] | None = None) -> Session:
    """This worker of a TorchTrainer. `mailbox` is an actor handle whose `put` takes points of curves, or None.

    `live`: actor handles of the live teachers' replicas. Raises EnvironmentUnfit for a GPU that is not there.
    """
    import ray.train
    import ray.train.torch

    world = ray.train.get_context().get_world_size()
    rank = ray.train.get_context().get_world_rank()
    device_of("a worker of the training", len(ray.get_gpu_ids()))
    device: torch.device = ray.train.torch.get_device()
    answering = ReplicaClient(live, rank=rank) if live else None
    return PlainSession(device, mailbox, answering) if world == 1 else Ranks(device, mailbox, answering)


@dataclass(frozen=True)
class Job:
    """What one worker is told."""

    runs: tuple[Run | CohortRun, ...]
    threads: int
    mailbox: Any
    checkpoint_every_s: float
    live: Mapping[str, Sequence[Any]] | None
    log_as: Carried


def train_on_worker(job: Mapping[str, Any]) -> list[RunResult] | CollegiumError:
    """The training function of a worker. What would fail again is returned: raised, Ray would start the group again."""
    work: Job = job["job"]
    work.log_as.take_up()
    torch.set_num_threads(work.threads)  # Ray sets OMP_NUM_THREADS to 1
    try:
        use_user_path(work.runs[0].networks[0].user_path)
        check_own_packages()
        session = ray_session(work.mailbox, work.live)
        return fit(work.runs, session, checkpoint_every_s=work.checkpoint_every_s)
    except (*BUGS, OSError) as error:
        if isinstance(error, OSError) and not is_unfit(error):
            raise
        if may_be_a_lost_rank(error) and dist.get_world_size() > 1:
            raise
        if dist.get_world_size() > 1:
            dist.destroy_process_group()  # the other ranks must not wait for this one
        return error if isinstance(error, CollegiumError) else unforeseen(error, work.runs[0])


def may_be_a_lost_rank(error: Exception) -> bool:
    """Whether this may be another rank's death, seen from here: in a collective of ours, or of the model's forward."""
    in_forward = isinstance(error, UsersCodeError) and error.key.endswith(".model")
    return isinstance(error.__cause__ if in_forward else error, RuntimeError)


def unforeseen(error: Exception, run: Run | CohortRun) -> CollegiumError:
    """One line for the user; the traceback goes along as a note."""
    if isinstance(error, OSError):
        return unfit(error, run.networks[0].folder)
    told = CollegiumError(f"{run.key}: {described(error)}")
    told.add_note("".join(traceback.format_exception(error)))
    return told


def fit_on_ray(
    runs: Sequence[Run | CohortRun],
    *,
    resources: Resources,
    workers: int = 1,
    gpus: float = 0.0,
    mailbox: Any = None,
    max_failures: int = 3,
    placement: str = "PACK",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    live: Mapping[str, Sequence[Any]] | None = None,
) -> list[RunResult]:
    """Train `runs` in turn on a group of `workers`, each with `resources.cpus` threads and `gpus` of a GPU.

    `gpus` is what `resources.gpus: auto` came to on this cluster; `live` holds the replicas of live teachers by name. A
    group that loses a worker is started again up to `max_failures` times. Raises what a worker raised (RecipeError, StoreError, …), and CollegiumError for anything else.
    """
    from ray.train import TrainingFailedError, WorkerGroupError

    for name, value in TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    job = Job(tuple(runs), num_threads(resources), mailbox, checkpoint_every_s, live, Carried.from_here())
    storage = runs[0].stage / "attempts" / uuid4().hex  # of Ray's bookkeeping; part of no seal
    try:
        result = fitted(trainer(job, storage, resources, workers, gpus, max_failures, placement), runs[0].stage_name)
    except WorkerGroupError as error:
        rank, wrapped = next(iter(error.worker_failures.items()))
        cause = getattr(wrapped, "_base_exc", wrapped)
        if isinstance(cause, CollegiumError):
            raise cause from error
        raise CollegiumError(f"{runs[0].stage_name}: worker {rank} of {workers} failed: {one_line(cause)}") from error
    except TrainingFailedError as error:
        raise CollegiumError(f"{runs[0].stage_name}: training could not be started: {one_line(error)}") from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        with suppress(OSError):  # another driver's lies there too
            storage.parent.rmdir()
    if isinstance(result.return_value, CollegiumError):
        raise result.return_value
    results: list[RunResult] = result.return_value
    return results


def fitted(own: "OwnTrainer", who: str) -> Any:
    """`own.fit()`; whatever ends the wait for it (a signal, another stage that failed) ends it, too."""
    from ray.train import TrainingFailedError

    with Watch(who, own.controller_id):
        try:
            return aside(own.fit)
        except TrainingFailedError:
            raise
        except BaseException:
            own.abort()
            raise


def trainer(
    job: Job, storage: Path, resources: Resources, workers: int, gpus: float, max_failures: int, placement: str
) -> "OwnTrainer":
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from .network import OwnNetwork
    from .own_trainer import OwnTrainer

    storage.mkdir(parents=True)
    reserved = {"CPU": resources.cpus, **({"GPU": gpus} if gpus else {}), **resources.custom}
    shares_gpus = 0 < gpus < 1 and workers > 1  # NCCL refuses two ranks on one GPU
    return OwnTrainer(
        train_on_worker,
        train_loop_config={"job": job},
        torch_config=OwnNetwork(backend="gloo" if shares_gpus else None),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker=reserved,
            accelerator_type=resources.accelerator_type,
            placement_strategy=placement,
        ),
        run_config=RunConfig(
            name=storage.name,
            storage_path=str(storage.parent.resolve()),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )


def one_line(error: BaseException) -> str:
    """The last line of an error that may hold a remote traceback: its type and message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
