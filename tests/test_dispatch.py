"""Laws of handing out shards, on virtual time: each is committed once whoever dies, soon, and nobody keeps a seat for nothing."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.dispatch import LOAD_S, World, bound, dispatcher, spans_up
from teachers.errors import TeacherError
from teachers.labelling.dispatch import PAUSE_S
from teachers.labelling.hands import IN_FLIGHT

FOR_EVER = [(0.0, 1e9)]
MANY = 10**6


class Watched(World):
    """Notes how many seats are taken at a time."""

    def __init__(self, seats, costs) -> None:
        self.taken: list[tuple[float, int]] = []
        super().__init__(seats, costs)

    def _begin(self, number=None):
        begun = super()._begin(number)
        self.taken.append((self.time, len(self.on)))
        return begun

    def retire(self, number):
        super().retire(number)
        self.taken.append((self.time, len(self.on)))

    def at(self, time: float) -> int:
        return [num for when, num in self.taken if when <= time][-1]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.lists(st.floats(1, 60), min_size=1, max_size=50), st.integers(0, 10**6))
def test_each_shard_is_committed_once_whoever_dies_and_not_before_it_could_be(num, costs, seed) -> None:
    """A replica lives for five minutes in the mean, and all of them may be away at once."""
    chance = Random(seed)
    seats = [[*spans_up(chance, 100.0, 4e4, dies_s=300.0)] for _ in range(num)]
    world = Watched(seats, costs)
    with TemporaryDirectory() as folder:
        work = dispatcher(world, len(costs), num, Path(folder) / "store", max_attempts=MANY)
        done = [shard.number for shard in work.run()]
    assert sorted(done) == [*range(len(costs))]
    assert max(taken for _, taken in world.taken) <= min(num, len(costs))
    assert world.time >= bound(seats, sum(costs)) - 1e-6
    assert world.computed - world.wasted == pytest.approx(sum(costs), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.lists(st.floats(1, 60), min_size=1, max_size=60))
def test_where_nobody_dies_nothing_is_done_twice_and_the_end_is_within_grahams_bound(num, costs) -> None:
    """(2 - 1/m) of the best, but for the loading, and shards that a replica has in hand and not begun while others have none."""
    world = World([FOR_EVER] * num, costs)
    with TemporaryDirectory() as folder:
        work = dispatcher(world, len(costs), num, Path(folder) / "store")
        assert sum(1 for _ in work.run()) == len(costs)
    assert world.wasted == 0 or world.speculated
    at_best = max(sum(costs) / num, max(costs))
    assert world.time <= 2 * LOAD_S + (2 - 1 / num) * at_best + IN_FLIGHT * max(costs)


def test_who_finds_no_shard_any_more_gives_its_seat_back_and_who_is_reserved_stays(tmp_path: Path) -> None:
    costs = [1.0] * 30 + [100.0]
    world = Watched([FOR_EVER] * 8, costs)
    assert sum(1 for _ in dispatcher(world, len(costs), 8, tmp_path / "store").run()) == len(costs)
    assert world.at(LOAD_S) == 8
    assert world.at(LOAD_S + 10) <= 2  # who has the long one, and the one that is reserved
    assert world.time <= LOAD_S + 105 + PAUSE_S


def test_a_seat_that_comes_while_labels_are_made_is_used_if_there_is_time_for_its_start(tmp_path: Path) -> None:
    late = [(50.0, 1e9)]
    for num, used in ((200, 4), (45, 1)):
        costs = [1.0] * num
        world = Watched([FOR_EVER, late, late, late], costs)
        assert sum(1 for _ in dispatcher(world, num, 4, tmp_path / f"store-{num}").run()) == num
        assert max(taken for _, taken in world.taken) == used


def test_a_shard_that_kills_whoever_has_it_is_named_when_all_others_are_committed(tmp_path: Path) -> None:
    class Deadly(World):
        def _computes(self, who) -> None:
            if self.workers.get(who[0]) is who[1] and who[1].hand and who[1].hand[0][1].number == 3:
                seat = who[1].seat
                self._dies(seat)
                self._comes(seat)
            else:
                super()._computes(who)

    work = dispatcher(Deadly([FOR_EVER] * 3, [5.0] * 20), 20, 3, tmp_path / "store")
    done = []
    with pytest.raises(TeacherError, match=r"'virtual' failed \d times at shard 3 of .*RayActorError"):
        for shard in work.run():
            done.append(shard.number)
    assert sorted(done) == [number for number in range(20) if number != 3]


def test_who_is_ready_is_not_sent_away_while_another_one_is_lost(tmp_path: Path) -> None:
    """What the reserved one had in hand when it died is done by the other, not kept until that one is back."""
    dies = [(0.0, LOAD_S + 5), (1e4, 1e9)]
    world = World([dies, FOR_EVER], [1.0] * 30)
    assert sum(1 for _ in dispatcher(world, 30, 2, tmp_path / "store").run()) == 30
    assert world.time <= LOAD_S + 40
