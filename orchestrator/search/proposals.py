"""Which setting to try next: Optuna's samplers over the space of a recipe. Knows nothing of Ray or of files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import optuna

from ..recipe.search import Choice, Direction, Entry, Integer, LogUniform, SearchConfig, Subset, Uniform
from .study import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Values = dict[str, Any]
RANDOM_FIRST = 10
FEWEST_TO_COMPARE = 10
"""Finished trials below which a share of importance would be chance."""
BEST_QUARTER = 0.25
"""Whose settings are held against all others'. With a tenth, Optuna's own choice, four of forty trials would decide."""
SIGN = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}


class Proposals:
    """What to try next of one part of a space, knowing what has ended. `seed` should differ between two of one study."""

    def __init__(
        self, search: SearchConfig, space: Mapping[str, Entry], metrics: Mapping[str, Direction], seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.metrics = space, metrics
        self.grid = grid(space) if search.algorithm == "grid" else None
        directions = [SIGN[direction] for direction in metrics.values()]
        self.study = optuna.create_study(directions=directions, sampler=sampler(search, len(metrics) > 1, seed))
        self.asked: dict[int, optuna.Trial] = {}
        """By number of the trial, what Optuna waits for."""

    def knows(self, trials: Sequence[Trial]) -> None:
        """Learn of trials that ended before."""
        self.study.add_trials([frozen for trial in trials if (frozen := self.frozen(trial))])

    def ask(self, number: int, tried: Sequence[Values]) -> Values | None:
        """A setting for trial `number`; None when a grid has no point left that is not among `tried`, of the same space."""
        if self.grid is not None:
            return next((values for values in self.grid if values not in tried), None)
        trial = self.study.ask()
        self.asked[number] = trial
        return suggested(self.space, trial)

    def told(self, trial: Trial) -> None:
        """A trial has ended: one that was asked for, or the recipe's own setting."""
        asked = self.asked.pop(trial.number, None)
        if asked is None:
            self.knows([trial])
        elif trial.state == "failed":
            self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        elif trial.state == "pruned":
            asked.report(self._figures(trial)[0], trial.looks)
            self.study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(asked, self._figures(trial))

    def frozen(self, trial: Trial) -> optuna.trial.FrozenTrial | None:
        """As Optuna keeps it; None where the setting is outside of the space."""
        given = inside(self.space, trial.params)
        if given is None or trial.state == "failed":
            return None
        params, distributions = given
        pruned = trial.state == "pruned"
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
            values=None if pruned else self._figures(trial),
            params=params,
            distributions=distributions,
            intermediate_values={trial.looks: self._figures(trial)[0]} if pruned else None,
        )

    def _figures(self, trial: Trial) -> list[float]:
        return [trial.values[metric] for metric in self.metrics]


def sampler(search: SearchConfig, several: bool, seed: int) -> "BaseSampler":
    if search.algorithm != "optuna":
        return optuna.samplers.RandomSampler(seed)
    if several:
        return optuna.samplers.NSGAIISampler(population_size=max(4, min(50, search.trials // 4)), seed=seed)
    # constant_liar: trials that run side by side must not all try the same place
    return optuna.samplers.TPESampler(
        n_startup_trials=max(2, min(RANDOM_FIRST, search.trials // 3)), constant_liar=True, seed=seed
    )


def suggested(space: Mapping[str, Entry], trial: optuna.Trial) -> Values:
    return {path: _suggested(path, entry, trial) for path, entry in space.items()}


def _suggested(path: str, entry: Entry, trial: optuna.Trial) -> Any:
    match entry:
        case Uniform():
            return trial.suggest_float(path, *entry.uniform)
        case LogUniform():
            return trial.suggest_float(path, *entry.log_uniform, log=True)
        case Integer():
            return trial.suggest_int(path, *entry.integer)
        case Choice():
            return entry.choice[trial.suggest_categorical(path, [*range(len(entry.choice))])]
        case Subset():
            return _subset(path, entry, lambda name: trial.suggest_categorical(f"{path}.{name}", [True, False]))


def _subset(path: str, entry: Subset, wants: Callable[[str], bool]) -> list[str]:
    """Names in the order of the recipe; who is needed to make up `at_least` is not asked for."""
    chosen: list[str] = []
    for number, name in enumerate(entry.subset.of):
        left = len(entry.subset.of) - number
        if entry.subset.at_least - len(chosen) >= left or wants(name):
            chosen.append(name)
    return chosen


def inside(
    space: Mapping[str, Entry], values: Mapping[str, Any]
) -> "tuple[Values, dict[str, BaseDistribution]] | None":
    """A setting in Optuna's terms, if it is a point of the space."""
    params: Values = {}
    distributions: dict[str, BaseDistribution] = {}
    for path, entry in space.items():
        for name, (value, distribution) in _in_optunas_terms(path, entry, values[path]).items():
            if not _contains(distribution, value):
                return None
            params[name], distributions[name] = value, distribution
    return params, distributions


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def _in_optunas_terms(path: str, entry: Entry, value: Any) -> "dict[str, tuple[Any, BaseDistribution]]":
    categories = optuna.distributions.CategoricalDistribution
    match entry:
        case Uniform():
            return {path: (value, optuna.distributions.FloatDistribution(*entry.uniform))}
        case LogUniform():
            return {path: (value, optuna.distributions.FloatDistribution(*entry.log_uniform, log=True))}
        case Integer():
            return {path: (value, optuna.distributions.IntDistribution(*entry.integer))}
        case Choice():
            at = entry.choice.index(value) if value in entry.choice else None
            return {path: (at, categories([*range(len(entry.choice))]))}
        case Subset():
            asked: dict[str, tuple[Any, BaseDistribution]] = {}
            named = value if isinstance(value, list) else []  # null in a recipe: whoever there is, maybe more than `of`

            def wants(name: str) -> bool:
                asked[f"{path}.{name}"] = (name in named, categories([True, False]))
                return name in named

            chosen = _subset(path, entry, wants)
            return asked if {*chosen} == {*named} else {path: (None, categories([True, False]))}


def grid(space: Mapping[str, Entry]) -> list[Values]:
    """Every combination, the last key changing first."""
    return [dict(zip(space, values, strict=True)) for values in product(*(_points(entry) for entry in space.values()))]


def _points(entry: Entry) -> list[Any]:
    match entry:
        case Choice():
            return list(entry.choice)
        case Integer():
            return [*range(entry.integer[0], entry.integer[1] + 1)]
        case Subset():
            return [*_subsets(entry)]
    raise AssertionError("the recipe refuses ranges in a grid")


def _subsets(entry: Subset) -> Iterator[list[str]]:
    of = entry.subset.of
    for size in range(entry.subset.at_least, len(of) + 1):
        yield from map(list, combinations(of, size))


def importances(search: SearchConfig, space: Mapping[str, Entry], trials: Sequence[Trial]) -> dict[str, float]:
    """By path, its share in what sets the best quarter of finished trials apart (PED-ANOVA, Watanabe et al. 2023).

    By the first metric. Empty where there are too few trials, or all are alike; the teachers of a subset each have a share
    of their own.
    """
    metric, direction = next(iter(search.metrics.items()))
    proposals = Proposals(search, space, {metric: direction}, seed=0)
    proposals.knows([trial for trial in trials if trial.is_complete])
    values = [trial.value for trial in proposals.study.get_trials(deepcopy=False)]
    if len(values) < FEWEST_TO_COMPARE or len(set(values)) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_QUARTER)
    found = optuna.importance.get_param_importances(proposals.study, evaluator=evaluator)
    total = sum(found.values())
    return {name: share / total for name, share in found.items()} if total > 0 else {}
