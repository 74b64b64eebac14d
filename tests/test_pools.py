"""Nodes that an autoscaler may add count as if they were there, and none is counted twice."""

import pytest

from orchestrator.cluster.capacity import check_capacity, lacks
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from teachers.config.resources import Resources
from teachers.errors import EnvironmentUnfit
from teachers.resources.pools import VARIABLE, in_reach

HEAD = {"CPU": 0.0, "GPU": 0.0, "memory": 8e9, "node:192.0.2.10": 1.0}
SAID = """{
  "teachers": {"nodes": 2, "CPU": 8, "GPU": 1, "accelerator_type:L4": 1, "teachers": 1000},
  "cpu": {"nodes": 3, "CPU": 8}
}"""
TEACHERS = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0, "teachers": 1000.0}


def test_without_pools_there_is_what_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert in_reach([HEAD]) == [HEAD]


def test_a_head_that_does_no_work_can_do_what_its_pools_can(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(
        find("digits"), ("teachers.wide.resources.accelerator_type=L4", "teachers.trees.resources.gpus=0")
    )
    with pytest.raises(EnvironmentUnfit, match="no node has more than 0"):
        check_capacity(recipe, in_reach([HEAD]))
    monkeypatch.setenv(VARIABLE, SAID)
    check_capacity(recipe, in_reach([HEAD]))
    assert lacks(in_reach([HEAD]), Resources(accelerator_type="H100"))


def test_a_type_of_gpu_that_no_node_has_is_told_with_those_that_they_have() -> None:
    nodes = [HEAD, TEACHERS, {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}]
    assert lacks(nodes, Resources(accelerator_type="H100")) == ["accelerator_type:H100 (the nodes have A100, L4)"]
    [told] = lacks([{"CPU": 8.0}], Resources(accelerator_type="L4"))
    assert told == "accelerator_type:L4 (no node says of which type its GPUs are)"
    assert not lacks(nodes, Resources(accelerator_type="L4"))


@pytest.mark.parametrize("num_up", [0, 1, 2, 3])
def test_a_node_that_is_up_is_not_added_again(num_up: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SAID)
    up = [TEACHERS | {"memory": 3e10, "object_store_memory": 9e9, f"node:192.0.2.{n}": 1.0} for n in range(num_up)]
    reach = in_reach([HEAD, *up])
    assert sum(node.get("GPU", 0) for node in reach) == max(2, num_up)
    assert sum(node.get("CPU", 0) for node in reach) == 8 * max(2, num_up) + 24


@pytest.mark.parametrize("said", ["teachers", "[]", '{"cpu": {"CPU": 8}}', '{"cpu": {"nodes": -1}}', '{"cpu": 8}'])
def test_pools_that_cannot_be_read_are_named(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(EnvironmentUnfit, match=r"COLLEGIUM_POOLS is .*where the head is started"):
        in_reach([HEAD])
