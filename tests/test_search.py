"""Whole studies through Ray Tune, on tiny networks: what is tried, what stays after a kill, what is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from orchestrator.running.tune import tune
from orchestrator.search.study import Trial, read_trials
from orchestrator.stages.outline import planned_study
from orchestrator.watching.status import Looker

pytestmark = pytest.mark.slow

QUICK = [
    "teachers={trees: {kind: sklearn, model: 'sklearn.ensemble:ExtraTreesClassifier', arguments: {n_estimators: 10}}, "
    "line: {kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}}",
    "students.small.teachers=[trees, line]",
    "students.small.train.steps=40",
    "search.space.teachers={subset: {of: [trees, line]}}",
    "search.trials=4",
    "search.seeds_for_best=2",
]


def quick(*overrides: str) -> Recipe:
    return load_recipe(find("search"), [*QUICK, *overrides])


def trials_of(out: Path) -> list[Trial]:
    return [*read_trials(out / "studies" / "small")]


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    out = tmp_path_factory.mktemp("study") / "out"
    return out, tune(quick(), out).report


@pytest.fixture
def labelled(finished: tuple[Path, Mapping[str, Any]], tmp_path: Path) -> Path:
    """An OUT in which everything that teaches is sealed, and nothing was searched."""
    out = Path(shutil.copytree(finished[0], tmp_path / "out"))
    shutil.rmtree(out / "studies")
    return out


def test_a_study_asks_no_teacher_and_shows_its_best_beside_the_tuned_control(
    finished: tuple[Path, Mapping[str, Any]],
) -> None:
    out, report = finished
    search = report["search"]
    assert search["trials"] == 4 == search["finished"] + search["pruned"] and search["failed"] == 0
    assert search["teacher_forwards"] == 0 and search["control"]["trials"] == 2
    assert all(stage["reused"] for stage in report["stages"] if stage["stage"] in ("label", "train_teacher"))
    assert len(search["test_accuracy"]["runs"]) == len(search["control_accuracy"]["runs"]) == 2
    assert search["best"]["validation"]["accuracy"] >= search["as_recipe"]["validation"]["accuracy"]
    trials = trials_of(out)
    first = {who: min((t for t in trials if t.who == who), key=lambda t: t.number) for who in ("student", "control")}
    assert first["control"].number == 0 and first["control"].params == {"train.learning_rate": 5e-3}
    assert first["student"].params == search["as_recipe"]["params"] and first["student"].state == "finished"
    assert len({json.dumps(t.params) for t in trials if t.who == "student"}) == 4


def test_what_was_found_reproduces_the_final_training_bit_for_bit(
    finished: tuple[Path, Mapping[str, Any]], labelled: Path
) -> None:
    out, _ = finished
    found = load_recipe(next(out.glob("runs/*/found.yaml")))
    assert found.search is None and found.students["small"].train.seeds == [1, 2]
    for folder in (labelled / "students").iterdir():
        shutil.rmtree(folder)
    run(found, labelled, until="distill")
    results = [sorted(folder.glob("students/small-*/*/*/result.json")) for folder in (out, labelled)]
    assert len(results[0]) == 4
    assert [path.read_bytes() for path in results[0]] == [path.read_bytes() for path in results[1]]


def test_nothing_of_a_study_is_left_behind(finished: tuple[Path, Mapping[str, Any]]) -> None:
    import ray

    out, _ = finished
    groups = ray.util.placement_group_table().values()
    assert [group for group in groups if group["state"] != "REMOVED"] == []
    deadline = time.monotonic() + 30  # Tune ends its actors without waiting for them
    while (alive := titles_of_trials()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive == []
    assert {path.name for path in (out / "studies" / "small").iterdir()} == {
        "study.json",
        "trials.jsonl",
        "metrics.jsonl",
    }


def titles_of_trials() -> list[str]:
    family = psutil.Process().children(recursive=True)
    titles = []
    for process in family:
        with suppress(psutil.Error):  # it has ended meanwhile
            titles.append(" ".join(process.cmdline()))
    return [title for title in titles if title.startswith("ray::") and ("trial" in title or "ImplicitFunc" in title)]


def test_the_same_command_again_tries_nothing_and_builds_nothing(finished: tuple[Path, Mapping[str, Any]]) -> None:
    out, before = finished
    trials = trials_of(out)
    report = tune(quick(), out).report
    assert trials_of(out) == trials
    assert all(stage["reused"] for stage in report["stages"])
    assert report["search"]["best"] == before["search"]["best"]


def test_mlflow_has_a_run_for_every_trial_with_its_setting(finished: tuple[Path, Mapping[str, Any]]) -> None:
    from mlflow import MlflowClient

    out, report = finished
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    parent = report["mlflow"]["run_id"]
    children = client.search_runs([report["mlflow"]["experiment_id"]], f"tags.\"mlflow.parentRunId\" = '{parent}'")
    by_name = {child.data.tags["collegium.run"]: child for child in children}
    for trial in trials_of(out):
        child = by_name[f"trial-{trial.number:04d}"]
        assert child.data.params["train.learning_rate"] == json.dumps(trial.params["train.learning_rate"])
        assert child.data.metrics["validation.accuracy"] == trial.values["validation.accuracy"]
        assert child.data.tags["collegium.state"] == trial.state and child.info.status != "RUNNING"
    assert len(client.get_metric_history(parent, "search.best")) >= 1


def test_status_tells_trials_and_the_best_of_them(finished: tuple[Path, Mapping[str, Any]]) -> None:
    out, report = finished
    found = Looker(str(out)).look()
    assert [f"{stage['stage']}/{stage['name']}" for stage in found["stages"]] == planned_study(quick())
    assert {stage["state"] for stage in found["stages"]} <= {"done", "reused"}
    (study,) = [stage for stage in found["stages"] if stage["stage"] == "tune"]
    assert (study["trials"], study["num_trials"]) == (4, 4)
    assert study["control_trials"] == study["num_control_trials"] == report["search"]["control"]["trials"]
    assert study["best"]["trial"] == report["search"]["best"]["number"]


@pytest.mark.campaign
def test_a_killed_driver_repeats_no_trial(labelled: Path, tmp_path: Path) -> None:
    out = labelled
    options = [*QUICK, "search.trials=8", "search.scheduler=none", "students.small.train.steps=400"]
    command = [str(Path(sys.executable).parent / "collegium"), "tune", "search", "--out", str(out)]
    command += [part for option in options for part in ("-o", option)]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
        while len(kept := trials_of(out) if (out / "studies" / "small").exists() else []) < 4:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        kept = trials_of(out)
        assert subprocess.run(command, stdout=log, stderr=log).returncode == 0, (tmp_path / "log").read_text()
    trials = trials_of(out)
    assert trials[: len(kept)] == kept
    assert sum(t.who == "student" for t in trials) == 8 and sum(t.who == "control" for t in trials) == 4
    assert len({t.number for t in trials}) == 12
    assert len({json.dumps([t.who, t.params]) for t in trials}) == 12


@pytest.mark.campaign
def test_a_front_of_two_metrics_is_found_and_a_trial_that_fails_is_told_and_ends_no_study(labelled: Path) -> None:
    recipe = quick(
        "search.space={arguments.hidden: {choice: [2, 8, 32, -3]}}",
        "search.algorithm=grid",
        "search.metric={validation.accuracy: max, parameters: min}",
        "search.scheduler=none",
        "search.seeds_for_best=1",
        "search.trials=6",
        "students.small.control=false",
        "students.small.train.steps=200",
    )
    search = tune(recipe, labelled).report["search"]
    assert (search["trials"], search["finished"], search["failed"]) == (5, 4, 1)  # the recipe's own 16 came first
    assert "-3" in search["errors"][0]["error"]
    front = [(trial["validation"]["accuracy"], trial["parameters"]) for trial in search["front"]]
    assert front == sorted(front, reverse=True) and len(front) >= 2
    assert search["control"]["trials"] == 0 and search["control_accuracy"] is None


@pytest.mark.campaign
def test_a_cohort_on_two_workers_and_a_student_with_two_can_be_searched(labelled: Path) -> None:
    import ray

    student = quick(
        "students.small.train.workers=2",
        "search.space={train.learning_rate: {log_uniform: [1.0e-3, 1.0e-1]}}",
        "search.trials=2",
        "search.seeds_for_best=1",
        "search.max_concurrent=2",
        "students.small.control=false",
    )
    assert tune(student, labelled).report["search"]["failed"] == 0
    members = "{a: {model: 'students.models:mlp', arguments: {hidden: 16}}, b: {model: 'students.models:mlp', arguments: {hidden: 8}}}"
    cohort = quick(
        "students={}",
        f"cohorts.pair={{method: mutual, teachers: [trees, line], members: {members}, control: false, offline: false, "
        "train: {steps: 40, seeds: [0]}}",
        "search.student=pair",
        "search.space={objective.1.temperature: {uniform: [1, 4]}, teachers: {subset: {of: [trees, line]}}}",
        "search.trials=2",
        "search.seeds_for_best=1",
        "cohorts.pair.objective=[{loss: hard}, {loss: peer}, {loss: soft}]",
    )
    report = tune(cohort, labelled).report
    assert report["search"]["failed"] == 0 and report["search"]["finished"] >= 1
    assert report["search"]["test_accuracy"]["runs"]
    assert [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"] == []


@pytest.mark.campaign
def test_a_population_trades_weights_while_it_trains(labelled: Path) -> None:
    recipe = quick(
        "search.algorithm=pbt",
        "search.scheduler=none",
        "search.space={train.learning_rate: {log_uniform: [1.0e-5, 1.0e-1]}, objective.0.weight: {uniform: [0, 1]}}",
        "search.trials=4",
        "search.seeds_for_best=1",
        "students.small.control=false",
        "students.small.train.steps=400",
    )
    search = tune(recipe, labelled).report["search"]
    assert search["finished"] == 4 and search["failed"] == 0
    space = [t.params["train.learning_rate"] for t in trials_of(labelled)]
    assert all(1e-5 <= rate <= 1e-1 for rate in space)
    accuracies = [t.values["validation.accuracy"] for t in trials_of(labelled)]
    assert max(accuracies) - min(accuracies) < 0.2  # nobody is left behind at a rate that learns nothing
