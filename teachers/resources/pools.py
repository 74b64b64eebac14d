"""Nodes that are not there yet: what a cluster's autoscaler may add, as COLLEGIUM_POOLS on its head says.

Ray tells only of nodes that are up. Knows nothing of who adds nodes, or when.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import EnvironmentUnfit

VARIABLE = "COLLEGIUM_POOLS"
Amount = Annotated[float, Field(ge=0)]
POOLS = TypeAdapter(dict[str, dict[str, Amount]])
NODES = "nodes"
OF_EVERY_NODE = ("memory", "object_store_memory", "node:")


def in_reach(nodes: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Resources of the `nodes` that are up, and of those that may still be added to them. Raises as `to_come`."""
    return [*nodes, *(resources for _, resources in to_come(nodes))]


def to_come(nodes: Sequence[Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    """(pool, resources) of each node that may still be added to the `nodes` that are up.

    The variable holds JSON, by pool: {"teachers": {"nodes": 8, "CPU": 8, "GPU": 1, "accelerator_type:L4": 1}}. A node that is up
    is one of a pool when it has just these resources. Raises EnvironmentUnfit when the variable says something else.
    """
    coming: list[tuple[str, Mapping[str, float]]] = []
    for name, pool in _pools().items():
        resources = {resource: amount for resource, amount in pool.items() if resource != NODES}
        num_up = sum(_kind(node) == _kind(resources) for node in nodes)
        coming += [(name, resources)] * max(0, int(pool[NODES]) - num_up)
    return coming


def _kind(node: Mapping[str, float]) -> dict[str, float]:
    """What tells nodes of one pool from those of another."""
    return {name: amount for name, amount in node.items() if amount and not name.startswith(OF_EVERY_NODE)}


def _pools() -> dict[str, dict[str, float]]:
    said = os.environ.get(VARIABLE) or "{}"
    try:
        pools = POOLS.validate_json(said)
    except ValidationError as error:
        raise _misread(said) from error
    if not all(NODES in pool for pool in pools.values()):
        raise _misread(said)
    return pools


def _misread(said: str) -> EnvironmentUnfit:
    return EnvironmentUnfit(
        f"{VARIABLE} is {said!r}; expected is JSON that gives each pool its `{NODES}` and the resources of one; "
        "correct it where the head is started"
    )
