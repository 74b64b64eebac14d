"""One budget: what a training holds of its rows never exceeds it, whatever is held trains the same network."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.memory import holdings
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.stages import keys
from orchestrator.stages.trainings import training_stages
from students.data.batches import Batches
from students.data.memory import Needs, Target, divide, memory_for
from students.data.shared import SharedData
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.training import TrainConfig
from teachers.preparing.look import look
from tests.training_runs import HARD, SOFT, make_run, make_store, source

SESSION = PlainSession()
SIZES = st.integers(0, 1000)


@pytest.fixture(scope="module")
def stores(digits, tmp_path_factory):
    return [make_store(tmp_path_factory.mktemp(name), digits, name=name, seed=n) for n, name in enumerate(("a", "b"))]


NEEDS = st.builds(
    Needs,
    inputs=st.none() | SIZES,
    stored_inputs=SIZES,
    targets=st.lists(
        st.builds(Target, st.sampled_from([("a",), ("b",), ("a", "b")]), st.none() | SIZES), max_size=3
    ).map(tuple),
    stored_labels=st.fixed_dictionaries({"a": SIZES, "b": SIZES}),
    validation=SIZES,
    copies=st.sampled_from([1, 2]),
)


@given(st.integers(0, 8000), NEEDS)
def test_what_is_held_and_what_the_reader_may_take_are_the_budget(total, needs):
    division = divide(total, needs)
    held = {part: size for part, size in division.taken.items() if part != "as stored"}
    assert sum(held.values()) + division.reader == total
    assert division.taken.get("as stored", 0) <= division.reader
    if "as stored" in division.too_large:
        assert division.reader >= total // 4


@given(NEEDS)
def test_where_everything_fits_everything_is_held_and_nowhere_is_more_taken_than_is_needed(needs):
    everything = divide(10**9, needs)
    assert everything.too_large == () and everything.validation
    assert everything.inputs == (needs.inputs is not None)
    just = divide(sum(everything.taken.values()), needs)
    assert dict(just.taken) == dict(everything.taken) and just.too_large == ()


def bytes_held(run, memory_bytes):
    """Everything that a training at work has in memory: columns, what its readers hold or fill in turn, validation."""
    (data,) = SharedData(memory_bytes).of([run], SESSION)
    readers = [reader for views in Batches(data.rows, run, SESSION).readers for reader in views]
    for reader in readers:
        next(iter(reader.batches(0)))
    tensors = [column for column in data.rows.columns.values() if isinstance(column, torch.Tensor)]
    tensors = [tensor for tensor in tensors if tensor.ndim > 1]  # a label or a weight a row is no part of the budget
    for reader in readers:
        tensors += [tensor for tensor in reader._held.values() if tensor.ndim > 1]
        tensors += [tensor for pair in reader._spare for slot in pair for tensor in slot.host.values()]
    tensors += [inputs for inputs, _ in data.validation.held or []]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


WAYS = {
    "held": {},
    "augmented": {"augment": "flip"},
    "a rule of the user's": {"objective": [SOFT | {"combine": "tests.training_runs:own_mean"}, HARD]},
    "two combinations": {"objective": [SOFT, SOFT | {"combine": "mean_logits"}, HARD]},
    "two groups": {"labelled_fraction": 0.25},
    "control": {"objective": [HARD], "labelled_only": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_takes_no_more_than_its_budget_for_all_that_it_reads(way, digits, stores, tmp_path):
    heard = [] if way == "control" else [source(store, name) for store, name in zip(stores, "ab", strict=True)]
    run = make_run(tmp_path, digits, *heard, batch_size=8, shuffle_window=50, **WAYS[way])
    for memory_bytes in (40_000, 100_000, 330_000, 400_000, 700_000, 10**8):
        assert bytes_held(run, memory_bytes) <= memory_bytes


@pytest.mark.parametrize("way", WAYS)
def test_no_budget_changes_the_network(way, digits, stores, tmp_path):
    heard = [] if way == "control" else [source(store, name) for store, name in zip(stores, "ab", strict=True)]
    run = make_run(tmp_path, digits, *heard, shuffle_window=300, steps=15, **WAYS[way])
    run.stage.mkdir(parents=True, exist_ok=True)
    found = []
    for memory_bytes in (10_000, 400_000, 10**8):
        trained = Training(run, SESSION, SharedData(memory_bytes).of([run], SESSION)[0])
        trained.train()
        found.append(torch.cat([p.detach().flatten() for p in trained.module.parameters()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-6)


def test_who_draws_labelled_rows_alone_holds_no_others(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True)
    (data,) = SharedData().of([run], SESSION)
    assert {len(column) for column in data.rows.columns.values()} == {digits.num_labelled}


def test_on_a_gpu_the_budget_is_the_recipes_and_never_what_happens_to_be_free():
    assert memory_for(TrainConfig(), "cuda", 1) == memory_for(TrainConfig(), "cuda", 8) == 4 * 2**30
    for device in ("cpu", "cuda"):
        assert memory_for(TrainConfig(memory_gib=0.5), device, 2) == 2**29
    assert memory_for(TrainConfig(), "cpu", 2) < memory_for(TrainConfig(), "cpu", 1)


def test_the_recipes_budget_is_in_the_keys_of_what_is_trained_by_it():
    plain = load_recipe(recipes()["digits"])
    tight = load_recipe(recipes()["digits"], ["students.small.train.memory_gib=1", "teachers.wide.train.memory_gib=1"])
    labels = dict.fromkeys(plain.students["small"].teachers, "")
    trained = [
        {stage.key for stage in training_stages(recipe, "small", "", labels).values()} for recipe in (plain, tight)
    ]
    assert not trained[0] & trained[1]
    assert keys.train_teacher_stage(plain, "wide", "").key != keys.train_teacher_stage(tight, "wide", "").key
    assert keys.train_teacher_stage(plain, "deep", "").key == keys.train_teacher_stage(tight, "deep", "").key


def test_members_in_one_process_share_one_budget(digits, stores, tmp_path):
    runs = [make_run(tmp_path / name, digits, source(stores[0]), objective=[SOFT]) for name in "ab"]
    runs[1] = dataclasses.replace(runs[1], objective=make_run(tmp_path, digits, objective=[HARD]).objective)
    totals = [data.rows.division.total for data in SharedData(1000).of(runs, SESSION)]
    assert totals == [500, 500]


def test_plan_tells_what_each_training_holds_as_the_training_does(digits, stores, tmp_path):
    recipe = load_recipe(recipes()["digits"])
    seen = look(recipe.transfer_set)
    found = {each.who: each for each in holdings(recipe, seen, [{"CPU": 2.0}], {})}
    assert set(found) == {"teachers.wide", "teachers.deep", "students.small"}
    told = found["students.small"].division
    (data,) = SharedData().of([make_run(tmp_path, digits, source(stores[0]))], SESSION)
    there = data.rows.division
    assert (told.inputs, told.targets, told.validation) == (there.inputs, there.targets, there.validation)
    for part, size in told.taken.items():
        assert size == pytest.approx(there.taken[part], rel=0.1)  # whose rows are in which split is a matter of a hash
    tight = load_recipe(recipes()["digits"], ["students.small.train.memory_gib=0.0001"])
    (small,) = (each for each in holdings(tight, seen, [{"CPU": 2.0}], {}) if each.who == "students.small")
    assert "too large to hold: inputs" in small.line() and small.record()["budget"] == int(0.0001 * 2**30)


def test_plan_counts_what_the_layers_of_teachers_give(digits):
    document = load_recipe(recipes()["digits"]).model_dump(mode="json", exclude_defaults=True)
    document["teachers"]["wide"]["outputs"] = {"early": {"layer": "stages.1"}}
    hint = {"loss": "attention", "teacher": "wide", "output": "early"}
    document["students"]["small"]["hints"] = [hint, {**hint, "loss": "similarity"}]  # of one output, which is held once
    recipe = Recipe.from_dict(document)
    seen = look(recipe.transfer_set)
    with_hints, without = (
        {
            each.who: each.division.taken
            for each in holdings(made, seen, [{"CPU": 2.0}], {"wide": {"early": (32, 4, 4)}})
        }
        for made in (recipe, load_recipe(recipes()["digits"]))
    )
    assert seen.rows_by_split is not None
    more = with_hints["students.small"]["as stored"] - without["students.small"].get("as stored", 0)
    assert more == seen.rows_by_split["train"] * 32 * 4 * 4 * 2
    assert with_hints["teachers.wide"] == without["teachers.wide"]
