"""The search in a recipe, and a control with settings of its own: what is refused, where, and with which cure."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.cluster.capacity import check_room_for_trials, room_for_trials
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import check, load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.recipe.space import search_warnings
from students.config.student import ControlTrain, control_train
from students.runs.of_student import student_run
from teachers.errors import EnvironmentUnfit, RecipeError
from tests.test_cli import run
from tests.test_recipe import complaint, line_of

SEARCH = find("search").read_text()
BEFORE, _, SECTION = SEARCH.partition("\nsearch:\n")
HEAD = f"{BEFORE}\n"
COHORT = """\
format: 1
name: x
transfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit}
cohorts:
  trio: {method: mutual, members: {a: {model: 'students.models:mlp'}, b: {model: 'students.models:mlp'}}CONTROL}
"""
NONE = "algorithm: pbt, scheduler: none"
RATE = "train.learning_rate: {uniform: [0.001, 0.1]}"


def searching(space: str, more: str = "") -> str:
    """The shipped recipe with another search; its space stands on its last line."""
    return f"{HEAD}search:\n  student: small\n{more and f'  {more}' + chr(10)}  space:\n    {space}\n"


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    """The one line that is told."""
    told = complaint(tmp_path, text, *overrides)
    assert len(told.splitlines()) == 1, told
    return told


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find("search"), overrides)


@pytest.mark.parametrize(
    ("space", "path", "told"),
    [
        ("objective.0.temprature: {uniform: [1, 2]}", "objective.0.temprature", "unknown key, did you mean temperature?"),
        ("train.lerning_rate: {uniform: [1, 2]}", "train.lerning_rate", "unknown key, did you mean learning_rate?"),
        ("trian.learning_rate: {uniform: [1, 2]}", "trian.learning_rate", "unknown key 'trian', did you mean train?"),
        ("objective.1.temperature: {uniform: [1, 2]}", "objective.1.temperature", "there are loss, weight, ramp, distance, delta, quantile, label_smoothing"),
        ("objective.0.combine: {choice: [mean_logits, median]}", "objective.0.combine", "is 'median'; the task classification has mean_probability, mean_logits, weighted, fitted, vote, "),
        ("objective.2.weight: {uniform: [0, 1]}", "objective.2.weight", "there is no number 2 in objective, which has 2 entries, counted from 0"),
        ("objective.-1.weight: {uniform: [0, 1]}", "objective.-1.weight", "there is no number -1 in objective"),
        ("arguments.hidden.size: {integer: [1, 2]}", "arguments.hidden.size", "arguments.hidden is 16 in the recipe, so there is nothing below it"),
        ("train.early_stoping.patience: {integer: [1, 2]}", "train.early_stoping.patience", "did you mean early_stopping?"),
        ("train.optimizer: {choice: []}", "train.optimizer.choice", "at least 1 item"),
        ("train.learning_rate: {log_uniform: [0, 1]}", "train.learning_rate", "log_uniform [0, 1] reaches 0 or below, where there is no logarithm"),
        ("train.learning_rate: {uniform: [1, 1]}", "train.learning_rate", "uniform [1, 1] is empty: expected [lowest, highest]"),
        ("train.learning_rate: {log_uniform: [1, 0.1]}", "train.learning_rate", "log_uniform [1, 0.1] is empty"),
        ("arguments.hidden: {integer: [8, 4]}", "arguments.hidden", "integer [8, 4] is empty"),
        ("train.learning_rate: {uniform: [1]}", "train.learning_rate.uniform.1", "is missing"),
        ("train.learning_rate: {uniform: [1, 2, 3]}", "train.learning_rate.uniform", "at most 2 items"),
        ("objective.0.weight: {uniform: [0, .inf]}", "objective.0.weight.uniform.1", "finite number"),
        ("train.learning_rate: {unifrm: [1, 2]}", "train.learning_rate", "expected one of uniform, log_uniform, integer, choice, subset, for example {uniform: [0, 1]}"),
        ("train.learning_rate: {uniform: [1, 2], choice: [1]}", "train.learning_rate", "expected one of uniform"),
        ("train.learning_rate: {uniform: [1, 2], step: 1}", "train.learning_rate.step", "unknown key; there are uniform"),
        ("train.learning_rate: 3", "train.learning_rate", "expected one of uniform"),
        ("train.learning_rate: [1, 2]", "train.learning_rate", "expected one of uniform"),
        ("train.learning_rate: null", "train.learning_rate", "expected one of uniform"),
        ("train.learning_rate: {uniform: [0, 1]}", "train.learning_rate", "should be greater than 0 (found 0.0)"),
        ("objective.0.temperature: {uniform: [-1, 2]}", "objective.0.temperature", "should be greater than 0 (found -1.0)"),
        ("objective.0.combine: {choice: [mean_logits, mean_logit]}", "objective.0.combine", "found 'mean_logit', did you mean mean_logits?"),
        ("objective.0.combine: {choice: [weighted]}", "objective.0.combine", "with 'weighted': objective.0: `combine: weighted` and `teacher_weights` go together"),
        ("train.optimizer: {choice: [adam, sgd]}", "train.optimizer", "did you mean adamw?"),
        ("teachers: {subset: {of: [wide, stranger]}}", "teachers", "['stranger'] are not among the student's own teachers ['wide', 'deep', 'trees']; name them there too"),
        ("train.augment: {subset: {of: [wide]}}", "train.augment", "`subset` goes with a list of teachers, and only with one"),
        ("teachers: {choice: [[wide]]}", "teachers", "`subset` goes with a list of teachers, and only with one"),
        ("teachers: {subset: {of: [wide, deep], at_least: 3}}", "teachers.subset", "at_least is 3, and there are only 2"),
        ("teachers: {subset: {of: [wide, deep], at_last: 1}}", "teachers.subset.at_last", "unknown key, did you mean at_least?"),
        ("teachers: {subset: {of: [wide, wide]}}", "teachers.subset", "names one twice"),
        ("train.steps: {integer: [10, 20]}", "train.steps", "is the budget, which is the same for all trials; else the most expensive one would win"),
        ("train.batch_size: {choice: [32, 64]}", "train.batch_size", "is the budget"),
        ("train.early_stopping.patience: {integer: [1, 2]}", "train.early_stopping.patience", "is the budget"),
        ("train: {choice: [{steps: 9}]}", "train", "holds the budget too, which is the same for all trials; name keys below it"),
        ("train.seeds: {choice: [[1], [2]]}", "train.seeds", "is the study's own"),
        ("control: {choice: [true, false]}", "control", "is the study's own"),
        ("control.learning_rate: {uniform: [0.1, 1]}", "control.learning_rate", "the control is searched by itself"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused_at_its_line(space: str, path: str, told: str, tmp_path: Path) -> None:
    text = searching(space)
    line = refused(tmp_path, text)
    assert line.startswith(f"r.yaml:{len(text.splitlines())}:"), line
    assert f": search.space.{path}: " in line and told in line, line


@pytest.mark.parametrize(
    ("more", "space", "told"),
    [
        ("metric: validation.acuracy", RATE, "metric 'validation.acuracy' is none that `task: classification` has, did you mean validation.accuracy?"),
        ("metric: test.accuracy", RATE, "metric 'test.accuracy' is none that `task: classification` has"),
        ("metric: {latency: min}", RATE, "metric 'latency' is none that `task: classification` has, did you mean latency_ms?"),
        ("metric: {latency_ms: lowest}", RATE, "search.metric.latency_ms: 'lowest' is not one of max, min"),
        ("metric: {}", RATE, "metric is empty; expected one or more of validation.accuracy"),
        ("metric: parameters", RATE, "scheduler: asha compares trials while they train, by one figure of validation; with `metric` parameters set `scheduler: none`"),
        ("metric: {validation.accuracy: max, validation.nll: min}", RATE, "with `metric` validation.accuracy, validation.nll set `scheduler: none`"),
        ("algorithm: optun", RATE, "search.algorithm: 'optun' is not one of optuna, random, grid, pbt, did you mean optuna?"),
        ("scheduler: ash", RATE, "search.scheduler: 'ash' is not one of asha, median, none, did you mean asha?"),
        ("trials: 0", RATE, "search.trials: input should be greater than or equal to 1 (found 0)"),
        ("trails: 20", RATE, "search.trails: unknown key, did you mean trials?"),
        ("algorithm: grid", RATE, "algorithm: grid takes `choice`, `integer` and `subset`; space.train.learning_rate is a range"),
        ("algorithm: grid", "{arguments.hidden: {integer: [1, 101]}, arguments.depth: {integer: [1, 100]}}", "algorithm: grid would have up to 10,100 points, more than 10,000; use random"),
        ("algorithm: pbt", RATE, "algorithm: pbt is a scheduler itself; set `scheduler: none`"),
        (NONE, "arguments.hidden: {choice: [8, 16]}", "search.space.arguments.hidden: cannot change while a network trains, as pbt does; it takes objective., teachers, train.learning_rate, train.clip"),
        (f"{NONE}, metric: parameters", RATE, "by one figure of validation; with `metric` parameters take another algorithm"),
        (f"{NONE}, metric: {{validation.accuracy: max, validation.nll: min}}", RATE, "with `metric` validation.accuracy, validation.nll take another algorithm"),
    ],
)  # fmt: skip
def test_a_search_whose_parts_do_not_fit_is_refused_with_the_cure(
    more: str, space: str, told: str, tmp_path: Path
) -> None:
    space = space if space.startswith("{") else f"{{{space}}}"
    text = f"{HEAD}search: {{student: small, space: {space}, {more}}}\n"
    line = refused(tmp_path, text)
    assert line.startswith(f"r.yaml:{len(text.splitlines())}:") and told in line, line


def test_a_search_of_nothing_or_of_nobody_says_what_is_missing(tmp_path: Path) -> None:
    assert complaint(tmp_path, f"{HEAD}search: {{}}\n").count("is missing") == 2
    assert "search.space: dictionary should have at least 1 item" in refused(
        tmp_path, f"{HEAD}search: {{student: small, space: {{}}}}\n"
    )
    text = searching(RATE).replace("student: small\n", "student: smal\n")
    assert (
        f"r.yaml:{line_of(text, 'student: smal')}:3: search.student: no student or cohort is called 'smal', did you mean small?"
        in refused(tmp_path, text)
    )


def test_a_live_teacher_is_refused_since_a_study_never_asks_one(tmp_path: Path) -> None:
    told = refused(tmp_path, SEARCH, "teachers.wide.mode=live")
    assert f"r.yaml:{line_of(SEARCH, '  student: small')}:3: search.student: its teacher 'wide' is live" in told
    assert "set `teachers.wide.mode: cached`" in told


def test_pbt_takes_one_student_on_one_worker(tmp_path: Path) -> None:
    told = refused(tmp_path, searching(RATE, "algorithm: pbt\n  scheduler: none"), "students.small.train.workers=2")
    assert "search.algorithm: pbt moves a network between settings while it trains" in told and "`workers: 1`" in told
    cohort = COHORT.replace("CONTROL", "") + f"search: {{student: trio, space: {{{RATE}}}, {NONE}}}\n"
    assert f"r.yaml:6:{cohort.splitlines()[5].index('algorithm') + 1}: search.algorithm: pbt" in refused(
        tmp_path, cohort
    )


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("objective.0.wieght: {uniform: [0, 1]}", "unknown key, did you mean weight?"),
        ("members.c.train.learning_rate: {uniform: [0.1, 1]}", "unknown key 'c'; there are a, b"),
        ("deliver: {choice: [best, c]}", "with 'c': deliver is 'c', expected best"),
        ("method: {choice: [mutual, kdlc]}", "did you mean kdcl?"),
    ],
)
def test_the_space_of_a_cohort_is_checked_as_a_students(space: str, told: str, tmp_path: Path) -> None:
    text = COHORT.replace("CONTROL", "") + f"search: {{student: trio, space: {{{space}}}}}\n"
    line = refused(tmp_path, text)
    assert line.startswith("r.yaml:6:") and told in line, line


def test_all_of_a_space_is_told_at_once(tmp_path: Path) -> None:
    text = searching(
        "train.steps: {integer: [1, 2]}\n    train.momentum: {uniform: [0, 2]}\n    objective.5: {choice: [1]}"
    )
    assert [line.split(": ")[1] for line in complaint(tmp_path, text).splitlines()] == [
        "search.space.train.steps",
        "search.space.train.momentum",
        "search.space.objective.5",
    ]


@pytest.mark.parametrize(
    ("space", "why"),
    [
        ("{train.momentum: {uniform: [0, 0.9]}}", "its optimizer is adamw"),
        ("{resources.cpus: {choice: [1, 2]}}", "it decides nothing of its training"),
        ("{objective.1.label_smoothing: {uniform: [0, 0.1]}}", "objective.1.weight is 0"),
        ("{objective.0.combine: {choice: [mean_probability, mean_logits]}}", "it listens to 'wide' alone"),
    ],
)
def test_a_space_that_names_what_the_student_does_not_use_is_warned_of(space: str, why: str) -> None:
    made = recipe(
        f"search.space={space}", "students.small.objective.1.weight=0", "students.small.objective.0.teachers=[wide]"
    )
    (warning,) = search_warnings(made)
    path = next(iter(yaml.safe_load(space)))
    assert warning == f"search.space.{path}: the student does not use it ({why}), so trials differ in nothing by it"


def test_what_another_key_of_the_space_brings_into_use_is_not_warned_of() -> None:
    for space in (
        "{train.momentum: {uniform: [0, 0.9]}, train.optimizer: {choice: [adamw, sgd]}}",
        "{objective.1.label_smoothing: {uniform: [0, 0.1]}, objective.1.weight: {uniform: [0, 1]}}",
    ):
        assert search_warnings(recipe(f"search.space={space}", "students.small.objective.1.weight=0")) == []
    assert search_warnings(recipe()) == []


def test_the_plan_of_the_shipped_search_has_nothing_to_warn_of_and_tells_what_there_is(tmp_path: Path) -> None:
    unused = recipe("search.space={train.momentum: {uniform: [0, 0.9]}}")
    for made, told in ((recipe(), 0), (unused, 1)):
        found = plan(made, tmp_path / "out")
        assert found.stages[0].stage == "prepare" and not (tmp_path / "out").exists()
        assert len([note for note in found.notes if "the student does not use it" in note]) == told


def test_the_plan_refuses_more_trials_at_a_time_than_the_machine_has_room_for(tmp_path: Path) -> None:
    done = run("plan", "search", "-o", "search.max_concurrent=5000", cwd=tmp_path, RAY_ADDRESS="local")
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert "search.max_concurrent is 5000, and there is room for" in done.stderr and "ask for fewer" in done.stderr


def test_room_for_trials_is_counted_node_by_node() -> None:
    two_cpus = recipe("students.small.resources.cpus=2")
    assert room_for_trials(two_cpus, [{"CPU": 3.0}, {"CPU": 5.0}]) == 3
    assert room_for_trials(recipe("students.small.train.workers=2"), [{"CPU": 3.0}, {"CPU": 2.0}]) == 2
    assert room_for_trials(recipe("students.small.resources.gpus=0.5"), [{"CPU": 16.0, "GPU": 2.0}]) == 4
    assert room_for_trials(recipe("students.small.resources.custom={licence: 1}"), [{"CPU": 8.0}]) == 0


def test_as_many_trials_at_a_time_as_there_is_room_for_are_allowed() -> None:
    check_room_for_trials(recipe("search.max_concurrent=2"), [{"CPU": 2.0}])
    check_room_for_trials(recipe(), [{"CPU": 1.0}])
    with pytest.raises(
        EnvironmentUnfit, match="max_concurrent is 3, and there is room for 2 trials of 1 workers at a time"
    ):
        check_room_for_trials(recipe("search.max_concurrent=3"), [{"CPU": 2.0}])


def test_only_those_are_trained_first_who_teach_the_student() -> None:
    document = yaml.safe_load(SEARCH)
    small = document["students"]["small"]
    document["students"] |= {
        "first": small | {"teachers": ["wide"]},
        "middle": small | {"teachers": ["first", "deep"]},
        "other": small | {"teachers": ["first"]},
    }
    document["students"]["small"] = small | {"teachers": ["middle", "trees"]}
    made = Recipe.model_validate(document | {"search": None})
    assert made.before("small") == [["first"], ["middle"]]
    assert (made.before("other"), made.before("first")) == ([["first"]], [])


@pytest.mark.parametrize(
    ("control", "told"),
    [
        ("{lrate: 1}", ".lrate: unknown key, did you mean learning_rate?"),
        ("{steps: 4}", ".steps: unknown key; there are learning_rate, optimizer"),
        ("{learning_rate: -1}", ".learning_rate: input should be greater than 0 (found -1)"),
        ("maybe", ": input should be a valid boolean, unable to interpret input (found 'maybe')"),
    ],
)
def test_a_control_that_cannot_be_is_told_once(control: str, told: str, tmp_path: Path) -> None:
    own = next(line for line in SEARCH.splitlines() if line.startswith("    control: "))
    text = SEARCH.replace(own, f"    control: {control}")
    assert f"r.yaml:{line_of(text, 'control: ')}:" in (line := refused(tmp_path, text))
    assert f" students.small.control{told}" in line
    assert f"cohorts.trio.control{told}" in refused(tmp_path, COHORT.replace("CONTROL", f", control: {control}"))


def test_a_control_with_a_setting_of_its_own_has_it_and_all_else_from_its_student(tmp_path: Path) -> None:
    small = recipe("students.small.control={learning_rate: 0.01}").students["small"]
    assert small.control == ControlTrain(learning_rate=0.01)
    common = {
        "folder": tmp_path, "sources": (), "stage": tmp_path, "stage_name": "s", "transfer_set": tmp_path,
        "user_path": tmp_path, "trust": (),
    }  # fmt: skip
    taught, control = (student_run(kind, small, 0, **common) for kind in ("student", "control"))
    assert (taught.train.learning_rate, control.train.learning_rate) == (0.005, 0.01)
    assert control.train.model_copy(update={"learning_rate": 0.005}) == taught.train
    assert control.labelled_only and [term.loss for term in control.objective] == ["hard"]
    path = tmp_path / "r.yaml"
    path.write_text(COHORT.replace("CONTROL", ", control: {learning_rate: 0.01}"))
    assert load_recipe(path).cohorts["trio"].control == ControlTrain(learning_rate=0.01)


@pytest.mark.parametrize("control", [True, False, ControlTrain()])
def test_a_control_that_says_nothing_trains_as_its_student(control: bool | ControlTrain) -> None:
    train = recipe().students["small"].train
    assert control_train(control, train) == train


def test_reading_a_recipe_with_a_search_imports_no_heavy_package() -> None:
    code = (
        "import sys; from orchestrator.recipe.load import load_recipe;"
        f"load_recipe({str(find('search'))!r});"
        "print([name for name in ('torch', 'ray', 'mlflow', 'numpy', 'optuna') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_recipe_made_in_python_is_refused_alike() -> None:
    document = yaml.safe_load(SEARCH)
    document["search"]["student"] = "smal"
    with pytest.raises(
        RecipeError, match=r"search\.student: no student or cohort is called 'smal', did you mean small\?"
    ):
        check(Recipe.model_validate(document))
