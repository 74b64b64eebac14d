"""A list of trainings, done one after another under a session; each resumes where its newest checkpoint is."""

import logging
from collections.abc import Sequence

import torch

from teachers.process.log_lines import working_on
from teachers.users_code.calls import within
from teachers.users_code.imports import use_user_path

from ..cohorts.codistillation import CodistillingCohort
from ..cohorts.peers import Cohort
from ..cohorts.trunk import TrunkCohort
from ..config.cohort import CodistillationCohort, SharedTrunkCohort
from ..data.shared import SharedData
from ..runs.curves import keep_metrics
from ..runs.run import CohortRun, Run, RunResult
from ..runs.session import Session
from ..training.checkpoint import read_result
from ..training.estimator import fit_estimator
from ..training.train import CHECKPOINT_EVERY_S, Training


def train_cohort(run: CohortRun, session: Session, shared: SharedData, checkpoint_every_s: float) -> list[RunResult]:
    """Train all members of `run` to their results. Raises CollegiumError for a member that goes on diverging."""
    cohort = cohort_of(run, session, shared)
    cohort.resume()
    cohort.train(checkpoint_every_s)
    return cohort.finish()


def cohort_of(run: CohortRun, session: Session, shared: SharedData) -> Cohort:
    if isinstance(run.config, SharedTrunkCohort) and run.exchange:
        return TrunkCohort(run, session, shared)
    if isinstance(run.config, CodistillationCohort) and run.exchange:
        return CodistillingCohort(run, session, shared)
    return Cohort(run, session, shared)


log = logging.getLogger(__name__)


def fit(
    runs: Sequence[Run | CohortRun],
    session: Session,
    *,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    at_once: int = 1,
) -> list[RunResult]:
    """Train `runs` in turn; a sealed one is skipped, an unfinished one goes on from its newest checkpoint.

    `at_once`: how many such processes may share this machine's memory.

    Every rank calls it with the same runs and gets the same results, one a network. Raises CollegiumError, naming run
    and step, when a loss is not finite.
    """
    shared = SharedData(at_once=at_once)
    results = []
    for run in runs:
        found = session.agree([read_result(network) for network in run.networks] if session.rank == 0 else [])
        sealed = [result for result in found if result]
        whole = len(sealed) == len(run.networks)
        results += sealed if whole else train_one(run, session, shared, checkpoint_every_s)
        keep_metrics(run.stage)
    return results


def train_one(run: Run | CohortRun, session: Session, shared: SharedData, checkpoint_every_s: float) -> list[RunResult]:
    for network in run.networks:
        use_user_path(network.user_path)
        network.folder.mkdir(parents=True, exist_ok=True)
    at_work = working_on(stage=run.stage_name, training=run.name)
    with at_work, torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        if isinstance(run, CohortRun):
            return train_cohort(run, session, shared, checkpoint_every_s)
        with within(run.key):
            if run.estimator is not None:
                return [fit_estimator(run, session)]
            training = Training(run, session, shared.of([run], session)[0])
            training.resume()
            training.train(checkpoint_every_s)
    return [training.finish()]
