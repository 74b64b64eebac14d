"""The engine under a real TorchTrainer: the same results as in a plain process."""

import pytest
import safetensors.torch
import torch

from students.fitting.fit import fit
from students.fitting.on_ray import fit_on_ray
from students.runs.session import PlainSession
from teachers.config.resources import Resources
from teachers.errors import RecipeError
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


def test_room_that_ray_train_forgot_is_given_back_to_who_waits_for_it(digits, ray_cluster, tmp_path):
    import ray
    from ray.util.placement_group import placement_group

    from students.fitting.groups import unnamed_groups

    forgotten = placement_group([{"CPU": 7.5}])  # as of a worker group whose worker died while it started
    ray.get(forgotten.ready())
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, steps=5)
    (result,) = fit_on_ray([run], resources=Resources())
    assert result.steps == 5 and unnamed_groups() == {}
