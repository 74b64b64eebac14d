"""Room on the Ray cluster: for all that works together at once, or for nothing of it.

Knows nothing of what is done with the room.
"""

import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import ray
from ray.util import placement_group_table
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ..config.resources import Resources, in_words
from ..errors import EnvironmentUnfit
from ..process.waiting import Wait
from .bundles import bundle_of, gpus_of, num_threads
from .pools import in_reach

log = logging.getLogger(__name__)

HOLD_S = 10.0
"""So long a part is held while the rest finds no room; then others may have it."""
PLACING_S = 2.0
"""A group that has no room so long after it was asked for is not being placed, but waits for room."""


@dataclass(frozen=True)
class Request:
    """`num` bundles, each on one node. `who` wants them: `replicas of teacher 'wide'`."""

    who: str
    bundle: dict[str, float]
    num: int

    @classmethod
    def of(cls, who: str, resources: Resources, num: int) -> Self:
        """Of replicas or workers with `resources` each; Ray must be running."""
        return cls(who, bundle_of(resources, num_gpus(resources)), num)

    def __str__(self) -> str:
        return f"{self.num} x {in_words(self.bundle)}"


def num_gpus(resources: Resources) -> float:
    """`auto` resolved: 1 if the cluster has any GPU or can get one, else 0."""
    return gpus_of(resources, in_reach([ray.cluster_resources()]))


def free_of(resources: Iterable[str]) -> dict[str, float]:
    """What nobody has reserved of these at this moment, on all nodes together."""
    available = ray.available_resources()
    return {name: available.get(name, 0.0) for name in dict.fromkeys(resources)}


def actor_options(resources: Resources, group: Any, number: int, *, max_concurrency: int) -> dict[str, Any]:
    """Of the replica in bundle `number` of a reserved group."""
    threads = num_threads(resources)
    environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
    return {
        "num_cpus": resources.cpus,
        "num_gpus": num_gpus(resources),
        "resources": resources.custom,
        "accelerator_type": resources.accelerator_type,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, number),
        "runtime_env": environment if threads > 1 else None,  # Ray's own processes, idle ones, have 1
        "max_concurrency": max_concurrency,
        "max_restarts": -1,
        "max_task_retries": 0,  # what was lost is sent again by whoever asked, to another replica
    }


@contextmanager
def reserved(requests: Sequence[Request], wait_s: float) -> Iterator[list[Any]]:
    """A placement group for each request, all at once; given back at the end (one that was removed before, too).

    Raises EnvironmentUnfit when there was no room for all of them within `wait_s`.
    """
    groups = _reserve(requests, wait_s)
    try:
        yield groups
    finally:
        remove(groups)


def remove(groups: Sequence[Any], asked_at: float | None = None) -> None:
    """Give their room back; the last of them was asked for at `asked_at` (of time.monotonic; None: now).

    None is removed while it is being placed: what Ray 2.60 has set aside for a group that is removed between the two steps of
    that, `prepare` and `commit`, nobody ever gets back (CommitAllBundles in its src/ray/gcs/gcs_placement_group_scheduler.cc).
    Those without room go first: they would be placed in that of the others.
    """
    until = (time.monotonic() if asked_at is None else asked_at) + PLACING_S
    while waiting := [group for group in groups if not is_placed(group)]:
        if time.monotonic() >= until:
            break
        time.sleep(0.05)
    for group in dict.fromkeys([*waiting, *groups]):
        remove_placement_group(group)


def is_placed(group: Any) -> bool:
    """Whether it has its room, or had it and is removed."""
    return placement_group_table(group).get("state") not in ("PENDING", "PREPARED", "RESCHEDULING")


def _reserve(requests: Sequence[Request], wait_s: float) -> list[Any]:
    """Ray makes one group in one step, but not several: what is held without the rest is given back now and then.

    Not at once and not in step: two runs that hold what the other one needs would do so for ever.
    """
    room = Room(wait_s)
    while True:
        groups = [
            placement_group([request.bundle] * request.num, strategy="PACK", name=f"collegium-{uuid4().hex}")
            for request in requests
        ]
        asked_at = time.monotonic()
        try:
            if room.until_ready(requests, groups):
                return groups
        except BaseException:
            remove(groups, asked_at)
            raise
        time.sleep(random.uniform(0.0, 1.0))  # in step, each would remove what is being placed in the room of the other
        remove(groups, asked_at)
        time.sleep(random.uniform(0.0, 1.0))


class Room:
    """One wait for room, which is over after `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s, self.wait = wait_s, Wait(log)

    def until_ready(self, requests: Sequence[Request], groups: Sequence[Any]) -> bool:
        """Whether all groups are there; False when some have been for a while, and others are not."""
        asked = time.monotonic()
        missing = list(zip(requests, groups, strict=True))
        while missing := [(request, group) for request, group in missing if not group.wait(timeout_seconds=1)]:
            self._tell([request for request, _ in missing])
            if len(missing) < len(groups) and time.monotonic() - asked >= HOLD_S:
                return False
        return True

    def _tell(self, missing: Sequence[Request]) -> None:
        """Say what is missing, now and then. Raises EnvironmentUnfit when the time is over."""
        if self.wait.seconds >= self.wait_s:
            who, wanted = " and ".join(r.who for r in missing), " and ".join(map(str, missing))
            free = free_of(resource for request in missing for resource in request.bundle)
            raise EnvironmentUnfit(
                f"{who}: the cluster had no room for {wanted} within {self.wait_s:g} s; free are {free}. "
                f"Ask for fewer `replicas` or `workers`, or less in `resources`, or wait for other work to end"
            )
        self.wait.tell(lambda: in_need(missing))


def in_need(missing: Sequence[Request]) -> str:
    """Who needs what, and what is free."""
    who, wanted = " and ".join(request.who for request in missing), " and ".join(map(str, missing))
    return f"{who} need {wanted}; free are {free_of(resource for request in missing for resource in request.bundle)}"
