"""What a run would take, told before it: prices by arithmetic, by what was tried, and by what an earlier run took."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.building.estimates import bytes_of_an_answer
from orchestrator.planning.budgets import Rows
from orchestrator.planning.planning import plan
from orchestrator.planning.price_table import caching, table
from orchestrator.planning.prices import Prices, Pricing
from orchestrator.planning.rehearsed import Timed
from orchestrator.planning.room import Storage, check_room
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.estimates import beside_estimates
from teachers.errors import EnvironmentUnfit

NAMES = tuple("0123456789")
ROWS = Rows({"train": 1000, "validation": 100, "test": 200}, {"train": 100, "validation": 100, "test": 200}, True)
CPUS = {"here": {"CPU": 4.0}}
GPUS = {"here": {"CPU": 4.0, "GPU": 2.0}}
AS_ITS_STUDENT = "students.small.control=true"
VIEWS = ("transfer_set.views=3", "transfer_set.transform=flip", AS_ITS_STUDENT)


def priced(*overrides: str, nodes=CPUS, rows: Rows | None = ROWS, timed=None, tried=None, parameters=None) -> Prices:
    recipe = load_recipe(find("digits"), overrides)
    return Pricing(recipe, nodes, rows, NAMES, {}, timed or {}, tried or {}, parameters or {}).all()


def of(found: Prices, work: str):
    return next(each for each in (*found.teachers, *found.learners) if each.work == work)


def test_answers_are_of_all_rows_and_of_training_rows_in_all_views_and_bytes_are_the_stores() -> None:
    recipe = load_recipe(find("digits"))
    for views, overrides in ((1, ()), (3, VIEWS)):
        wide = of(priced(*overrides), "label/wide")
        assert (wide.rows, wide.views) == (300 + views * 1000, views)
        assert wide.bytes == wide.rows * bytes_of_an_answer(recipe, "wide", NAMES)
    live = of(priced("teachers.wide.mode=live", AS_ITS_STUDENT), "label/wide")
    assert live.rows == 300
    assert of(priced(rows=None), "label/wide").rows is None


def test_seconds_of_a_row_become_those_of_all_replicas_and_of_what_they_ask_for() -> None:
    tried = {"label/wide": Timed(0.002, "cpu"), "distill/small": Timed(0.01, "cpu")}
    asks = ("teachers.wide.replicas=8", "teachers.wide.resources.cpus=2")
    found = priced(*asks, tried=tried)
    wide, small = of(found, "label/wide"), of(found, "distill/small")
    assert wide.replicas == 2, "more find no room"
    assert wide.wall_s == pytest.approx(1300 * 0.002 / 2) and wide.cpu_s == pytest.approx(2 * 1300 * 0.002)
    assert wide.gpu_s == 0 and wide.row_s == pytest.approx(0.002) and wide.how == "a batch that was tried"
    assert small.trainings == 10 and small.cpu_s == pytest.approx(10 * small.steps * 0.01)
    assert small.wall_s == pytest.approx(3 * small.steps * 0.01), "four find room at once"
    earlier = of(priced(*asks, tried=tried, timed={"label/wide": 7.0}), "label/wide")
    assert (earlier.wall_s, earlier.how) == (7.0, "an earlier run")


def test_what_was_tried_on_a_cpu_tells_nothing_of_a_gpu_and_who_cannot_be_tried_is_unknown() -> None:
    tried = {"label/wide": Timed(0.002, "cpu")}
    wide = of(priced(nodes=GPUS, tried=tried), "label/wide")
    assert wide.wall_s is None and wide.why == "tried on cpu, where it will not run"
    assert of(priced(nodes=GPUS, tried={"label/wide": Timed(0.002, "cuda")}), "label/wide").gpu_s == pytest.approx(2.6)
    found = priced()
    assert of(found, "label/trees").why == "it is fitted first" and of(found, "label/trees").cpu_s is None
    assert [line for line in table(found) if line.startswith("label/trees") and "unknown: it is fitted first" in line]


def test_a_cache_is_asked_once_and_who_is_live_in_every_training_that_hears_it() -> None:
    found = priced(*VIEWS, "students.small.train.steps=50", "students.small.train.batch_size=20")
    passes = of(found, "label/wide").passes
    assert passes is not None and (passes.cached, passes.live) == (3 * 1000, 5 * 50 * 20), "controls ask nobody"
    assert passes.factor == pytest.approx(5 / 3)
    line = next(caching(found))
    assert "even at 3 epochs" in line and "there are 5.0" in line and "32 bytes each" in line


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_disk_is_too_small_for_what_is_still_to_come_never_for_what_is_there(labels, there, free) -> None:
    storage = Storage({"soft_targets": labels + there}, {"soft_targets": labels, "prepared": 0})
    if labels <= free:
        assert check_room(storage, free, Path("out")) == []
    else:
        with pytest.raises(EnvironmentUnfit, match=r"still to come under out \(.* of soft_targets\)"):
            check_room(storage, free, Path("out"))


def test_plan_ends_where_the_disk_has_no_room_for_what_it_computed(tmp_path: Path) -> None:
    wide = "teachers.wide.model='teachers.zoo:mlp'", "teachers.wide.arguments={hidden: 100000}"
    features = (*wide, "teachers.wide.outputs={hidden: {layer: '2'}}")
    views = ("transfer_set.views=10000", "transfer_set.transform=cutout", AS_ITS_STUDENT)
    with pytest.raises(EnvironmentUnfit, match=r"of soft_targets\), .* are free; make room there") as error:
        plan(load_recipe(find("digits"), [*features, *views]), tmp_path / "out")
    assert error.value.exit_code == 4 and not (tmp_path / "out").exists()


def test_what_check_tried_is_what_the_schedule_is_drawn_by(tmp_path: Path) -> None:
    few = ("students.small.train.seeds=[0, 1]", "students.small.train.steps=40")
    recipe = load_recipe(find("digits"), [*few, "students.small.train.early_stopping=null"])
    made = plan(recipe, tmp_path / "out", check=True)
    small = of(made.prices, "distill/small")
    (first, *_) = [bar for bar in made.schedule.bars if bar.name.startswith("distill/small/student")]
    assert first.end - first.start == pytest.approx(40 * small.step_s)
    assert {"label/wide", "distill/small", "train_teacher/deep"} <= {*made.schedule.tried}
    assert {"label/trees", "judge/teachers"} <= {*made.schedule.untimed}
    record = made.record()["prices"]
    assert {*record["teachers"][0]} >= {"work", "rows", "bytes", "row_s", "cpu_s", "gpu_s", "wall_s", "passes", "how"}
    assert made.record()["storage"]["bytes_to_come"]["networks"] > 0


def test_what_was_thought_stands_beside_what_it_took() -> None:
    stages = [
        {"stage": "label", "name": "wide", "rows": 100, "bytes": 3200, "seconds": 1.0, "begun": 5.0, "ended": 7.0},
        {"stage": "label", "name": "wide", "rows": 50, "bytes": 1600, "seconds": 0.5, "begun": 5.0, "ended": 8.0},
        {"stage": "distill", "name": "small", "seconds": 4.0, "begun": 8.0, "ended": 12.0},
        {"stage": "distill", "name": "small", "seconds": 6.0, "begun": 8.0, "ended": 14.0},
        {"stage": "label", "name": "deep", "seconds": 0.1},
        {"stage": "judge", "name": "teachers", "seconds": 1.0, "begun": 8.0, "ended": 9.0},
    ]
    thought = {
        "label/wide": {"rows": 150, "bytes": 4800, "wall_s": None},
        "distill/small": {"trainings": 2, "wall_s": 9.0},
    }
    wide, small = beside_estimates(thought, stages)
    assert (wide["rows"], wide["bytes"], wide["wall_s"], wide["rows_per_s"]) == (150, 4800, 3.0, 50.0)
    assert wide["predicted"] == {"rows": 150, "bytes": 4800, "wall_s": None, "rows_per_s": None}
    assert (small["wall_s"], small["trainings"], small["predicted"]["wall_s"]) == (5.0, 2, 9.0)


def test_every_line_of_the_table_has_the_unit_of_what_it_says() -> None:
    lines = [*table(priced(tried={"label/wide": Timed(0.002, "cpu")}))]
    assert lines[0].split()[:2] == ["stage", "answers"]
    assert re.search(r"^label/wide +1,300 rows +[\d.]+ KiB +2 ms +2.6 +0.0 +1.3 +a batch that was tried$", lines[1])
