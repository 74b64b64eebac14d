"""One training of a cohort, from its run to the results of its members, whatever its method."""

from .codistillation import CodistillingCohort
from .cohort_config import CodistillationCohort, SharedTrunkCohort
from .data import SharedData
from .peers import Cohort
from .session import CohortRun, RunResult, Session
from .trunk import TrunkCohort


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
