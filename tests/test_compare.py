"""`collegium compare` through Ray, on tiny networks: what it trains, what it reuses, what it shows, and what a kill costs."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.compared import tables
from orchestrator.running.compare import compare
from orchestrator.running.run import run
from orchestrator.tracking.server import flattened
from students.fitting.cost import cost_of_steps
from students.measuring.several import corrected
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from .training_runs import HARD, make_run, make_store, source

OVERRIDES = [
    "teachers.wide={kind: module, model: 'teachers.zoo:mlp', arguments: {hidden: 16}, train: {steps: 30}}",
    "teachers.deep={kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}",
    "teachers.trees.arguments={n_estimators: 10}",
    "students.small.train.steps=40",
    "students.small.train.seeds=[0, 1]",
    "students.small.control=true",
]
METHODS = ["soft", "teacher_label", "mean_logits"]


def quick(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), [*OVERRIDES, *overrides])


@pytest.fixture(scope="module")
def finished(
    ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, Mapping[str, Any]]]:
    """OUT, the folder of the comparison, its report; the recipe has been run there before."""
    out = tmp_path_factory.mktemp("compare") / "out"
    run(quick(), out)
    made = compare(quick(), out, methods=METHODS)
    yield out, made.folder, made.report


def built(report: Mapping[str, Any], kind: str) -> set[str]:
    """Stages of a kind that were not reused."""
    return {
        "/".join(filter(None, (stage["name"], stage.get("part"))))
        for stage in report["stages"]
        if stage["stage"] == kind and not stage["reused"]
    }


@pytest.mark.campaign
def test_after_a_run_only_what_differs_is_trained(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    _, _, report = finished
    assert built(report, "label") == built(report, "train_teacher") == built(report, "prepare") == set()
    assert built(report, "distill") == {
        f"{name}/student/seed-{seed}" for name in ("teacher_label", "mean_logits") for seed in (0, 1)
    }  # `soft` is the recipe's own objective, and the control is everybody's
    assert not any(stage["stage"] == "export" for stage in report["stages"])


@pytest.mark.campaign
def test_the_same_command_again_builds_nothing(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    out, _, report = finished
    again = compare(quick(), out, methods=",".join(METHODS)).report
    assert all(stage["reused"] for stage in again["stages"])
    assert again["compared"] == report["compared"]


@pytest.mark.campaign
def test_every_claim_is_corrected_for_all_of_the_table(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    found = finished[2]["compared"]
    gains = [each["over_control"] for each in found["variants"]]
    gains += [each["over_soft"] for each in found["variants"] if each["over_soft"]]
    assert found["comparisons"] == len(gains) == 5
    assert [gain["p_corrected"] for gain in gains] == pytest.approx(corrected([gain["p"] for gain in gains]))
    for name, student in finished[2]["students"].items():
        (mine,) = (each for each in found["variants"] if each["name"] == name)
        assert student["gain"] == mine["over_control"]  # a verdict of its own would claim more
        assert "corrected for 5 comparisons" in student["verdict"]


@pytest.mark.campaign
def test_a_step_is_told_as_a_multiple_of_cross_entropys(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    costs = finished[2]["compared"]["costs"]
    assert costs["cross_entropy_ms"] > 0
    assert {*costs["by_student"]} == {*METHODS}
    assert all(0 < each["ratio"] < 100 and each["ms"] > 0 for each in costs["by_student"].values())


@pytest.mark.campaign
def test_the_best_on_validation_is_kept_as_a_recipe(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    out, folder, report = finished
    found = report["compared"]
    best = max(found["variants"], key=lambda each: each["validation"]["mean"])
    assert found["best"] == best["name"]
    taken = load_recipe(folder / "found.yaml")
    assert [*taken.students] == ["small"]
    assert taken.students["small"].model_dump(mode="json")["objective"] == best["objective"]
    assert built(run(taken, out).report, "distill") == set()  # its students are there


@pytest.mark.campaign
def test_page_terminal_and_mlflow_show_one_table(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    import mlflow

    _out, folder, report = finished
    (table,) = tables(report)
    page = (folder / "report.html").read_text()
    assert all(f"<th>{column}</th>" in page for column in table["columns"])
    assert all(f">{cell.text}</td>" in page for row in table["rows"] for cell in row)
    client = mlflow.MlflowClient(report["mlflow"]["uri"])
    kept = client.get_run(report["mlflow"]["run_id"])
    assert re.match(r"digits compare: \w+ [+\d-]", kept.data.tags["mlflow.runName"])
    assert kept.data.metrics["students.soft.step_ratio"] > 0
    assert " | ".join(table["columns"]) in kept.data.tags["mlflow.note.content"]
    children = client.search_runs(
        [report["mlflow"]["experiment_id"]], f"tags.`mlflow.parentRunId` = '{kept.info.run_id}'"
    )
    assert "distill/teacher_label student/seed-0" in {each.data.tags["mlflow.runName"] for each in children}


@pytest.mark.campaign
def test_it_is_shown_again_from_its_files(finished: tuple[Path, Path, Mapping[str, Any]]) -> None:
    out, _folder, _report = finished
    page = compare(quick(), out, methods=METHODS).folder / "report.html"
    before = page.read_text()
    page.unlink()
    done = CliRunner().invoke(collegium, ["report", str(out)])
    assert done.exit_code == 0 and done.stdout.strip() == str(page)
    assert page.read_text() == before and "Methods for small" in done.stderr


@pytest.mark.campaign
def test_which_teacher_helped_is_answered_from_the_same_stores(
    finished: tuple[Path, Path, Mapping[str, Any]],
) -> None:
    out, _, _ = finished
    made = compare(quick("students.small.objective.0.combine=fitted"), out, teachers=True)
    report = made.report
    assert built(report, "label") == set()
    assert built(report, "distill") == {
        f"{word}-{name}/student/seed-{seed}"
        for word in ("without", "only")
        for name in ("wide", "deep", "trees")
        for seed in (0, 1)
    } | {"all/student/seed-0", "all/student/seed-1"}
    found = report["compared"]
    assert [each["name"] for each in found["teachers"]] == ["wide", "deep", "trees"]
    assert found["comparisons"] == 7  # all, each alone, and what each brings
    for each in found["teachers"]:
        whole, without = (report["students"][name]["test_accuracy"]["mean"] for name in ("all", each["without"]))
        assert each["brings"]["mean"] == pytest.approx(whole - without)
        assert each["test_accuracy"] == report["teachers"][each["name"]]["test_accuracy"]
        assert each["coverage"] == 1.0 and 0 < each["agrees_with_ensemble"] <= 1
        told = [line for line in found["sentences"] if line.startswith((each["name"], f"Of {each['name']}"))]
        claims = any(" helped:" in line for line in told)
        assert claims == (each["brings"]["conclusion"] == "helps")  # nobody helps without the rule of a verdict
        assert 0 < each["counts"] < 1
    assert len(found["classes"]) == 10
    assert all(sum(each["counts"].values()) == pytest.approx(1) for each in found["classes"])
    shown = CliRunner().invoke(collegium, ["report", str(out), "--teachers"])
    assert shown.exit_code == 0 and str(made.folder) in shown.output


@pytest.mark.campaign
def test_a_report_of_teachers_that_is_not_there_names_the_command_that_makes_it(
    ray_cluster: None, tmp_path: Path
) -> None:
    made = run(quick("students.small.train.seeds=[0]", "students.small.train.steps=2"), tmp_path / "out")
    done = CliRunner().invoke(collegium, ["report", str(tmp_path / "out"), "--teachers"])
    assert isinstance(done.exception, Exception)
    told = str(done.exception)
    assert f"collegium compare {made.folder / 'recipe.yaml'} --teachers --out" in told and "small 7" in told


@pytest.mark.campaign
def test_with_one_seed_there_is_no_verdict_and_it_says_so(
    finished: tuple[Path, Path, Mapping[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    report = compare(quick(), finished[0], methods=METHODS, seeds=1).report
    assert "one seed gives no verdict" in caplog.text
    assert report["compared"]["sentences"][0].startswith("No verdict")
    assert all(student["verdict"].startswith("No verdict") for student in report["students"].values())
    assert all(each["over_control"]["p_corrected"] is None for each in report["compared"]["variants"])


@pytest.mark.campaign
def test_settings_are_chosen_on_validation_and_test_rows_are_looked_at_once(
    finished: tuple[Path, Path, Mapping[str, Any]],
) -> None:
    import mlflow

    made = compare(quick(), finished[0], methods="soft,teacher_label", tune=True)
    report = made.report
    tuned = report["compared"]["tuned"]
    kept = load_recipe(made.folder / "recipe.yaml").students
    told = mlflow.MlflowClient(report["mlflow"]["uri"]).get_run(report["mlflow"]["run_id"]).data.params
    for each in report["compared"]["variants"]:  # what is kept and told is what was trained
        assert kept[each["name"]].model_dump(mode="json")["objective"] == each["objective"]
        flat = dict(flattened({"students": {each["name"]: {"objective": each["objective"]}}}))
        assert flat.items() <= told.items()
    assert {name: found["tried"] for name, found in tuned.items()} == {"soft": 4, "teacher_label": 4}
    for each in report["compared"]["variants"]:
        term = each["objective"][0]
        assert {key: term[key] for key in tuned[each["method"]]["setting"] if key != "hard"}.items() <= term.items()
    evaluated = {stage["name"] for stage in report["stages"] if stage["stage"] == "evaluate"}
    assert evaluated == {"teachers", "soft", "teacher_label", "cost_of_steps"}  # no setting that was not taken


@pytest.mark.campaign
def test_a_plan_of_it_trains_nothing(finished: tuple[Path, Path, Mapping[str, Any]], tmp_path: Path) -> None:
    options = [part for override in OVERRIDES for part in ("-o", override)]
    asked = ["compare", "digits", "--methods", ",".join(METHODS), "--plan", *options]
    done = CliRunner().invoke(collegium, [*asked, "--out", str(finished[0])])
    assert done.exit_code == 0, done.output
    assert "reuse    distill/mean_logits/student/seed-1" in done.output
    assert "3 variants of small with 2 seeds: 6 trainings of 40 steps, and 2 of the control" in done.output
    assert "export" not in done.output
    assert "reuse    evaluate/cost_of_steps" in done.output
    tuning = CliRunner().invoke(collegium, [*asked, "--tune", "--out", str(finished[0])])
    assert tuning.exit_code == 0, tuning.output
    for number in range(4):
        assert re.search(rf"(build|reuse) +distill/mean_logits-{number}/student/seed-2", tuning.output)
    assert re.search(r"unknown +distill/mean_logits/student/seed-1 .*settings have been tried", tuning.output)
    assert "unknown  evaluate/cost_of_steps" in tuning.output
    whole = ["compare", "digits", "--teachers", "--plan", *options, "-o", "students.small.objective.0.combine=fitted"]
    of_teachers = CliRunner().invoke(collegium, [*whole, "--out", str(finished[0])])
    assert of_teachers.exit_code == 0 and "evaluate/weights_by_class" in of_teachers.output
    fresh = CliRunner().invoke(collegium, [*asked, "--out", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0 and not (tmp_path / "fresh").exists()


HINTED = [
    "teachers={wide: {kind: module, model: 'teachers.zoo:conv_net', arguments: {width: 4}, train: {steps: 5}, require: null, "
    "outputs: {vector: {layer: classifier}}}}",
    "students.small={model: 'students.models:small_conv_net', arguments: {width: 4}, teachers: [wide], "
    "hints: [{loss: hint, teacher: wide, output: vector}], train: {steps: 5, seeds: [0]}}",
    "search=null",
]


def test_a_hint_that_nothing_joins_is_found_before_anybody_teaches(ray_cluster: None, tmp_path: Path) -> None:
    hinted, out = load_recipe(find("digits"), HINTED), tmp_path / "out"
    with pytest.raises(RecipeError, match=r"^--methods attention: students\.small\.hints\.0\.") as error:
        compare(hinted, out, methods="soft,attention")
    assert "\n" not in str(error.value)
    assert not [*out.glob("soft_targets/*")] and not [*out.glob("teachers/*")] and not [*out.glob("students/*")]


def test_the_methods_are_listed_with_what_each_is() -> None:
    done = CliRunner().invoke(collegium, ["compare", "--list"])
    assert done.exit_code == 0 and re.search(r"^teacher_label +\S", done.output, re.M)


def test_the_cost_of_steps_is_measured_in_turns_and_leaves_nothing(digits: TransferSet, tmp_path: Path) -> None:
    heard = source(make_store(tmp_path / "store", digits))
    mine = make_run(tmp_path / "a", digits, heard, steps=3)
    alone = make_run(tmp_path / "b", digits, objective=(HARD,), labelled_only=True, steps=3)
    found = cost_of_steps({"key": mine}, alone, threads=1, gpus=0)
    assert {*found["by_training"]} == {"key"}
    assert all(math.isfinite(each) and each > 0 for each in found["by_training"]["key"].values())
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.campaign
def test_a_killed_driver_trains_no_sealed_variant_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [part for override in [*OVERRIDES, "students.small.train.steps=600"] for part in ("-o", override)]
    command = [sys.executable, "-m", "orchestrator", "compare", "digits", "--methods", ",".join(METHODS)]
    command += ["--out", str(out), "--json", *options]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    while len([*out.glob("students/*/SEAL.json"), *out.glob("students/*/*/*/SEAL.json")]) < 2:
        assert driver.poll() is None, "it ended before there was anything to kill"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    sealed = {path: path.stat().st_mtime_ns for path in out.glob("students/*/*/*/SEAL.json")}
    assert 0 < len(sealed) < 8
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(path.stat().st_mtime_ns == when for path, when in sealed.items())
    report = json.loads(done.stdout)
    assert {*report["students"]} == {*METHODS} and report["compared"]["comparisons"] == 5
