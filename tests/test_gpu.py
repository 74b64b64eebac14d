"""Laws of a real GPU: it trains and labels as the CPU does, within what its arithmetic allows. Starts no Ray."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.teacher import CheckpointTeacher, ModuleTeacher
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.rows.epoch import EpochReader
from teachers.rows.rows import Rows
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.shown import Others, shown
from teachers.transfer_set.viewing import Viewing
from teachers.transfer_set.views import TRANSFORMS
from teachers.zoo import mlp
from tests import training_runs
from tests.training_runs import SOFT, make_run, make_store, outputs, run_to_kill, source

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

GPU = PlainSession("cuda")
MIB = 1 << 20


@pytest.fixture(scope="module")
def teachers(digits, tmp_path_factory):
    """Three of them, as sources of a run."""
    folder = tmp_path_factory.mktemp("teachers")
    names = ("wide", "deep", "trees")
    return [source(make_store(folder / n, digits, name=n, seed=seed), n) for seed, n in enumerate(names)]


def result_of(run, session=GPU, **options):
    (result,) = fit([run], session, **options)
    return result


def training(run, memory_bytes=None):
    run.stage.mkdir(parents=True, exist_ok=True)
    return Training(run, GPU, SharedData(memory_bytes).of([run], GPU)[0])


def weights_of(trained):
    return torch.cat([p.detach().flatten() for p in trained.stepper.module.parameters()])


# views


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_transform_gives_the_same_bits_as_on_the_cpu(name, dtype):
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(0, 256, (500, 28, 20, 3), dtype=np.uint8)).to(dtype)
    seeds = torch.from_numpy(generator.integers(-(2**63), 2**63, 500))
    assert torch.equal(TRANSFORMS[name](images.cuda(), seeds.cuda()).cpu(), TRANSFORMS[name](images, seeds))


def test_a_mixed_view_has_the_same_bits_as_on_the_cpu():
    generator, viewing = np.random.default_rng(0), Viewing(2, ("pad_and_crop", "mixup"), alpha=0.4)
    images = torch.from_numpy(generator.integers(0, 256, (500, 28, 20, 3), dtype=np.uint8))
    keys, views = torch.from_numpy(generator.integers(-(2**63), 2**63, 500)), torch.ones(500, dtype=torch.int64)
    there = Others({"image": images.flip(0).cuda()}, keys.flip(0).cuda())
    here = shown(viewing, {"image": images}, keys, views, Others({"image": images.flip(0)}, keys.flip(0)))["image"]
    assert torch.equal(shown(viewing, {"image": images.cuda()}, keys.cuda(), views.cuda(), there)["image"].cpu(), here)


# training


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bfloat16"},
        {"augment": "affine"},
        {"model": "teachers.zoo:conv_net"},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()) or "float32",
)
def test_a_student_of_three_teachers_is_as_accurate_as_one_trained_on_the_cpu(digits, teachers, tmp_path, options):
    network = {name: value for name, value in options.items() if name in ("model", "augment")}
    settings = {"steps": 400, "learning_rate": 0.01}
    on_cpu = make_run(tmp_path / "cpu", digits, *teachers, **settings, **network)
    on_gpu = make_run(tmp_path / "gpu", digits, *teachers, **settings, **options)
    expected = result_of(on_cpu, PlainSession("cpu")).validation["accuracy"]
    assert expected > 0.8
    assert result_of(on_gpu).validation["accuracy"] == pytest.approx(expected, abs=0.03)


def test_everything_that_a_step_reads_lies_on_the_gpu_from_the_start(digits, teachers, tmp_path):
    run = make_run(tmp_path, digits, *teachers)
    trained = training(run)
    columns = trained.data.rows.columns
    assert "target.0" in columns and not any(name.startswith("wide") for name in columns), "combined once"

    before = torch.cuda.memory_allocated()
    batches = Batches(trained.data.rows, run, GPU)
    assert torch.cuda.memory_allocated() - before >= sum(column.nbytes for column in columns.values())
    batch = next(batches.from_step(0))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("collegium-reader")]
    assert all(column.is_cuda for column in batch.values())

    trained.advance(batch)
    optimizer = [value for state in trained.stepper.optimizer.state.values() for value in state.values()]
    looked_at = [tensor for chunk in trained.data.validation.held for tensor in chunk]
    assert all(tensor.is_cuda for tensor in [*trained.stepper.module.parameters(), *optimizer, *looked_at])


def test_a_delivered_model_says_the_same_on_the_cpu_as_on_the_gpu(digits, teachers, tmp_path):
    from students import load

    run = make_run(tmp_path, digits, *teachers, steps=100)
    result_of(run)
    inputs = digits.inputs(digits.of("test")[0])
    here, there = load(run.folder)(inputs), load(run.folder, device="cuda")(inputs)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


def test_the_same_seed_gives_the_same_bytes(digits, teachers, tmp_path):
    one, two = (make_run(tmp_path / name, digits, *teachers, augment="affine") for name in "ab")
    result_of(one)
    result_of(two)
    assert outputs(one) == outputs(two)


def furthest_step(run):
    return max((int(folder.name[5:]) for folder in run.folder.glob("attempts/*/step-*")), default=0)


def test_a_run_killed_in_the_middle_and_resumed_ends_like_an_undisturbed_one(digits, teachers, tmp_path):
    store = teachers[0].stores["train-0"]
    undisturbed = run_to_kill(tmp_path / "undisturbed", digits, store)
    result_of(undisturbed)
    run = run_to_kill(tmp_path / "killed", digits, store)
    for step in (60, 250):
        process = subprocess.Popen(
            [sys.executable, training_runs.__file__, *map(str, (digits.folder, store, run.stage)), "cuda"]
        )
        while furthest_step(run) < step:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (run.folder / "SEAL.json").exists()
    result_of(run)
    assert outputs(run) == outputs(undisturbed)


def test_data_that_does_not_fit_the_gpu_trains_the_same_student(digits, teachers, tmp_path):
    """Windows of images pass through pinned memory; only the target is held."""
    run = make_run(tmp_path, digits, *teachers, objective=[SOFT], augment="affine", shuffle_window=300, steps=200)
    resident, windowed = training(run), training(run, memory_bytes=80_000)
    resident.train()
    windowed.train()
    assert torch.equal(weights_of(windowed), weights_of(resident))


def test_targets_combined_in_every_step_teach_what_targets_combined_once_do(digits, teachers, tmp_path):
    run = make_run(tmp_path, digits, *teachers, objective=[SOFT], steps=20)
    once, per_step = training(run), training(run, memory_bytes=1)
    assert "target.0" not in per_step.data.rows.columns
    once.train()
    per_step.train()
    torch.testing.assert_close(weights_of(per_step), weights_of(once), rtol=1e-3, atol=1e-4)


# reading


def test_a_window_is_not_overwritten_before_a_gpu_that_lags_behind_has_read_it():
    num_rows = 40_000
    number = np.arange(num_rows)
    wide = (number[:, None] * 7 + np.arange(512)).astype(np.int16)
    columns = {"row": Rows(np.array_split(number, 9)), "wide": Rows(np.array_split(wide, 11))}
    reader = EpochReader(columns, batch_size=512, seed=0, window=4096, memory_bytes=2 * 4096 * 1032, device="cuda")
    slow = torch.randn(4096, 4096, device="cuda")
    batches = []
    for epoch in range(3):
        for batch in reader.batches(epoch):
            batches.append(batch)
            for _ in range(4):
                slow @ slow
    expected = torch.from_numpy(wide).cuda()
    assert len(batches) == 3 * (num_rows // 512)
    assert all(torch.equal(batch["wide"], expected[batch["row"]]) for batch in batches)


# labelling


def a_task(digits, folder, rows_per_shard=200):
    """A store for what a teacher says of the training rows of digits."""
    (segment,) = digits.of("train")
    about = ("mine", "0" * 64, segment.name, segment.digest, "dense", digits.classes, segment.num_rows)
    SoftTargetStore.create(folder, Spec(*about, rows_per_shard))
    return LabelTask(digits.folder, segment.name, folder)


def labelled_by(config, task, device):
    """The sealed store's logits, and what labelled it."""
    labeller = Labeller(TeacherSpec("mine", config, None, (), task.store.parent), [task], device)
    store = SoftTargetStore.open(task.store)
    for number in store.missing():
        labeller.label(0, number)
    assert not store.missing(hashes=True)
    store.seal()
    return SoftTargets.open(task.store).said(), labeller


def test_a_teacher_says_on_the_gpu_what_it_says_on_the_cpu(digits, teachers, tmp_path):
    run = make_run(tmp_path, digits, *teachers, model="teachers.zoo:conv_net", steps=100)
    result_of(run)
    config = CheckpointTeacher(kind="checkpoint", path=str(run.folder))
    here, there = (labelled_by(config, a_task(digits, tmp_path / d), d)[0] for d in ("cpu", "cuda"))
    torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-2)
    assert (there.argmax(1) == here.argmax(1)).float().mean() > 0.99


def test_a_gpu_without_room_for_a_batch_gets_smaller_ones_until_every_row_is_labelled(digits, tmp_path):
    hidden, weights = 1 << 17, tmp_path / "weights.safetensors"  # a row takes 2 x 0.5 MiB on its way
    save_file(mlp(hidden, num_classes=10, input_shape=(1, 8, 8)).state_dict(), weights)
    fields = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": hidden}, "weights": str(weights)}
    fields["preprocess"] = {"normalise": "auto"}
    at_ease, _ = labelled_by(ModuleTeacher(**fields, batch_size=64), a_task(digits, tmp_path / "at_ease"), "cuda")

    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 256 * MIB
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        task = a_task(digits, tmp_path / "pressed", rows_per_shard=700)
        pressed, labeller = labelled_by(ModuleTeacher(**fields, batch_size=1024), task, "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert labeller.questioner.batches.rows in (16, 32, 64, 128, 256)  # of two batches at once
    torch.testing.assert_close(pressed, at_ease, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch_size", [16, 100, 1024])
def test_answers_that_come_while_others_are_computed_are_those_of_one_batch_after_another(
    digits, teachers, tmp_path, batch_size
):
    """Inputs and answers are copied on streams of their own, through pinned memory."""
    run = make_run(tmp_path, digits, *teachers, model="teachers.zoo:conv_net", steps=20)
    result_of(run)
    config = CheckpointTeacher(kind="checkpoint", path=str(run.folder), batch_size=batch_size)
    questioner = Labeller(
        TeacherSpec("mine", config, None, (), tmp_path), [a_task(digits, tmp_path / "store")], "cuda"
    ).questioner
    assert questioner.lane.device is not None and questioner.lane.ahead == 1
    (segment,) = digits.of("train")
    inputs, keys = digits.inputs(segment), digits.keys(segment)
    batches = [slice(first, first + batch_size) for first in range(0, segment.num_rows, batch_size)]
    for _ in range(3):
        plain = [questioner.teacher({name: column[rows] for name, column in inputs.items()}).cpu() for rows in batches]
        torch.testing.assert_close(torch.from_numpy(questioner.answer(inputs, keys).logits), torch.cat(plain))


def test_a_batch_size_that_is_searched_for_stays_within_the_memory(digits, tmp_path):
    hidden, weights = 1 << 17, tmp_path / "weights.safetensors"
    save_file(mlp(hidden, num_classes=10, input_shape=(1, 8, 8)).state_dict(), weights)
    fields = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": hidden}, "weights": str(weights)}
    config = ModuleTeacher(**fields, preprocess={"normalise": "auto"}, batch_size="auto")
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 256 * MIB
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        _, labeller = labelled_by(config, a_task(digits, tmp_path / "store", rows_per_shard=700), "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= labeller.questioner.batches.rows <= 256
