"""A cluster of several nodes loses some of them; `python -m tests.faults` does it again and again."""

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.recipe.load import load_recipe
from teachers.transfer_set.transfer_set import TransferSet
from tests import faults, node_faults, node_following, storage_nodes
from tests.cohort_runs import in_turn, make_cohort
from tests.node_cluster import Node
from tests.node_faults import Nodes
from tests.object_store import ObjectStore


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and two nodes."""
    with Nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.mark.campaign
@pytest.mark.ray
def test_a_node_killed_while_it_labels_costs_no_row_and_one_that_joins_gets_its_work(nodes: Nodes) -> None:
    out = nodes.shared / "labels"
    _, batches = node_faults.kill_while_labelling(nodes, out, random.Random(0))
    found = faults.outcome(out)
    assert batches > 0
    assert sum(map(len, found.keys.values())) == 1797
    assert len({key for keys in found.keys.values() for key in keys}) == 1797


@pytest.mark.campaign
def test_a_killed_rank_and_a_killed_node_take_a_cohort_back_to_what_one_process_trains(nodes: Nodes) -> None:
    out, here = nodes.shared / "cohort", nodes.shared / "here"
    node_faults.kill_a_rank_and_a_node(nodes, out, random.Random(0))
    recipe = load_recipe(faults.RECIPES / node_faults.PEERS.recipe, node_faults.PEERS.overrides)
    (transfer_set,) = (out / "prepared").iterdir()
    in_turn(make_cohort(here, TransferSet.open(transfer_set), recipe.cohorts["trio"]))
    found = {path.parts[-3]: path.read_bytes() for path in (out / "students").rglob("model.safetensors")}
    assert found == {path.parts[-3]: path.read_bytes() for path in here.rglob("model.safetensors")}
    assert set(found) == {"a", "b"}


@pytest.mark.campaign
def test_a_node_joins_and_one_dies_while_a_student_follows_and_it_is_the_student_of_its_passes(nodes: Nodes) -> None:
    calm, out = nodes.shared / "follows-calm", nodes.shared / "follows"
    faults.finish(nodes.start(calm, node_following.FOLLOWS), calm)
    followed = node_following.follow_while_nodes_come_and_go(nodes, out, random.Random(0))
    print(f"went on at step {followed.step}, from {followed.kept}; {followed.seconds:.0f} s")
    assert node_following.problems(out, calm, followed) == []


@pytest.mark.campaign
def test_a_run_that_loses_a_node_in_labelling_and_one_in_training_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    with Nodes(tmp_path, dashboard=True) as nodes:
        tracking = nodes.mlflow()
        calm, out = tmp_path / "calm", tmp_path / "out"
        faults.finish(nodes.start(calm, node_faults.tracked(node_faults.WHOLE, tracking)), calm)
        print(node_faults.lose_two_nodes(nodes, out, random.Random(0), tracking))
    assert faults.compare(faults.outcome(out), faults.outcome(calm)) == []
    assert points_in_mlflow(tmp_path / "mlflow" / "mlflow.db", out) == points_in_files(out)


@pytest.mark.campaign
def test_nodes_that_share_a_bucket_alone_lose_one_and_the_driver_and_end_like_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    with storage_nodes.nodes_and_bucket(tmp_path) as (nodes, store):
        calm, out = tmp_path / "calm", tmp_path / "out"
        faults.finish(nodes.start(calm, storage_nodes.SETUP), calm)
        store.harm.rate = storage_nodes.RATE
        other, killed, seconds = storage_nodes.lose_a_node_and_the_driver(nodes, store, out, random.Random(0))
        found = storage_nodes.downloaded(store, tmp_path / "found", out.name)
        step = storage_nodes.first_step_after(tmp_path / "found" / out.name, killed)
        print(f"went on at step {step}, {seconds:.0f} s; {store.harm.num_requests} requests, {store.harm.done}")
        assert faults.compare(found, faults.outcome(calm)) == []
        assert step > 50, "it began anew"
        check_mirrors(nodes, other)
        check_what_a_third_node_says(nodes, store, out.name)


def check_mirrors(nodes: Nodes, other: Node) -> None:
    """Each node that worked has one on its own disk, and the shared folder has none."""
    for node in (nodes.head, nodes.left, nodes.right, other):
        assert list(storage_nodes.on(node, storage_nodes.mirrors(nodes)).glob("s3*/prepared")), node.address
    assert list(nodes.shared.rglob("s3%3A*")) == []


def check_what_a_third_node_says(nodes: Nodes, store: ObjectStore, name: str) -> None:
    uri = f"s3://{storage_nodes.BUCKET}/{name}"
    code, said = storage_nodes.told(nodes, store, nodes.right, "status", uri, "--json")
    status = json.loads(said[said.index("{") :])  # before it may stand that a silent run is waited for
    assert code == 0 and [run["state"] for run in status["runs"]] == ["finished", "killed"], said
    assert {stage["state"] for stage in status["stages"]} <= {"done", "reused"}
    code, said = storage_nodes.told(nodes, store, nodes.right, "store", "verify", uri, "--json")
    damages, keys = json.loads(said), store.keys(storage_nodes.BUCKET, f"{name}/soft_targets/")
    assert code == 0 and len(damages) == len({key.split("/")[2] for key in keys}) and not any(damages.values()), said
    code, said = storage_nodes.told(nodes, store, nodes.right, "report", uri)
    assert code == 0 and said.strip().endswith("report.html"), said


@pytest.mark.campaign
def test_nodes_that_do_not_see_the_bucket_are_named_with_what_they_miss(tmp_path: Path) -> None:
    with storage_nodes.nodes_and_bucket(tmp_path) as (nodes, store):
        store.harm.rate = storage_nodes.RATE
        well = [node.address for node in nodes.nodes]
        found = storage_nodes.strangers(nodes)
        driver = storage_nodes.start(nodes, store, tmp_path / "out", nodes.head)
        code, said = driver.wait(faults.PATIENCE_S), (tmp_path / "out.log").read_text()
        print(said)
        assert code == 4
        assert all(f"node {node.address} cannot read it (s3://faults: {what}" in said for what, node in found.items())
        assert not any(f"node {address} " in said for address in well)
        assert not [key for key in store.keys(storage_nodes.BUCKET) if key.endswith("SEAL.json")], "work was done"


@pytest.mark.campaign
def test_after_the_head_has_died_the_same_command_goes_on_under_a_new_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Nodes(tmp_path) as nodes:
        code, said, seconds = node_faults.lose_the_head(nodes, out, on=nodes.right)
        print(code, f"{seconds:.0f} s", said)
    done = [line for line in (tmp_path / "asked").read_text().splitlines()]
    assert code == 1 and "the same command" in said
    with Nodes(tmp_path) as nodes:
        faults.finish(nodes.start(out, node_faults.LABELS), out)
    found = faults.outcome(out)
    assert sum(map(len, found.keys.values())) == len({key for keys in found.keys.values() for key in keys}) == 1797
    assert len((tmp_path / "asked").read_text().splitlines()) - len(done) < 29, "everything was labelled again"


WATCHED = """
import socket, time
from orchestrator.cluster.head_watch import HeadWatch

with socket.create_server(("127.0.0.1", 0)) as head:
    watch = HeadWatch("127.0.0.1:%d" % head.getsockname()[1], patience_s=0.5)
    time.sleep(3)
    print(watch.gone)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", watch.gone is not None)
"""


def test_who_waits_is_interrupted_when_the_head_does_not_answer_any_more() -> None:
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["None", "interrupted True"], done.stderr


def points_in_files(out: Path) -> set[tuple[str, str, int, str]]:
    """(stage, run, step, key) of every point in the stages' files."""
    records = [json.loads(line) for file in out.rglob("metrics.jsonl") for line in file.read_text().splitlines()]
    return {(record["stage"], record["run"], record["step"], record["key"]) for record in records}


def points_in_mlflow(database: Path, out: Path) -> set[tuple[str, str, int, str]]:
    """The same, as the server has them, of the newest run of `out`."""
    query = (
        "select stage.value, run.value, metrics.step, metrics.key from metrics "
        "join tags stage on stage.run_uuid = metrics.run_uuid and stage.key = 'collegium.stage' "
        "join tags run on run.run_uuid = metrics.run_uuid and run.key = 'collegium.run' "
        "join tags place on place.run_uuid = metrics.run_uuid and place.key = 'collegium.out' and place.value = ?"
    )
    with closing(sqlite3.connect(database)) as connection:
        return set(connection.execute(query, [str(out)]))
