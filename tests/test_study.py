"""A study on disk, what is still to be tried of it, and the recipe that comes out."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe, public
from orchestrator.recipe.shipped import find
from orchestrator.recipe.space import control_now, values_now
from orchestrator.running.tune import best_control, found_recipe
from orchestrator.search.next_trial import Plan
from orchestrator.search.on_tune import request_of_trial, trial_from
from orchestrator.search.study import State, Study, Trial, Who, best_of, front_of, set_aside, what_it_is_of
from orchestrator.search.trial import ENDED, FAILED, Job, setting
from students.config.student import ControlTrain, StudentConfig
from teachers.errors import RecipeError, StoreError

SPACE = "search.space={train.learning_rate: {log_uniform: [1.0e-4, 0.1]}, arguments.hidden: {integer: [4, 64]}}"
GRID = (
    "search.algorithm=grid",
    "search.space={train.learning_rate: {choice: [0.005, 0.01, 0.02]}, arguments.hidden: {choice: [16, 32]}}",
)
INPUTS = {"rows": "r0", "labels of wide": "w0"}


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find("search"), ("search.trials=4", "students.small.control=true", *overrides))


def opened(folder: Path, *overrides: str, inputs: Mapping[str, str] = INPUTS) -> Study:
    return Study.open(folder, what_it_is_of(recipe(*overrides), inputs))


def trial(number: int, who: Who, params: Mapping[str, Any], accuracy: float = 0.5, state: State = "finished") -> Trial:
    values = {} if state == "failed" else {"validation.accuracy": accuracy, "validation.nll": 1 - accuracy}
    return Trial(number=number, who=who, params=params, state=state, values=values, looks=3, error=None)


def plan_of(made: Recipe, study: Study, who: tuple[Who, ...] = ("control", "student")) -> Plan:
    assert made.search is not None
    learner = made.learners[made.search.student]
    now: dict[Who, Mapping[str, Any] | None] = {
        "student": values_now(learner, made.search),
        "control": control_now(learner, made.search),
    }
    return Plan(study, made.search, now, who)


def ended(plan: Plan, config: Mapping[str, Any], accuracy: float = 0.5, state: State = "finished") -> Trial:
    done = replace(
        trial(config["number"], config["who"], config["params"], accuracy, state), as_recipe=config["as_recipe"]
    )
    plan.ended(done)
    return done


def done_in_turn(plan: Plan, limit: int = 99) -> list[dict[str, Any]]:
    """One trial at a time, as far as there are any; the larger the rate, the better."""
    configs: list[dict[str, Any]] = []
    while len(configs) < limit and (config := plan.next()) is not None:
        ended(plan, config, config["params"]["train.learning_rate"])
        configs.append(config)
    return configs


# On disk


def test_a_trial_is_on_the_disk_when_it_is_added(tmp_path: Path) -> None:
    study = opened(tmp_path / "s")
    for number, state in enumerate(("finished", "pruned", "failed")):
        added = Trial(number, "student", {"teachers": ["wide"], "clip": None}, state, {"m": 0.5}, 3, 1.5, "why", 9.0)  # type: ignore[arg-type]
        study.add(added)
        assert json.loads((tmp_path / "s" / "trials.jsonl").read_bytes().splitlines()[-1]) == {
            "format": 1,
            **asdict(added),
        }
        assert opened(tmp_path / "s").trials == study.trials


def test_a_line_that_a_killed_writer_left_unfinished_is_cut_and_the_rest_kept(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.add(trial(0, "control", {}))
    whole = study.file.read_bytes()
    for torn in (b"{", b'{"format": 1, "numb', whole[:-1]):
        study.file.write_bytes(whole + torn)
        again = opened(tmp_path)
        assert [found.number for found in again.trials] == [0] and study.file.read_bytes() == whole
    again.add(trial(1, "student", {}))
    assert [found.number for found in opened(tmp_path).trials] == [0, 1]
    study.file.write_bytes(b'{"format"')
    assert opened(tmp_path).trials == []


@pytest.mark.parametrize("line", ["{", "3", "[]", "{}", '{"format": 1, "number": 1}', '{"format": 1, "colour": "red"}'])
def test_a_broken_line_in_the_middle_is_named_by_file_and_line(line: str, tmp_path: Path) -> None:
    study = opened(tmp_path)
    for number in range(2):
        study.add(trial(number, "student", {}))
    before, after = study.file.read_text().splitlines()
    study.file.write_text(f"{before}\n{line}\n{after}\n")
    with pytest.raises(StoreError, match=rf"^{study.file}:2: is no trial \(.+\); remove the line$"):
        opened(tmp_path)


def test_trials_of_a_later_program_are_not_read_as_ours(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.add(trial(0, "student", {}))
    study.file.write_text(study.file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match=r"trials\.jsonl:1: format 2, this program reads 1; update Collegium"):
        opened(tmp_path)


def test_a_study_whose_description_is_damaged_is_named_with_the_cure(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match=r"study\.json: is not JSON .* collegium tune --fresh"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.space.teachers.subset.at_least=2", "search.space.teachers.subset.at_least: it has 1, the recipe 2"),
        ("search.metric=validation.nll", 'search.metric: it has "validation.accuracy", the recipe "validation.nll"'),
        ("search.seed=1", "search.seed: it has 0, the recipe 1"),
        ("students.small.objective.0.weight=0.5", "students.small.objective.0.weight: it has 0.9, the recipe 0.5"),
        ("students.small.train.steps=9", "students.small.train.steps: it has 1600, the recipe 9"),
        ("students.small.arguments.depth=3", "students.small.arguments.depth: it has nothing, the recipe 3"),
        ("students.small.control={weight_decay: 0.5}", "students.small.control.weight_decay: it has nothing, the recipe 0.5"),
    ],
)  # fmt: skip
def test_a_study_of_something_else_is_refused_with_the_difference_and_the_cure(
    override: str, told: str, tmp_path: Path
) -> None:
    opened(tmp_path).add(trial(0, "student", {}))
    with pytest.raises(RecipeError) as refused:
        opened(tmp_path, override)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"{tmp_path} holds a study of something else")
    assert f"  {told}" in lines and "collegium tune --fresh" in lines[-1]
    assert len(opened(tmp_path).trials) == 1


def test_a_study_of_other_labels_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(RecipeError, match=r"\n  labels of wide changed\n"):
        opened(tmp_path, inputs={**INPUTS, "labels of wide": "w1"})


@pytest.mark.parametrize(
    "override",
    [
        "search.trials=40",
        "search.max_concurrent=2",
        "search.seeds_for_best=1",
        "students.small.control=false",
        "students.small.control={learning_rate: 0.01}",
        "students.small.require.accuracy=0.5",
    ],
)
def test_a_study_goes_on_where_no_trial_would_be_another(override: str, tmp_path: Path) -> None:
    opened(tmp_path).add(trial(0, "student", {}))
    assert len(opened(tmp_path, override).trials) == 1


def test_an_earlier_study_is_set_aside_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    assert set_aside(folder) is None
    kept = []
    for number in range(2):
        study = opened(folder)
        study.add(trial(number, "student", {}))
        kept.append(set_aside(folder))
        assert not folder.exists()
    assert [[found.number for found in opened(place).trials] for place in kept if place] == [[0], [1]]
    assert all(place and place.parent == tmp_path and place.name.startswith("small-until-") for place in kept)


# What is still to be tried


def test_the_control_comes_first_then_the_student_both_as_the_recipe_has_them_then_others(tmp_path: Path) -> None:
    made = recipe(SPACE)
    configs = done_in_turn(plan_of(made, opened(tmp_path, SPACE)))
    assert [config["who"] for config in configs] == ["control", *["student"] * 4, "control"]
    assert [config["number"] for config in configs] == [*range(6)]
    assert [config["as_recipe"] for config in configs] == [True, True, False, False, False, False]
    as_recipe = {"train.learning_rate": 0.005, "arguments.hidden": 16}
    assert configs[0]["params"] == configs[1]["params"] == as_recipe


def test_the_recipes_own_trial_that_was_lost_is_tried_again(tmp_path: Path) -> None:
    made = recipe(SPACE)
    plan = plan_of(made, opened(tmp_path, SPACE))
    control, lost, other = (plan.next() for _ in range(3))
    assert control is not None and lost is not None and other is not None
    ended(plan, control), ended(plan, other)
    again = plan_of(made, opened(tmp_path, SPACE)).next()
    assert again is not None and again["as_recipe"] and again["params"] == lost["params"]


def test_a_control_as_the_recipe_has_it_trains_by_its_own_settings(tmp_path: Path) -> None:
    own = "students.small.control={learning_rate: 0.02}"
    first = plan_of(recipe(SPACE, own), opened(tmp_path, SPACE, own)).next()
    assert first is not None and first["as_recipe"]
    assert first["params"] == {"train.learning_rate": 0.02, "arguments.hidden": 16}


@pytest.mark.parametrize("after", [1, 2, 4, 5])
def test_what_ended_before_is_not_tried_again(after: int, tmp_path: Path) -> None:
    made = recipe(SPACE)
    before = done_in_turn(plan_of(made, opened(tmp_path, SPACE)), after)
    plan = plan_of(made, opened(tmp_path, SPACE))
    assert plan.num_left == 6 - after
    later = done_in_turn(plan)
    assert [config["who"] for config in before + later] == ["control", *["student"] * 4, "control"]
    assert [config["number"] for config in before + later] == [*range(6)]
    settings = [(config["who"], json.dumps(config["params"])) for config in before + later]
    assert len({*settings}) == 6
    assert plan_of(made, opened(tmp_path, SPACE)).num_left == 0


def test_more_trials_of_a_study_that_is_done_are_so_many_more(tmp_path: Path) -> None:
    done_in_turn(plan_of(recipe(SPACE), opened(tmp_path, SPACE)))
    plan = plan_of(recipe(SPACE, "search.trials=10"), opened(tmp_path, SPACE, "search.trials=10"))
    assert plan.left == {"control": 3, "student": 6}


def test_the_controls_others_wait_for_the_best_student_and_have_its_network(tmp_path: Path) -> None:
    plan = plan_of(recipe(SPACE), opened(tmp_path, SPACE))
    running = [config for config in (plan.next() for _ in range(5)) if config is not None]
    assert [config["who"] for config in running] == ["control", *["student"] * 4]
    control, *students = running
    ended(plan, control)
    for config, accuracy in zip(students[:3], (0.5, 0.6, 0.9), strict=True):
        assert plan.waits
        ended(plan, config, accuracy)
    ended(plan, students[3], state="failed")
    assert not plan.waits
    other = plan.next()
    assert other is not None and other["who"] == "control"
    assert other["params"]["arguments.hidden"] == students[2]["params"]["arguments.hidden"]
    assert [*other["params"]] == ["arguments.hidden", "train.learning_rate"]


def test_a_space_without_anything_of_the_control_leaves_it_as_it_is(tmp_path: Path) -> None:
    space = "search.space={objective.0.temperature: {log_uniform: [1, 16]}}"
    plan = plan_of(recipe(space), opened(tmp_path, space))
    assert plan.left == {"control": 1, "student": 4}


def test_a_student_without_a_control_has_no_trials_of_one(tmp_path: Path) -> None:
    made = recipe(SPACE, "students.small.control=false")
    configs = done_in_turn(plan_of(made, opened(tmp_path, SPACE)))
    assert [config["who"] for config in configs] == ["student"] * 4
    assert configs[0]["as_recipe"]


def test_a_grid_is_tried_point_by_point_whatever_number_is_asked_for(tmp_path: Path) -> None:
    many = (*GRID, "search.trials=50")
    plan = plan_of(recipe(*many), opened(tmp_path, *many))
    configs = done_in_turn(plan)
    students = [config["params"] for config in configs if config["who"] == "student"]
    assert len(students) == 6 and len({json.dumps(params, sort_keys=True) for params in students}) == 6
    assert plan.num_left == 0


def test_the_grid_of_a_control_is_of_its_own_part_under_the_best_students_network(tmp_path: Path) -> None:
    many = (*GRID, "search.trials=50")
    plan = plan_of(recipe(*many), opened(tmp_path, *many))
    controls = []
    while (config := plan.next()) is not None:
        ended(plan, config, 0.9 if config["params"]["arguments.hidden"] == 32 else 0.1)
        controls += [config["params"]] if config["who"] == "control" else []
    assert controls[0] == {"arguments.hidden": 16, "train.learning_rate": 0.005}
    assert controls[1:] == [{"arguments.hidden": 32, "train.learning_rate": rate} for rate in (0.005, 0.01, 0.02)]


def test_a_part_of_a_plan_is_of_one_kind_alone(tmp_path: Path) -> None:
    study = opened(tmp_path, SPACE)
    assert [config["who"] for config in done_in_turn(plan_of(recipe(SPACE), study, ("control",)))] == ["control"] * 2
    assert [config["who"] for config in done_in_turn(plan_of(recipe(SPACE), study, ("student",)))] == ["student"] * 4


@pytest.mark.parametrize(("control", "failures"), [("true", 1), ("false", 3)])
def test_a_study_whose_first_trials_all_fail_stops_early(control: str, failures: int, tmp_path: Path) -> None:
    own = (SPACE, "search.trials=20", f"students.small.control={control}")
    plan = plan_of(recipe(*own), opened(tmp_path, *own))
    for _ in range(failures):
        config = plan.next()
        assert config is not None
        ended(plan, config, state="failed")
    assert plan.next() is None and plan.num_left > 0


def test_a_study_in_which_something_went_well_goes_on_after_failures(tmp_path: Path) -> None:
    own = (SPACE, "search.trials=6")
    plan = plan_of(recipe(*own), opened(tmp_path, *own))
    for state in ("finished", *["failed"] * 5):
        config = plan.next()
        assert config is not None
        ended(plan, config, state=state)  # type: ignore[arg-type]
    assert plan.next() is not None


def test_a_subset_in_a_term_that_hears_everybody_begins_with_everybody(tmp_path: Path) -> None:
    space = "search.space={objective.0.teachers: {subset: {of: [wide, deep]}}}"
    plan = plan_of(recipe(space), opened(tmp_path, space))
    configs = [config for config in (plan.next() for _ in range(2)) if config is not None]
    assert configs[1]["params"] == {"objective.0.teachers": None}
    for config in configs:
        ended(plan, config)
    later = plan.next()
    assert later is not None and later["params"]["objective.0.teachers"] in (["wide"], ["deep"], ["wide", "deep"])


# What a trial trains with, asks for and leaves


def test_a_students_setting_is_its_own_and_a_controls_is_the_controls() -> None:
    small = recipe().students["small"]
    params = {"train.learning_rate": 0.02, "arguments.hidden": 32}
    taught, control = (setting(small, who, params) for who in ("student", "control"))
    assert isinstance(taught, StudentConfig) and isinstance(control, StudentConfig)
    assert taught.arguments == control.arguments == {"hidden": 32}
    assert (taught.train.learning_rate, taught.control) == (0.02, True)
    assert (control.train, control.control) == (small.train, ControlTrain(learning_rate=0.02))


def test_terms_listen_to_those_only_who_are_among_the_teachers_of_a_trial() -> None:
    terms = "students.small.objective=[{loss: soft, combine: weighted, teachers: [wide, deep], teacher_weights: {wide: 1, deep: 2}}]"
    small = recipe(SPACE, terms).students["small"]
    found = setting(small, "student", {"teachers": ["deep", "trees"]})
    assert isinstance(found, StudentConfig) and found.teachers == ["deep", "trees"]
    assert (found.objective[0].teachers, found.objective[0].teacher_weights) == (["deep"], {"deep": 2.0})  # type: ignore[union-attr]
    assert small.teachers == ["wide", "deep", "trees"]
    with pytest.raises(RecipeError, match=r"these values do not go together: objective\.0\.teachers: .*at least 1"):
        setting(small, "student", {"teachers": ["trees"]})


def test_a_trial_is_kept_as_it_ended() -> None:
    config = {"number": 7, "who": "student", "params": {"a": 1}, "as_recipe": False}
    told = {
        "validation.accuracy": 0.9,
        "validation.nll": 0.3,
        "step": 40,
        "training_iteration": 4,
        "time_total_s": 1.23456,
    }
    pruned, finished = trial_from(config, told), trial_from(config, {**told, ENDED: True})
    failed = trial_from(config, {**told, FAILED: "it diverged"})
    assert (pruned.state, finished.state, failed.state) == ("pruned", "finished", "failed")
    assert (pruned.looks, finished.looks, failed.looks) == (4, 3, 3)  # the last that it told is no look
    assert pruned.values == finished.values == {"validation.accuracy": 0.9, "validation.nll": 0.3}
    assert (failed.values, failed.error, finished.error) == ({}, "it diverged", None)
    assert (finished.number, finished.params, finished.seconds) == (7, {"a": 1}, 1.235)
    assert trial_from(config, {FAILED: "its worker was lost"}).looks == 0


@pytest.mark.parametrize(
    ("overrides", "asks"),
    [
        ((), {"CPU": 1}),
        (("students.small.resources={cpus: 2, gpus: 0.5, custom: {licence: 1}}",), {"CPU": 2, "GPU": 0.5, "licence": 1}),
        (("students.small.resources={gpus: 1, accelerator_type: A100}",), {"CPU": 1, "GPU": 1, "accelerator_type:A100": 0.001}),
        (("students.small.train.workers=2",), {}),
    ],
)  # fmt: skip
def test_a_trial_reserves_what_a_worker_does_and_leaves_it_to_a_trainer_inside(
    overrides: tuple[str, ...], asks: dict[str, float], tmp_path: Path
) -> None:
    small = recipe(*overrides).students["small"]
    gpus = small.resources.gpus if small.resources.gpus != "auto" else 0.0
    job = Job(
        name="small", learner=small, sources={}, transfer_set=tmp_path, seed=0, gpus=gpus, user_path=tmp_path,
        trust=(), measures=False, folder=tmp_path,
    )  # fmt: skip
    found = {name: amount for name, amount in request_of_trial(job).items() if amount and not name.startswith("node:")}
    assert found == asks


# What comes out


def test_of_equal_trials_the_one_that_is_surer_is_the_best_then_the_earlier() -> None:
    def made(number: int, accuracy: float, nll: float, state: State = "finished") -> Trial:
        return Trial(number, "student", {}, state, {"validation.accuracy": accuracy, "validation.nll": nll})

    trials = [made(0, 0.8, 0.5), made(1, 0.9, 0.4), made(2, 0.9, 0.3), made(3, 0.9, 0.3), made(4, 1.0, 0.1, "pruned")]
    assert getattr(best_of(trials, {"validation.accuracy": "max"}), "number", None) == 2
    assert getattr(best_of(trials[:2], {"validation.nll": "min"}), "number", None) == 1
    assert best_of(trials[4:], {"validation.accuracy": "max"}) is None
    front = front_of(trials, {"validation.accuracy": "max", "validation.nll": "min"})
    assert [found.number for found in front] == [2]


def test_the_front_holds_whatever_nothing_else_beats() -> None:
    sizes = {0: (0.9, 50.0), 1: (0.8, 20.0), 2: (0.7, 30.0), 3: (0.6, 10.0)}
    trials = [
        Trial(number, "student", {}, "finished", {"validation.accuracy": accuracy, "parameters": size})
        for number, (accuracy, size) in sizes.items()
    ]
    assert [t.number for t in front_of(trials, {"validation.accuracy": "max", "parameters": "min"})] == [0, 1, 3]


def studied(tmp_path: Path, made: Recipe, students: Mapping[float, Any], controls: Mapping[float, Any]) -> Study:
    """By accuracy, the settings that trials had."""
    study = Study.open(tmp_path / "study", what_it_is_of(made, INPUTS))
    kinds: dict[Who, Mapping[float, Any]] = {"student": students, "control": controls}
    for who, trials in kinds.items():
        for accuracy, params in trials.items():
            study.add(trial(len(study.trials), who, params, accuracy))
    return study


def again(made: Recipe, tmp_path: Path) -> Recipe:
    path = tmp_path / "found.yaml"
    path.write_text(yaml.safe_dump(public(made), sort_keys=False))
    return load_recipe(path)


def test_the_found_recipe_has_the_best_values_fresh_seeds_the_tuned_control_and_no_search(tmp_path: Path) -> None:
    made = recipe("students.small.train.seeds=[0, 3]")
    best = {
        "objective.0.temperature": 4.0,
        "objective.0.weight": 0.5,
        "objective.0.combine": "mean_logits",
        "teachers": ["wide", "trees"],
        "train.learning_rate": 0.02,
    }
    worse = best | {"train.learning_rate": 0.5}
    controls = {0.4: {"train.learning_rate": 0.01}, 0.7: {"train.learning_rate": 0.03}}
    found = found_recipe(made, studied(tmp_path, made, {0.5: worse, 0.9: best}, controls))
    small = found.students["small"]
    term = small.objective[0]
    assert (term.temperature, term.weight, term.combine) == (4.0, 0.5, "mean_logits")  # type: ignore[union-attr]
    assert (small.teachers, small.train.learning_rate) == (["wide", "trees"], 0.02)
    assert small.train.seeds == [4, 5, 6, 7, 8]
    assert public(found)["students"]["small"]["control"]["learning_rate"] == 0.03
    assert found.search is None and found.teachers == made.teachers
    assert again(found, tmp_path) == found
    assert made.search is not None and made.students["small"].train.learning_rate == 0.005


def test_only_a_control_with_the_best_students_network_is_its_rival(tmp_path: Path) -> None:
    made = recipe(SPACE)
    controls = {
        0.8: {"arguments.hidden": 16, "train.learning_rate": 0.01},
        0.6: {"arguments.hidden": 32, "train.learning_rate": 0.02},
    }
    study = studied(tmp_path, made, {0.9: {"arguments.hidden": 32, "train.learning_rate": 0.05}}, controls)
    assert made.search is not None
    rival = best_control(study, made.search, study.trials[0])
    assert rival is not None and rival.params["train.learning_rate"] == 0.02
    small = found_recipe(made, study).students["small"]
    assert (small.arguments, small.control) == ({"hidden": 32}, ControlTrain(learning_rate=0.02))


def test_a_tuned_control_keeps_what_the_recipe_gave_it_beside(tmp_path: Path) -> None:
    made = recipe("students.small.control={weight_decay: 0.1, learning_rate: 0.5}")
    study = studied(tmp_path, made, {0.9: {"teachers": ["wide"]}}, {0.7: {"train.learning_rate": 0.03}})
    control = found_recipe(made, study).students["small"].control
    assert control == ControlTrain(weight_decay=0.1, learning_rate=0.03)


def test_a_student_without_a_control_is_found_without_one(tmp_path: Path) -> None:
    made = recipe("students.small.control=false")
    found = found_recipe(made, studied(tmp_path, made, {0.9: {"train.learning_rate": 0.02}}, {}))
    assert found.students["small"].control is False
    assert again(found, tmp_path) == found


def test_of_students_and_cohorts_the_found_recipe_keeps_those_only_who_teach(tmp_path: Path) -> None:
    document = yaml.safe_load(find("search").read_text())
    small = document["students"]["small"]
    members = {name: {"model": "students.models:mlp"} for name in ("a", "b")}
    document["students"] |= {"assistant": small, "other": small, "small": small | {"teachers": ["wide", "assistant"]}}
    document["cohorts"] = {"trio": {"method": "mutual", "members": members}}
    document["search"]["space"] = {"train.learning_rate": {"log_uniform": [0.001, 0.1]}}
    made = Recipe.model_validate(document)
    found = found_recipe(made, studied(tmp_path, made, {0.9: {"train.learning_rate": 0.02}}, {}))
    assert {*found.students} == {"assistant", "small"} and found.cohorts == {}
    assert found.students["assistant"] == made.students["assistant"]
    assert again(found, tmp_path) == found


def test_a_cohort_is_found_as_a_student_is(tmp_path: Path) -> None:
    document = yaml.safe_load(find("search").read_text())
    members = {name: {"model": "students.models:mlp"} for name in ("a", "b")}
    document["cohorts"] = {"trio": {"method": "mutual", "members": members}}
    document["search"] |= {"student": "trio", "seeds_for_best": 2}
    document["search"]["space"] = {
        "objective.0.weight": {"uniform": [0, 1]},
        "members.a.train.learning_rate": {"uniform": [0.001, 0.1]},
    }
    made = Recipe.model_validate(document)
    assert made.problems() == []
    best = {"objective.0.weight": 0.25, "members.a.train.learning_rate": 0.03}
    found = found_recipe(made, studied(tmp_path, made, {0.9: best}, {}))
    trio = found.cohorts["trio"]
    assert (trio.objective[0].weight, trio.member_train("a").learning_rate, trio.train.seeds) == (0.25, 0.03, [3, 4])
    assert found.students == {} and again(found, tmp_path) == found
