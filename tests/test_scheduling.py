"""Laws of the planner, on virtual time: never more than there is, gangs whole, everything done, nobody starved, and soon."""

import itertools
from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.scheduling.planner import Planner, Work, ranked
from orchestrator.scheduling.room import CRUMB, Node, Part, Room
from orchestrator.scheduling.virtual import Bar, schedule

AMOUNTS = {"CPU": [0.5, 1, 2, 4], "GPU": [0, 0.25, 0.5, 0.6, 1, 2]}


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Node]:
    node = st.fixed_dictionaries({"CPU": st.sampled_from([1, 2, 4, 8]), "GPU": st.sampled_from([0, 0, 1, 2, 4])})
    return {f"n{number}": found for number, found in enumerate(draw(st.lists(node, min_size=1, max_size=4)))}


@st.composite
def recipes(draw: st.DrawFn) -> list[Work]:
    """A graph of works, some of them gangs of two kinds of workers."""
    request = st.fixed_dictionaries({what: st.sampled_from(amounts) for what, amounts in AMOUNTS.items()})
    part = st.builds(
        lambda num, asked: Part(num, {what: amount for what, amount in asked.items() if amount}),
        st.integers(1, 3),
        request,
    )
    works = []
    for number in range(draw(st.integers(1, 14))):
        before = st.sets(st.sampled_from([work.name for work in works]), max_size=3) if works else st.just(set())
        gang = tuple(draw(st.lists(part, min_size=1, max_size=2)))
        works.append(Work(f"w{number}", gang, draw(st.integers(1, 9)), tuple(sorted(draw(before)))))
    return works


def placeable(works: list[Work], nodes: dict[str, Node]) -> list[Work]:
    return [work for work in works if Room(nodes).seats(work.gang) is not None]


def taken_at(bars: list[Bar], works: dict[str, Work], now: float) -> dict[str, list[dict[str, float]]]:
    """By node, what each worker there has: an account of its own, from the bars alone."""
    taken = defaultdict(list)
    for bar in bars:
        if bar.start <= now < bar.end:
            asked = [part.request for part in works[bar.name].gang for _ in range(part.num)]
            for node, request in zip(bar.on, asked, strict=True):
                taken[node].append(request)
    return taken


def fit_on_gpus(shares: list[float], num: int) -> bool:
    """Whether shares below 1 can be laid on `num` GPUs at all, by trying every way."""
    if not shares:
        return True
    gpus = {tuple([0.0] * num)}
    for share in shares:
        gpus = {
            tuple(sorted((*g[:at], g[at] + share, *g[at + 1 :])))
            for g in gpus
            for at in range(num)
            if g[at] + share <= 1 + CRUMB
        }
    return bool(gpus)


@settings(max_examples=80, deadline=None)
@given(clusters(), recipes(), st.randoms(use_true_random=False))
def test_no_node_ever_gives_more_than_it_has_and_all_gets_done_in_order_gangs_whole(nodes, works, chance) -> None:
    works = placeable(works, nodes)
    by_name = {work.name: work for work in works}
    true = {work.name: chance.uniform(0.1, 20) for work in works}  # whatever was thought
    bars = schedule(works, nodes, true)
    assert sorted(bar.name for bar in bars) == sorted(by_name)
    ends = {bar.name: bar.end for bar in bars}
    for bar in bars:
        assert bar.end - bar.start == true[bar.name] or abs(bar.end - bar.start - true[bar.name]) < 1e-9
        assert len(bar.on) == sum(part.num for part in by_name[bar.name].gang)
        assert all(ends[other] <= bar.start for other in by_name[bar.name].after if other in ends)
        for node, requests in taken_at(bars, by_name, bar.start).items():
            assert sum(request["CPU"] for request in requests) <= nodes[node]["CPU"] + CRUMB
            gpus = [request.get("GPU", 0) for request in requests]
            whole = sum(share for share in gpus if share >= 1)
            assert whole <= nodes[node]["GPU"]
            assert fit_on_gpus([share for share in gpus if 0 < share < 1], int(nodes[node]["GPU"] - whole))


ONE = (Part(1, {"CPU": 1}),)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_independent_works_of_one_worker_are_within_grahams_bound_even_if_nothing_is_known_of_their_lengths(
    m, lengths
) -> None:
    """Graham 1966: any list, (2 - 1/m) of the best; 1969: the longest first, 4/3 - 1/(3m)."""
    nodes = {"n": {"CPU": float(m)}}
    least = max(sum(lengths) / m, max(lengths))
    true = {f"w{n}": float(length) for n, length in enumerate(lengths)}
    blind = schedule([Work(name, ONE) for name in true], nodes, true)
    assert max(bar.end for bar in blind) <= (2 - 1 / m) * least + 1e-9
    known = schedule([Work(name, ONE, length) for name, length in true.items()], nodes)
    if len(lengths) <= 6 and m <= 3:
        best = min(
            max(sum(true[f"w{n}"] for n in range(len(lengths)) if where[n] == machine) for machine in range(m))
            for where in itertools.product(range(m), repeat=len(lengths))
        )
        assert max(bar.end for bar in known) <= (4 / 3 - 1 / (3 * m)) * best + 1e-9


@settings(max_examples=30, deadline=None)
@given(clusters(), recipes())
def test_the_same_works_are_laid_out_alike(nodes, works) -> None:
    assert schedule(placeable(works, nodes), nodes) == schedule(placeable(works, nodes), nodes)


def test_the_longest_chain_first_is_sooner_than_first_come_first_served() -> None:
    """Four single works that came first, and a chain of four: in their order 6, with the chain first 4."""
    chain = [Work(f"c{n}", ONE, 1, (f"c{n - 1}",) if n else ()) for n in range(4)]
    alone = [Work(f"a{n}", ONE, 1) for n in range(4)]
    nodes = {"n": {"CPU": 2.0}}
    assert max(bar.end for bar in schedule([*alone, *chain], nodes)) == 4

    planner, now, in_order = Planner(nodes), 0.0, [*alone, *chain]
    while in_order or planner.running:  # the same seats, with ranks that say who came first
        done = {work.name for work in [*alone, *chain]} - {w.name for w in in_order} - {*planner.running}
        for work in [w for w in in_order if all(other in done for other in w.after)]:
            planner.add(Work(work.name, work.gang, 1, (), -[*alone, *chain].index(work)))
        begun = [started.work.name for started in planner.start(now)]
        in_order = [work for work in in_order if work.name not in begun]
        planner.waiting.clear()
        now += 1
        for name in [*planner.running]:
            planner.done(name, now)
    assert now == 6


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.data())
def test_small_works_that_keep_coming_make_a_gang_wait_for_none_but_those_that_ran_when_it_came(m, data) -> None:
    """Each small one ranks above the gang, and another comes whenever one ends: without a promise the gang never begins."""
    planner = Planner({"n": {"CPU": float(m)}})
    lengths = st.integers(1, 7)
    small = (planner.add(Work(f"s{n}", ONE, data.draw(lengths), rank=100)) for n in itertools.count())
    for _ in range(m):
        next(small)
    ends = {begun.work.name: begun.length for begun in planner.start(0)}
    planner.add(Work("gang", (Part(data.draw(st.integers(2, m)), {"CPU": 1}),), 5, rank=1))
    assert [*planner.start(0)] == []
    last = max(ends.values())
    for now in range(1, 100):
        for name in [name for name, end in ends.items() if end <= now]:
            planner.done(name, now)
            del ends[name]
            next(small)
        for begun in planner.start(now):
            if begun.work.name == "gang":
                assert now <= last
                return
            ends[begun.work.name] = now + begun.length
    raise AssertionError("starved")


def test_what_a_gang_waits_for_is_filled_by_works_that_are_over_by_then() -> None:
    def laid_out(short: float) -> dict[str, tuple[float, float]]:
        gang = Work("gang", (Part(2, {"CPU": 1}),), 10)
        works = [Work("long", ONE, 10), gang, Work("late", ONE, 6.5), Work("short", ONE, short)]
        return {bar.name: (bar.start, bar.end) for bar in schedule(works, {"n": {"CPU": 2.0}})}

    assert laid_out(3.5) == {"long": (0, 10), "late": (0, 6.5), "short": (6.5, 10), "gang": (10, 20)}
    assert laid_out(4) == {"long": (0, 10), "late": (0, 6.5), "gang": (10, 20), "short": (20, 24)}


@settings(max_examples=80, deadline=None)
@given(clusters(), recipes(), st.sampled_from([1 / 64, 1 / 4, 4, 64]))
def test_how_long_the_first_took_tells_of_all_so_works_are_laid_out_as_if_lengths_had_been_known(
    nodes, works, factor
) -> None:
    first = Work("first", (Part(1, {"CPU": 0.5}),), 3)
    works = [first, *(replace(work, after=("first", *work.after)) for work in placeable(works, nodes))]
    bars = schedule(works, nodes, {work.name: factor * work.length for work in works})
    assert bars == [Bar(bar.name, factor * bar.start, factor * bar.end, bar.on) for bar in schedule(works, nodes)]


def test_room_is_kept_where_it_is_there_first_and_not_where_two_halves_have_to_end() -> None:
    """What one half gives back is for another half, though all that run are late."""
    planner, half = Planner({"small": {"CPU": 1.0}, "large": {"CPU": 2.0, "large": 1.0}}), (Part(1, {"CPU": 0.5}),)
    for number in range(2):
        planner.add(Work(f"whole{number}", (Part(1, {"CPU": 1, "large": 0.1}),), 10, rank=9))
        planner.add(Work(f"half{number}", half, 10, rank=8))
    assert {each.work.name: each.seats[0].node for each in planner.start(0)}["half1"] == "small"
    planner.add(Work("first", ONE, 10, rank=7))
    planner.add(Work("half2", half, 10, rank=1))
    assert [*planner.start(0)] == []
    planner.done("half0", 12)
    assert [begun.work.name for begun in planner.start(12)] == ["half2"]
    planner.done("whole1", 13)
    assert [(begun.work.name, begun.seats[0].node) for begun in planner.start(13)] == [("first", "large")]


def test_who_follows_begins_when_the_other_has_and_ends_no_sooner_or_waits_where_there_is_room_for_one() -> None:
    works = [Work("distill/small", ONE, 4, beside=("label/wide",)), Work("label/wide", ONE, 10)]
    for cpus, follower in ((2.0, (0, 10)), (1.0, (10, 14))):
        bars = {bar.name: (bar.start, bar.end) for bar in schedule(works, {"n": {"CPU": cpus}})}
        assert bars == {"label/wide": (0, 10), "distill/small": follower}


def test_a_line_says_what_is_waited_for() -> None:
    planner = Planner({"a": {"CPU": 2.0, "GPU": 1.0}, "b": {"CPU": 1.0}})
    planner.add(Work("label/wide", (Part(1, {"CPU": 1, "GPU": 1}),), 5, rank=9))
    planner.add(Work("distill/small", (Part(2, {"CPU": 1, "GPU": 0.5}),), 5, rank=8))
    planner.add(Work("distill/tiny", (Part(2, {"CPU": 1}), Part(1, {"CPU": 1})), 5, rank=1))
    assert [begun.work.name for begun in planner.start(0)] == ["label/wide"]
    assert planner.waits_for() == [
        "distill/small waits for 2 x 1 CPU, 0.5 GPU; free are 2 CPU, 0 GPU",
        "distill/tiny waits for 2 x 1 CPU and 1 x 1 CPU; free are 2 CPU",
    ]
    planner.add(Work("evaluate", ONE, 9))
    assert [begun.work.name for begun in planner.start(0)] == ["evaluate"]  # beside what is promised


def test_who_fits_no_node_is_left_to_the_cluster_and_a_node_that_comes_or_goes_counts() -> None:
    planner = Planner({"a": {"CPU": 1.0}})
    planner.add(Work("large", (Part(1, {"CPU": 8}),), 1))
    (begun,) = planner.start(0)
    assert begun.seats == []
    planner.add(Work("one", ONE, 1))
    planner.add(Work("two", ONE, 1))
    assert [begun.work.name for begun in planner.start(0)] == ["one"]
    planner.on({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}})
    assert planner.running["large"].seats == []
    (begun,) = planner.start(0)
    assert (begun.work.name, begun.seats[0].node) == ("two", "b")
    planner.on({"b": {"CPU": 1.0}})
    planner.done("one", 0)  # of a node that has gone, and found no other
    planner.add(Work("three", ONE, 1))
    assert [*planner.start(0)] == []
    planner.done("two", 0)
    assert [begun.work.name for begun in planner.start(0)] == ["three"]
    planner.on({"b": {"CPU": 1.0}, "c": {"CPU": 8.0}})
    assert [seat.node for seat in planner.running["large"].seats] == ["c"]
    assert planner.room.total("CPU") == 0


def test_ranks_are_the_longest_way_to_the_end() -> None:
    works = [Work("teacher", ONE, 3), Work("label", ONE, 1, ("teacher",)), Work("student", ONE, 5, ("label", "gone"))]
    assert {name: work.rank for name, work in ranked([*works, Work("control", ONE, 4)]).items()} == {
        "teacher": 9,
        "label": 6,
        "student": 5,
        "control": 4,
    }


def test_a_small_request_leaves_gpus_and_large_holes_alone() -> None:
    room = Room({"gpu": {"CPU": 8.0, "GPU": 2.0}, "cpu": {"CPU": 4.0}, "full": {"CPU": 1.0}})
    (alone,) = room.seats([Part(1, {"CPU": 1})])
    assert alone.node == "full"
    room.take([alone])
    assert room.seats([Part(1, {"CPU": 1})])[0].node == "cpu"
    first = room.seats([Part(1, {"CPU": 1, "GPU": 0.25})])
    room.take(first)
    room.take(second := room.seats([Part(1, {"CPU": 1, "GPU": 0.5})]))
    assert first[0].gpus.keys() == second[0].gpus.keys()
    assert room.seats([Part(1, {"CPU": 1, "GPU": 2})]) is None


@settings(max_examples=80, deadline=None)
@given(clusters(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(1, 99)), max_size=30))
def test_who_grows_takes_no_more_than_there_is_and_gives_all_of_it_back(nodes, told) -> None:
    """Whatever is asked for and given back, and whoever begins and ends meanwhile."""
    planner = Planner(nodes)
    for number in range(4):
        planner.add(Work(f"w{number}", ONE, 9, rank=9 + number))
    held = {begun.work.name: 0 for begun in planner.start(0)}
    for now, (number, num, left) in enumerate(told):
        if (name := f"w{number}") in planner.running:
            held.setdefault(name, 0)
            held[name] += planner.want(name, num, left, now)
            if not num and held[name]:
                planner.give_back(name)
                held[name] -= 1
            if left == 1:
                planner.done(name, now)
                held.pop(name)
        assert all(free >= -CRUMB for node in planner.room.free.values() for free in node.values())
        held |= {begun.work.name: 0 for begun in planner.start(now)}
    for name in [*planner.running]:
        planner.done(name, 99)
    assert (planner.room.free, planner.room.gpus) == (planner.empty.free, planner.empty.gpus) and not planner.growing


def test_the_longest_way_to_the_end_has_the_next_seat_be_it_to_begin_or_to_grow() -> None:
    """Two that grow share so that they end together; who waits with a longer way goes before both, with a shorter one after."""
    planner = Planner({"n": {"CPU": 8.0}})
    for name, length in (("long", 30.0), ("short", 10.0)):
        planner.add(Work(name, ONE, length, rank=length))
    assert len([*planner.start(0)]) == 2
    for name, left in (("long", 30.0), ("short", 10.0)):
        assert planner.want(name, 8, left, 0) == 0
    planner.add(Work("longest", ONE, 99, rank=99))
    planner.add(Work("least", ONE, 1, rank=1))
    assert [begun.work.name for begun in planner.start(0)] == ["longest"]
    assert [planner.want(name, 0, left, 0) for name, left in (("long", 30.0), ("short", 10.0))] == [4, 1]
    planner.give_back("long")
    assert [begun.work.name for begun in planner.start(1)] == ["least"]


def test_what_grows_keeps_no_seat_from_whom_room_is_kept_for() -> None:
    planner = Planner({"n": {"CPU": 4.0}})
    planner.add(Work("label", ONE, 100, rank=100))
    planner.add(Work("short", ONE, 5, rank=50))
    assert len([*planner.start(0)]) == 2
    planner.add(Work("gang", (Part(3, {"CPU": 1}),), 5, rank=60))
    assert [*planner.start(0)] == []
    planner.want("label", 9, 40.0, 0)  # its way is shorter than the gang's, now that is known
    assert [*planner.start(0)] == [] and planner.want("label", 9, 40.0, 0) == 0
    planner.done("short", 5)
    assert [begun.work.name for begun in planner.start(5)] == ["gang"]
    planner.done("gang", 10)
    assert [*planner.start(10)] == [] and planner.want("label", 9, 40.0, 10) == 3


def test_seats_of_a_node_that_has_gone_are_given_back_first_and_free_nothing() -> None:
    planner = Planner({"a": {"CPU": 1.0}, "b": {"CPU": 2.0}, "c": {"CPU": 2.0}})
    planner.add(Work("label", ONE, 9, rank=9))
    (begun,) = planner.start(0)
    planner.want("label", 4, 9.0, 0)
    assert [*planner.start(0)] == [] and planner.want("label", 0, 9.0, 0) == 4
    planner.on({"a": {"CPU": 1.0}, "b": {"CPU": 2.0}})
    assert begun.seats[0].node == "a" and planner.room.total("CPU") == 0
    for _ in range(2):
        planner.give_back("label")
    assert planner.room.total("CPU") == 0
    planner.give_back("label")
    assert planner.room.total("CPU") == 1
