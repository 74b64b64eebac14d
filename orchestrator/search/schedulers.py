"""Who ends a trial before its time, or moves it: ASHA, the median rule, population-based training."""

import random
from typing import Any

from ..recipe.search import Choice, Entry, Integer, LogUniform, SearchConfig, Subset, Uniform
from .trial import ENDED, FAILED

GRACE = 5
"""No trial is ended before a fifth of its looks at validation."""
REDUCTION = 3
"""ASHA keeps one of so many."""
PERTURBATIONS = 5
"""Times that a population trades places."""
DRAWN_ANEW = 0.25
"""Chance that a setting of a population is drawn anew; else it goes by one of the factors, or to a neighbour."""
FACTORS = (0.8, 1.2)


def by_who(search: SearchConfig, looks: int) -> Any:
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


def population(search: SearchConfig, looks: int) -> Any:
    from ray.tune.schedulers import PopulationBasedTraining

    metric, direction = next(iter(search.metrics.items()))

    def explored(config: dict[str, Any]) -> dict[str, Any]:
        params = {path: _explored(entry, config["setting"]["params"][path]) for path, entry in search.space.items()}
        return {"setting": {**config["setting"], "params": params}}

    return PopulationBasedTraining(
        time_attr="training_iteration",
        metric=metric,
        mode=direction,
        perturbation_interval=max(1, looks // PERTURBATIONS),
        custom_explore_fn=explored,  # Tune's own multiplies lists of names, and null, by 1.2
        log_config=False,
        require_attrs=False,  # a trial that failed tells no figure
    )


def _explored(entry: Entry, value: Any) -> Any:
    """What a member of a population that took over another's network goes on with: drawn anew, or near `value`."""
    if random.random() < DRAWN_ANEW or value is None:
        return _drawn(entry)
    match entry:
        case Choice():
            at = entry.choice.index(value) if value in entry.choice else random.randrange(len(entry.choice))
            return entry.choice[min(max(at + random.choice((-1, 1)), 0), len(entry.choice) - 1)]
        case Subset():
            return value
    return _clamped(entry, value * random.choice(FACTORS))


def _drawn(entry: Entry) -> Any:
    match entry:
        case Choice():
            return random.choice(entry.choice)
        case Uniform():
            return random.uniform(*entry.uniform)
        case LogUniform():
            low, high = entry.log_uniform
            return _clamped(entry, low * (high / low) ** random.random())
        case Integer():
            return random.randint(*entry.integer)
        case Subset():
            of, least = entry.subset.of, entry.subset.at_least
            return sorted(random.sample(of, random.randint(least, len(of))), key=of.index)


def _clamped(entry: Entry, value: Any) -> Any:
    match entry:
        case Uniform():
            return min(max(value, entry.uniform[0]), entry.uniform[1])
        case LogUniform():
            return min(max(value, entry.log_uniform[0]), entry.log_uniform[1])
        case Integer():
            return round(min(max(value, entry.integer[0]), entry.integer[1]))
    return value
