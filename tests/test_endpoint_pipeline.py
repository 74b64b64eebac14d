"""Endpoints under Ray: a replica asks, a budget ends the command, ten kills of driver and replica cost no answer."""

import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from benchmarks.paid import CLASSES, CountingServer, held, numbered, stores
from teachers.config.endpoint import EndpointTeacher
from teachers.errors import BudgetSpent
from teachers.labelling.label import label
from teachers.labelling.shard import LabelTask, TeacherSpec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from tests.faults import workers_of

ROWS = 1000


def test_a_replica_asks_and_a_budget_ends_its_work(ray_cluster: None, tmp_path: Path) -> None:
    data, server = numbered(tmp_path, 100), CountingServer(latency_s=0.01)
    with server.serving() as url:
        told = {"kind": "endpoint", "url": url, "version": "1", "rows_per_request": 1}
        how = EndpointTeacher.model_validate({**told, "budget": {"requests": 30}})
        tasks = stores(tmp_path / "stores", data, how)
        with pytest.raises(BudgetSpent, match=r"30 requests \(of 30\).*30 of 100 rows are answered, and kept"):
            label(TeacherSpec("asked", how, None, (), tmp_path), tasks)
        label(TeacherSpec("asked", EndpointTeacher.model_validate(told), None, (), tmp_path), tasks)
    assert held(tasks) == set(range(100))
    assert sum(server.paid.values()) == 100 and not server.bought_again


def written(folder: Path, url: str, **about: Any) -> Path:
    """A recipe with one endpoint, whose rows are numbered."""
    x = np.arange(ROWS)
    parquet.write_table(pa.table({"x": x.astype(np.float32), "y": np.array(CLASSES)[x % 2]}), folder / "rows.parquet")
    rows = {"source": {"kind": "parquet", "path": str(folder / "rows.parquet")}, "inputs": "x", "label": "y"}
    teacher = {"kind": "endpoint", "url": url, "version": "1", "rows_per_request": 1, **about}
    recipe = {"format": 1, "name": "asked", "transfer_set": rows, "teachers": {"llm": teacher}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def start(recipe: Path, out: Path, *flags: str) -> "subprocess.Popen[bytes]":
    command = [Path(sys.executable).parent / "collegium", "label", recipe, "--out", out, *flags]
    with (out.parent / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def tasks_in(out: Path) -> list[LabelTask]:
    return [
        LabelTask(next((out / "prepared").iterdir()), SoftTargetStore.open(store).spec.segment, store)
        for store in (out / "soft_targets").glob("*")
        if (store / "spec.json").exists()
    ]


@pytest.mark.campaign
def test_a_thousand_answers_are_paid_once_through_ten_kills_and_three_budgets(tmp_path: Path) -> None:
    server, draw, out = CountingServer(latency_s=0.05, limit_per_s=100), random.Random(0), tmp_path / "out"
    with server.serving() as url:
        recipe = written(tmp_path, url, limits={"requests_per_minute": 6000})
        for most in (0, 150):
            ended = start(recipe, out, "-o", f"teachers.llm.budget={{requests: {most}}}")
            assert ended.wait(timeout=600) == 3
            assert f"{most} requests (of {most})" in (tmp_path / "log").read_text()
            assert server.num_requests == most
        driver = start(recipe, out)
        for number in range(10):
            before = len(server.at)
            while len(server.at) == before:
                assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.6))
            for replica in workers_of(driver, ("TeacherReplica",)):
                with suppress(psutil.NoSuchProcess):
                    replica.kill()
            if number % 3 == 2:
                driver.kill()
                driver.wait()
                driver = start(recipe, out)
            server.had |= held(tasks_in(out))
        assert driver.wait(timeout=600) == 0, (tmp_path / "log").read_text()[-3000:]
    assert held(tasks_in(out)) == set(range(ROWS))
    assert server.bought_again == []
    assert sum(server.paid.values()) == ROWS and set(server.paid.values()) == {1}
    reports = [json.loads(path.read_bytes()) for path in sorted(out.glob("runs/*/report.json"))]
    (spent,) = {
        json.dumps(stage["spent"]) for stage in reports[-1]["stages"] if stage["stage"] == "label" and "spent" in stage
    }
    assert json.loads(spent)["requests"] == server.num_requests
    assert TransferSet.open(next((out / "prepared").iterdir())).classes == CLASSES
