"""What is proposed to a study: always inside the space, never twice from a grid, better for what was told."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

from orchestrator.recipe.search import Choice, Entry, Integer, LogUniform, SearchConfig, Subset, Uniform
from orchestrator.search.proposals import Proposals, grid, importances, inside
from orchestrator.search.schedulers import _clamped, _explored
from orchestrator.search.study import State, Trial

Space = dict[str, Entry]
NAMES = ["wide", "deep", "trees", "forest"]
FEW = settings(max_examples=25, deadline=None)
finite = st.floats(-1e6, 1e6, allow_nan=False)
uniforms = st.tuples(finite, finite).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: Uniform(uniform=ends))
log_uniforms = (
    st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
    .filter(lambda ends: ends[0] < ends[1])
    .map(lambda ends: LogUniform(log_uniform=ends))
)
integers = st.tuples(st.integers(-50, 50), st.integers(1, 40)).map(lambda of: Integer(integer=(of[0], of[0] + of[1])))
anything = st.one_of(st.none(), st.text(max_size=3), st.integers(2, 99), st.lists(st.integers(2, 9), max_size=2))
choices = st.lists(anything, min_size=1, max_size=4, unique_by=repr).map(lambda values: Choice(choice=values))


@st.composite
def subsets(draw: st.DrawFn) -> Subset:
    of = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return Subset(subset={"of": of, "at_least": draw(st.integers(1, len(of)))})  # type: ignore[arg-type]


discrete = st.one_of(integers, choices, subsets())
entries = st.one_of(uniforms, log_uniforms, discrete)
spaces = st.lists(entries, min_size=1, max_size=4).map(lambda found: {f"key.{n}": e for n, e in enumerate(found)})
small = st.one_of(choices, subsets(), st.just(Integer(integer=(1, 3))))
grids = st.lists(small, min_size=1, max_size=3).map(lambda found: {f"key.{n}": e for n, e in enumerate(found)})


def search(space: Mapping[str, Entry], **settings: Any) -> SearchConfig:
    return SearchConfig(student="small", space=dict(space), **{"scheduler": "none", **settings})


def proposals(space: Mapping[str, Entry], seed: int = 0, **settings: Any) -> Proposals:
    made = search(space, **settings)
    return Proposals(made, made.space, made.metrics, seed)


def trial(
    number: int, params: Mapping[str, Any], accuracy: float = 0.5, state: State = "finished", **more: float
) -> Trial:
    values = {} if state == "failed" else {"validation.accuracy": accuracy, **more}
    return Trial(number=number, who="student", params=params, state=state, values=values, looks=3)


def lies_in(entry: Entry, value: Any) -> bool:
    """Said again, without Optuna."""
    match entry:
        case Uniform():
            return entry.uniform[0] <= value <= entry.uniform[1]
        case LogUniform():
            return entry.log_uniform[0] <= value <= entry.log_uniform[1]
        case Integer():
            return isinstance(value, int) and entry.integer[0] <= value <= entry.integer[1]
        case Choice():
            return value in entry.choice
    of = entry.subset.of
    return value == [name for name in of if name in value] and len(value) >= entry.subset.at_least


def lies_inside(space: Mapping[str, Entry], values: Mapping[str, Any]) -> bool:
    return list(values) == list(space) and all(lies_in(entry, values[path]) for path, entry in space.items())


@pytest.mark.parametrize("algorithm", ["optuna", "random", "pbt"])
@given(space=spaces, seed=st.integers(0, 99))
@FEW
def test_every_proposal_lies_inside_the_space(algorithm: str, space: Space, seed: int) -> None:
    found = proposals(space, seed, algorithm=algorithm, trials=9)  # three at random, then by what was told
    for number in range(6):
        values = found.ask(number, [])
        assert values is not None and lies_inside(space, values)
        found.told(trial(number, values, accuracy=number / 6))


@given(space=grids)
@FEW
def test_a_grid_proposes_each_of_its_points_once_and_then_nothing(space: Space) -> None:
    found = proposals(space, algorithm="grid")
    tried: list[dict[str, Any]] = []
    while (values := found.ask(len(tried), tried)) is not None:
        assert lies_inside(space, values) and values not in tried
        tried.append(values)
    assert len(tried) == math.prod(num_points(entry) for entry in space.values())


def num_points(entry: Entry) -> int:
    match entry:
        case Choice():
            return len(entry.choice)
        case Integer():
            return entry.integer[1] - entry.integer[0] + 1
        case Subset():
            of = len(entry.subset.of)
            return sum(math.comb(of, size) for size in range(entry.subset.at_least, of + 1))
    raise AssertionError("a grid has no ranges")


@pytest.mark.parametrize("at_least", [1, 2, 3])
def test_every_subset_that_is_large_enough_can_occur(at_least: int) -> None:
    subset = Subset(subset={"of": NAMES[:3], "at_least": at_least})  # type: ignore[arg-type]
    found = proposals({"teachers": subset}, algorithm="random")
    seen = {tuple((found.ask(number, []) or {})["teachers"]) for number in range(60)}
    assert seen == {tuple(point["teachers"]) for point in grid({"teachers": subset})}
    assert len(seen) == {1: 7, 2: 4, 3: 1}[at_least]


@given(space=spaces, seed=st.integers(0, 99))
@FEW
def test_what_was_proposed_is_known_again_as_optuna_knew_it(space: Space, seed: int) -> None:
    found = proposals(space, seed, algorithm="random")
    values = found.ask(0, [])
    assert values is not None
    frozen = found.frozen(trial(0, values))
    assert frozen is not None
    asked = found.study.trials[0]
    assert frozen.params == asked.params and frozen.distributions == asked.distributions


SUBSET = Subset(subset={"of": ["wide", "deep"], "at_least": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (Uniform(uniform=(0, 1)), 1.5),
        (LogUniform(log_uniform=(0.1, 1)), 0.01),
        (Integer(integer=(1, 3)), 4),
        (Uniform(uniform=(0, 1)), None),
        (Choice(choice=["a", None]), "b"),
        (SUBSET, ["wide", "trees"]),
        (SUBSET, []),
        (SUBSET, None),
    ],
)
def test_a_setting_outside_of_the_space_teaches_nothing(entry: Entry, value: Any) -> None:
    found = proposals({"key": entry})
    assert inside({"key": entry}, {"key": value}) is None
    found.knows([trial(0, {"key": value})])
    found.told(trial(1, {"key": value}))
    assert found.study.trials == []
    assert found.ask(2, []) is not None


@pytest.mark.parametrize("algorithm", ["optuna", "random"])
def test_a_study_that_goes_on_does_not_begin_with_the_same_points_again(algorithm: str) -> None:
    space: Space = {"rate": LogUniform(log_uniform=(1e-4, 1e-1)), "size": Integer(integer=(1, 10**6))}
    first = proposals(space, 0, algorithm=algorithm, trials=30)
    done = []
    for number in range(5):
        values = first.ask(number, [])
        assert values is not None
        done.append(trial(number, values, accuracy=number / 5))
        first.told(done[-1])
    second = proposals(space, 1000 * len(done), algorithm=algorithm, trials=30)
    second.knows(done)
    later = [second.ask(number, []) for number in range(5, 10)]
    assert not [values for values in later if values in [dict(trial.params) for trial in done]]
    assert len(second.study.trials) == 10


def accuracy_of(values: Mapping[str, Any]) -> float:
    """A hill with its top at a rate of 0.01 under two of three teachers."""
    near = 1 - abs(math.log10(values["rate"]) + 2) / 3
    return 0.7 * near + (0.3 if values["teachers"] == ["wide", "trees"] else 0.0)


HILL: Space = {
    "rate": LogUniform(log_uniform=(1e-5, 1)),
    "teachers": Subset(subset={"of": NAMES[:3], "at_least": 1}),  # type: ignore[arg-type]
}


def told_sixty(algorithm: str) -> Proposals:
    found = proposals(HILL, 0, algorithm=algorithm, trials=60)
    for number in range(60):
        values = found.ask(number, [])
        assert values is not None
        found.told(trial(number, values, accuracy_of(values)))
    return found


def test_what_was_told_makes_later_proposals_better_than_chance() -> None:
    means = {}
    for algorithm in ("optuna", "random"):
        found = told_sixty(algorithm)
        means[algorithm] = sum(accuracy_of(found.ask(60 + number, []) or {}) for number in range(20)) / 20
    assert means["optuna"] > means["random"] + 0.15, means


def test_a_trial_that_failed_or_was_ended_early_is_told_and_the_study_goes_on() -> None:
    found = proposals({"rate": Uniform(uniform=(0, 1))}, trials=9)
    for number, state in enumerate(("failed", "pruned", "finished", "failed", "pruned", "finished")):
        values = found.ask(number, [])
        assert values is not None
        found.told(trial(number, values, number / 10, state))  # type: ignore[arg-type]
    assert [told.state.name for told in found.study.trials] == ["FAIL", "PRUNED", "COMPLETE"] * 2
    assert found.asked == {} and found.ask(6, []) is not None


def test_a_study_that_goes_on_knows_what_was_ended_early_and_leaves_out_what_failed() -> None:
    found = proposals({"rate": Uniform(uniform=(0, 1))})
    states: tuple[State, ...] = ("failed", "pruned", "finished")
    found.knows([trial(number, {"rate": 0.5}, 0.9, state) for number, state in enumerate(states)])
    assert [told.state.name for told in found.study.trials] == ["PRUNED", "COMPLETE"]


def test_several_metrics_are_searched_by_nsga_ii_in_their_own_directions() -> None:
    metric = {"validation.accuracy": "max", "parameters": "min"}
    found = proposals({"hidden": Integer(integer=(1, 64))}, metric=metric, trials=20)
    assert isinstance(found.study.sampler, NSGAIISampler)
    for number in range(12):
        values = found.ask(number, [])
        assert values is not None
        hidden = float(values["hidden"])
        found.told(trial(number, values, 1 - 1 / hidden, parameters=hidden))  # all of them are on the front
    assert [direction.name for direction in found.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert {told.number for told in found.study.best_trials} == set(range(12))


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("optuna", TPESampler), ("random", RandomSampler), ("pbt", RandomSampler)]
)
def test_each_algorithm_has_its_sampler(algorithm: str, kind: type) -> None:
    assert isinstance(proposals({"rate": Uniform(uniform=(0, 1))}, algorithm=algorithm).study.sampler, kind)


def test_what_decides_the_figure_is_the_most_important() -> None:
    space: Space = {"rate": Uniform(uniform=(0, 1)), "nothing": Uniform(uniform=(0, 1))}
    found = proposals(space, algorithm="random")
    done = []
    for number in range(40):
        values = found.ask(number, [])
        assert values is not None
        done.append(trial(number, values, values["rate"]))
    shares = importances(search(space), space, done)
    assert sum(shares.values()) == pytest.approx(1) and shares["rate"] > shares["nothing"]
    assert importances(search(space), space, done[:3]) == {}
    assert importances(search(space), space, [trial(n, done[n].params) for n in range(9)]) == {}


@given(entry=entries, data=st.data())
@FEW
def test_a_population_never_leaves_the_space(entry: Entry, data: st.DataObject) -> None:
    value = (proposals({"key": entry}, data.draw(st.integers(0, 99)), algorithm="random").ask(0, []) or {})["key"]
    for given_ in (value, None):
        for _ in range(8):
            assert lies_in(entry, given_ := _explored(entry, given_))


@pytest.mark.parametrize(
    ("entry", "value", "held"),
    [
        (Uniform(uniform=(0, 1)), 1.2, 1),
        (LogUniform(log_uniform=(0.1, 1)), 0.08, 0.1),
        (Integer(integer=(1, 3)), 3.6, 3),
        (Integer(integer=(1, 3)), 2.4, 2),
        (Choice(choice=["a"]), "a", "a"),
        (SUBSET, ["deep"], ["deep"]),
    ],
)
def test_a_value_is_held_at_the_ends_of_its_range(entry: Entry, value: Any, held: Any) -> None:
    assert _clamped(entry, value) == held
