"""The engine under a real TorchTrainer: the same results as in a plain process."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from orchestrator.building.turns import Turn, Turns
from orchestrator.cluster.cluster import Cluster
from students.fitting.fit import fit
from students.fitting.on_ray import fit_on_ray
from students.runs.session import PlainSession
from teachers.config.resources import Resources
from teachers.errors import RecipeError, TeacherError
from teachers.process.waiting import GivenUp, SideBySide
from tests.training_runs import HARD, SOFT, make_run, make_store, outputs, source

pytestmark = pytest.mark.slow


@pytest.fixture
def mailbox(ray_cluster):
    import ray

    class Mailbox:
        def __init__(self):
            self.records = []

        def put(self, records):
            self.records += records

        def take(self):
            return self.records

    return ray.remote(num_cpus=0)(Mailbox).remote()


def plain(run):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return fit([run], PlainSession())[0]
    finally:
        torch.set_num_threads(before)


def test_one_worker_gives_the_plain_process_bit_for_bit_and_a_recipes_error_comes_back_as_itself(
    digits, mailbox, tmp_path
):
    import ray

    store = make_store(tmp_path / "store", digits)
    labels = make_store(tmp_path / "labels", digits, encoding="label")
    here, there = (make_run(tmp_path / name, digits, source(store)) for name in ("here", "there"))
    control = make_run(tmp_path / "there", digits, objective=[HARD], labelled_only=True, name="control")
    wrong = make_run(tmp_path / "there", digits, source(labels), seed=1)
    with pytest.raises(RecipeError, match="encoding: dense"):
        fit_on_ray([there, control, wrong], resources=Resources(), mailbox=mailbox)

    result = plain(here)
    assert outputs(here) == outputs(there)
    assert fit([there], PlainSession())[0].validation == result.validation
    points = ray.get(mailbox.take.remote())
    assert {point["run"] for point in points} == {"student/seed-0", "control/seed-0"}
    assert any(point["key"] == "validation.accuracy" for point in points)
    assert (control.folder / "SEAL.json").exists() and not (wrong.folder / "SEAL.json").exists()


def in_turns(runs, mailbox):
    """Each in a task of its own, as the pipeline does it."""
    cluster, needs = Cluster(None, None), [("workers", 1, Resources())]

    def fit_one(found, turn: Turn):
        task, settings = "students.fitting.in_task:fit_in_task", (1, 0.0, mailbox, turn.most)
        where = {"resources": Resources(), "user_path": Path.cwd(), "node": turn.node}
        return cluster.call(task, found, *settings, **where)

    with SideBySide("stage", 100) as threads:
        turns = Turns(cluster, {}, threads)
        waiting = [turns.start(f"distill/small/{number}", needs, fit_one, run) for number, run in enumerate(runs)]
        return [threads.outcome(future) for future in waiting]


def test_trainings_in_tasks_side_by_side_give_the_plain_process_bit_for_bit_and_the_first_error_ends_the_rest(
    digits, mailbox, tmp_path
):
    store = make_store(tmp_path / "store", digits)
    labels = make_store(tmp_path / "labels", digits, encoding="label")
    here, there = ([make_run(tmp_path / at, digits, source(store), seed=n) for n in (0, 1)] for at in ("here", "there"))
    results = in_turns(there, mailbox)
    assert [result.validation for result in results] == [plain(run).validation for run in here]
    assert [outputs(run) for run in here] == [outputs(run) for run in there]

    wrong = make_run(tmp_path / "wrong", digits, source(labels))
    long = make_run(tmp_path / "long", digits, source(store), steps=1_000_000)
    with pytest.raises(RecipeError, match="encoding: dense"):
        in_turns([long, wrong], mailbox)
    assert not (long.folder / "SEAL.json").exists()


def test_two_workers_agree_with_one_to_1e_6_and_leave_nothing_of_rays_behind(digits, ray_cluster, tmp_path):
    store = make_store(tmp_path / "store", digits)
    options = {"accumulate": 2, "clip": 1.0, "learning_rate": 1e-3}
    one, two = (
        make_run(tmp_path / name, digits, source(store), objective=[SOFT, HARD], **options) for name in ("one", "two")
    )
    single = plain(one)
    (double,) = fit_on_ray([two], resources=Resources(), workers=2)
    weights = [safetensors.torch.load_file(run.folder / "model.safetensors") for run in (one, two)]
    for name, expected in weights[0].items():
        assert (weights[1][name] - expected).abs().max() < 1e-6
    assert double.validation == pytest.approx(single.validation, abs=1e-6)
    assert {path.name for path in two.stage.iterdir()} == {"student", "metrics.jsonl"}


@pytest.mark.campaign
def test_a_training_leaves_the_groups_of_others_alone(digits, ray_cluster, tmp_path):
    """A notebook's own, which have no name either: one from before the training, and one that it makes meanwhile."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    groups = [placement_group([{"CPU": 1.0}])]
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, steps=4000, evaluate_every=100)

    def make_another():
        wait_until((run.stage / "metrics.jsonl").exists)
        groups.append(placement_group([{"CPU": 1.0}]))
        time.sleep(2.5)  # the trainer's groups are looked at every second

    with ThreadPoolExecutor(1) as notebook:
        making = notebook.submit(make_another)
        (result,) = fit_on_ray([run], resources=Resources())
        making.result()
    ray.get([group.ready() for group in groups])
    assert result.steps == 4000
    assert [placement_group_table(group)["state"] for group in groups] == ["CREATED", "CREATED"]
    for group in groups:
        remove_placement_group(group)


@pytest.mark.campaign
def test_room_of_a_group_whose_worker_died_while_it_started_is_given_back(digits, ray_cluster, tmp_path):
    """Else the next one of this trainer finds no room beside it."""
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, steps=5)
    killed = []

    def kill_at_once():
        wait_until(lambda: killed.extend(workers_of_trainers()) or killed)
        os.kill(killed[0].pid, signal.SIGKILL)

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill_at_once)
        (result,) = fit_on_ray([run], resources=Resources(cpus=5))
        killing.result()
    assert result.steps == 5
    assert_all_is_given_back()


def test_a_failure_beside_a_training_is_told_at_once_and_ends_it_with_its_workers(digits, ray_cluster, tmp_path):
    run = make_run(
        tmp_path,
        digits,
        objective=[HARD],
        labelled_only=True,
        steps=10_000_000,
        evaluate_every=100,
        schedule="constant",
    )

    def fail():
        wait_until((run.stage / "metrics.jsonl").exists)
        assert workers_of_trainers()
        raise TeacherError("the other work")

    with pytest.raises(TeacherError, match="the other work"), SideBySide("test", 2) as threads:
        training = threads.start(partial(fit_on_ray, [run], resources=Resources()))
        threads.start(fail)
        threads.outcome(training)
    assert isinstance(training.exception(), GivenUp)
    wait_until(lambda: not workers_of_trainers())
    assert_all_is_given_back()
    assert not (run.stage / "attempts").exists()


def workers_of_trainers():
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "TrainWorker" in " ".join(process.cmdline()) else []
    return found


def wait_until(condition):
    while not condition():
        time.sleep(0.05)


def assert_all_is_given_back():
    import ray

    end = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 8 and time.monotonic() < end:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 8
