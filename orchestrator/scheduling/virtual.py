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
    to_end = {name: {other for other in work.after if other in left} for name, work in left.items()}
    to_begin = {name: {other for other in work.beside if other in left} for name, work in left.items()}

    def freed(by: str, waiting: Mapping[str, set[str]]) -> bool:
        """Add who waited for this one alone; whether there are any."""
        free = [name for name, others in waiting.items() if by in others]
        for name in free:
            waiting[name].discard(by)
        free = [name for name in free if not to_end[name] and not to_begin[name]]
        for name in free:
            planner.add(left[name])
        return bool(free)

    for name, work in left.items():
        if not to_end[name] and not to_begin[name]:
            planner.add(work)
    now, ends, known = 0.0, list[tuple[float, str]](), dict[str, float]()
    while True:
        begun = [*planner.start(now)]
        for each in begun:
            name = each.work.name
            own = now + (true or {}).get(name, each.work.length)
            known[name] = max([own, *(known.get(other, now) for other in each.work.beside)])
            bars.append(Bar(name, now, known[name], tuple(seat.node for seat in each.seats)))
            heapq.heappush(ends, (known[name], name))
        if any([freed(each.work.name, to_begin) for each in begun]):
            continue
        if not ends:
            return bars
        now = ends[0][0]
        while ends and ends[0][0] <= now:
            _, ended = heapq.heappop(ends)
            planner.done(ended, now)
            freed(ended, to_end)
