"""Which nodes of a cluster each stage of a plan would use, how much of it runs side by side, and what is missing.

From the nodes' totals: what others use at the moment is not looked at. Knows nothing of what stages do.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from teachers.config.resources import Resources, in_words
from teachers.resources.pools import VARIABLE, in_reach, to_come

from ..cluster.capacity import (
    Node,
    autoscaling,
    check_capacity,
    check_room_for_trials,
    lacks,
    request_of,
    total,
)
from ..cluster.cluster import cluster
from ..cluster.dashboard import nodes_from_dashboard
from ..cluster.gangs import GANGS, most_of
from ..recipe.model import Recipe

POOLS_UNKNOWN = "These are the nodes that are up; which more can come, the cluster's head knows: `collegium submit --verb plan` asks there"
Places = Mapping[str, Node]
"""By name, the resources of the nodes of a cluster."""


@dataclass
class Ask:
    """`least` workers or replicas that begin together, `num` as room comes, each with `request` on one node."""

    stage: str
    who: str
    least: int
    num: int
    request: Mapping[str, float]
    on: dict[str, int] = field(default_factory=dict)
    """By node, how many of them it would hold."""
    later: dict[str, int] = field(default_factory=dict)
    """By pool, how many would find room on nodes that may still come."""
    missing: str | None = None

    def record(self) -> dict[str, Any]:
        return {**vars(self), "at_once": sum(self.on.values())}


def places_at(address: str | None) -> Places | None:
    """The nodes of the cluster at `address` (a dashboard's, or one to join) or RAY_ADDRESS; None for this machine alone."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return _named((node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"])
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        return None
    assert address is not None
    if address.startswith(("http://", "https://")):
        return _named(nodes_from_dashboard(address.rstrip("/")))
    with cluster(address) as joined:
        return _named((node["NodeManagerAddress"], node["Resources"]) for node in joined.nodes)


def _named(nodes: Iterable[tuple[str, Node]]) -> Places:
    """By their addresses; several on one machine are numbered."""
    found: dict[str, Node] = {}
    for address, resources in nodes:
        name, number = address, 1
        while name in found:
            number += 1
            name = f"{address}#{number}"
        found[name] = resources
    return found


def place(recipe: Recipe, stages: Iterable[tuple[str, str]], places: Places) -> list[Ask]:
    """What each of `stages` (kind, name) asks the cluster for, and where it would go."""
    made: list[Ask] = []
    reach = in_reach([*places.values()])
    for kind, name in dict.fromkeys(stages):
        if kind in GANGS:
            gang = [
                Ask(f"{kind}/{name}", who, num, most_of(recipe, kind, name, num), request_of(reach, resources))
                for who, num, resources in GANGS[kind](recipe, name)
            ]
            _seat(gang, places)
            made += gang
    return made


def _seat(gang: Sequence[Ask], places: Places) -> None:
    """Fill the nodes, the largest requests first; write down who finds no room, and who finds it on nodes that may come."""
    nodes = [*places.values()]
    free = [(name, dict(node)) for name, node in places.items()]
    coming = [(pool, dict(node)) for pool, node in to_come(nodes)]
    for ask in sorted(gang, key=lambda ask: (-ask.request.get("GPU", 0), -ask.request.get("CPU", 0))):
        ask.on = _filled(free, ask.request, ask.num)
        ask.later = _filled(coming, ask.request, ask.num - sum(ask.on.values()))
        ask.missing = _missing(ask, nodes)


def _filled(nodes: Iterable[tuple[str, dict[str, float]]], request: Mapping[str, float], num: int) -> dict[str, int]:
    """By name, how many of `num` such requests the nodes take; what they take is no longer free."""
    found: dict[str, int] = {}
    for name, node in nodes:
        if taken := min(num - sum(found.values()), fitting(request, node)):
            found[name] = found.get(name, 0) + taken
            for resource, amount in request.items():
                node[resource] = node.get(resource, 0) - taken * amount
    return found


def fitting(request: Mapping[str, float], node: Node) -> int:
    """How many such requests a node holds at once. A share of a GPU lies on one GPU: two of 0.6 need two."""
    return min(
        int(int(node.get(name, 0) + 1e-9) * int(1 / amount + 1e-9))
        if name == "GPU" and amount < 1
        else int(node.get(name, 0) / amount + 1e-9)
        for name, amount in request.items()
    )


def _missing(ask: Ask, nodes: Sequence[Node]) -> str | None:
    if not (more := ask.num - sum(ask.on.values()) - sum(ask.later.values())):
        return None
    wanted = in_words(ask.request)
    why = "waits for the autoscaler" if autoscaling() else "no room at once"
    resources = Resources(cpus=ask.request["CPU"], gpus=ask.request.get("GPU", 0), custom=_custom(ask.request))
    lacking = lacks(nodes, resources)
    return f"{more} x {wanted}: {why}{f'; no node of today has {_first(lacking)}' if lacking else ''}"


def _custom(request: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in request.items() if name not in ("CPU", "GPU")}


def _first(lacking: Sequence[str]) -> str:
    return lacking[0].partition(" (")[0]


def table(asks: Sequence[Ask]) -> list[str]:
    """For people: one line for each who asks."""
    rows = [("stage", "asks for", "at once", "on")]
    for ask in asks:
        request = in_words(ask.request)
        on = ", ".join(f"{name} ({num})" for name, num in ask.on.items())
        later = ", ".join(f"waits for pool {pool} ({num})" for pool, num in ask.later.items())
        told = "; ".join(part for part in (on, later, f"missing {ask.missing}" if ask.missing else "") if part)
        num = f"{ask.num}" if ask.least == ask.num else f"{ask.least} to {ask.num}"
        rows.append((ask.stage, f"{num} x {request} ({ask.who})", f"{sum(ask.on.values())} of {ask.num}", told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cluster_notes(recipe: Recipe, nodes: Sequence[Node]) -> list[str]:
    """What waits for nodes to come. Raises EnvironmentUnfit for what the cluster can never hold."""
    notes = check_capacity(recipe, nodes, "" if os.environ.get(VARIABLE) else POOLS_UNKNOWN)
    configs = [*recipe.teachers.values(), *recipe.learners.values()]
    if not autoscaling():
        check_room_for_trials(recipe, nodes)
    elif not total(nodes, "GPU") and any(config.resources.gpus == "auto" for config in configs):
        notes.append("`gpus: auto` is none, since no node of today has a GPU; say `gpus: 1` for nodes to be added")
    return notes
