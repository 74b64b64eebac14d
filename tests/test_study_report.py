import json
import math
import random
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.main import collegium
from orchestrator.recipe.search import SearchConfig
from orchestrator.reporting.document import build_report, notes
from orchestrator.reporting.kept import write_report
from orchestrator.reporting.note import note
from orchestrator.reporting.page import page
from orchestrator.reporting.study import advice, section, told_again, with_test_figures
from orchestrator.reporting.study_plots import staircase, thinned, window
from orchestrator.search.proposals import importances
from orchestrator.search.study import Study, Trial, best_of, front_of, read_trials
from students.tasks.figure import headline

from .test_report import HOSTILE, Page, evaluations_of, recipe_of, stages_of

SPACE = {
    "objective.0.temperature": {"log_uniform": [1, 16]},
    "objective.0.weight": {"uniform": [0, 1]},
    "objective.0.combine": {"choice": ["mean_probability", "mean_logits", None]},
    "teachers": {"subset": {"of": ["wide", "trees"]}},
    "objective.0.teachers": {"subset": {"of": ["wide", "trees"]}},
    "train.learning_rate": {"log_uniform": [1e-4, 1e-1]},
    "arguments.width": {"integer": [8, 64]},
}
ONE = {"validation.accuracy": "max"}
TWO = {"validation.accuracy": "max", "latency_ms": "min"}


def search_of(metrics=ONE, trials=50):
    scheduler = "asha" if metrics == ONE else "none"
    document = {"student": "small", "space": SPACE, "metric": dict(metrics), "scheduler": scheduler, "trials": trials}
    return SearchConfig.model_validate(document)


def trials_of(count, *, seed=0):
    """The control as it stands, the recipe as it stands (with values that its ranges have not), then what was drawn.

    What decides is the learning rate alone; every eighth fails, and some are pruned.
    """
    draw = random.Random(seed)
    yield control(0, 0.005, 0.7)
    now = {"objective.0.temperature": None, "objective.0.weight": 0.9, "objective.0.combine": "mean_probability"}
    now |= {"teachers": ["wide", "trees"], "train.learning_rate": 0.005, "arguments.width": 32}
    now |= {"objective.0.teachers": None}
    yield Trial(1, "student", now, "finished", figures(0.9, 32), seconds=1.0, as_recipe=True)
    for number in range(2, count + 1):
        rate = 10 ** draw.uniform(-4, -1)
        params = {
            "objective.0.temperature": 2 ** draw.uniform(0, 4),
            "objective.0.weight": draw.random(),
            "objective.0.combine": draw.choice(["mean_probability", "mean_logits", None]),
            "teachers": draw.choice([["wide"], ["trees"], ["wide", "trees"]]),
            "objective.0.teachers": draw.choice([["wide"], ["trees"], ["wide", "trees"]]),
            "train.learning_rate": rate,
            "arguments.width": draw.randint(8, 64),
        }
        accuracy = 0.95 - 0.1 * abs(math.log10(rate) + 2.3)
        if number % 8 == 0:
            yield Trial(number, "student", params, "failed", seconds=1.0, error=f"ValueError: {HOSTILE}")
        else:
            state = "pruned" if accuracy < 0.86 and number % 3 == 0 else "finished"
            yield Trial(number, "student", params, state, figures(accuracy, params["arguments.width"]), 3, 1.0)
    yield control(count + 1, 0.01, 0.75)


def control(number, rate, accuracy):
    params = {"train.learning_rate": rate, "arguments.width": 32}
    return Trial(number, "control", params, "finished", figures(accuracy, 32), seconds=1.0)


def figures(accuracy, width):
    return {"validation.accuracy": accuracy, "validation.nll": 1 - accuracy, "latency_ms": 0.1 + width / 100}


def study_in(folder, trials):
    """A study as it lies on the disk; many at once, because each `Study.add` waits for the disk."""
    folder.mkdir(parents=True)
    lines = (json.dumps({"format": 1, **asdict(trial)}) + "\n" for trial in trials)
    (folder / "trials.jsonl").write_text("".join(lines))
    return Study(folder, [*read_trials(folder)])


@pytest.fixture
def plain(digits, tmp_path):
    """A report without a study."""
    (tmp_path / "metrics.jsonl").write_text("")
    return build_report(
        recipe=recipe_of(["small"]),
        stages=stages_of(),
        evaluations=evaluations_of(["small"]),
        metrics={"small": [tmp_path / "metrics.jsonl"]},
        mlflow={"experiment_id": "1", "run_id": "abc", "uri": "http://127.0.0.1:5000"},
        prepared=digits.folder,
        seconds=12.0,
    )


def reported(plain, out, count, metrics=ONE):
    study = study_in(out / "studies" / "small", trials_of(count))
    return plain | {"search": with_test_figures(section(search_of(metrics, count), study, asked=0), plain)}


def test_every_trial_is_counted_once(tmp_path):
    study = Study.open(tmp_path / "studies" / "small", {"recipe": "digits"})
    for trial in trials_of(40):
        study.add(trial)
    found = section(search_of(), study, asked=7)
    assert found["trials"] == 40 == found["finished"] + found["pruned"] + found["failed"]
    assert found["failed"] == 5 and len(found["errors"]) == 5 and found["pruned"] > 0
    assert len(found["history"]) == 42 and found["control"]["trials"] == 2
    assert found["seconds"] == 42.0 and found["teacher_forwards"] == 7
    assert found["as_recipe"]["number"] == 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_control_that_is_told_has_the_network_of_the_best(tmp_path):
    trials = [t for t in trials_of(2) if t.number < 2]
    found = section(search_of(), study_in(tmp_path / "s" / "a", [*trials, control(9, 0.1, 0.6)]), asked=0)
    assert found["control"]["best"]["number"] == 0
    other = Trial(5, "control", {"train.learning_rate": 0.1, "arguments.width": 8}, "finished", figures(0.99, 8))
    found = section(search_of(), study_in(tmp_path / "s" / "b", [*trials, other]), asked=0)
    assert found["control"]["best"]["number"] == 0


COSTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3, st.sampled_from(["finished", "pruned", "failed"])), max_size=25)
THREE = {"validation.accuracy": "max", "latency_ms": "min", "bytes": "min"}


@given(COSTS)
def test_the_front_holds_exactly_those_that_no_other_beats(costs):
    trials = [
        Trial(number, "student", {}, state, dict(zip(THREE, map(float, values), strict=True)))
        for number, (*values, state) in enumerate(costs)
    ]
    complete = [trial for trial in trials if trial.is_complete]

    def cost(trial):
        accuracy, *others = trial.values.values()
        return (-accuracy, *others)

    def beaten(own):
        return any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in every)

    every = {cost(trial) for trial in complete}
    front = front_of(trials, THREE)
    assert {cost(trial) for trial in front} == {own for own in every if not beaten(own)}
    assert len({cost(trial) for trial in front}) == len(front)
    for trial in front:
        assert trial.number == min(t.number for t in complete if cost(t) == cost(trial)), "of equals the earliest"
    assert [cost(trial)[0] for trial in front] == sorted(cost(trial)[0] for trial in front)
    pair = dict(list(THREE.items())[:2])
    joined = staircase([asdict(trial) for trial in front], pair)
    assert {cost(Trial(**t))[:2] for t in joined} == {cost(t)[:2] for t in front_of(trials, pair)}


def test_of_equals_the_surer_is_the_best_and_then_the_earlier():
    def trial(number, accuracy, nll, state="finished"):
        return Trial(number, "student", {}, state, {"validation.accuracy": accuracy, "validation.nll": nll})

    assert best_of([trial(0, 0.8, 0.1), trial(1, 0.9, 0.5), trial(2, 0.9, 0.4)], ONE).number == 2
    assert best_of([trial(3, 0.9, 0.4), trial(1, 0.9, 0.4)], ONE).number == 1
    assert best_of([trial(0, 0.8, 0.1), trial(1, 0.9, 0.1, "pruned")], ONE).number == 0
    assert best_of([trial(0, 0.8, 0.3), trial(1, 0.7, 0.2)], {"validation.nll": "min"}).number == 1
    assert best_of([], ONE) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_setting_that_decides_everything_has_the_largest_share_and_chance_has_little(seed):
    search, trials = search_of(), [t for t in trials_of(80, seed=seed) if t.who == "student"]
    shares = importances(search, search.space, trials)
    assert sum(shares.values()) == pytest.approx(1)
    names = {f"{path}.{name}" for path in SPACE if path.endswith("teachers") for name in ("wide", "trees")}
    assert shares.keys() == {path for path in SPACE if not path.endswith("teachers")} | names
    assert max(shares, key=shares.get) == "train.learning_rate"
    assert shares.pop("train.learning_rate") > 0.6
    assert max(shares.values()) < 0.15


def test_too_few_trials_or_all_alike_have_no_importance():
    search, trials = search_of(), [t for t in trials_of(80) if t.who == "student"]
    assert importances(search, search.space, trials[:6]) == {}
    alike = [Trial(t.number, "student", t.params, "finished", figures(0.5, 8)) for t in trials]
    assert importances(search, search.space, alike) == {}


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ({"low": 0.01, "mean": 0.02, "high": 0.03, "conclusion": "helps"}, "Distil:"),
        ({"low": -0.03, "mean": -0.02, "high": -0.01, "conclusion": "hurts"}, "Do not distil:"),
        ({"low": -0.01, "mean": 0.02, "high": 0.05, "conclusion": "open"}, "No setting was shown to beat the control"),
        ({"low": 0.01, "mean": 0.02, "high": 0.05, "conclusion": "open"}, "No setting was shown to beat the control"),
        ({"low": None, "mean": 0.02, "high": None, "conclusion": "open"}, "Nothing is shown of whether distillation"),
        (None, "No control was trained"),
    ],
)
def test_advice_goes_no_further_than_the_interval(tmp_path, gain, said):
    found = section(search_of(), study_in(tmp_path / "studies" / "small", trials_of(40)), asked=0)
    lines = [*advice(headline("classification"), found, {"gain": gain, "test_accuracy": {"runs": [0.9, 0.9]}})]
    assert lines[0].startswith(said)
    assert any("train.learning_rate mattered" in line for line in lines)
    assert "objective.0.weight mattered" not in " ".join(lines)


@pytest.mark.parametrize(("metrics", "others"), [(ONE, 0), (TWO, 1)])
def test_the_page_of_a_study_holds_every_plot_and_loads_nothing(plain, tmp_path, metrics, others):
    without = len(svgs(page(plain)))
    html = page(reported(plain, tmp_path, 60, metrics))
    plots = svgs(html)[: len(svgs(html)) - without]
    wanted = ["Settings and validation accuracy of every trial", "Best validation accuracy so far"]
    wanted += ["Which settings decided validation accuracy"]
    wanted += ["Pareto front of validation accuracy and latency, ms"] * others
    assert [plot.attrib["aria-label"] for plot in plots[: 3 + others]] == wanted
    assert {plot.attrib["aria-label"] for plot in plots[3 + others :]} == {
        f"validation accuracy over {path}" for path in SPACE
    }
    assert ("<h3>Pareto front</h3>" in html) == (others > 0)
    assert html.index("Study of small") < html.index("Who is how good")
    found = Page(html)
    assert all(target.startswith("#") for target in found.loads)
    assert {target[1:] for target in found.loads} <= set(found.ids) and len(found.ids) == len(set(found.ids))


def svgs(html):
    """Of the page, all well formed."""
    return [ElementTree.fromstring(plot) for plot in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def test_what_a_trial_failed_with_is_shown_and_never_run(plain, tmp_path):
    html = page(reported(plain, tmp_path, 40))
    assert "script" not in Page(html).tags
    assert html.count("&lt;script&gt;") == 6, "five failed trials, and the advice that names the first"


def test_a_report_without_a_study_is_as_before(plain):
    html = page(plain)
    assert "Study of" not in html and "search" not in plain and "Study of" not in note(plain)
    assert len(svgs(html)) == 4


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_study_of_few_trials_has_a_page(plain, tmp_path, count):
    report = reported(plain, tmp_path, count, TWO)
    html = page(report)
    assert "too few finished trials" in html
    assert len(svgs(html)) == len(svgs(page(plain))) + 2 + (1 + len(SPACE) if count > 1 else 0)


def test_without_the_recipes_own_trial_and_without_a_control_there_is_a_page(plain, tmp_path):
    trials = [trial for trial in trials_of(40) if trial.who == "student" and trial.number > 1]
    study = study_in(tmp_path / "studies" / "small", [Trial(1, "student", trials[0].params, "failed"), *trials])
    report = plain | {"search": with_test_figures(section(search_of(), study, asked=0), plain)}
    assert report["search"]["as_recipe"] is None and report["search"]["control"]["best"] is None
    html = page(report)
    assert "did not come to its end" in html and "as in the recipe, trial" not in html


def test_mlflow_is_told_of_the_study_in_short(plain, tmp_path):
    told = note(reported(plain, tmp_path, 40))
    assert "**Study of small**, 40 trials" in told and "train.learning_rate" in told
    assert told.index("Study of small") < told.index("| best, trial") < told.index("| who |")


def test_a_control_with_settings_of_its_own_is_named(digits):
    recipe = recipe_of(["small"])
    assert not any("settings of its own" in line for line in notes(recipe, digits.report))
    recipe["students"]["small"]["control"] = {"learning_rate": 0.01, "weight_decay": None, "optimizer": "sgd"}
    told = [line for line in notes(recipe, digits.report) if "settings of its own" in line]
    assert told == [
        "The control of small is trained by settings of its own (learning_rate 0.01, optimizer sgd); the budget is the same."
    ]


@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_sample_keeps_the_best_and_the_order(direction):
    draw = random.Random(0)
    trials = [{"number": number, "values": {"m": draw.random()}} for number in range(1000)]
    shown = thinned(trials, "m", direction, 90)
    ranked = sorted(trials, key=lambda trial: trial["values"]["m"], reverse=direction == "max")
    assert len(shown) == 90 == len({trial["number"] for trial in shown})
    assert all(trial in shown for trial in ranked[:30])
    assert [trial["number"] for trial in shown] == sorted(trial["number"] for trial in shown)
    assert thinned(trials[:90], "m", direction, 90) == trials[:90]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from(["max", "min"]))
def test_a_window_shows_the_best_half_and_what_it_is_told_to_keep(values, direction):
    low, high = window(values, direction, [values[0]])
    ranked = sorted(values, reverse=direction == "max")
    assert all(low <= value <= high for value in [values[0], *ranked[: (len(ranked) + 1) // 2]])


def test_ten_thousand_trials_have_a_small_page_by_the_same_command(plain, tmp_path):
    report = reported(plain, tmp_path, 10_000, TWO)
    assert report["search"]["trials"] == 10_000
    (tmp_path / "runs" / "a").mkdir(parents=True)
    write_report(tmp_path / "runs" / "a", report)
    before = (tmp_path / "runs" / "a" / "report.html").read_text()
    done = CliRunner().invoke(collegium, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "runs" / "a" / "report.html").read_text() == before
    assert len(before) < 2e6 and "finished trials are drawn" in before


def test_a_report_outlives_its_study(plain, tmp_path):
    report = reported(plain, tmp_path, 20)
    (tmp_path / "studies" / "small" / "trials.jsonl").unlink()
    assert told_again(report, tmp_path) == report["search"]


def test_a_report_is_not_told_of_the_study_that_took_the_place_of_its_own(plain, tmp_path):
    report = reported(plain, tmp_path, 20)
    trials = tmp_path / "studies" / "small" / "trials.jsonl"
    begun_anew = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(begun_anew[10:]))
    assert told_again(report, tmp_path) == report["search"]
