"""Works take their turns on a real cluster: who is alike comes in even shares, what fails ends all, what waits is told."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.building.turns import Turn, Turns, build_in_turn
from orchestrator.cluster.cluster import Cluster
from orchestrator.scheduling.planner import Work
from orchestrator.stages.stages import Stage, Stages
from teachers.config.resources import Resources
from teachers.errors import TeacherError
from teachers.process.waiting import SideBySide
from teachers.storage.seal import write_seal

HALF = [("workers", 4, Resources())]
"""Of the eight CPUs of the tests' cluster."""


class Noted:
    """Writes down who comes in one call, and how many calls, which take `seconds`, go on at once."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.calls: list[list[Any]] = []
        self.at_once, self.most, self.lock = 0, 0, threading.Lock()

    def __call__(self, items: Any, turn: Turn) -> list[Any]:
        with self.lock:
            self.calls.append([*items])
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        return [item * 10 for item in items]


def test_those_of_a_group_come_in_even_shares_and_others_alone_and_no_more_than_fit(ray_cluster: None) -> None:
    alike, alone = Noted(), Noted()
    works = {f"distill/a/{n}": Work(f"distill/a/{n}", (), 100.0) for n in range(6)}
    with SideBySide("stage", 100) as threads:
        turns = Turns(Cluster(None, None), works, threads)
        grouped = [turns.start(name, HALF, alike, n, "a") for n, name in enumerate(works)]
        assert [threads.outcome(future) for future in grouped] == [0, 10, 20, 30, 40, 50]
        single = [turns.start(f"distill/b/{n}", HALF, alone, n) for n in range(3)]
        assert [threads.outcome(future) for future in single] == [0, 10, 20]
    assert sorted(map(len, alike.calls)) == [3, 3] and alike.most == 2
    assert sorted(alone.calls) == [[0], [1], [2]] and alone.most == 2


def test_what_takes_less_than_starting_a_group_of_workers_comes_in_one_turn(ray_cluster: None) -> None:
    short = Noted()
    works = {f"distill/a/{n}": Work(f"distill/a/{n}", (), 4.0) for n in range(6)}
    with SideBySide("stage", 100) as threads:
        turns = Turns(Cluster(None, None), works, threads)
        for future in [turns.start(name, HALF, short, n, "a") for n, name in enumerate(works)]:
            threads.outcome(future)
    assert short.calls == [[0, 1, 2, 3, 4, 5]]


def test_who_more_waits_for_begins_first_and_what_waits_while_nothing_begins_says_for_what(
    ray_cluster: None, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = {f"label/{name}": Work(f"label/{name}", (), 1.0, (), rank) for rank, name in enumerate("abc")}
    all_of_it = [("replicas", 8, Resources())]
    for seconds, told in [(0.2, []), (2.0, ["label/b waits for 8 x 1 CPU; free are 0 CPU; 1 more wait behind it"])]:
        noted = Noted(seconds)
        with SideBySide("stage", 100) as threads, caplog.at_level(logging.INFO, logger="orchestrator"):
            turns = Turns(Cluster(None, None), ranks, threads, quiet_s=1.0)
            for future in [turns.start(f"label/{name}", all_of_it, noted, name) for name in "abc"]:
                threads.outcome(future)
        assert noted.calls == [["c"], ["b"], ["a"]] and noted.most == 1
        assert [message for message in caplog.messages if "wait behind" in message] == told


def test_the_first_failure_is_told_at_once_and_what_waits_never_begins(ray_cluster: None) -> None:
    noted = Noted()

    def fails(items: Any, turn: Turn) -> list[Any]:
        raise TeacherError("not today")

    with pytest.raises(TeacherError, match="not today"), SideBySide("stage", 100) as threads:
        turns = Turns(Cluster(None, None), {}, threads)
        first = turns.start("label/a", [("replicas", 8, Resources())], fails, None)
        second = turns.start("label/b", [("replicas", 8, Resources())], noted, 1)
        threads.outcome(second)
        threads.outcome(first)
    assert not noted.calls


def test_what_is_sealed_takes_no_turn_and_asks_no_cluster(tmp_path: Path) -> None:
    stages, stage = Stages(tmp_path), Stage("judge", "teachers", {}, {})
    stages.open()

    def write(folders: Any) -> Any:
        (folders[stage] / "found").write_text("x")
        return {stage: (write_seal(folders[stage], ["found"]), {})}

    stages.build_together([stage], write)
    with SideBySide("stage", 2) as threads:
        turns = Turns(None, {}, threads)  # type: ignore[arg-type]
        built = build_in_turn(turns, "judge/teachers", list, stages, [stage], pytest.fail)  # type: ignore[arg-type]
    assert built[stage].reused
