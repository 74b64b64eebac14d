"""Chains: students that teach students, generations of one, assistants that learn beside their teachers."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from orchestrator.recipe.model import Recipe
from orchestrator.reporting.chains import about_assistants
from orchestrator.running.run import run
from teachers.errors import RecipeError

SMALL = {
    "model": "students.models:mlp",
    "arguments": {"hidden": 8},
    "teachers": ["wide"],
    "train": {"steps": 40, "seeds": [0]},
    "require": None,
}
WIDE = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 16}, "train": {"steps": 30}}
DOCUMENT = {
    "format": 1,
    "name": "chain",
    "transfer_set": {
        "source": {"kind": "sklearn", "name": "digits"},
        "inputs": "image",
        "label": "digit",
        "labelled": 100,
    },
    "teachers": {"wide": {**WIDE, "require": None}},
}


def recipe(**students):
    return Recipe.from_dict({**DOCUMENT, "students": students})


def chain_of_three():
    return recipe(
        large={**SMALL, "arguments": {"hidden": 32}},
        middle={**SMALL, "arguments": {"hidden": 16}, "teachers": ["large"]},
        small={**SMALL, "teachers": ["middle"]},
        alone={**SMALL, "teachers": [], "objective": [{"loss": "ps_kd"}]},
    )


# generations


def test_generations_are_a_chain_of_the_same_student():
    made = recipe(small={**SMALL, "generations": 3})
    assert {name: student.teachers for name, student in made.students.items()} == {
        "small-1": ["wide"],
        "small-2": ["small-1"],
        "small": ["small-2"],
    }
    written = recipe(
        **{
            "small-1": SMALL,
            "small-2": {**SMALL, "teachers": ["small-1"]},
            "small": {**SMALL, "teachers": ["small-2"]},
        }
    )
    assert made == written and Recipe.from_dict(made.model_dump(mode="json")) == made
    assert made.learners_in_order() == [["small-1"], ["small-2"], ["small"]]


@pytest.mark.parametrize(
    ("students", "told"),
    [
        ({"small": {**SMALL, "generations": 1}}, "students.small.generations: "),
        (
            {"small": {**SMALL, "generations": 2}, "small-1": SMALL},
            "small-1 is generation 1 of small, and another student",
        ),
        (
            {"small": {**SMALL, "generations": 2, "objective": [{"loss": "soft", "teachers": ["wide"]}]}},
            "students.small: objective.0.teachers: each of the `generations` but the first has one teacher",
        ),
        ({"small": {**SMALL, "generations": 2, "init": {"from": "wide"}}}, "all of them begin with weights of chance"),
        *(
            (
                {
                    "small": {
                        **SMALL,
                        "generations": 2,
                        "teachers": ["wide", "deep"],
                        "objective": [{"loss": "soft", **term}],
                    }
                },
                f"students.small: objective.0.{key}: each of the `generations` but the first has one teacher",
            )
            for key, term in (
                ("teacher_weights", {"combine": "weighted", "teacher_weights": {"wide": 1, "deep": 2}}),
                ("drop", {"drop": 1}),
                ("experts", {"combine": "experts", "experts": {"wide": ["1"], "deep": ["2"]}}),
                ("column", {"combine": "route", "column": "who"}),
                ("box", {"combine": "gradient", "box": 0.6}),
            )
        ),
        (
            {"small": {**SMALL, "generations": 2, "hints": [{"loss": "hint", "teacher": "wide", "output": "hidden"}]}},
            "students.small: hints.0.teacher: 'wide' teaches the first of the `generations`",
        ),
    ],
)
def test_generations_that_could_not_be_are_refused(students, told):
    outputs = {"outputs": {"hidden": {"layer": "1"}}}
    teachers = {name: {**WIDE, **outputs} for name in ("wide", "deep")}
    with pytest.raises(RecipeError, match=told) as error:
        Recipe.from_dict({**DOCUMENT, "teachers": teachers, "students": students})
    assert "\n" not in str(error.value)


# all assistants at once


def test_a_student_may_hear_its_teacher_and_all_its_assistants_at_once():
    """Densely guided distillation (Son et al., 2021)."""
    made = recipe(
        large={**SMALL, "arguments": {"hidden": 32}},
        middle={**SMALL, "arguments": {"hidden": 16}, "teachers": ["wide", "large"]},
        small={**SMALL, "teachers": ["wide", "large", "middle"]},
    )
    assert made.learners_in_order() == [["large"], ["middle"], ["small"]]
    assert made.assistants() == ["large", "middle"]


# a chain through the whole product


@pytest.mark.campaign
def test_a_chain_of_three_killed_and_resumed_ends_like_an_undisturbed_one(ray_cluster, tmp_path):
    made = chain_of_three()
    whole = run(made, tmp_path / "whole").report
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    script = [sys.executable, "-m", "orchestrator", "run", str(path), "--out", str(tmp_path / "left")]
    process = subprocess.Popen(script, start_new_session=True, env={**os.environ, "NO_COLOR": "1"})
    sealed = tmp_path / "left" / "soft_targets"
    while not [*sealed.glob("large-*/SEAL.json")]:  # the first assistant has labelled
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    report = run(made, tmp_path / "left").report
    built = {(stage["stage"], stage["name"]) for stage in report["stages"] if not stage["reused"]}
    assert ("label", "wide") not in built and ("distill", "large") not in built
    assert {("distill", "middle"), ("distill", "small")} <= built
    assert report["students"]["alone"]["gain"] and 0 < report["students"]["alone"]["agreement"] <= 1
    for name in ("large", "middle", "small", "alone"):
        assert report["students"][name]["test_accuracy"] == whole["students"][name]["test_accuracy"]
    assert decided(report) == decided(whole)


def decided(report):
    """The key of every stage, but of exports: they hold latencies."""
    return {
        (stage["stage"], stage["name"], stage.get("part")): stage["key"]
        for stage in report["stages"]
        if stage["stage"] != "export"
    }


# which assistant


def report_of(teacher: float, **students: float):
    made = recipe(**{name: {**SMALL, "arguments": {"hidden": 8 + number}} for number, name in enumerate(students)})
    return {
        "recipe": made.model_dump(mode="json"),
        "teachers": {"wide": {"validation": {"accuracy": teacher}}},
        "students": {
            name: {"runs": [{"validation": {"accuracy": value + each}} for each in (-0.01, 0.01)]}
            for name, value in students.items()
        },
    }


def test_an_assistant_lies_half_way_by_accuracy():
    small, *_ = about_assistants(report_of(0.95, small=0.75, b=0.84, c=0.90))
    assert small.startswith("On validation rows small has accuracy 75.0 % and wide, the best of its teachers, 95.0 %")
    assert "would have about 85.0 %" in small and small.endswith(
        "of the students here b is nearest, 84.0 %: try `teachers: [b]`."
    )


def test_test_rows_choose_no_assistant():
    report = report_of(0.95, small=0.75, b=0.84)
    del report["teachers"]["wide"]["validation"]
    report["teachers"]["wide"]["accuracy"] = report["teachers"]["wide"]["test_accuracy"] = 0.95
    assert not [*about_assistants(report)]


def test_where_nobody_lies_between_it_says_what_to_train():
    (told,) = about_assistants(report_of(0.95, small=0.75))
    assert told.endswith(
        "Train some sizes between the two as students of one run, and this line names the one to take."
    )


def test_a_student_near_its_teacher_or_with_an_assistant_is_left_alone():
    assert not [*about_assistants(report_of(0.95, small=0.92))]
    assisted = copy.deepcopy(report_of(0.95, small=0.75, b=0.94))
    assisted["recipe"]["students"]["small"]["teachers"] = ["b"]
    assert not [*about_assistants(assisted)]


def test_the_guide_shows_recipes_that_can_be_read():
    text = (Path(__file__).parent.parent / "docs" / "guides" / "chains.md").read_text()
    blocks = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]
    students = [block["students"] for block in blocks if "students" in block]
    assert len(students) >= 4
    for each in students:
        made = Recipe.from_dict({**DOCUMENT, "teachers": {"wide": WIDE_CONV}, "students": each})
        assert made.students


WIDE_CONV = {**WIDE, "model": "teachers.zoo:conv_net", "arguments": {"width": 24}}
