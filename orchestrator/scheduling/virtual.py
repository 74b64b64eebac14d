"""Works on virtual time: how a planner would lay them out, if each took just as long as was thought, or as long as it is told."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .planner import Planner, Work, ranked
from .room import Node


@dataclass(frozen=True)
class Bar:
    """One work of a schedule, seconds from its beginning, and the node of each of its workers."""

    name: str
    start: float
    end: float
    on: tuple[str, ...]


def schedule(works: Iterable[Work], nodes: Mapping[str, Node], true: Mapping[str, float] | None = None) -> list[Bar]:
    """In the order in which they begin. `true`: by name how long each takes in truth, where that is not its `length`."""
    left, planner, bars = ranked(works), Planner(nodes), list[Bar]()
    open_after = {name: {other for other in work.after if other in left} for name, work in left.items()}
    for name, work in left.items():
        if not open_after[name]:
            planner.add(work)
    now, ends = 0.0, list[tuple[float, str]]()
    while True:
        for begun in planner.start(now):
            name = begun.work.name
            end = now + (true or {}).get(name, begun.work.length)
            bars.append(Bar(name, now, end, tuple(seat.node for seat in begun.seats)))
            heapq.heappush(ends, (end, name))
        if not ends:
            return bars
        now = ends[0][0]
        while ends and ends[0][0] <= now:
            _, ended = heapq.heappop(ends)
            planner.done(ended)
            for name, others in open_after.items():
                if ended in others:
                    others.discard(ended)
                    if not others:
                        planner.add(left[name])
