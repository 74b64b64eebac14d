"""The room that trainers take on the cluster: who waits for it says so, and what Ray Train forgets is given back.

Ray Train 2.60 forgets the placement group of a worker group whose worker died while the group was starting: its controller
starts another one, which on a cluster without room for both waits for ever, as does whoever needs room later. A trainer
has one group at a time, which is its newest; the group of a controller that is killed stays, too. Whose a group is says
the actor that made it, so nobody else's is touched.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from types import TracebackType
from typing import Any

from teachers.process.log_lines import with_ids
from teachers.process.waiting import GivenUp, Wait

log = logging.getLogger(__name__)

POLL_S = 1.0


class Watch:
    """A context around one trainer, `who`. `controller` gives the id of its controller's actor, None before there is one."""

    def __init__(self, who: str, controller: Callable[[], str | None]) -> None:
        self.who, self.controller = who, controller
        self.wait = Wait(log)
        self.ended = Event()
        self.thread = Thread(target=with_ids(self._watch), name="ray-train-groups", daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
        give_back(groups_of(self.controller()))

    def _watch(self) -> None:
        with suppress(GivenUp):
            while not self.ended.wait(POLL_S):
                groups = groups_of(self.controller())
                give_back([*groups][:-1])
                newest = next(reversed(groups.values()), None)
                if newest is not None and newest["state"] in ("PENDING", "RESCHEDULING"):
                    self.wait.tell(partial(self._needs, newest))
                elif newest is not None:  # none: Ray Train gives up a group that finds no room, and asks for another
                    self.wait.begin()

    def _needs(self, group: Mapping[str, Any]) -> str:
        from teachers.resources.reservation import Request, in_need

        bundles = [*group["bundles"].values()]
        return in_need([Request(self.who, bundles[0], len(bundles))])


def groups_of(actor: str | None) -> dict[str, dict[str, Any]]:
    """By hexadecimal id, the placement groups that an actor has made and that hold or wait for room, the oldest first.

    Ray's own table leaves out who made them and when.
    """
    if actor is None:
        return {}
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    told = map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table())
    mine = [group for group in told if group.creator_actor_id.hex() == actor]
    mine.sort(key=lambda group: group.stats.creation_request_received_ns)
    table = {group.placement_group_id.hex(): state._gen_placement_group_info(group) for group in mine}
    return {group: found for group, found in table.items() if found["state"] != "REMOVED"}


def give_back(groups: Iterable[str]) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    from teachers.resources.reservation import remove

    remove([PlacementGroup(PlacementGroupID.from_hex(group)) for group in groups])
