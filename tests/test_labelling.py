import fcntl
import os
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.util.placement_group import placement_group

from teachers.config.resources import Resources
from teachers.config.teacher import CallableTeacher, CheckpointTeacher
from teachers.errors import CollegiumError, EnvironmentUnfit, RecipeError, StoreError, TeacherError
from teachers.labelling.actor import device_of_replica
from teachers.labelling.hands import Pace, Replica, Shard
from teachers.labelling.label import label
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.labelling.stalls import Pulse
from teachers.models.scores import to_logits
from teachers.process.log_lines import working_on
from teachers.process.waiting import SideBySide
from teachers.resources.reservation import Request, remove, reserved
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.soft_targets.upkeep import verify

TEACHER = '''
import os, time
from pathlib import Path
import numpy as np
import torch

HERE = Path(__file__).parent
if HERE.joinpath("unfit").exists():
    os._exit(1)


def hang_if_first(file):
    """Whoever finds the file takes it away and comes no further."""
    try:
        HERE.joinpath(file).unlink()
    except FileNotFoundError:
        return
    while True:
        time.sleep(3600)


hang_if_first("hang-at-import")


def say(batch):
    """Ten block sums of the image: exact in any batch."""
    flat = batch["image"].reshape(len(batch["image"]), -1).astype(np.float32)
    return flat[:, :60].reshape(len(flat), 10, 6).sum(-1) / 16


def say_probabilities(batch):
    scores = say(batch) + 1
    return scores / scores.sum(1, keepdims=True)


def say_slowly(batch):
    HERE.joinpath(f"pid-{os.getpid()}").touch()
    time.sleep(0.1)
    return say(batch)


def say_at_pace(batch):
    time.sleep(float(HERE.joinpath("pace").read_text()))
    return say(batch)


def say_threads(batch):
    HERE.joinpath("threads").write_text(f"{torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}")
    return say(batch)


def say_nan(batch):
    scores = say(batch)
    scores[0, 3] = np.nan
    return scores


def holds(batch, image):
    return (batch["image"].reshape(-1, 64) == image).all(1).any()


def die_of(batch, image):
    if holds(batch, image):
        os._exit(1)
    return say(batch)


def fail_of(batch, image):
    if holds(batch, image):
        raise OSError("the endpoint is down")
    return say(batch)


def hang_of(batch, image):
    if holds(batch, image):
        hang_if_first("hang-at-shard")
    return say(batch)


def fail(batch):
    HERE.joinpath("failures").open("a").write("x")
    raise KeyError("no such column")


def run_out_of_memory(batch):
    HERE.joinpath("batches").open("a").write(f"{len(batch['image'])} ")
    if len(batch["image"]) > 20:
        raise torch.cuda.OutOfMemoryError("too many rows")
    return say(batch)


def always_run_out_of_memory(batch):
    raise torch.cuda.OutOfMemoryError("too large")


def run_out(batch, kind, above):
    """Of memory, as who computes says it."""
    HERE.joinpath("batches").open("a").write(f"{len(batch['image'])} ")
    if len(batch["image"]) > above:
        raise {
            "python": MemoryError(),
            "numpy": np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")),
            "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
            "elsewhere": OSError("onnxruntime: Failed to allocate memory for requested buffer of size 4096"),
        }[kind]
    return say(batch)


def take_a_while(batch, faster_up_to):
    """Each call so long, whatever its rows, up to a size; above it twice as many rows take four times as long."""
    HERE.joinpath("batches").open("a").write(f"{len(batch['image'])} ")
    time.sleep(0.04 * max(len(batch["image"]) / faster_up_to, 1.0) ** 2)
    return say(batch)


def die_above(batch, rows):
    HERE.joinpath("batches").open("a").write(f"{len(batch['image'])} ")
    if len(batch["image"]) > rows:
        os._exit(1)  # as a system does it that has no more memory
    if "64" not in HERE.joinpath("batches").read_text().split():
        time.sleep(0.1)  # far above what a busy machine adds: twice as many rows at once are worth it
    return say(batch)


def say_less_at_the_seventh(batch):
    HERE.joinpath("batches").open("a").write("x")
    return say(batch)[:, : 9 if len(HERE.joinpath("batches").read_text()) == 7 else 10]
'''


@pytest.fixture
def spec(tmp_path):
    """spec(function, ...) is a teacher in a user's own file, a module of each test's own: this process imports many."""
    module = "teacher_of_" + re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / f"{module}.py").write_text(TEACHER)

    def spec(function="say", output="logits", trained=None, **fields):
        config = CallableTeacher(kind="callable", function=f"{module}:{function}", output=output, **fields)
        return TeacherSpec("mine", config, trained, (), tmp_path / "user")

    return spec


@pytest.fixture
def tasks(digits, tmp_path):
    """One task for each segment of digits; the store of train has 20 shards."""
    return [task_of(digits, segment, tmp_path / "stores" / segment.name) for segment in digits.segments]


def task_of(digits, segment, store, classes=None, **changes):
    about = Spec(
        teacher="mine",
        teacher_digest="0" * 64,
        segment=segment.name,
        segment_digest=segment.digest,
        encoding="dense",
        names=classes or digits.classes,
        num_rows=segment.num_rows,
        rows_per_shard=64,
    )
    SoftTargetStore.create(store, replace(about, **changes))
    return LabelTask(digits.folder, segment.name, store)


def label_here(spec, task):
    labeller = Labeller(spec, [task], "cpu")
    for number in SoftTargetStore.open(task.store).missing():
        labeller.label(0, number)
    return labeller


def expected(digits, task):
    images = digits.inputs(digits.segment(task.segment))["image"]
    return images.reshape(len(images), -1).astype(np.float32)[:, :60].reshape(-1, 10, 6).sum(-1) / 16


def assert_labelled(digits, task):
    stored = SoftTargets.open(task.store)
    np.testing.assert_array_equal(stored.keys(), digits.keys(digits.segment(task.segment)))
    np.testing.assert_allclose(stored.said().numpy(), expected(digits, task), atol=0.02)


def first_image(digits, segment, shard):
    return digits.inputs(segment, shard * 64, 1)["image"].reshape(-1).tolist()


def test_a_store_holds_what_the_teacher_says_of_each_row_once(digits, spec, tasks):
    for task in tasks:
        label_here(spec(batch_size=50), task)
        SoftTargetStore.open(task.store).seal()
        assert_labelled(digits, task)


def test_probabilities_are_stored_as_logits_by_the_teachers_floor(digits, spec, tasks):
    label_here(spec("say_probabilities", output="probabilities", probability_floor=0.1), tasks[0])
    scores = expected(digits, tasks[0]) + 1
    probabilities = torch.from_numpy(scores / scores.sum(1, keepdims=True))
    stored = SoftTargets.open(tasks[0].store).said()
    torch.testing.assert_close(stored, to_logits(probabilities, "probabilities", 0.1), rtol=0, atol=2e-3)


def test_the_batch_size_halves_until_the_batch_fits(digits, spec, tasks, tmp_path):
    labeller = label_here(spec("run_out_of_memory", batch_size=64), tasks[2])
    sizes = [int(size) for size in (tmp_path / "user" / "batches").read_text().split()]
    assert sizes[:3] == [64, 32, 16]
    assert max(sizes[2:]) == labeller.questioner.batches.rows == 16
    assert_labelled(digits, tasks[2])


@pytest.mark.parametrize("given", [64, "auto"])
@pytest.mark.parametrize("kind", ["python", "numpy", "torch", "elsewhere"])
def test_whoever_runs_out_of_memory_above_16_rows_labels_everything(digits, spec, tasks, tmp_path, kind, given):
    short = spec("run_out", batch_size=given, arguments={"kind": kind, "above": 16})
    assert label_here(short, tasks[2]).questioner.batches.rows <= 16
    assert_labelled(digits, tasks[2])
    sizes = [int(size) for size in (tmp_path / "user" / "batches").read_text().split()]
    assert max(sizes[sizes.index(16) :]) <= 32


@pytest.mark.parametrize("function", ["say", "run_out_of_memory"])
def test_answers_are_the_same_bits_however_many_batches_are_asked_about_ahead(digits, spec, tasks, function):
    """As on a GPU, which computes while answers are waited for; also where memory runs out under way."""
    inputs, keys = digits.inputs(digits.segment(tasks[2].segment)), digits.keys(digits.segment(tasks[2].segment))
    said = []
    for ahead in (0, 1, 3):
        questioner = Labeller(spec(function, batch_size=33), [tasks[2]], "cpu").questioner
        assert questioner.lane.device is None and questioner.lane.ahead == 0
        questioner.lane.ahead = ahead
        said.append(questioner.answer(inputs, keys).logits)
    np.testing.assert_array_equal(said[0], expected(digits, tasks[2]))
    assert (said[0] == said[1]).all() and (said[0] == said[2]).all()


def test_a_batch_is_doubled_while_that_is_faster_and_the_next_replica_begins_with_it(digits, spec, tasks, tmp_path):
    slow = spec("take_a_while", batch_size="auto", arguments={"faster_up_to": 32})
    assert label_here(slow, tasks[2]).questioner.batches.rows == 32
    assert_labelled(digits, tasks[2])
    asked = tmp_path / "user" / "batches"
    asked.unlink()
    next_one = Labeller(slow, [tasks[2]], "cpu").questioner.batches
    assert next_one.rows == 32 and not next_one.searches
    beside = replace(slow, beside=(tasks[2].store,))
    label_here(beside, tasks[1])
    assert max(int(size) for size in asked.read_text().split()) == 32
    assert_labelled(digits, tasks[1])


def test_what_a_store_holds_is_the_same_with_the_size_of_batches_beside_it(digits, spec, tasks, tmp_path):
    """The file decides nothing: the seal and the check of every byte pass over it."""
    slow = spec("take_a_while", batch_size="auto", arguments={"faster_up_to": 32})
    plain = task_of(digits, digits.segments[2], tmp_path / "plain")
    digests = []
    for teacher, task in ((slow, tasks[2]), (spec(), plain)):
        label_here(teacher, task)
        store = SoftTargetStore.open(task.store)
        digests.append(store.seal().digest)
        assert not verify(store)
    assert (tasks[2].store / "batch_size.json").exists() and not (plain.store / "batch_size.json").exists()
    assert digests[0] == digests[1]


def test_a_size_at_which_a_replica_died_is_not_tried_again(digits, spec, tasks, tmp_path, ray_cluster):
    label(spec("die_above", batch_size="auto", arguments={"rows": 32}), [tasks[0]])
    assert_labelled(digits, tasks[0])
    sizes = (tmp_path / "user" / "batches").read_text().split()
    assert sizes.count("64") == 1


def test_another_shape_at_the_seventh_batch_is_told_with_its_rows(digits, spec, tasks):
    keys = digits.keys(digits.segment(tasks[0].segment))
    told = rf"scores of shape \[16, 9\], expected \[16, 10\].* of the rows from sample_key {keys[6 * 16]} on"
    with pytest.raises(TeacherError, match=told):
        label_here(spec("say_less_at_the_seventh", batch_size=16), tasks[0])


def test_a_row_that_does_not_fit_the_gpu_alone_is_an_error(spec, tasks):
    with pytest.raises(TeacherError, match="single row"):
        label_here(spec("always_run_out_of_memory"), tasks[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_network_that_was_given_a_gpu_that_torch_does_not_find_is_not_computed_on_the_cpu(spec, tmp_path):
    """A function of the user's may have its GPU by other means than torch."""
    network = replace(spec(), config=CheckpointTeacher(kind="checkpoint", path=str(tmp_path)))
    threads = torch.get_num_threads()
    with pytest.raises(EnvironmentUnfit, match=r"'mine' was given a GPU of node .*torch \S+ is .*CUDA.*`gpus: 0`"):
        device_of_replica(network, threads, 0.5)
    assert device_of_replica(network, threads, 0) == device_of_replica(spec(), threads, 1) == "cpu"


def test_rows_of_which_a_teacher_says_nan_are_named(digits, spec, tasks):
    keys = digits.keys(digits.segment(tasks[0].segment))
    with pytest.raises(TeacherError, match=rf"'mine' says NaN or infinity.* sample_key {keys[0]}$"):
        label_here(spec("say_nan"), tasks[0])


def test_a_store_about_other_rows_or_classes_is_refused(digits, spec, tmp_path):
    train, validation = digits.segments[:2]
    other_rows = task_of(digits, train, tmp_path / "a", segment_digest=validation.digest)
    other_classes = task_of(digits, train, tmp_path / "b", classes=tuple("abcdefghij"))
    with pytest.raises(StoreError, match="is about segment"):
        label_here(spec(), other_rows)
    with pytest.raises(StoreError, match=r"holds what is said of \('a', .* take another folder for this teacher"):
        label_here(spec(), other_classes)


def test_a_shard_that_cannot_be_written_is_the_stores_fault_not_the_teachers(spec, tasks):
    shutil.rmtree(tasks[0].store / "shards")
    with pytest.raises(StoreError, match=r"shard 0 .*cannot be written"):
        label_here(spec(), tasks[0])


def test_shards_may_be_labelled_by_several_threads_at_once(digits, spec, tasks):
    labeller = Labeller(spec(), [tasks[0]], "cpu")
    numbers = range(SoftTargetStore.open(tasks[0].store).num_shards)
    threads = [threading.Thread(target=labeller.label, args=(0, number)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_labelled(digits, tasks[0])


def assert_all_is_given_back():
    import ray

    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 8


def test_replicas_label_what_one_process_labels(digits, spec, tasks, tmp_path, ray_cluster):
    alone = [task_of(digits, segment, tmp_path / "alone" / segment.name) for segment in digits.segments]
    for task in alone:
        label_here(spec(), task)
    seen = []
    report = label(spec(replicas=2), tasks, progress=seen.append)
    for task, other in zip(tasks, alone, strict=True):
        assert_labelled(digits, task)
        assert SoftTargetStore.open(task.store).seal().digest == SoftTargetStore.open(other.store).seal().digest
    assert report.rows == sum(segment.num_rows for segment in digits.segments)
    assert (
        {p.store: p.rows for p in seen}
        == report.stores
        == {t.store: p.num_rows for t in tasks for p in seen if p.store == t.store}
    )
    assert report.rows_per_s > 0
    assert report.num_retries == 0
    assert_all_is_given_back()


def test_only_missing_shards_are_labelled(digits, spec, tasks, tmp_path, monkeypatch, ray_cluster):
    labeller = Labeller(spec(), [tasks[0]], "cpu")
    for number in (0, 3, 4):
        labeller.label(0, number)
    seen = []
    monkeypatch.chdir(tmp_path)  # relative paths are the driver's, wherever the replicas run
    here = LabelTask(Path(os.path.relpath(digits.folder)), "train-0", Path("stores/train-0"))
    teacher = replace(spec(), user_path=Path("user"))
    report = label(teacher, [here], progress=seen.append)
    assert report.stores == {Path("stores/train-0"): report.rows}
    assert report.rows == digits.segments[0].num_rows - 3 * 64
    assert seen[-1].rows == seen[-1].num_rows == digits.segments[0].num_rows
    assert_labelled(digits, tasks[0])
    assert label(spec(), [tasks[0]]).rows == 0


def test_a_killed_replica_loses_and_doubles_no_row(digits, spec, tasks, tmp_path, ray_cluster):
    killed = []

    def kill_one(progress):
        if not killed and progress.rows > 3 * 64:
            pids = [int(path.name[4:]) for path in (tmp_path / "user").glob("pid-*")]
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    report = label(spec("say_slowly", replicas=2), [tasks[0]], progress=kill_one)
    assert killed
    assert report.num_retries <= 3  # what it had in hand, unless the other one was given that before the loss was seen
    assert report.rows == digits.segments[0].num_rows
    assert_labelled(digits, tasks[0])
    assert_all_is_given_back()


def test_the_only_replica_comes_back_after_it_was_killed(digits, spec, tasks, tmp_path, ray_cluster):
    def kill(progress):
        if progress.rows == 4 * 64:
            [path] = (tmp_path / "user").glob("pid-*")
            os.kill(int(path.name[4:]), signal.SIGKILL)

    label(spec("say_slowly"), [tasks[0]], progress=kill)
    assert_labelled(digits, tasks[0])
    assert len(list((tmp_path / "user").glob("pid-*"))) == 2


@pytest.mark.campaign
def test_replicas_that_never_come_back_end_the_run_and_what_they_did_stays(
    digits, spec, tasks, tmp_path, caplog, ray_cluster
):
    """The error says what is missing and since when; the same command does the rest once it can."""
    user, store = tmp_path / "user", SoftTargetStore.open(tasks[0].store)

    def kill_all(progress):
        if progress.rows == 4 * 64:
            (user / "unfit").touch()
            for path in user.glob("pid-*"):
                os.kill(int(path.name[4:]), signal.SIGKILL)

    told = r"replicas of teacher 'mine' are lost; they need 2 x 1 CPU, .*free .'CPU': 6.*none came back within 7 s"
    with caplog.at_level("INFO"), pytest.raises(EnvironmentUnfit, match=told) as raised:
        label(spec("say_slowly", replicas={"min": 2, "max": 2}), [tasks[0]], progress=kill_all, wait_s=7)
    assert raised.value.exit_code == 4
    assert re.search(r"waiting since \d\d:\d\d:\d\d \(\d+ s\): all replicas of teacher 'mine'", caplog.text)
    missing = store.missing()
    assert 0 < len(missing) <= store.num_shards - 4
    assert_all_is_given_back()
    (user / "unfit").unlink()
    assert label(spec(), [tasks[0]]).rows == sum(store.shard_rows(number)[1] for number in missing)
    assert_labelled(digits, tasks[0])


def test_who_ends_gives_its_room_to_who_grows_and_both_leave_what_one_replica_leaves(
    digits, spec, tasks, tmp_path, ray_cluster
):
    """Four seats: the short one has two of them, then the long one three. The long one waits for nothing but its growth."""
    from orchestrator.building.turns import MoreSeats, Turns
    from orchestrator.cluster.cluster import Cluster

    (tmp_path / "user" / "pace").write_text("4")
    short, long, alone = (
        [task_of(digits, each, tmp_path / who / each.name) for each in digits.segments]
        for who in ("short", "long", "alone")
    )
    several = {"replicas": {"max": 3}, "resources": Resources(cpus=2)}
    ends, seen = {}, []

    def look(progress):
        seen.append((time.monotonic(), progress.num_ready))
        if progress.num_ready == 3:
            (tmp_path / "user" / "quick").write_text("0")
            (tmp_path / "user" / "quick").replace(tmp_path / "user" / "pace")

    def work(items, turn):
        name, teacher, tasks = items[0]
        given = {"seats": MoreSeats(turns, f"label/{name}"), "progress": look if name == "long" else lambda _: None}
        report = label(teacher, tasks, **given)
        ends[name] = time.monotonic()
        return [report]

    with SideBySide("stage", 9) as threads:
        turns = Turns(Cluster(None, None), {}, threads)
        of = {"short": (spec("say", **several), short), "long": (spec("say_at_pace", **several), long)}
        gang = [("replicas", 1, Resources(cpus=2))]
        begun = [turns.start(f"label/{name}", gang, work, (name, *given)) for name, given in of.items()]
        reports = [threads.outcome(each) for each in begun]
    assert all(num <= 2 for when, num in seen if when < ends["short"]) and max(num for _, num in seen) == 3
    for task in alone:
        label_here(spec(), task)
    for ours in (short, long):
        for task, other in zip(ours, alone, strict=True):
            assert SoftTargetStore.open(task.store).seal().digest == SoftTargetStore.open(other.store).seal().digest
    assert [report.num_retries for report in reports] == [0, 0]
    assert_all_is_given_back()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("die_of", "failed 2 times at shard 5 .* rows 320 to 383 of .*(ActorUnavailable|ActorDied)"),
        ("fail_of", r"cannot answer 1 row \(\S+ of segment train-0: .*endpoint is down.*on_bad_row: skip"),
    ],
)
def test_a_shard_at_which_replicas_fail_is_named_and_all_others_are_kept(
    digits, spec, tasks, ray_cluster, function, told
):
    image = first_image(digits, digits.segments[0], shard=5)
    teacher = spec(function, arguments={"image": image}, replicas=2)
    with pytest.raises(TeacherError, match=told):
        label(teacher, [tasks[0]], max_attempts=2)
    assert SoftTargetStore.open(tasks[0].store).missing() == [5]
    assert_all_is_given_back()


def test_a_shard_that_one_replica_never_answers_is_given_to_another_and_nothing_waits_for_the_first(
    digits, spec, tasks, tmp_path, caplog, ray_cluster
):
    (tmp_path / "user" / "hang-at-shard").touch()
    image = first_image(digits, digits.segments[0], shard=5)
    teacher = spec("hang_of", arguments={"image": image}, replicas=2, stall_timeout_s=None)
    with caplog.at_level("INFO"):
        report = label(teacher, [tasks[0]])
    assert not (tmp_path / "user" / "hang-at-shard").exists()
    assert re.search(r"shard 5 takes long \(\d+ s with replica (\d)\): replica (?!\1)\d gets it, too", caplog.text)
    assert (report.rows, report.num_retries) == (digits.segments[0].num_rows, 0)
    assert_labelled(digits, tasks[0])
    assert_all_is_given_back()


@pytest.mark.campaign
def test_a_replica_that_stands_still_is_told_killed_and_replaced(digits, spec, tasks, tmp_path, caplog, ray_cluster):
    """The only one: first it never gets ready, then it never answers."""
    for place in ("import", "shard"):
        (tmp_path / "user" / f"hang-at-{place}").touch()
    teacher = spec("hang_of", arguments={"image": first_image(digits, digits.segments[0], 5)}, stall_timeout_s=20)
    with caplog.at_level("INFO"):
        report = label(teacher, [tasks[0]])
    assert not list((tmp_path / "user").glob("hang-*"))
    told = r"waiting since \d\d:\d\d:\d\d \(\d+ s\): no answer from 1 of 1 replicas of teacher 'mine': number 0"
    assert re.search(rf"{told}; after 20 s \(stall_timeout_s\) it is replaced", caplog.text)
    assert re.search(rf"{told} \(at shard (\d+, )*5", caplog.text)
    assert caplog.text.count("it is killed, and Ray starts another") == 2
    assert "is sent again (TimeoutError: no answer within stall_timeout_s = 20" in caplog.text
    assert report.num_retries >= 1
    assert_labelled(digits, tasks[0])
    assert_all_is_given_back()


def test_a_replica_that_works_through_a_long_shard_batch_by_batch_does_not_stand_still():
    pulse = Pulse()
    assert pulse.still_s() == 0
    with pulse.at_work():
        time.sleep(0.2)
        assert pulse.still_s() > 0.1
        pulse.beat()
        assert pulse.still_s() < 0.1
        with pulse.at_work():  # a call that comes in the meantime moves nothing
            time.sleep(0.2)
            assert pulse.still_s() > 0.1
    assert pulse.still_s() == 0


def test_a_shard_is_late_at_five_times_the_median_of_a_row_and_only_one_other_gets_it(digits, spec, tasks):
    pace, replica, other = Pace(), Replica(0, 0.0), Replica(1, 0.0)
    now = time.monotonic()
    for seconds in (1, 2, 90):
        pace.note(Shard(0, 0, 0, num_rows=100, given_at=now - seconds))
    early, late, large = (
        Shard(0, number, 0, num_rows=rows, given_at=now - 11, held_by=[replica])
        for number, rows in enumerate((130, 100, 1000))
    )
    assert pace.too_long([early, late, large]) == [late]
    assert other.may_take(late) and not replica.may_take(late)
    late.held_by.append(other)
    assert pace.too_long([late]) == []


def test_a_teacher_that_always_fails_is_not_asked_for_every_shard_many_times(spec, tasks, tmp_path, ray_cluster):
    with pytest.raises(TeacherError, match="no such column"):
        label(spec("fail"), [tasks[0]], max_attempts=3)
    assert len((tmp_path / "user" / "failures").read_text()) < 50  # of 20 shards, row by row in the last try of some


def test_what_a_teacher_must_not_say_ends_labelling_at_once(spec, tasks, ray_cluster):
    with pytest.raises(TeacherError, match=r"^teacher 'mine' says NaN"):
        label(spec("say_nan", replicas=2), tasks)
    assert_all_is_given_back()


def test_a_teacher_that_cannot_be_loaded_says_why(spec, tasks, ray_cluster):
    with pytest.raises(RecipeError, match=r"^teachers\.mine: teacher_of_\w+:sing: module teacher_of_\w+ has no 'sing'"):
        label(spec("sing"), tasks)
    assert_all_is_given_back()


def test_replicas_that_find_no_room_give_up_and_say_what_they_asked_for(spec, tasks, ray_cluster):
    with pytest.raises(EnvironmentUnfit, match=r"no room for 9 x 1 CPU within 1 s; free are .*replicas"):
        label(spec(replicas={"min": 9, "max": 9}), tasks, wait_s=1)
    assert_all_is_given_back()


def test_room_is_free_again_that_was_given_back_while_it_was_being_placed(ray_cluster):
    """Ray itself forgets some 1 in 40 of groups that are removed at once."""
    for _ in range(100):
        groups = [placement_group([{"CPU": 0.01}]) for _ in range(3)]
        remove(groups, time.monotonic())
    assert_all_is_given_back()


def test_torch_has_as_many_threads_as_the_replica_has_cpus(spec, tasks, tmp_path, ray_cluster):
    label(spec("say_threads", resources=Resources(cpus=3)), [tasks[1]])
    assert (tmp_path / "user" / "threads").read_text() == "3 3"


def test_a_task_that_no_node_could_hold_says_what_it_waits_for_and_gives_up(caplog, ray_cluster: None) -> None:
    from orchestrator.cluster.cluster import Cluster

    joined = Cluster(None, None)
    joined.wait_for_room_s = 7
    nowhere = Resources(gpus=0, custom={"nowhere": 1})
    told = r"tasks of evaluate/small: the cluster had no room for 1 x .*nowhere within 7 s"
    with caplog.at_level("INFO"), working_on(stage="evaluate/small"), pytest.raises(EnvironmentUnfit, match=told):
        joined.call("builtins:int", "7", resources=nowhere, user_path=Path.cwd())
    assert re.search(r"waiting since .*: tasks of evaluate/small need 1 x 1 CPU, 1 nowhere; free are", caplog.text)
    assert joined.call("builtins:int", "7", resources=Resources(gpus=0), user_path=Path.cwd()) == 7
    assert_all_is_given_back()


def test_a_task_whose_process_dies_begins_again_three_times_at_most(tmp_path, caplog, ray_cluster: None) -> None:
    from orchestrator.cluster.cluster import Cluster

    (tmp_path / "mine_dies.py").write_text(
        "import os\ndef work(file, times):\n    with open(file, 'a') as tried:\n        tried.write('x')\n"
        "    return os._exit(1) if os.path.getsize(file) <= times else os.path.getsize(file)\n"
    )
    how = {"resources": Resources(gpus=0), "user_path": tmp_path}
    joined = Cluster(None, None)
    with working_on(stage="evaluate/small"):
        assert joined.call("mine_dies:work", str(tmp_path / "once"), 1, **how) == 2
        with pytest.raises(CollegiumError, match=r"a Ray worker was lost .*; run the same command again"):
            joined.call("mine_dies:work", str(tmp_path / "always"), 9, **how)
    assert (tmp_path / "always").stat().st_size == 4
    assert caplog.text.count("a task of evaluate/small begins again: ") == 4
    assert_all_is_given_back()


def test_a_task_that_waits_for_room_on_a_busy_cluster_says_so_and_is_done_in_the_end(caplog, ray_cluster: None) -> None:
    from orchestrator.cluster.cluster import Cluster

    joined = Cluster(None, None)

    def work() -> list[int]:
        with working_on(stage="prepare/digits"):
            return list(joined.map(int, ["7", "8"], user_path=Path.cwd()))

    with ThreadPoolExecutor(1) as thread:
        with caplog.at_level("INFO"), reserved([Request("others", {"CPU": 1.0}, 8)], 60):
            doing = thread.submit(work)
            time.sleep(8)
        assert doing.result() == [7, 8]
    told = r"waiting since \d\d:\d\d:\d\d \(\d+ s\): tasks of prepare/digits need 1 x 1 CPU; free are {'CPU': 0"
    assert re.search(told, caplog.text)
    assert_all_is_given_back()


def test_a_node_that_does_not_say_whether_it_sees_out_is_told(
    caplog: pytest.LogCaptureFixture, ray_cluster: None, tmp_path: Path
) -> None:
    """As on a network file system that hangs: whoever opens the file waits for the lease on it."""
    import ray

    from orchestrator.cluster.probing import asked

    probe = tmp_path / "probe"
    probe.write_text("token")
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which the kernel asks for the lease back
    with caplog.at_level("INFO"), probe.open("r+") as leased, ThreadPoolExecutor(1) as thread:
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        looking = thread.submit(asked, probe, "token", ray.nodes())
        time.sleep(8)
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        assert [*looking.result().values()] == [""]
    told = r"waiting since \d\d:\d\d:\d\d \(\d+ s\): node \S+ to say whether --out is seen there"
    assert re.search(told, caplog.text)


def test_every_node_is_asked_whether_it_sees_out(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that join later, too. What is relative is elsewhere for a worker than for the driver: it does not see it."""
    import ray

    from orchestrator.cluster.cluster import cluster
    from orchestrator.cluster.new_nodes import NewNodes
    from orchestrator.cluster.probing import check_seen

    cure = r"out: node \S+ does not see what the driver wrote there; give --out a folder that all nodes share \(NFS\), or s3"
    check_seen(tmp_path / "out", ray.nodes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvironmentUnfit, match=cure):
        check_seen(Path("out"), ray.nodes())
    head = ray.get_runtime_context().gcs_address
    told = pytest.raises(EnvironmentUnfit, match=r"out: node \S+, which has joined, does not see .*; give --out")
    with told, cluster(head, None, tmp_path / "out") as joined:
        joined.join()
        assert joined.new_nodes is not None
        joined.new_nodes.stop()
        joined.new_nodes = NewNodes(Path("out"), known=[])
        while True:
            time.sleep(0.1)
    assert list((tmp_path / "out").iterdir()) == []
    seeing = NewNodes(tmp_path / "out", known=[])
    while seeing.known == set() or list((tmp_path / "out").iterdir()):
        time.sleep(0.1)
    seeing.stop()
    assert seeing.unfit is None


def test_tasks_of_a_cluster_check_what_the_driver_does_not_read(ray_cluster: None, tmp_path: Path) -> None:
    from benchmarks import scale
    from orchestrator.cluster.cluster import Cluster
    from teachers.storage.manifest import PART_FILES

    spec = scale.a_spec(PART_FILES + 9, PART_FILES + 9)
    store = SoftTargetStore.create(tmp_path / "store", spec)
    scale.write(store.folder, spec, 0, spec.num_shards)
    damaged = [3, PART_FILES + 2]
    for path in map(store.shard_file, damaged):
        path.write_bytes(b"?" * path.stat().st_size)
    assert Cluster(None, None).checks(tmp_path) is None
    run = Cluster("127.0.0.1:1", None).checks(tmp_path)  # the one that this process has joined
    assert run is not None and store.missing(hashes=True, run=run) == damaged
