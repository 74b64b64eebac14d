"""Who begins next: of what is ready the one with the longest chain of work behind it, a gang all at once or not at all.

What is first and finds no room gets a promise: a time and seats, from when those who run are expected to end. Others go on
filling what is free where they keep neither from it, so that small works starve no gang and no gang empties a cluster.
Knows no clock: it is told what time it is.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from math import inf

from teachers.config.resources import in_words

from .room import Node, Part, Room, Seat

MOST_HOMELESS = 8
"""So many works that no node could hold wait at the cluster at once, which sees what nodes it lacks."""


@dataclass(frozen=True)
class Work:
    """Something that takes seats for a while: a training, the labelling of one teacher."""

    name: str
    gang: tuple[Part, ...]
    length: float = 1.0
    """About how long it takes, seconds; what all works are measured by, if that is not known."""
    after: tuple[str, ...] = ()
    """Works that must have ended before it can begin."""
    rank: float = 0.0
    """How long it and what waits for it take one after the other: the longer, the sooner it begins."""
    beside: tuple[str, ...] = ()
    """Works that must have begun before it can begin, and do not end after it."""

    @cached_property
    def asks_for(self) -> str:
        return " and ".join(f"{part.num} x {in_words(part.request)}" for part in self.gang)


def ranked(works: Iterable[Work]) -> dict[str, Work]:
    """By name, with their ranks; who waits for a work that is not among them waits for nothing."""
    left = {work.name: work for work in works}
    after = {n: [other for other in (*work.after, *work.beside) if other in left] for n, work in left.items()}
    behind = dict.fromkeys(left, 0.0)
    for name in reversed([*TopologicalSorter(after).static_order()]):
        left[name] = replace(left[name], rank=left[name].length + behind[name])
        for other in after[name]:
            behind[other] = max(behind[other], left[name].rank)
    return left


@dataclass(frozen=True)
class Started:
    """A work and where it is; no seats: no node that is there could ever hold it, so it waits at the cluster for one to come."""

    work: Work
    seats: Sequence[Seat]
    begun: float
    length: float
    """About how long it and what it does besides take, as works are measured."""
    ends: float | None = None
    """When it is expected to, where it has told what is left."""


@dataclass
class Growth:
    """What a work that runs has beyond its gang: each seat for one more of its first workers."""

    wanted: int = 0
    left: float | None = None
    """How long one alone would take for what is left of the work, if that is known."""
    seats: list[Seat] = field(default_factory=list)
    untold: int = 0
    """How many of the seats it does not know of yet."""


@dataclass
class Promise:
    """What is kept for the first of those that wait."""

    name: str
    at: float
    beside: Room
    """What will be free at that time beside its seats."""
    counted: set[str] = field(default_factory=set)
    """Works of which `beside` has it already that they have ended."""


class Planner:
    """What waits, what runs, and what is free. Seats are of the books: the cluster may place a work elsewhere."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.waiting: dict[str, Work] = {}
        self.running: dict[str, Started] = {}
        self.growing: dict[str, Growth] = {}
        self.promise: Promise | None = None
        self.took = self.thought = 0.0
        """Of what has ended, together: how long it took, and how long it was thought to take."""
        self.on(nodes)

    @property
    def pace(self) -> float:
        """Seconds for each that was thought: of lengths that nobody has timed only what is long beside what is known."""
        return self.took / self.thought if self.took and self.thought else 1.0

    def on(self, nodes: Mapping[str, Node]) -> None:
        """These are the nodes now. What runs keeps its seats, or is given others by the books where it has lost them, or had
        none; what was promised is thought over."""
        self.room, self.empty, self.promise = Room(nodes), Room(nodes), None
        self._ever: dict[str, bool] = {}
        seated = {
            name for name, each in self.running.items() if each.seats and all(s.node in nodes for s in each.seats)
        }
        for growth in self.growing.values():
            self.room.take(growth.seats)  # those of a node that has gone count for nothing until they are given back
        for name in sorted(self.running, key=lambda name: name not in seated):
            started = self.running[name]
            if name not in seated:
                started = self.running[name] = replace(started, seats=self.room.seats(started.work.gang) or [])
            self.room.take(started.seats)

    def add(self, work: Work) -> None:
        """It could begin now."""
        self.waiting[work.name] = work

    def done(self, name: str, now: float) -> None:
        seats, started = self._seats_of(name), self.running.pop(name)
        if self.growing.pop(name, None) is None and not started.work.beside:
            self.took, self.thought = self.took + now - started.begun, self.thought + started.length
        self._free(name, seats)

    def want(self, name: str, num: int, left: float | None, now: float) -> int:
        """`name`, which runs, would have `num` more seats; `left`: see Growth. How many it has from now on: `start` gives them,
        to who has the longest way to the end first, and before those who wait and have a shorter one."""
        growth = self.growing.setdefault(name, Growth())
        told, growth.untold = growth.untold, 0
        growth.wanted, growth.left = max(0, num - told), left
        if left is not None:
            self.running[name] = replace(self.running[name], ends=now + left / len(self._seats_of(name) or [None]))
        return told

    def give_back(self, name: str) -> None:
        """One of the seats beyond its gang."""
        seats = self.growing[name].seats
        seat = next((seat for seat in seats if seat.node not in self.room.free), seats[-1])
        seats.remove(seat)
        self._free(name, [seat])

    @property
    def is_growing(self) -> bool:
        """Whether somebody would have more seats than there are."""
        return any(growth.wanted for growth in self.growing.values())

    def _seats_of(self, name: str) -> list[Seat]:
        return [*self.running[name].seats, *(self.growing[name].seats if name in self.growing else ())]

    def _free(self, name: str, seats: Sequence[Seat]) -> None:
        self.room.give(seats)
        if self.promise is not None and name not in self.promise.counted:
            self.promise.beside.give(seats)

    def start(self, now: float) -> Iterator[Started]:
        """Who begins now, one after another; each counts as running from when it is told, until `done`."""
        full, kept = (
            set[str](),
            set[str](),
        )  # what has found no room, or none but for who ends in time: nobody gives any back
        for work in self._in_order():
            self._grow(self.pace * work.rank)
            held = self.promise
            if work.name not in self.waiting or (held is not None and work.asks_for in full):
                continue
            if held is not None and work.asks_for in kept and now + self.pace * work.length > held.at:
                continue
            if (begun := self._begun(work, now)) is not None:
                yield begun
            else:
                (full if self.room.seats(work.gang) is None else kept).add(work.asks_for)
        self._grow(-inf)

    def _grow(self, above: float) -> None:
        """Give seats, one after the other, to those who would have more and whose way to the end is longer than `above`."""
        wanting = {name for name, growth in self.growing.items() if growth.wanted}
        if not wanting:
            return
        rooms = [self.room] if self.promise is None else [self.room, self.promise.beside]
        while wanting and (name := max(sorted(wanting), key=self._way)) and self._way(name) > above:
            growth, part = self.growing[name], self.running[name].work.gang[0]
            seats = (rooms[0] if len(rooms) == 1 else rooms[0].least(rooms[1])).seats([replace(part, num=1)])
            for room in rooms if seats else ():
                room.take(seats or ())
            growth.seats += seats or []
            growth.untold, growth.wanted = growth.untold + bool(seats), growth.wanted - bool(seats)
            if not seats or not growth.wanted:
                wanting.remove(name)

    def _way(self, name: str) -> float:
        """How long the rest of it, shared by all its seats, and what waits for it take one after the other."""
        work, left = self.running[name].work, self.growing[name].left
        alone = self.pace * work.length * work.gang[0].num if left is None else left
        return self.pace * (work.rank - work.length) + alone / (work.gang[0].num + len(self.growing[name].seats))

    def _in_order(self) -> list[Work]:
        """Who holds a promise is first, so that no newcomer takes it away."""
        held = self.promise.name if self.promise is not None else None
        return sorted(self.waiting.values(), key=lambda work: (work.name != held, -work.rank))

    def _begun(self, work: Work, now: float) -> Started | None:
        seats, held = self.room.seats(work.gang), self.promise
        if seats is None and not self._fits_ever(work):
            homeless = sum(not each.seats and bool(each.work.gang) for each in self.running.values())
            return self._take(work, [], now) if homeless < MOST_HOMELESS else None
        if held is None or held.name == work.name:
            if seats is None:
                if held is None:
                    self.promise = self._promised(work, now)
                return None
            self.promise = None
        elif seats is None:
            return None
        elif now + self.pace * work.length <= held.at:
            held.counted.add(work.name)
        else:
            seats = self.room.least(held.beside).seats(work.gang)
            if seats is None:
                return None
            held.beside.take(seats)
        return self._take(work, seats, now)

    def _take(self, work: Work, seats: Sequence[Seat], now: float) -> Started:
        self.room.take(seats)
        begun = self.running[work.name] = Started(self.waiting.pop(work.name), seats, now, work.length)
        return begun

    def _fits_ever(self, work: Work) -> bool:
        if work.asks_for not in self._ever:
            self._ever[work.asks_for] = self.empty.seats(work.gang) is not None
        return self._ever[work.asks_for]

    def _promised(self, work: Work, now: float) -> Promise:
        """From the first time at which enough of those who run have ended, by what is thought: the seats that are there first, for
        others in its stead would wait for more to end, and stand idle in part till then."""
        ends = {name: self._ends(started) for name, started in self.running.items()}
        ending = sorted(self.running, key=lambda name: ends[name])

        def after(count: int) -> Room:
            room = self.room.copy()
            for name in ending[:count]:
                room.give(self._seats_of(name))
            return room

        fits = bisect_left(range(len(ending)), True, key=lambda count: after(count).seats(work.gang) is not None)
        seats, at = after(fits).seats(work.gang), max(now, ends[ending[fits - 1]])
        assert seats is not None, "an empty cluster holds it"
        counted = [name for name in ending if ends[name] <= at]
        (room := after(len(counted))).take(seats)
        return Promise(work.name, at, room, {*counted})

    def _ends(self, started: Started) -> float:
        return started.begun + self.pace * started.length if started.ends is None else started.ends

    def join(self, name: str, other: str) -> None:
        """`other`, which waits, is done by `name`, which runs, after its own: on the same seats."""
        self.running[name] = replace(
            self.running[name], length=self.running[name].length + self.waiting.pop(other).length
        )
        if self.promise is not None and self.promise.name == other:
            self.promise = None

    def places(self, gang: Sequence[Part], most: int) -> int:
        """How many such gangs the nodes hold side by side if nothing else runs, up to `most`."""
        room, found = self.empty.copy(), 0
        while found < most and (seats := room.seats(gang)) is not None:
            room.take(seats)
            found += 1
        return found

    def waits_for(self) -> list[str]:
        """A line for each that waits, the first of them first."""
        return [f"{work.name} waits for {self._reason(work)}" for work in self._in_order()]

    def _reason(self, work: Work) -> str:
        what = dict.fromkeys(name for part in work.gang for name in part.request)
        free = f"free are {in_words({name: self.room.total(name) for name in what})}"
        kept = self.promise is not None and self.promise.name != work.name and self.room.seats(work.gang) is not None
        return f"{work.asks_for}; {free}" + (f", kept for {self.promise.name}" if kept and self.promise else "")
