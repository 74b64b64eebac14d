"""What a worker of Ray Tune does: one training with one setting, its looks at validation told to Tune as they come."""

import math
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from students.config.cohort import CodistillationCohort, CohortCommon
from students.config.estimator import EstimatorStudent
from teachers.config.resources import Resources
from teachers.errors import CollegiumError, RecipeError
from teachers.process.log_lines import NOT_CARRIED, Carried, working_on
from teachers.resources.bundles import num_threads
from teachers.transfer_set.viewing import Viewing
from teachers.users_code.imports import UserPath, check_own_packages, use_user_path

from ..cluster.capacity import workers_of
from ..recipe.errors import told
from ..recipe.model import Learner
from ..recipe.space import OWN_OF_CONTROL, Values, applied, schema_of, validated
from .study import Who

if TYPE_CHECKING:
    from students.fitting.trial import Looks
    from students.runs.run import CohortRun, Run, Source

POLL_S = 0.2
ENDED = "ended"
"""In what is told to Tune: the trial came to its end."""
FAILED = "failed"
"""Instead: why it could not."""


@dataclass(frozen=True)
class Job:
    """What every trial of a study needs besides its setting."""

    name: str
    learner: Learner
    """As the recipe has it, its budget in steps."""
    sources: "Mapping[str, Source]"
    """By teacher."""
    transfer_set: Path
    seed: int
    gpus: float
    """Of one worker; what `auto` came to."""
    user_path: UserPath
    trust: tuple[str, ...]
    measures: bool
    """Whether the metric asks for figures of the network itself."""
    folder: Path
    """Scratch that all machines see."""
    views: Viewing | None = None
    """In which a network sees training rows."""
    in_population: bool = False
    """Trials go on from each other's checkpoints."""
    log_as: Carried = NOT_CARRIED

    @property
    def is_nested(self) -> bool:
        """Whether a trial is a TorchTrainer of its own."""
        return workers_of(self.learner) > 1

    @property
    def resources(self) -> Resources:
        return self.learner.resources

    @property
    def threads(self) -> int:
        return num_threads(self.resources)


@dataclass
class Teller:
    """Tells Tune of each look; one that Tune has ended leaves by SystemExit there."""

    checkpoint: Any = None
    """Makes one of the training as it stands, where trials go on from each other's."""
    begun: float = field(default_factory=time.monotonic)

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if not math.isfinite(value):
                raise CollegiumError(f"{name} is {value} at step {step}; the training diverged")
        from ray import tune

        checkpoint = self.checkpoint() if self.checkpoint is not None else None
        tune.report({**figures, "step": step}, checkpoint=checkpoint)


def trial(config: dict[str, Any], job: Job) -> None:
    """The trainable. What would fail again is told, not raised: a lost worker is tried again, a mistake is not."""
    from ray import tune

    from students.fitting.on_ray import BUGS, unforeseen

    check_own_packages()
    use_user_path(job.user_path)
    job.log_as.take_up()
    chosen = config["setting"]
    try:
        with working_on(stage=f"tune/{job.name}", trial=chosen["number"]):
            figures = _train(job, chosen["who"], chosen["params"], tune.get_checkpoint())
    except BUGS as error:
        if isinstance(error, CollegiumError):
            tune.report({FAILED: str(error)})
        else:
            tune.report({FAILED: str(unforeseen(error, _Named(job.name)))})  # type: ignore[arg-type]
        return
    tune.report({**figures, ENDED: True})


@dataclass(frozen=True)
class _Named:
    key: str


def _train(job: Job, who: Who, params: Values, from_other: Any) -> dict[str, float]:
    """The best figures of a trial that nobody ended before its time."""
    import torch

    from students.fitting.trial import Looks, measured, scratch, train_trial

    torch.set_num_threads(job.threads)  # Ray sets OMP_NUM_THREADS to 1
    learner = setting(job.learner, who, params)
    teller = Teller()
    with scratch(job.folder if job.is_nested else None) as folder:
        run = run_of(job, learner, who, folder)
        looks = Looks(run, teller.look, named_member(learner))
        if job.is_nested:
            _train_nested(job, run, looks)
        elif job.in_population and who == "student":
            _train_in_population(run, looks, teller, from_other)  # type: ignore[arg-type]
        else:
            train_trial(run, looks, _device())
        assert looks.best is not None, "a study needs labelled validation rows, which is seen to before"
        found = looks.best
        if job.measures:
            best = next(network for network in run.networks if network.name == looks.best_of)
            found = measured(best.folder, job.transfer_set, job.trust, job.threads) | found
        return found


def setting(learner: Learner, who: Who, params: Values) -> Learner:
    """The student with a trial's setting, or with its control's. Raises RecipeError for values that do not go together."""
    document = learner.model_dump(mode="json")
    if who == "control" and not isinstance(learner, EstimatorStudent):
        own = {path.removeprefix("train."): value for path, value in params.items() if path in OWN_OF_CONTROL}
        before = document["control"] if isinstance(document["control"], dict) else {}
        document["control"] = {**before, **own}
        params = {path: value for path, value in params.items() if path not in OWN_OF_CONTROL}
    try:
        document = applied(document, params)
        return validated(learner, document)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, loc))}: {message}" for loc, message in told(schema_of(learner), document, error)
        )
        raise RecipeError(f"these values do not go together: {found}") from None


def run_of(job: Job, learner: Learner, who: Who, folder: Path) -> "Run | CohortRun":
    from students.runs.of_cohort import alone_runs, member_runs
    from students.runs.of_student import student_run

    common: dict[str, Any] = {
        "folder": folder,
        "stage": folder,
        "stage_name": f"tune/{job.name}",
        "transfer_set": job.transfer_set,
        "views": None if isinstance(learner, EstimatorStudent) else job.views,
        "sources": tuple(job.sources[name] for name in learner.teachers),
        "user_path": job.user_path,
        "trust": job.trust,
    }
    if not isinstance(learner, CohortCommon):
        return student_run(who, learner, job.seed, **common)
    if who == "control":
        return alone_runs("control", job.name, learner, job.seed, **common)
    return member_runs(job.name, learner, job.seed, **common)


def named_member(learner: Learner) -> str | None:
    """Whose figures count in a cohort: one that it delivers by name, else the best one's."""
    return learner.deliver if isinstance(learner, CohortCommon) and learner.deliver in learner.members else None


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _train_nested(job: Job, run: "Run | CohortRun", looks: "Looks") -> None:
    """In a TorchTrainer of its own, whose points of curves come through a mailbox."""
    from students.fitting.codistil import codistil_on_ray
    from students.fitting.on_ray import fit_on_ray

    from ..cluster import mailbox as mailboxes

    apart = isinstance(job.learner, CodistillationCohort)
    mailbox = mailboxes.open_mailbox()
    failed: list[BaseException] = []

    def fit() -> None:
        keywords = {
            "resources": job.resources,
            "workers": workers_of(job.learner),
            "gpus": job.gpus,
            "mailbox": mailbox,
        }
        try:
            (codistil_on_ray if apart else fit_on_ray)([run], **keywords)  # type: ignore[list-item]
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=fit, name="trainer", daemon=True)  # a trial that is ended does not wait for it
    thread.start()
    while thread.is_alive():
        thread.join(POLL_S)
        looks.take(mailboxes.empty(mailbox))
    looks.take(mailboxes.empty(mailbox))
    if failed:
        raise failed[0]


def _train_in_population(run: "Run", looks: "Looks", teller: Teller, from_other: Any) -> None:
    """From where another trial stood, if Tune says so."""
    from ray import tune

    from students.fitting.trial import train_in_population

    def saved_by(training: Any) -> None:
        def save() -> Any:
            training.save()
            return tune.Checkpoint.from_directory(training.attempt.saved[-1])

        teller.checkpoint = save

    with from_other.as_directory() if from_other is not None else nullcontext() as folder:
        train_in_population(run, looks, _device(), Path(folder) if folder else None, saved_by)
