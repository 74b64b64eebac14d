"""A study under Ray Tune: trials side by side, what they should try, who ends them early, and what is kept of each.

Knows nothing of recipes as a whole, nor of what a trial does.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from teachers.errors import CollegiumError
from teachers.process.waiting import aside
from teachers.resources.bundles import bundle_of

from ..recipe.search import OF_THE_NETWORK, SearchConfig
from .next_trial import Plan
from .schedulers import by_who, population
from .study import Study, Trial, Who
from .trial import ENDED, FAILED, Job, trial

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own files are the record
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",  # a trainer inside a trial that was ended would train to its end
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "3600",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # Tune's own state is never read: `trials.jsonl` is
    "TUNE_ORIG_WORKING_DIR": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
MAX_FAILURES = 2
"""A trial whose worker died is tried again so often."""

log = logging.getLogger(__name__)
Ended = Callable[[Trial], None]
Looked = Callable[[str, int, Mapping[str, float]], None]
"""Takes the trial's name, the step and the best figures so far."""


def run_trials(
    study: Study,
    search: SearchConfig,
    now: Mapping[Who, Mapping[str, Any] | None],
    job: Job,
    *,
    looks: int,
    at_once: int,
    ended: Ended,
    looked: Looked,
) -> None:
    """Do what is missing of a study. `now`: the recipe's own settings, the first trial each; None for no control.

    `looks`: at validation, of a whole trial; `at_once`: how many trials run at a time. Raises CollegiumError when Tune
    itself fails; a trial that fails is kept as failed.
    """
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    phases: list[tuple[Who, ...]] = (
        [("control",), ("student",)] if search.algorithm == "pbt" else [("control", "student")]
    )
    for who in phases:
        plan = Plan(study, search, now, who)
        if plan.num_left:
            in_population = search.algorithm == "pbt" and who == ("student",)
            scheduler = population(search, looks) if in_population else by_who(search, looks)
            recorder = _recorder(plan, ended, looked)
            with (
                open(os.devnull, "w") as nowhere,
                redirect_stdout(nowhere),
            ):  # Tune prints tables, whatever `verbose` is
                _fit(plan, job, scheduler, recorder, at_once)


def _searcher(plan: Plan) -> Any:
    from ray.tune.search import Searcher

    class Suggestions(Searcher):  # type: ignore[misc]
        def __init__(self, plan: Plan) -> None:
            super().__init__()
            self.plan = plan

        def suggest(self, trial_id: str) -> Any:
            if self.plan.waits:
                return None
            setting = self.plan.next()
            return Searcher.FINISHED if setting is None else {"setting": setting}

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            pass  # the recorder tells the plan, when the trial is on the disk

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune keeps copies that nobody reads: the study's file is the truth

        def save(self, checkpoint_path: str) -> None:
            pass

        def restore(self, checkpoint_path: str) -> None:
            pass

    return Suggestions(plan)


def _recorder(plan: Plan, ended: Ended, looked: Looked) -> Any:
    from ray.tune import Callback

    class Recorder(Callback):  # type: ignore[misc]
        def __init__(self, plan: Plan, ended: Ended, looked: Looked) -> None:
            self.plan, self.ended, self.looked = plan, ended, looked
            self.numbers: dict[str, int] = {}
            """By Tune's id: a trial of a population takes over the whole configuration of another."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.numbers.setdefault(trial.trial_id, trial.config["setting"]["number"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if "step" in result and ENDED not in result:
                self.looked(name_of(self.numbers[trial.trial_id]), result["step"], figures_in(result))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.keep(trial, trial.last_result)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            told = (
                Path(trial.error_file).read_text() if trial.error_file else ""
            )  # where Tune has no copy elsewhere yet
            lines = told.strip().splitlines() or ["its worker was lost"]
            self.keep(trial, {**trial.last_result, FAILED: lines[-1]})

        def keep(self, trial: Any, result: Mapping[str, Any]) -> None:
            number = self.numbers.get(trial.trial_id, trial.config["setting"]["number"])
            done = trial_from({**trial.config["setting"], "number": number}, result)
            self.plan.ended(done)
            self.ended(done)

        def __getstate__(self) -> dict[str, Any]:
            return {}

    return Recorder(plan, ended, looked)


def name_of(number: int) -> str:
    return f"trial-{number:04d}"


def figures_in(result: Mapping[str, Any]) -> dict[str, float]:
    """What a trial told of itself: looks at validation, and what was measured when it ended."""
    return {
        name: float(value)
        for name, value in result.items()
        if name in OF_THE_NETWORK or (name.startswith("validation.") and value is not None)
    }


def trial_from(setting: Mapping[str, Any], result: Mapping[str, Any]) -> Trial:
    """What is kept of a trial, from the last that it told."""
    failed = FAILED in result
    looks = int(result.get("training_iteration", 0)) - (failed or ENDED in result)
    return Trial(
        number=setting["number"],
        who=setting["who"],
        params=setting["params"],
        state="failed" if failed else "finished" if ENDED in result else "pruned",
        values={} if failed else figures_in(result),
        looks=max(0, looks),
        seconds=round(float(result.get("time_total_s", 0.0)), 3),
        error=str(result[FAILED]) if failed else None,
        time=round(time.time(), 3),
        as_recipe=setting["as_recipe"],
    )


def _fit(plan: Plan, job: Job, scheduler: Any, recorder: Any, at_once: int) -> None:
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig, TuneError
    from ray.tune.schedulers import PopulationBasedTraining

    storage = job.folder / f"tune-{time.time_ns()}"
    all_at_once = isinstance(scheduler, PopulationBasedTraining)  # which draws by itself, after the first
    tuner = tune.Tuner(
        # Tune writes what it starts into its folder: the job, which may carry a secret, goes by the object store.
        tune.with_resources(tune.with_parameters(trial, job=job), request_of_trial(job)),
        param_space={"setting": tune.grid_search(plan.all_that_is_left())} if all_at_once else None,
        tune_config=TuneConfig(
            search_alg=None if all_at_once else _searcher(plan),
            scheduler=scheduler,
            num_samples=1 if all_at_once else plan.num_left,
            max_concurrent_trials=at_once,
            reuse_actors=not job.is_nested,  # a trainer inside is ended with its process
        ),
        run_config=RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            verbose=0,
            callbacks=[recorder],
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        aside(tuner.fit)
    except TuneError as error:
        raise CollegiumError(f"tune/{job.name}: Ray Tune failed: {str(error).strip().splitlines()[-1]}") from error


def request_of_trial(job: Job) -> dict[str, float]:
    """What one trial reserves; a trainer inside reserves by itself."""
    if job.is_nested:
        return {
            "node:__internal_head__": 0.001
        }  # Tune takes no empty request, and a share of a CPU may be one too many
    return bundle_of(job.resources, job.gpus)
