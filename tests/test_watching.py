"""One real run, looked at while it goes on: its stores, `collegium status`, MLflow, Prometheus, its workers' logs."""

import json
import logging
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from orchestrator.stages.outline import planned
from orchestrator.tracking.server import client_of, resolve_uri
from orchestrator.watching.progress import show_logs
from orchestrator.watching.status import Looker
from orchestrator.watching.status_lines import lines
from students.runs.curves import read_records
from teachers.process.log_lines import ROOTS

SLOW = """
import time
import numpy as np

def slow(inputs):
    time.sleep(0.1)
    return np.random.default_rng(0).normal(size=(len(inputs["image"]), 10))
"""
OVERRIDES = [
    "teachers={trees: {kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}, "
    "slow: {kind: callable, function: 'slow_teacher:slow', output: logits, replicas: 2, require: null}}",
    "students.small.teachers=[trees, slow]",
    "students.small.train={steps: 1500, batch_size: 64, seeds: [0], evaluate_every: 100}",
    "tracking.system_metrics=true",
]
Curve = tuple[str, str, str]
"""Stage, training and key."""


def recipe() -> Recipe:
    return load_recipe(find("digits"), OVERRIDES)


@dataclass
class Seen:
    """One round of looking: what the stores said before and after the status did, and what MLflow had."""

    before: dict[str, int]
    status: dict[str, Any]
    after: dict[str, int]
    began: float
    mlflow: dict[Curve, int]


@dataclass
class Watched:
    out: Path
    rounds: list[Seen] = field(default_factory=list)
    scraped: str = ""
    logs: Path = Path()


def stores_say(out: Path) -> dict[str, int]:
    """Shards of every store, and the step of every training."""
    said = {}
    for store in out.glob("soft_targets/*/"):
        kept = "shards/*.arrow" if (store / "SEAL.json").exists() else "commits/[0-9]*.json"
        said[store.name] = len([*store.glob(kept)])
    for path in out.glob("students/*/metrics.jsonl"):
        for record in read_records(path):
            said[record["run"]] = max(said.get(record["run"], 0), record["step"])
    return said


def status_says(found: dict[str, Any]) -> dict[str, int]:
    said = {}
    for stage in found["stages"]:
        said |= {Path(store["folder"]).name: store["shards"] for store in stage.get("stores", ())}
        said |= {training["training"]: training["step"] for training in stage.get("trainings", ())}
    return said


def mlflow_says(client: Any, found: dict[str, Any]) -> dict[Curve, int]:
    """The highest step of every curve of the run's nested runs."""
    ids = found["run"]["mlflow"]
    if ids is None:
        return {}
    nested = client.search_runs([ids["experiment_id"]], f"tags.\"mlflow.parentRunId\" = '{ids['run_id']}'")
    return {
        (each.data.tags["collegium.stage"], each.data.tags["collegium.run"], metric.key): metric.step
        for each in nested
        for metric in each._data._metric_objs
    }


def look(watched: Watched, over: threading.Event) -> None:
    client, looker = None, Looker(str(watched.out))
    while not over.wait(0.2):
        if client is None and (watched.out / "mlflow.db").exists():
            client = client_of(resolve_uri(None, watched.out))
        before, began = stores_say(watched.out), time.time()
        status = looker.look()
        after = stores_say(watched.out)
        mlflow = mlflow_says(client, status) if client is not None else {}
        watched.rounds.append(Seen(before, status, after, began, mlflow))


@pytest.fixture(scope="module")
def watched(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    import ray

    folder = tmp_path_factory.mktemp("watched")
    (folder / "slow_teacher.py").write_text(SLOW)
    watched, over = Watched(folder / "out"), threading.Event()
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in ROOTS}

    def begin() -> None:
        while not [*watched.out.glob("runs/*/run.json")] and not over.wait(0.05):
            pass
        if not over.is_set():
            look(watched, over)

    from rich.console import Console

    show_logs(Console(stderr=True), verbose=True, as_json=True)
    thread = threading.Thread(target=begin)
    thread.start()
    try:
        run(recipe(), watched.out, user_path=folder)
    finally:
        time.sleep(0.3)  # one more round
        over.set()
        thread.join()
        for name, (handlers, level) in before.items():
            logging.getLogger(name).handlers[:] = handlers
            logging.getLogger(name).setLevel(level)
            logging.getLogger(name).propagate = True
    watched.logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    yield watched


@pytest.mark.campaign
def test_status_lies_between_two_readings_of_the_stores(watched: Watched) -> None:
    shards = set()
    for seen in watched.rounds:
        said = status_says(seen.status)
        for name, count in said.items():
            assert seen.before.get(name, 0) <= count <= seen.after.get(name, 0), name
        shards |= {count for name, count in said.items() if name.startswith("slow-")}
    assert len(shards) > 5, "nothing was seen of the labelling while it went on"
    steps = {
        training["step"]
        for seen in watched.rounds
        for stage in seen.status["stages"]
        for training in stage.get("trainings", ())
    }
    assert len(steps) > 2, "nothing was seen of the training while it went on"


def test_mlflow_has_within_five_seconds_what_the_stores_have(watched: Watched) -> None:
    records = [record for path in watched.out.glob("students/*/metrics.jsonl") for record in read_records(path)]
    for before, seen in pairwise(watched.rounds):
        if seen.began - before.began > 2:
            continue  # on a machine that lets this very thread wait for seconds nothing can be said
        for record in records:
            if record["time"] < seen.began - 5:
                curve = ("distill/small", record["run"], record["key"])
                assert seen.mlflow.get(curve, -1) >= record["step"], (curve, seen.began - record["time"])


def test_in_the_end_all_three_say_the_same(watched: Watched) -> None:
    stored: dict[str, dict[str, float]] = {}
    for path in watched.out.glob("students/*/metrics.jsonl"):
        for record in read_records(path):
            stored.setdefault(record["run"], {})[record["key"]] = record["value"]
    found = Looker(str(watched.out)).look()
    (stage,) = [stage for stage in found["stages"] if stage["stage"] == "distill"]
    assert {each["training"]: each["metrics"] for each in stage["trainings"]} == stored
    assert all(each["done"] and each["step"] == each["steps"] == 1500 for each in stage["trainings"])
    ids, client = found["run"]["mlflow"], client_of(resolve_uri(None, watched.out))
    nested = client.search_runs([ids["experiment_id"]], f"tags.\"mlflow.parentRunId\" = '{ids['run_id']}'")
    kept = {each.data.tags["collegium.run"]: each.data.metrics for each in nested}
    assert {name: kept[name] for name in stored} == stored
    assert found["run"]["state"] == "finished"
    for stage in found["stages"]:
        if stage["stage"] == "label":
            assert stage["shards"] == stage["num_shards"] and stage["rows"] == stage["num_rows"] == 1797
            shards = [*watched.out.glob(f"soft_targets/{stage['name']}-*/shards/*.arrow")]
            assert len(shards) == stage["shards"]


def test_what_is_planned_is_what_is_built_and_the_page_says_all_of_it(watched: Watched) -> None:
    found = watched.rounds[-1].status
    assert [f"{stage['stage']}/{stage['name']}" for stage in found["stages"]] == planned(recipe(), "export")
    assert {stage["state"] for stage in found["stages"]} == {"done"}
    labelling = [stage for seen in watched.rounds for stage in seen.status["stages"] if stage["name"] == "slow"]
    assert {stage["replicas"] for stage in labelling if "replicas" in stage} in (
        {2},
        {1, 2},
    )  # the second as room comes
    assert any(stage["shards_per_s"] and stage["eta_s"] is not None for stage in labelling if "stores" in stage)
    assert "\n".join(lines(found)).count("\n") >= len(found["stages"])


def test_mlflows_page_has_a_note_and_the_figures_of_every_node(watched: Watched) -> None:
    found = watched.rounds[-1].status["run"]
    client = client_of(resolve_uri(None, watched.out))
    parent = client.get_run(found["mlflow"]["run_id"])
    note = parent.data.tags["mlflow.note.content"]
    link = f"#/experiments/{found['mlflow']['experiment_id']}/runs/{found['mlflow']['run_id']}/artifacts/report.html"
    for told in (
        "| student small |",
        "| control of small |",
        "| teacher trees |",
        link,
        str(watched.out),
        "rows labelled",
    ):
        assert told in note
    system = [key for key in parent.data.metrics if re.fullmatch(r"system/[^/]+/cpu_utilization_percentage", key)]
    assert len(system) == 1, "there is one node"


def test_workers_write_lines_with_run_stage_and_shard(watched: Watched) -> None:
    name = watched.rounds[-1].status["run"]["id"]
    written = [line for path in watched.logs.glob("worker-*.err") for line in path.read_text().splitlines()]
    mine = [json.loads(line) for line in written if name in line]
    shards = {(line["stage"], line["shard"]) for line in mine if "shard" in line}
    assert {stage for stage, _ in shards} >= {"label/slow/train-0", "label/trees/test-0"}
    assert {line["run"] for line in mine} == {name}


def scraped() -> str:
    import ray

    text = ""
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text += answer.read().decode()
    return text


def test_prometheus_has_what_the_driver_and_the_actors_counted(watched: Watched) -> None:
    name = watched.rounds[-1].status["run"]["id"]

    def rows(text: str) -> float:
        pattern = rf'^ray_collegium_labelled_rows_total\{{(?=.*run="{name}")(?=.*teacher="slow").*\}} ([\d.e+]+)$'
        return sum(float(value) for value in re.findall(pattern, text, re.M))

    others = (
        rf'^ray_collegium_teacher_seconds_total\{{.*phase="compute".*run="{name}"',
        rf'^ray_collegium_stages_done\{{.*run="{name}".*\}} [1-9]',
    )
    end = time.monotonic() + 120  # each process sends every few seconds
    while time.monotonic() < end:
        text = scraped()
        missing = [pattern for pattern in others if not re.search(pattern, text, re.M)]
        if rows(text) >= 1797 and not missing:
            break
        time.sleep(1)
    assert (rows(text), missing) == (1797, [])
