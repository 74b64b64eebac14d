"""Where the stages of a plan would go: laws of fitting, on nodes written down as Ray tells them."""

import pytest

from orchestrator.cluster.capacity import AUTOSCALING, check_capacity
from orchestrator.planning.placement import Ask, Places, fitting, place, table
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from teachers.errors import EnvironmentUnfit, RecipeError
from teachers.resources.pools import VARIABLE

NODES: Places = {
    "head": {"CPU": 0.0},
    "a": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0},
    "b": {"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0},
    "c": {"CPU": 4.0, "licence": 1.0},
}
STAGES = [("label", "wide"), ("label", "deep"), ("label", "trees"), ("distill", "small")]


def digits(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), overrides)


def seats(*overrides: str) -> dict[str, Ask]:
    return {ask.stage: ask for ask in place(digits(*overrides), STAGES, NODES)}


def test_teachers_with_different_needs_go_to_the_nodes_that_have_them() -> None:
    found = seats(
        "teachers.wide.resources={gpus: 1, accelerator_type: A100}",
        "teachers.deep.resources={gpus: 0.25, accelerator_type: T4}",
        "teachers.trees.resources={gpus: 0, custom: {licence: 1}}",
        "students.small.resources={gpus: 4}",
    )
    assert {stage: ask.on for stage, ask in found.items()} == {
        "label/wide": {"a": 2},
        "label/deep": {"b": 2},
        "label/trees": {"c": 1},
        "distill/small": {"b": 1},
    }
    assert not [ask for ask in found.values() if ask.missing]


@pytest.mark.parametrize(("share", "num"), [(1, 2), (0.5, 4), (0.6, 2), (0.25, 8), (2, 1), (3, 0)])
def test_a_share_of_a_gpu_lies_on_one_gpu(share: float, num: int) -> None:
    assert fitting({"CPU": 0.1, "GPU": share}, NODES["a"]) == num


def test_a_student_and_its_live_teachers_take_room_from_each_other() -> None:
    together = digits(
        *("teachers.wide.mode=live", "teachers.wide.replicas=4", "teachers.wide.resources={gpus: 1}"),
        *("students.small.train.workers=4", "students.small.resources={gpus: 1}"),
    )
    workers, replicas = place(together, [("distill", "small")], NODES)
    assert sum(workers.on.values()) + sum(replicas.on.values()) == 6
    assert [ask.missing is None for ask in (workers, replicas)].count(False) == 1


def test_what_finds_no_room_says_how_many_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("teachers.wide.resources={gpus: 4}", "teachers.wide.replicas=3")
    monkeypatch.delenv(AUTOSCALING, raising=False)
    assert seats(*wanted)["label/wide"].missing == "2 x 1 CPU, 4 GPU: no room at once"
    monkeypatch.setenv(AUTOSCALING, "1")
    assert seats(*wanted)["label/wide"].missing == "2 x 1 CPU, 4 GPU: waits for the autoscaler"
    alone = seats("teachers.wide.resources={gpus: 16}", "teachers.wide.replicas=1")["label/wide"]
    assert alone.missing == "1 x 1 CPU, 16 GPU: waits for the autoscaler; no node of today has 16 GPU"
    assert "0 of 1" in table([alone])[1]


def test_a_labelling_begins_with_what_there_is_and_what_must_begin_together_has_to_fit() -> None:
    a_gpu = "teachers.wide.resources={gpus: 1}"
    wide = seats("teachers.wide.replicas=1000", a_gpu)["label/wide"]
    assert (wide.least, wide.num, sum(wide.on.values())) == (1, 1000, 6)
    assert "1 to 1000 x 1 CPU, 1 GPU (replicas)" in table([wide])[1] and "6 of 1000" in table([wide])[1]
    nodes = [*NODES.values()]
    check_capacity(digits("teachers.wide.replicas={min: 6, max: 1000}", a_gpu), nodes)
    told = r"teachers\.wide\.replicas\.min: 7 x 1 CPU, 1 GPU begin together, and there is room for 6; ask for fewer"
    with pytest.raises(EnvironmentUnfit, match=told) as raised:
        check_capacity(digits("teachers.wide.replicas={min: 7, max: 1000}", a_gpu), nodes)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("replicas", "told"),
    [
        ("{min: 3, max: 2}", r"wide\.replicas: `min` is 3 and `max` 2: give a `min` that is not above `max`"),
        ("{min: 0, max: 2}", r"wide\.replicas\.min: input should be greater than or equal to 1 \(found 0\)"),
        ("{min: 1}", r"wide\.replicas\.max: is missing"),
        ("{min: 1, max: 2, step: 3}", r"wide\.replicas\.step: unknown key"),
        ("many", r"wide\.replicas: .*integer.* \(found 'many'\)"),
    ],
)
def test_replicas_that_cannot_be_are_refused_at_their_place(replicas: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        digits(f"teachers.wide.replicas={replicas}")


def test_a_live_teacher_answers_by_just_the_number_or_by_the_fewest() -> None:
    for replicas, num in (("3", 3), ("{min: 2, max: 9}", 2)):
        recipe = digits("teachers.wide.mode=live", f"teachers.wide.replicas={replicas}")
        assert [ask.num for ask in place(recipe, [("distill", "small")], NODES)] == [1, num]


def test_what_nodes_of_a_pool_will_hold_waits_for_them_and_asks_for_what_they_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`auto` is a GPU although none is up, as it will be in the run; the pools bound what can come."""
    monkeypatch.setenv(VARIABLE, '{"teachers": {"nodes": 3, "CPU": 8, "GPU": 1}, "cpu": {"nodes": 1, "CPU": 16}}')
    monkeypatch.delenv(AUTOSCALING, raising=False)
    up: Places = {"head": {"CPU": 0.0}, "a": {"CPU": 8.0, "GPU": 1.0}}
    recipe = digits("teachers.wide.replicas=4", "teachers.trees.resources.gpus=0", "teachers.trees.resources.cpus=16")
    wide, deep, trees = place(recipe, STAGES[:3], up)
    assert (wide.on, wide.later, wide.missing) == ({"a": 1}, {"teachers": 2}, "1 x 1 CPU, 1 GPU: no room at once")
    assert (deep.on, deep.later, deep.missing) == ({"a": 1}, {"teachers": 1}, None)
    assert (trees.on, trees.later, trees.missing) == ({}, {"cpu": 1}, None)
    assert table([wide])[1].endswith("a (1); waits for pool teachers (2); missing 1 x 1 CPU, 1 GPU: no room at once")
