"""Whole runs of cohorts through Ray, on tiny networks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import students
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from tests.test_pipeline import actions

pytestmark = pytest.mark.campaign

TINY = [
    "teachers.wide={kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}",
    "teachers.trees.arguments={n_estimators: 10}",
    "cohorts.trio.train.steps=40",
    "cohorts.trio.train.seeds=[0]",
    "cohorts.trio.members={a: {model: 'students.models:mlp', arguments: {hidden: 16}}, "
    "b: {model: 'students.models:small_conv_net'}}",
    "cohorts.trio.workers_per_member=1",
    "cohorts.trio.deliver=all",
    "students={late: {model: 'students.models:mlp', arguments: {hidden: 4}, teachers: [trio.b], control: false, "
    "train: {steps: 20, seeds: [0]}}}",
]


def tiny(*overrides: str) -> Recipe:
    return load_recipe(find("peers"), [*TINY, *overrides])


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    out = tmp_path_factory.mktemp("cohort") / "out"
    return out, run(tiny(), out).report


def test_the_report_shows_members_beside_controls_and_offline_distillation(
    finished: tuple[Path, Mapping[str, Any]],
) -> None:
    _, report = finished
    trio = report["cohorts"]["trio"]
    assert trio["method"] == "mutual" and set(trio["members"]) == {"a", "b"}
    for member in trio["members"].values():
        for figures in (member["test_accuracy"], member["control_accuracy"], member["offline_accuracy"]):
            assert len(figures["runs"]) == 1 and figures["std"] is None
        assert member["verdict"].startswith("No verdict") and member["gain"]["low"] is None  # one seed
        assert member["gain_over_offline"]["mean"] == pytest.approx(
            member["test_accuracy"]["mean"] - member["offline_accuracy"]["mean"]
        )
        assert [*member["by_class"]["recall"]][-4:] == ["ensemble", "student", "control", "offline"]
    assert len(trio["ensemble"]["test_accuracy"]["runs"]) == 1
    assert 0 < trio["exchange"]["share"] < 1 and trio["exchange"]["bytes"] > 0
    assert any("cohort.agreement" in points for points in report["curves"]["trio"].values())


def test_every_member_is_delivered_and_one_of_them_has_taught_a_student(
    finished: tuple[Path, Mapping[str, Any]],
) -> None:
    out, report = finished
    models = sorted(path.name.partition("-")[0] for path in (out / "models").iterdir())
    assert models == ["late", "trio.a", "trio.b"]
    for path in (out / "models").iterdir():
        assert len(students.load(path).config.classes) == 10
    assert any(stage["stage"] == "label" and stage["name"] == "trio.b" for stage in report["stages"])
    assert report["students"]["late"]["gain"] is None


def test_a_second_run_reuses_everything_and_a_deliverable_is_no_reason_to_train(
    finished: tuple[Path, Mapping[str, Any]],
) -> None:
    out, _ = finished
    assert {stage.action for stage in plan(tiny(), out).stages} == {"reuse"}
    again = run(tiny("cohorts.trio.deliver=ensemble"), out)
    done = actions(again.report)
    assert {done[f"distill/trio/{part}"] for part in ("seed-0", "control/seed-0", "offline/seed-0")} == {"reused"}
    assert done["export/trio"] != "reused"
    (folder,) = (path for path in (out / "models").iterdir() if path.name.startswith("trio-"))
    model = students.load(folder)
    assert model.config.model == "students.models:ensemble"
    figures = json.loads((folder / "metrics.json").read_text())["test"]
    assert figures["accuracy"] in again.report["cohorts"]["trio"]["ensemble"]["test_accuracy"]["runs"]
