"""How a labelling by a thousand replicas goes: a run's own dispatcher on virtual time, with replicas that die and come back.

    python -m benchmarks.dispatch [--replicas 1000] [--shards 200000] [--rounds 3]

A replica computes one shard after the other; what each costs is drawn log-normal over a factor of about ten, 20 s in the mean. One
seat is reserved, all others are taken as they come. Each dies once in 100 minutes in the mean (of all 1 % a minute) and is back
after one to five; at a third of the time a third of them is preempted at once, and comes back after five to fifteen. Whoever has
come loads for 20 s. What is lost is known at once; reading, writing and Ray take no time. The last line printed is one JSON object:

    dispatch_over_bound    the time until all shards are committed, over the earliest at which the seats that are up, each from 20 s
                           after it has come, have been up for as long as all shards take together: the most of all rounds
    wasted_work            computed for nothing (cut off by a death, or done twice) over all that was computed: the most
    dispatch_ms_per_shard  of the driver's processor, virtual replicas included
    speculated, lost       shards that a second replica got, and that were sent again, of all: the mean
"""

import argparse
import heapq
import itertools
import logging
import tempfile
import time
from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from ray.exceptions import RayActorError

from benchmarks.record import finish, with_record
from benchmarks.scale import a_spec
from teachers.config.any_teacher import Replicas
from teachers.config.teacher import CallableTeacher
from teachers.labelling.dispatch import Dispatcher
from teachers.labelling.hands import Shard, Waiting
from teachers.labelling.shard import MAX_ATTEMPTS, LabelTask, TeacherSpec
from teachers.labelling.stalls import Stalls
from teachers.soft_targets.store import SoftTargetStore

COST_S, SPREAD = 20.0, 0.6
LOAD_S = 20.0
DIES_S, AWAY_S = 6000.0, (60.0, 300.0)
PREEMPTED, GONE_S = 1 / 3, (300.0, 900.0)
Span = tuple[float, float]


def spans_up(chance: Random, preempted_at: float, until: float, dies_s: float = DIES_S) -> Iterator[Span]:
    """From when to when one seat is up."""
    came, taken = 0.0, chance.random() < PREEMPTED
    while came < until:
        dies, away = came + chance.expovariate(1 / dies_s), chance.uniform(*AWAY_S)
        if taken and dies > preempted_at:
            dies, away, taken = max(came, preempted_at), chance.uniform(*GONE_S), False
        yield came, dies
        came = dies + away


def bound(seats: Sequence[Sequence[Span]], work: float) -> float:
    """When they, each from its loading on, have been up for `work` seconds together."""
    turns = sorted((at, step) for spans in seats for came, dies in spans if dies > came + LOAD_S for at, step in ((came + LOAD_S, 1), (dies, -1)))  # fmt: skip
    now, num, done = 0.0, 0, 0.0
    for at, step in turns:
        if done + num * (at - now) >= work:
            break
        now, num, done = at, num + step, done + num * (at - now)
    return now + (work - done) / num


@dataclass(eq=False)
class Worker:
    """A replica on a seat; `hand` are its tickets and shards, of which it computes the first, since `since`."""

    seat: int
    alive: bool = True
    loaded: bool = False
    hand: deque[tuple[int, Shard]] = field(default_factory=deque)
    asked: list[int] = field(default_factory=list)
    since: float = 0.0


class World:
    """Virtual replicas, as a dispatcher calls them (teachers.labelling.replicas.Calls)."""

    reserved = 1

    def __init__(self, seats: Sequence[Sequence[Span]], costs: Sequence[float]) -> None:
        self.costs, self.stalls = costs, Stalls("nobody", [], None)
        self.time, self.wasted, self.computed, self.speculated = 0.0, 0.0, 0.0, 0
        self.tickets, self.order, self.numbers = itertools.count(), itertools.count(), itertools.count()
        self.events: list[tuple[float, int, str, Any]] = []
        self.answered: dict[int, Exception | None] = {}
        self.workers: dict[int, Worker] = {}
        self.free: list[int] = []
        self.on: dict[int, int] = {}
        self.homeless: list[int] = []
        """Reserved ones that are to start again where there is a seat."""
        for seat, spans in enumerate(seats):
            for came, dies in spans:
                self._at(came, "comes", seat)
                self._at(dies, "dies", seat)
        while self.events[0][0] <= 0:
            self._next()
        self._begin()

    def now(self) -> float:
        return self.time

    def ready(self, number: int) -> int:
        ticket, worker = next(self.tickets), self.workers[number]
        if worker.loaded and worker.alive:
            self.answered[ticket] = None
        else:
            worker.asked.append(ticket)
        return ticket

    def label(self, number: int, shard: Shard, last_try: bool) -> int:
        ticket, worker = next(self.tickets), self.workers[number]
        self.speculated += len(shard.held_by) > 1
        if not worker.alive:
            self.answered[ticket] = RayActorError()
            return ticket
        worker.hand.append((ticket, shard))
        if len(worker.hand) == 1:
            self._compute(number)
        return ticket

    def done(self, tickets: Sequence[int], wait_s: float) -> list[int]:
        until = self.time + wait_s
        while not self.answered and self.events[0][0] <= until:
            self._next()
        if not self.answered:
            self.time = until
        return [*self.answered]

    def answer(self, ticket: int) -> None:
        if (error := self.answered.pop(ticket)) is not None:
            raise error

    def more(self, num: int, left_s: float | None) -> list[int]:
        return [self._begin() for _ in range(min(num, len(self.free)))]

    def retire(self, number: int) -> None:
        worker = self.workers.pop(number)
        if worker.alive:
            self._cut_off(worker)
            insort(self.free, worker.seat)
            del self.on[worker.seat]

    def needs(self, num: int) -> str:
        return f"they need {num} seats"

    def _at(self, time: float, what: str, who: Any) -> None:
        heapq.heappush(self.events, (time, next(self.order), what, who))

    def _next(self) -> None:
        self.time, _, what, who = heapq.heappop(self.events)
        getattr(self, f"_{what}")(who)

    def _begin(self, number: int | None = None) -> int:
        """A replica on the first free seat."""
        number = next(self.numbers) if number is None else number
        seat, asked = self.free.pop(0), self.workers[number].asked if number in self.workers else []
        self.on[seat] = number
        self.workers[number] = Worker(seat, asked=asked)
        self._at(self.time + LOAD_S, "loads", (number, self.workers[number]))
        return number

    def _comes(self, seat: int) -> None:
        insort(self.free, seat)
        if self.homeless:
            self._begin(self.homeless.pop())

    def _dies(self, seat: int) -> None:
        if seat in self.free:
            self.free.remove(seat)
            return
        worker = self.workers[number := self.on.pop(seat)]
        self._cut_off(worker)
        worker.alive = False
        for ticket in (*worker.asked, *(ticket for ticket, _ in worker.hand)):
            self.answered[ticket] = RayActorError()
        worker.asked.clear()
        if number < self.reserved and self.free:
            self._begin(number)
        elif number < self.reserved:
            self.homeless.append(number)

    def _loads(self, who: tuple[int, Worker]) -> None:
        number, worker = who
        if worker.alive and self.workers.get(number) is worker:
            worker.loaded = True
            self.answered |= dict.fromkeys(worker.asked)
            worker.asked.clear()

    def _compute(self, number: int) -> None:
        worker = self.workers[number]
        worker.since = self.time
        self._at(self.time + self.costs[worker.hand[0][1].number], "computes", (number, worker, worker.hand[0][0]))

    def _computes(self, who: tuple[int, Worker, int]) -> None:
        """It has, unless it was cut off."""
        number, worker, ticket = who
        if not worker.alive or self.workers.get(number) is not worker:
            return
        assert worker.hand[0][0] == ticket
        _, shard = worker.hand.popleft()
        self.answered[ticket] = None
        self.computed += self.costs[shard.number]
        if shard.is_done:
            self.wasted += self.costs[shard.number]
        if worker.hand:
            self._compute(number)

    def _cut_off(self, worker: Worker) -> None:
        if worker.hand:
            self.computed += self.time - worker.since
            self.wasted += self.time - worker.since


def dispatcher(world: World, num_shards: int, most: int, folder: Path, max_attempts: int = MAX_ATTEMPTS) -> Dispatcher:
    store = SoftTargetStore.create(folder, a_spec(num_shards, num_shards))
    config = CallableTeacher(kind="callable", function="nobody:says", output="logits", replicas=Replicas(max=most))
    shards = Waiting({0: (store, range(num_shards))})
    task, teacher = LabelTask(folder, "train-0", folder), TeacherSpec("virtual", config, None, (), folder)
    return Dispatcher(world, shards, teacher, [task], max_attempts=max_attempts, wait_s=1e9, most=most)


def labelled(num_replicas: int, num_shards: int, seed: int, folder: Path) -> dict[str, float]:
    chance = Random(seed)
    costs = [COST_S * chance.lognormvariate(-(SPREAD**2) / 2, SPREAD) for _ in range(num_shards)]
    expected = sum(costs) / num_replicas
    seats = [[*spans_up(chance, expected / 3, 3 * expected)] for _ in range(num_replicas)]
    world = World(seats, costs)
    work = dispatcher(world, num_shards, num_replicas, folder)
    begun = time.process_time()
    assert sum(1 for _ in work.run()) == num_shards
    took = time.process_time() - begun
    return {
        "dispatch_over_bound": world.time / bound(seats, sum(costs)),
        "wasted_work": world.wasted / world.computed,
        "dispatch_ms_per_shard": 1000 * took / num_shards,
        "speculated": world.speculated / num_shards,
        "lost": work.num_retries / num_shards,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    with_record(parser)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rounds = []
    for seed in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="collegium-dispatch-") as folder:
            rounds.append(labelled(arguments.replicas, arguments.shards, seed, Path(folder) / "store"))
        print(rounds[-1])
    found = {name: [each[name] for each in rounds] for name in rounds[0]}
    most = {name: round(max(found.pop(name)), 4) for name in ("dispatch_over_bound", "wasted_work")}
    figures = most | {name: round(mean(each), 4) for name, each in found.items()}
    finish("dispatch", {"replicas": arguments.replicas, "shards": arguments.shards, **figures}, keep=arguments.record)


if __name__ == "__main__":
    main()
