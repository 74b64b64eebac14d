"""A study under Ray Tune: trials side by side, what they should try, who ends them early, and what is kept of each.

Knows nothing of recipes as a whole, nor of what a trial does.
"""

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from teachers.errors import CollegiumError
from teachers.waiting import aside

from .proposals import Proposals
from .search_config import Choice, Entry, Integer, LogUniform, SearchConfig, Subset, Uniform
from .search_space import of_the_control, shared_with_control
from .study import Study, Trial, Who, best_of, num_control_trials
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
GRACE = 5
"""No trial is ended before a fifth of its looks at validation."""
REDUCTION = 3
"""ASHA keeps one of so many."""
PERTURBATIONS = 5
"""Times that a population trades places."""

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
            scheduler = _population(search, looks) if in_population else _by_who(search, looks)
            recorder = _recorder(plan, ended, looked)
            with (
                open(os.devnull, "w") as nowhere,
                redirect_stdout(nowhere),
            ):  # Tune prints tables, whatever `verbose` is
                _fit(plan, partial(trial, job=job), job, scheduler, recorder, at_once)


class Plan:
    """What is still to be tried, and by whom."""

    def __init__(
        self, study: Study, search: SearchConfig, now: Mapping[Who, Mapping[str, Any] | None], who: tuple[Who, ...]
    ) -> None:
        self.study, self.search, self.who = study, search, who
        spaces: dict[Who, Mapping[str, Entry]] = {"student": search.space, "control": of_the_control(search)}
        self.now = now
        self.number = max((trial.number for trial in study.trials), default=-1) + 1
        control = num_control_trials(search, len(spaces["control"])) if now["control"] is not None else 0
        counts = {"student": search.trials, "control": control}
        self.left = {each: max(0, counts[each] - len(study.of(each))) for each in who}
        seed = search.seed + 1000 * len(study.trials)  # a study that goes on must not draw the same again
        metrics = {"student": search.metrics, "control": dict([next(iter(search.metrics.items()))])}
        self.proposals = {each: Proposals(search, spaces[each], metrics[each], seed) for each in who}
        for each in who:
            self.proposals[each].knows(study.of(each))
        self.running: dict[int, tuple[Who, Mapping[str, Any]]] = {}
        self.is_hopeless = False

    @property
    def num_left(self) -> int:
        return sum(self.left.values())

    def next(self) -> dict[str, Any] | None:
        """The next trial's number, who it is of, and its setting; None when nothing is left to try."""
        who = self._next_who()
        if who is None or self.is_hopeless:
            return None
        number, params = self.number, self._setting(who)
        if params is None:
            self.left[who] = 0  # a grid is done
            return self.next()
        self.number, self.left[who] = self.number + 1, self.left[who] - 1
        self.running[number] = who, params
        return {"number": number, "who": who, "params": dict(params), "as_recipe": params == self.now[who]}

    def all_that_is_left(self) -> list[dict[str, Any]]:
        found = []
        while (setting := self.next()) is not None:
            found.append(setting)
        return found

    def _next_who(self) -> Who | None:
        """The control as the recipe has it, then all of the student's, then the control's others."""
        control_first = not self.study.of("control") and all(who != "control" for who, _ in self.running.values())
        order: tuple[Who, ...] = ("control", "student") if control_first else ("student", "control")
        return next((who for who in order if self.left.get(who, 0) > 0), None)

    @property
    def waits(self) -> bool:
        """The control's others have the network of the best student: that has to be known first."""
        students = any(who == "student" for who, _ in self.running.values())
        return self._next_who() == "control" and students and bool(self.study.of("control"))

    def _setting(self, who: Who) -> Mapping[str, Any] | None:
        tried = [dict(trial.params) for trial in self.study.of(who)]
        tried += [dict(params) for other, params in self.running.values() if other == who]
        if not tried:
            return self.now[who]
        proposed = self.proposals[who].ask(self.number, tried)
        if who == "student" or proposed is None:
            return proposed
        best = best_of(self.study.of("student"), self.search.metrics)
        return shared_with_control(best.params if best else self.now["student"] or {}) | proposed

    def ended(self, trial: Trial) -> None:
        self.study.add(trial)
        self.running.pop(trial.number, None)
        self.proposals[trial.who].told(trial)
        if trial.state == "failed" and not any(trial.state != "failed" for trial in self.study.trials):
            self.is_hopeless = trial.who == "control" or len(self.study.trials) >= 3


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
    known = ("validation.accuracy", "validation.nll", "latency_ms", "parameters", "bytes")
    return {name: float(result[name]) for name in known if name in result}


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
    )


def _fit(plan: Plan, trainable: Callable[..., None], job: Job, scheduler: Any, recorder: Any, at_once: int) -> None:
    from ray import tune
    from ray.tune import FailureConfig, RunConfig, TuneConfig, TuneError
    from ray.tune.schedulers import PopulationBasedTraining

    storage = job.folder / f"tune-{time.time_ns()}"
    all_at_once = isinstance(scheduler, PopulationBasedTraining)  # which draws by itself, after the first
    tuner = tune.Tuner(
        tune.with_resources(trainable, request_of_trial(job)),
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
    return {"CPU": job.resources.cpus, **({"GPU": job.gpus} if job.gpus else {}), **job.resources.custom}


def _by_who(search: SearchConfig, looks: int) -> Any:
    """Student and control are each compared with their own kind."""
    from ray.tune.schedulers import FIFOScheduler

    class ByWho(FIFOScheduler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.own = {who: _scheduler(search, looks) for who in ("student", "control")}

        def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
            return True

        def on_trial_add(self, controller: Any, trial: Any) -> None:
            self.own[trial.config["setting"]["who"]].on_trial_add(controller, trial)

        def on_trial_error(self, controller: Any, trial: Any) -> None:
            self.own[trial.config["setting"]["who"]].on_trial_error(controller, trial)

        def on_trial_result(self, controller: Any, trial: Any, result: Any) -> Any:
            if FAILED in result or ENDED in result:
                return self.CONTINUE
            decision = self.own[trial.config["setting"]["who"]].on_trial_result(controller, trial, result)
            return (
                self.CONTINUE if trial.config["setting"]["as_recipe"] else decision
            )  # what all others are compared with

        def on_trial_complete(self, controller: Any, trial: Any, result: Any) -> None:
            if FAILED not in result:
                self.own[trial.config["setting"]["who"]].on_trial_complete(controller, trial, result)

        def on_trial_remove(self, controller: Any, trial: Any) -> None:
            self.own[trial.config["setting"]["who"]].on_trial_remove(controller, trial)

    return ByWho()


def _scheduler(search: SearchConfig, looks: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    if search.scheduler == "none":
        return FIFOScheduler()
    metric, direction = next(iter(search.metrics.items()))
    grace = max(1, looks // GRACE)
    common: dict[str, Any] = {"time_attr": "training_iteration", "metric": metric, "mode": direction}
    if search.scheduler == "median":
        return MedianStoppingRule(grace_period=grace, **common)
    return ASHAScheduler(max_t=looks + 2, grace_period=grace, reduction_factor=REDUCTION, **common)


def _population(search: SearchConfig, looks: int) -> Any:
    from ray.tune.schedulers import PopulationBasedTraining

    metric, direction = next(iter(search.metrics.items()))

    def within_range(config: dict[str, Any]) -> dict[str, Any]:
        params = {path: _clamped(entry, config["setting"]["params"][path]) for path, entry in search.space.items()}
        return {"setting": {**config["setting"], "params": params}}

    return PopulationBasedTraining(
        time_attr="training_iteration",
        metric=metric,
        mode=direction,
        perturbation_interval=max(1, looks // PERTURBATIONS),
        hyperparam_mutations={"setting": {"params": {path: _mutation(entry) for path, entry in search.space.items()}}},
        custom_explore_fn=within_range,
        log_config=False,
    )


def _mutation(entry: Entry) -> Any:
    """What Tune draws a new value from, or steps along."""
    match entry:
        case Choice():
            return list(entry.choice)
        case Uniform():
            return lambda: random.uniform(*entry.uniform)
        case LogUniform():
            low, high = entry.log_uniform
            return lambda: low * (high / low) ** random.random()
        case Integer():
            return lambda: random.randint(*entry.integer)
        case Subset():
            of, least = entry.subset.of, entry.subset.at_least
            return lambda: sorted(random.sample(of, random.randint(least, len(of))), key=of.index)


def _clamped(entry: Entry, value: Any) -> Any:
    match entry:
        case Uniform():
            return min(max(value, entry.uniform[0]), entry.uniform[1])
        case LogUniform():
            return min(max(value, entry.log_uniform[0]), entry.log_uniform[1])
        case Integer():
            return round(min(max(value, entry.integer[0]), entry.integer[1]))
    return value
