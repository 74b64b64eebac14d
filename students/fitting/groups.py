"""The room that trainers take on the cluster: who waits for it says so, and what Ray Train forgets is given back.

Ray Train 2.60 forgets the placement group of a worker group whose worker died while the group was starting: its controller
starts another one, which on a cluster without room for both waits for ever, as does whoever needs room later. A trainer
has one group at a time, which is its newest.
"""

import logging
import time
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

POLL_S = 1.0
LOG_EVERY_S = 10.0


class Watch:
    """While a trainer runs, and once when the last one of this process has ended, forgotten groups are given back.

    Groups of Ray Train are those of this job without a name; all of ours have one. While several trainers run at once
    nobody knows whose a group is, so nothing is touched until one that waits for room is left, or none.
    """

    lock = Lock()
    running = 0
    crowded = False
    """Several have run at once since the last time that none did: the newest group need not be of the one that is left."""

    def __init__(self, who: str) -> None:
        self.who = who

    def __enter__(self) -> "Watch":
        import ray

        with Watch.lock:
            Watch.running += 1
            Watch.crowded |= Watch.running > 1
        self.seen: list[str] = []
        self.alone = ray.get_runtime_context().get_actor_id() is None  # in a trial: others' groups are of this job too
        self.ended = Event()
        self.thread = Thread(target=self._watch, name="ray-train-groups", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        with Watch.lock:
            Watch.running -= 1
            if Watch.running == 0 and self.alone:
                Watch.crowded = False
                give_back([*unnamed_groups()])

    def _watch(self) -> None:
        begun = told = time.time()
        while not self.ended.wait(POLL_S):
            groups = unnamed_groups()
            waiting = [found for found in groups.values() if found["state"] in ("PENDING", "RESCHEDULING")]
            begun = begun if waiting else time.time()
            if waiting and time.time() - max(begun, told) >= LOG_EVERY_S:
                told = time.time()
                tell_who_waits(self.who, [*waiting[-1]["bundles"].values()], begun)
            self.seen = [group for group in self.seen if group in groups] + [g for g in groups if g not in self.seen]
            with Watch.lock:
                if self.alone:
                    pending = {group for group, found in groups.items() if found["state"] == "PENDING"}
                    give_back(forgotten(self.seen, pending, left=Watch.running, crowded=Watch.crowded))


def forgotten(groups: list[str], pending: set[str], *, left: int, crowded: bool) -> list[str]:
    """Of `groups`, the oldest first, those that none of the trainers that are `left` can have; `pending` never had room.

    A forgotten group had room: its worker died while it started. So where the last trainer waits, all that have are.
    """
    if not crowded:
        return groups[:-1]
    return [group for group in groups if group not in pending] if left == 1 and pending else []


def tell_who_waits(who: str, bundles: list[dict[str, float]], since: float) -> None:
    from teachers.resources.reservation import Request, free_of

    at = time.strftime("%H:%M:%S", time.localtime(since))
    asked = Request(who, bundles[0], len(bundles))
    log.info("%s waits since %s for %s; free are %s", who, at, asked, free_of(["CPU", "GPU", *bundles[0]]))


def unnamed_groups() -> dict[str, dict[str, Any]]:
    """By hexadecimal id, this job's placement groups that have no name and hold or wait for room."""
    import ray

    job = ray.get_runtime_context().get_job_id()
    table: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    return {
        group: found
        for group, found in table.items()
        if found["state"] != "REMOVED" and not found["name"] and group.endswith(job)
    }


def give_back(groups: list[str]) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
