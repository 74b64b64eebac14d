"""A schedule as it is told: by `plan` before a run, as text, and by the report after it, as a picture."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.building.works import Lengths, timed_in, works_of
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.timeline import lanes_of, timeline
from orchestrator.scheduling.gantt import busy, chart
from orchestrator.scheduling.planner import ranked
from orchestrator.scheduling.virtual import Bar
from orchestrator.stages.outline import planned
from orchestrator.stages.stages import Built, Stage
from orchestrator.watching.journal import Journal
from orchestrator.watching.status import Looker
from teachers.storage.seal import Seal

NODES = [{"CPU": 2.0}]
SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=30)


def test_a_column_says_how_many_go_on_and_a_short_work_is_seen() -> None:
    bars = [Bar("a/x/1", 0, 5, ()), Bar("a/x/2", 2.5, 10, ()), Bar("b/y", 9.99, 10, ()), *(Bar(f"c/z/{n}", 0, 1, ()) for n in range(12))]  # fmt: skip
    assert chart(bars, 10) == ["a/x  1122211111", "c/z  +·········", "b/y  ·········1"]
    assert chart([]) == []
    assert busy(bars[:2], {"a/x/1": 1, "a/x/2": 2}, 2) == pytest.approx((5 + 15) / 20)


@given(SPANS)
def test_parts_that_go_on_at_once_lie_in_lanes_of_their_own_and_in_no_more(spans) -> None:
    spans = [(begun, begun + seconds) for begun, seconds in spans]
    lanes = lanes_of([{"begun": begun, "ended": ended} for begun, ended in spans])
    assert sorted(span for lane in lanes for span in lane) == sorted(spans)
    for lane in lanes:
        assert all(first[1] <= later[0] for first, later in pairwise(lane))
    at_once = max(sum(begun <= at < ended for begun, ended in spans) for at, _ in spans)
    assert len(lanes) == at_once


def test_the_picture_names_what_was_built_and_not_what_was_there() -> None:
    stages = [
        {"stage": "label", "name": "wide", "part": "train-0", "begun": 100.0, "ended": 105.0, "on": ["10.0.0.1"]},
        {"stage": "distill", "name": "small", "part": "student/seed-0", "begun": 105.0, "ended": 114.0, "on": ["10.0.0.2"]},
        {"stage": "label", "name": "deep", "part": "train-0", "seconds": 0.1},
    ]  # fmt: skip
    caption, svg = timeline(stages) or ("", "")
    assert "on 2 nodes" in caption and "label/wide" in svg and "distill/small" in svg and "label/deep" not in svg
    assert timeline(stages[2:]) is None


def test_works_are_named_as_stages_and_teachers_come_before_whom_they_teach() -> None:
    middle = "students.middle={model: 'students.models:mlp', teachers: [wide], train: {steps: 30, seeds: [0]}}"
    recipe = load_recipe(find("digits"), [middle, "students.small.teachers=[middle, trees]"])
    learners = [name for names in recipe.learners_in_order() for name in names]
    works = ranked(works_of(recipe, learners, NODES, Lengths(1000, 100)))
    titles = {"/".join(name.split("/")[:2]) for name in works}
    assert titles == {each for each in planned(recipe, "distill") if not each.startswith("prepare")}
    assert all(name in works for work in works.values() for name in work.after)
    student, control = works["distill/small/student/seed-0"], works["distill/small/control/seed-0"]
    assert set(student.after) == {"label/middle", "judge/middle", "label/trees"} and control.after == ()
    chain = ["train_teacher/wide", "label/wide", "distill/middle/student/seed-0", "label/middle", student.name]
    assert [works[name].rank for name in chain] == sorted((works[name].rank for name in chain), reverse=True)
    assert works["label/wide"].asks_for == "1 x 1 CPU"  # and another one as room comes


def test_what_an_earlier_run_took_is_what_the_next_is_thought_to_take(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    with Journal(folder, command="run", recipe="x", planned=[]) as journal:
        for kind, part, seconds, facts in (
            ("distill", "student/seed-0", 3.0, {"steps": 1000, "begun": 10, "ended": 13}),
            ("distill", "student/seed-1", 5.0, {"steps": 1000, "begun": 10, "ended": 15}),
            ("label", "train-0", 0.5, {"begun": 2, "ended": 9}),
            ("label", "test-0", 0.1, {"begun": 2, "ended": 9.5}),
        ):
            stage = Stage(kind, "small", {}, {}, part)
            journal.seen(stage, tmp_path, Built(stage, tmp_path, Seal((), ""), False, "", seconds, facts))
        there = Stage("label", "wide", {}, {})
        journal.seen(there, tmp_path, Built(there, tmp_path, Seal((), ""), True, "", 0.01))
    assert timed_in(tmp_path) == {"distill/small": pytest.approx(0.004), "label/small": 7.5}


def test_a_plan_lays_out_everything_that_is_not_there_and_says_that_it_guesses(tmp_path: Path) -> None:
    found = plan(find("digits"), tmp_path / "out").schedule
    assert {bar.name for bar in found.bars} >= {"train_teacher/wide", "label/trees", "distill/small/control/seed-4"}
    first, *lines = found.lines()
    assert "guessed by steps" in first and len(lines) == 8
    record = found.record()
    assert record["seconds"] is None and 0 < record["used"]["CPU"] <= 1
    assert {*record["bars"][0]} == {"work", "start", "end", "on"}


def test_a_stage_of_which_a_part_still_waits_for_its_turn_is_not_done(tmp_path: Path) -> None:
    def state() -> str:
        (found,) = Looker(str(tmp_path)).look()["stages"]
        return str(found["state"])

    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    first, second = (Stage("distill", "small", {}, {}, f"student/seed-{seed}") for seed in (0, 1))
    with Journal(folder, command="run", recipe="x", planned=[]) as journal:
        told = [partial(journal.waits, first, tmp_path), partial(journal.waits, second, tmp_path)]
        told += [partial(journal.seen, each, tmp_path, None) for each in (first, second)]
        for each in (first, second):
            told.append(partial(journal.seen, each, tmp_path, Built(each, tmp_path, Seal((), ""), False, "", 1.0)))
        states = []
        for number in (0, 1, 2, 4, 3, 5):
            told[number]()
            journal._write()
            states.append(state())
    assert states == ["waiting", "waiting", "running", "running", "running", "done"]
