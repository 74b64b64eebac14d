"""The works of a run take their turns: a planner says who begins next, threads do it, and what waits is told.

Where starting a group of workers costs more than a training, those that wait together are begun as one.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeVar

from teachers.process.waiting import FIRST_LOG_S, POLL_S, SideBySide, go_on, outcome
from teachers.resources.pools import to_come
from teachers.storage.seal import Seal

from ..cluster.capacity import autoscaling
from ..cluster.cluster import Cluster
from ..cluster.gangs import Gang, parts_of
from ..scheduling.planner import Planner, Work
from ..scheduling.room import Node
from ..stages.stages import Built, GroupBuilder, Repair, Stage, Stages

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

GATHER_S = 0.05
"""So long those are waited for that ask at the same moment."""
WORTH_S = 30.0
"""Starting a group of workers takes about twelve seconds: less work than this is not worth one."""
TRAINS = ("train_teacher/", "distill/")
LOOK_S = 5.0
"""Between two looks at the cluster's nodes, while something waits."""


@dataclass(frozen=True)
class Turn:
    """Where a work has its seats, by the books: the cluster may place it elsewhere."""

    on: Sequence[str]
    """Addresses of its nodes."""
    node: str | None
    """Ray's id of the one that it has, of several that are up."""
    beside: Callable[[], int]
    """How many works of the same stage are under way at this moment."""
    most: int
    """How many trainings there are in the run."""


@dataclass(eq=False)
class _Asked:
    work: Work
    do: Callable[[Sequence[Any], Turn], Sequence[Any]]
    item: Any
    group: str
    future: Future[Any] = field(default_factory=Future)


class Turns:
    """Of one run, in the threads of a SideBySide. `works`: what is known beforehand of how long each is, and what follows it;
    `quiet_s`: so long nothing has begun before it is told what waits."""

    def __init__(
        self, cluster: Cluster, works: Mapping[str, Work], threads: SideBySide, quiet_s: float = FIRST_LOG_S
    ) -> None:
        self._cluster, self._works, self._threads, self._quiet_s = cluster, works, threads, quiet_s
        self._lock, self._news = Lock(), Event()
        self._told: list[str] = []
        self._asked: dict[str, _Asked] = {}
        self._planner: Planner | None = None
        self._up: Mapping[str, str] = {}
        """Addresses of nodes by Ray's ids."""
        self._begun = time.monotonic()
        """When something began last."""
        self._trainings = max(1, sum(name.startswith(TRAINS) for name in works))

    def start(
        self,
        name: str,
        gang: Gang,
        do: Callable[[Sequence[Item], Turn], Sequence[Result]],
        item: Item,
        group: str = "",
    ) -> "Future[Result]":
        """`do([item], turn)[0]`, once the gang has seats.

        Items of one group, which have one `do` and gangs alike, may come in one call, to be done in turn.
        """
        work = replace(self._works.get(name, Work(name, ())), gang=parts_of(gang, self._cluster.in_reach))
        asked = _Asked(work, self._threads.of_these(do), item, group)
        with self._lock:
            if self._planner is None:
                self._planner = Planner(self._nodes())
                self._threads.start(self._serve, self._planner)
            assert name not in self._asked, name
            self._asked[name] = asked
            self._planner.add(work)
        self._news.set()
        return asked.future

    def are_under_way(self, stages: Collection[str]) -> bool:
        """Whether a work of any of these (`label/wide`) has its turn, or waits for it."""
        with self._lock:
            return any("/".join(_stage(name)) in stages for name in self._asked)

    @property
    def nodes_may_come(self) -> bool:
        """Whether there are seats by the books on nodes that are not up."""
        assert self._planner is not None
        return bool(self._planner.empty.free.keys() - self._up.keys())

    def want(self, name: str, num: int, left_s: float | None) -> int:
        """As Planner.want, of a work that has its turn."""
        assert self._planner is not None
        with self._lock:
            told = self._planner.want(name, num, left_s, time.monotonic())
        if num > told:
            self._news.set()
        return told

    def give_back(self, name: str) -> None:
        """As Planner.give_back."""
        assert self._planner is not None
        with self._lock:
            self._planner.give_back(name)
        self._news.set()

    def _nodes(self) -> dict[str, Node]:
        """Of the cluster as it is now, by Ray's ids, and of what may still come: where nobody knows what, as many again.

        What is sent there waits at the cluster, whose autoscaler sees it.
        """
        import ray

        self._cluster.join()
        alive = [node for node in ray.nodes() if node["Alive"]]
        self._up, self._looked = {node["NodeID"]: node["NodeManagerAddress"] for node in alive}, time.monotonic()
        up: dict[str, Node] = {node["NodeID"]: node["Resources"] for node in alive}
        coming = to_come([*up.values()]) or [("more", node) for node in up.values() if autoscaling()]
        return up | {f"{pool} {number}": node for number, (pool, node) in enumerate(coming)}

    def _serve(self, planner: Planner) -> None:
        """Give turns for as long as the run goes on."""
        while True:
            go_on()
            if self._news.wait(POLL_S):
                time.sleep(GATHER_S)
                self._news.clear()
                with self._lock:
                    self._give(planner)
            if time.monotonic() - self._begun > self._quiet_s:
                with self._lock:
                    self._tell(planner)
            if (planner.waiting or planner.is_growing) and time.monotonic() - self._looked > LOOK_S:
                self._look(planner)

    def _tell(self, planner: Planner) -> None:
        """What the first of those that wait waits for; of the parts of one stage once."""
        if planner.waiting:
            first, *others = planner.waits_for()
            if (stage := _stage(first.partition(" ")[0])) != self._told:
                self._told = stage
                log.info("%s%s", first, f"; {len(others)} more wait behind it" if others else "")

    def _look(self, planner: Planner) -> None:
        """Nodes come and go."""
        with self._lock:
            nodes = self._nodes()
            if nodes.keys() != planner.empty.free.keys():
                planner.on(nodes)
                self._news.set()

    def _give(self, planner: Planner) -> None:
        shares: dict[str, int] = {}
        for started in planner.start(time.monotonic()):
            first = self._asked[started.work.name]
            in_turn, alike = [first], self._alike(planner, first)
            share = shares.setdefault(
                first.group, -(-len(alike) // max(1, planner.places(first.work.gang, len(alike))))
            )
            for each in alike[1:]:
                if len(in_turn) < share or sum(one.work.length for one in in_turn) < WORTH_S:
                    planner.join(first.work.name, each.work.name)
                    in_turn.append(each)
            self._threads.start(self._do, planner, in_turn, self._turn(planner, first))
            self._begun = time.monotonic()

    def _alike(self, planner: Planner, first: _Asked) -> list[_Asked]:
        """It, and those of its group that wait."""
        others = [each for each in self._asked.values() if first.group and each.group == first.group]
        return [first, *(each for each in others if each.work.name in planner.waiting)]

    def _turn(self, planner: Planner, first: _Asked) -> Turn:
        ids = [seat.node for seat in planner.running[first.work.name].seats if seat.node in self._up]
        node = ids[0] if len(ids) == 1 and len(self._up) > 1 else None
        on = list(dict.fromkeys(self._up[each] for each in ids))
        return Turn(on, node, partial(self._beside, planner, first), self._trainings)

    def _beside(self, planner: Planner, first: _Asked) -> int:
        with self._lock:
            return sum(_stage(name) == _stage(first.work.name) for name in planner.running)

    def _do(self, planner: Planner, in_turn: Sequence[_Asked], turn: Turn) -> None:
        first = in_turn[0]
        try:
            results = first.do([each.item for each in in_turn], turn)
        except BaseException as error:
            for each in in_turn:
                each.future.set_exception(error)
            raise
        with self._lock:
            planner.done(first.work.name, time.monotonic())
            for each in in_turn:
                del self._asked[each.work.name]
        self._news.set()
        for each, result in zip(in_turn, results, strict=True):
            each.future.set_result(result)


@dataclass(frozen=True)
class MoreSeats:
    """Seats of work `name` beyond its gang, while it has its turn: what a labelling asks for (teachers.labelling.replicas.Seats)."""

    turns: Turns
    name: str

    @property
    def patient(self) -> bool:
        return self.turns.nodes_may_come

    def want(self, num: int, left_s: float | None) -> int:
        return self.turns.want(self.name, num, left_s)

    def give_back(self) -> None:
        self.turns.give_back(self.name)


def build_in_turn(
    turns: Turns,
    name: str,
    gang: Callable[[], Gang],
    stages: Stages,
    wanted: Sequence[Stage],
    builder: GroupBuilder,
    repair: Repair | None = None,
) -> dict[Stage, Built]:
    """As `Stages.build_together`, in a turn of its own where anything is missing."""
    if all(map(stages.is_there, wanted)):
        return stages.build_together(wanted, builder, repair)

    def build(nothing: Sequence[None], turn: Turn) -> list[dict[Stage, Built]]:
        def placed(folders: Mapping[Stage, Path]) -> dict[Stage, tuple[Seal, Mapping[str, Any]]]:
            return {stage: (seal, {**facts, "on": turn.on}) for stage, (seal, facts) in builder(folders).items()}

        return [stages.build_together(wanted, placed, repair)]

    return outcome(turns.start(name, gang(), build, None))


def _stage(name: str) -> list[str]:
    """Its kind and name, without the part."""
    return name.split("/")[:2]
