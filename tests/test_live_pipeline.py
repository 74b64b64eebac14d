"""Whole runs with live teachers: what is built, what is reused, what is refused and where."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.cluster.capacity import check_capacity
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from teachers.errors import EnvironmentUnfit, RecipeError
from tests.test_pipeline import actions

QUICK = [
    "teachers={wide: {kind: module, model: 'teachers.zoo:mlp', arguments: {hidden: 16}, train: {steps: 30}, mode: live, replicas: 2},"
    " trees: {kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}}",
    "students.small.teachers=[wide, trees]",
    "students.small.train={steps: 40, seeds: [0], augment: [affine, cutout]}",
]


def quick(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), [*QUICK, *overrides])


@pytest.mark.campaign
def test_a_cached_and_a_live_teacher_teach_together_and_the_next_run_reuses_all(
    ray_cluster: None, tmp_path: Path
) -> None:
    report = run(quick(), tmp_path / "out").report
    done = actions(report)
    assert {stage for stage in done if stage.startswith("label/wide")} == {
        "label/wide/validation-0",
        "label/wide/test-0",
    }
    assert "label/trees/train-0" in done
    assert "train.wait_s" in report["curves"]["small"]["student/seed-0"]
    assert "train.wait_s" not in report["curves"]["small"]["control/seed-0"]
    assert any(note.startswith("Teacher wide was live") for note in report["notes"])

    again = actions(run(quick("teachers.wide.replicas=1", "teachers.wide.prefetch=2"), tmp_path / "out").report)
    assert {*again.values()} == {"reused"}
    planned = plan(quick("teachers.wide.train.steps=31"), tmp_path / "out")
    assert {stage.action for stage in planned.stages if stage.name == "wide"} == {"build", "unknown"}
    planned = plan(quick("teachers.wide.mode=cached"), tmp_path / "out")
    assert {(stage.stage, stage.name, stage.part) for stage in planned.stages if stage.action == "build"} == {
        ("label", "wide", "train-0"),
    }
    planned = plan(quick("teachers.wide.probability_floor=0.01"), tmp_path / "out")
    parts = {s.part: s.action for s in planned.stages if (s.stage, s.name) == ("distill", "small")}
    assert parts == {"": "unknown", "control/seed-0": "reuse"}


def refused(tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as found:
        quick(*overrides)
    assert found.value.exit_code == 2
    return str(found.value)


def test_a_live_teacher_without_replicas_is_refused(tmp_path: Path) -> None:
    told = refused(tmp_path, "teachers.wide.replicas=0")
    assert "teachers.wide.replicas: input should be greater than or equal to 1 (found 0)" in told


def test_a_live_teacher_keeps_no_labels(tmp_path: Path) -> None:
    assert "teachers.wide: `encoding: label`" in refused(tmp_path, "teachers.wide.encoding=label")
    assert "did you mean live?" in refused(tmp_path, "teachers.wide.mode=liv")


def test_what_must_run_at_once_is_added_up_and_what_need_not_is_not() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 4.0}]
    workers = "students.small.train={steps: 40, batch_size: 64, workers: 4}"
    check_capacity(quick("teachers.wide.replicas=4", workers), nodes)
    with pytest.raises(
        EnvironmentUnfit, match=r"students\.small\.teachers: 4 workers and 5 replicas .* 9 CPU \(there are 8\)"
    ):
        check_capacity(quick("teachers.wide.replicas=5", workers), nodes)
    check_capacity(quick("teachers.wide.replicas=5", "teachers.wide.mode=cached", workers), nodes)
    with pytest.raises(EnvironmentUnfit, match=r"teachers\.wide\.resources asks for 5 CPU \(no node has more than 4\)"):
        check_capacity(quick("teachers.wide.resources.cpus=5"), nodes)
    with pytest.raises(EnvironmentUnfit, match=r"small\.train\.workers: 16 workers at once ask for 16 CPU"):
        check_capacity(quick("teachers.wide.mode=cached", workers.replace("4}", "16}")), nodes)


def test_an_impossible_request_fails_at_plan_with_exit_code_4_and_before_any_teacher_of_a_run_works(
    ray_cluster: None, tmp_path: Path
) -> None:
    options = [part for override in (*QUICK, "teachers.wide.replicas=1000") for part in ("-o", override)]
    with pytest.raises(EnvironmentUnfit) as found:
        CliRunner().invoke(collegium, ["plan", "digits", "--out", str(tmp_path), *options], catch_exceptions=False)
    assert found.value.exit_code == 4 and "1000 replicas of the live teacher wide" in str(found.value)
    with pytest.raises(EnvironmentUnfit, match="1001 CPU"):
        run(quick("teachers.wide.replicas=1000"), tmp_path)
    assert {seal.relative_to(tmp_path).parts[0] for seal in tmp_path.rglob("SEAL.json")} <= {"prepared"}
