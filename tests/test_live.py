"""Laws of live teachers: the student learns what a store would have told it, of the very rows that it sees."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from students.data.batches import Batches
from students.data.inputs import INPUT
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.fitting.on_ray import fit_on_ray
from students.runs.run import Live
from students.runs.session import PlainSession
from students.training.look_ahead import LookAhead
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.resources import Resources
from teachers.config.teacher import CallableTeacher, ModuleTeacher
from teachers.errors import EnvironmentUnfit, RecipeError, TeacherError, UsersCodeError
from teachers.labelling.live import ReplicaClient, live_replicas
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec, loaded
from teachers.resources.reservation import Request, reserved
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.zoo import mlp
from tests.training_runs import HARD, SOFT, make_run, outputs, source


class Here:
    """Answers in this process, as the replicas do; remembers what it was asked, and how much was open at once."""

    def __init__(self, specs, transfer_set):
        self.teachers = {spec.name: loaded(spec, transfer_set, "cpu") for spec in specs}
        self.asked, self.num_open, self.most_open = [], 0, 0

    def ask(self, teachers, inputs, sample_key):
        assert all(type(column) is np.ndarray for column in (*inputs.values(), sample_key))
        self.asked.append({name: column.copy() for name, column in inputs.items()})
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        return {name: self.teachers[name].answer(inputs, sample_key) for name in teachers}

    def answers(self, asked):
        self.num_open -= 1
        return asked


pytestmark = pytest.mark.usefixtures("one_thread")


def network(folder, name, seed, **fields):
    """A teacher with weights of its own."""
    torch.manual_seed(seed)
    module = mlp(16, num_classes=10, input_shape=(1, 8, 8))
    state = {key: 3 * value.detach() for key, value in module.state_dict().items()}
    weights = folder / f"{name}.safetensors"
    save_file(state, weights)
    config = ModuleTeacher(
        kind="module",
        model="teachers.zoo:mlp",
        arguments={"hidden": 16},
        weights=str(weights),
        preprocess=Preprocess(normalise="auto"),
        **fields,
    )
    return TeacherSpec(name, config, None, (), folder)


def stored(spec, digits, folder):
    """The source of a cached teacher."""
    (segment,) = digits.of("train")
    classes = tuple(spec.config.classes or digits.classes)
    about = Spec(spec.name, "0" * 64, segment.name, segment.digest, "dense", classes, segment.num_rows, 256)
    store = SoftTargetStore.create(folder / spec.name, about)
    labeller = Labeller(spec, [LabelTask(digits.folder, segment.name, store.folder)], "cpu")
    for number in range(store.num_shards):
        labeller.label(0, number)
    store.seal()
    return source(store.folder, spec.name, class_map=spec.config.class_map)


def live(spec, digits, prefetch=2):
    about = Live(tuple(spec.config.classes or digits.classes), prefetch)
    return source(None, spec.name, class_map=spec.config.class_map, live=about)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return [network(folder, name, seed) for seed, name in enumerate(("wide", "deep"))]


def training(run, session):
    run.stage.mkdir(parents=True, exist_ok=True)
    return Training(run, session, SharedData().of([run], session)[0])


def losses(run, session, steps=20):
    trained = training(run, session)
    batches = trained.batches()
    return torch.stack([trained.stepper.advance(next(batches), step) for step in range(steps)])


# the same as from a store


@pytest.mark.parametrize("combine", ["mean_probability", "mean_logits"])
def test_cached_and_live_give_the_same_loss_on_the_same_rows(digits, teachers, tmp_path, combine):
    objective = [SOFT | {"combine": combine}, HARD]
    from_store = [stored(spec, digits, tmp_path) for spec in teachers]
    asked = [live(spec, digits) for spec in teachers]
    session = PlainSession(live=Here(teachers, digits))
    mixes = {"cached": from_store, "live": asked, "mixed": [from_store[0], asked[1]]}
    found = {
        name: losses(make_run(tmp_path / name, digits, *sources, objective=objective), session)
        for name, sources in mixes.items()
    }
    assert found["cached"][0, 0] > 0.1
    assert (found["live"] - found["cached"]).abs().max() < 1e-3
    assert (found["mixed"] - found["cached"]).abs().max() < 1e-3


def test_classes_are_matched_by_name_as_those_of_a_store_are(digits, tmp_path):
    own = [f"digit {name}" for name in reversed(digits.classes)]
    names = dict(zip(own, reversed(digits.classes), strict=True))
    spec = network(tmp_path, "renamed", 3, classes=own, class_map=names)
    session = PlainSession(live=Here([spec], digits))
    cached = losses(make_run(tmp_path / "cached", digits, stored(spec, digits, tmp_path)), session)
    asked = losses(make_run(tmp_path / "live", digits, live(spec, digits)), session)
    assert (asked - cached).abs().max() < 1e-3


def test_the_teacher_is_asked_about_exactly_what_the_student_sees(digits, teachers, tmp_path):
    here = Here(teachers, digits)
    session = PlainSession(live=here)
    options = {"augment": ["affine", "cutout"], "seed": 5}
    run = make_run(tmp_path / "live", digits, live(teachers[0], digits), **options)
    trained, plain = (
        training(run, session),
        training(make_run(tmp_path / "plain", digits, **options, objective=[HARD]), session),
    )
    steps = zip(range(6), trained.batches(), plain.batches(), strict=False)
    for step, batch, without_teachers in steps:
        expected = plain.data.rows.inputs(without_teachers, plain.stepper.views(without_teachers, step))
        told = here.asked[step]
        assert torch.equal(trained.data.preprocessor(told), expected)
        assert torch.equal(trained.data.rows.inputs(batch, None), expected)
        assert not np.array_equal(told["image"], without_teachers[INPUT + "image"].numpy())
        said = here.teachers["wide"].ask(told, np.zeros(len(told["image"]), np.uint64))
        assert np.array_equal(batch["wide.said"].numpy(), said)


# what changes nothing


def test_neither_the_look_ahead_nor_an_interruption_changes_a_bit(digits, teachers, tmp_path):
    session = PlainSession(live=Here(teachers, digits))

    def run(name, prefetch):
        return make_run(
            tmp_path / name, digits, live(teachers[0], digits, prefetch), augment="pad_and_crop", evaluate_every=40
        )

    whole, longer, broken = run("whole", 1), run("longer", 7), run("broken", 3)
    left = training(broken, session)
    batches = left.batches()
    for _ in range(17):
        left.advance(next(batches))
    left.save()
    for each in (whole, longer, broken):
        fit([each], session)
    assert outputs(longer) == outputs(whole)
    assert outputs(broken) == outputs(whole)


def test_a_control_and_a_student_that_hears_others_ask_nobody(digits, teachers, tmp_path):
    here = Here(teachers, digits)
    wide, deep = stored(teachers[0], digits, tmp_path), live(teachers[1], digits)
    control = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, name="control")
    student = make_run(tmp_path, digits, wide, deep, objective=[SOFT | {"teachers": ["wide"]}])
    fit([control, student], PlainSession(live=here))
    assert not here.asked


def test_no_more_than_the_look_ahead_is_asked_at_once_and_nothing_after_the_last_step(digits, teachers, tmp_path):
    here = Here(teachers, digits)
    run = make_run(tmp_path, digits, live(teachers[0], digits, prefetch=3), live(teachers[1], digits, prefetch=1))
    fit([run], PlainSession(live=here))
    assert here.most_open == 4  # three ahead of the one in use
    assert len(here.asked) == 40
    points = (run.stage / "metrics.jsonl").read_text()
    assert '"train.wait_s"' in points


def test_ranks_are_asked_about_their_own_rows_as_one_alone_is_asked_about_all(digits, teachers, tmp_path):
    class Rank(PlainSession):
        def __init__(self, rank, world, live):
            super().__init__(live=live)
            self.rank, self.world = rank, world

    run = make_run(tmp_path, digits, live(teachers[0], digits), augment="noise")
    told = []
    for rank, world in ((0, 2), (1, 2), (0, 1)):
        here = Here(teachers, digits)
        session = Rank(rank, world, here)
        rows = SharedData().of([run], session)[0].rows
        batches = Batches(rows, run, session).from_step(0)
        next(LookAhead(batches, rows.live, run, session, range(1)))
        told.append(here.asked[0]["image"])
    assert len(told[0]) == len(told[1]) == 16
    assert np.array_equal(np.concatenate(told[:2]), told[2])


# replicas


TEACHER = """
import os, time
from pathlib import Path
import numpy as np


def say(batch):
    flat = batch["image"].reshape(len(batch["image"]), -1).astype(np.float32)
    return flat[:, :60].reshape(len(flat), 10, 6).sum(-1) / 16


def say_slowly(batch):
    time.sleep(0.1)
    Path(__file__).with_name(f"asked-{os.getpid()}").touch()
    return say(batch)


def hang_once(batch):
    try:
        Path(__file__).with_name("hang").unlink()
    except FileNotFoundError:
        return say(batch)
    while True:
        time.sleep(3600)


def die_of_255(batch):
    if (batch["image"] == 255).any():
        os._exit(1)
    return say(batch)


def fail(batch):
    raise KeyError("no such column")


def say_nan(batch):
    scores = np.zeros((len(batch["image"]), 10), np.float32)
    scores[:, 3] = np.nan  # in all scores of a row it would say that nothing is known of it
    return scores
"""


@pytest.fixture
def own(tmp_path):
    """own(function) is a teacher in a file of the user's; a module of each test's own, since this process imports many."""
    module = f"live_teacher_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(TEACHER)

    def own(function="say", **fields):
        config = CallableTeacher(kind="callable", function=f"{module}:{function}", output="logits", **fields)
        return TeacherSpec("mine", config, None, (), tmp_path)

    return own


def batch_of(digits, first=0, rows=32):
    (segment,) = digits.of("train")
    return digits.inputs(segment, first, rows), digits.keys(segment)[first : first + rows]


def expected(inputs):
    return inputs["image"].reshape(-1, 64).astype(np.float32)[:, :60].reshape(-1, 10, 6).sum(-1) / 16


def pids_of(replicas):
    """Of all replicas, once all of them are there."""
    import ray

    while True:
        try:
            return ray.get([actor.ready.remote() for actor in replicas["mine"]])
        except ray.exceptions.RayActorError:
            time.sleep(0.2)


def assert_all_is_given_back():
    import ray

    end = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 8 and time.monotonic() < end:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 8


@pytest.mark.parametrize("num", [1, 3])
def test_answers_are_those_of_the_teacher_whoever_gives_them(digits, own, ray_cluster, num):
    with live_replicas([own(replicas=num)], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas, rank=1)
        asked = [(client.ask(["mine"], *batch_of(digits, 32 * n)), batch_of(digits, 32 * n)[0]) for n in range(12)]
        for calls, inputs in reversed(asked):
            np.testing.assert_allclose(client.answers(calls)["mine"], expected(inputs), atol=1e-5)
    assert_all_is_given_back()


def test_a_killed_replica_costs_no_answer(digits, own, ray_cluster):
    with live_replicas([own("say_slowly", replicas=2)], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas)
        pids = pids_of(replicas)
        while not all(replica.ready for replica in client.replicas["mine"]):  # both get calls then
            client.answers(client.ask(["mine"], *batch_of(digits)))
        asked = [(client.ask(["mine"], *batch_of(digits, 32 * n)), batch_of(digits, 32 * n)[0]) for n in range(20)]
        os.kill(pids[0], signal.SIGKILL)  # with calls in hand
        for calls, inputs in asked:
            np.testing.assert_allclose(client.answers(calls)["mine"], expected(inputs), atol=1e-5)
        assert client.num_retries >= 1
        os.kill(pids[1], signal.SIGKILL)
        inputs, keys = batch_of(digits)
        np.testing.assert_allclose(
            client.answers(client.ask(["mine"], inputs, keys))["mine"], expected(inputs), atol=1e-5
        )
        assert pids[0] not in pids_of(replicas)


def test_a_batch_that_kills_its_replicas_is_named_and_no_other_suffers(digits, own, ray_cluster):
    with live_replicas([own("die_of_255", replicas=2)], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas, max_attempts=2)
        inputs, keys = batch_of(digits)
        deadly = {"image": np.full_like(inputs["image"], 255)}
        bad, good = client.ask(["mine"], deadly, keys), client.ask(["mine"], inputs, keys)
        with pytest.raises(TeacherError, match=rf"'mine' failed 2 times at a batch of 32 rows, sample_key {keys[0]}"):
            client.answers(bad)
        np.testing.assert_allclose(client.answers(good)["mine"], expected(inputs), atol=1e-5)


@pytest.mark.campaign
def test_a_live_answer_that_never_comes_is_told_and_asked_for_again_of_another_replica(
    digits, own, ray_cluster, tmp_path, caplog
):
    (tmp_path / "hang").touch()
    inputs, keys = batch_of(digits)
    with (
        caplog.at_level("INFO"),
        live_replicas([own("hang_once", stall_timeout_s=30)], digits.folder, [], 60) as replicas,
    ):
        client = ReplicaClient(replicas)
        answer = client.answers(client.ask(["mine"], inputs, keys))["mine"]
    np.testing.assert_allclose(answer, expected(inputs), atol=1e-5)
    told = r"waiting since \d\d:\d\d:\d\d \(\d+ s\): no answer from 1 of 1 replicas of live teacher 'mine': number 0; after 30"
    assert re.search(told, caplog.text)
    assert "replica 0 of live teacher 'mine' has not answered for 3" in caplog.text
    assert client.num_retries == 1
    assert_all_is_given_back()


@pytest.mark.campaign
@pytest.mark.slow
def test_a_replica_killed_while_a_student_trains_changes_no_bit_of_it(digits, own, ray_cluster, tmp_path):
    teacher = own("say_slowly", replicas=2)
    here, there = (
        make_run(tmp_path / name, digits, live(teacher, digits), augment="affine") for name in ("here", "there")
    )
    fit([here], PlainSession(live=Here([teacher], digits)))
    with live_replicas([teacher], digits.folder, [], 60) as replicas:
        pids = pids_of(replicas)
        killer = threading.Thread(target=kill_when_asked, args=(pids[0], tmp_path))
        killer.start()
        fit_on_ray([there], resources=Resources(), live=replicas)
        killer.join()
        assert pids[0] not in pids_of(replicas)
    assert outputs(there) == outputs(here)


def kill_when_asked(pid, folder):
    while not (folder / f"asked-{pid}").exists():
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("function", "kind", "told"),
    [
        ("say_nan", TeacherError, "'mine' says NaN"),
        ("fail", UsersCodeError, r"teachers\.mine\.function: .*KeyError"),
        ("sing", RecipeError, r"^teachers\.mine: .* has no 'sing'"),
    ],
)
def test_what_a_teacher_must_not_do_is_told_by_its_name(digits, own, ray_cluster, function, kind, told):
    with live_replicas([own(function)], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas)
        with pytest.raises(kind, match=told):
            client.answers(client.ask(["mine"], *batch_of(digits)))


def test_a_live_teacher_without_replicas_is_refused():
    with pytest.raises(TeacherError, match="live teacher 'mine' has no replicas"):
        ReplicaClient({"mine": []})


# room on the cluster


@pytest.mark.slow
def test_a_live_teacher_of_which_no_replica_comes_back_is_the_clusters_fault(digits, own, ray_cluster):
    import ray

    with live_replicas([own(replicas=2)], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas, wait_s=1)
        client.answers(client.ask(["mine"], *batch_of(digits)))
        for actor in replicas["mine"]:
            ray.kill(actor, no_restart=True)
        with pytest.raises(EnvironmentUnfit, match=r"'mine': all replicas are lost, and none came back within 1 s"):
            client.answers(client.ask(["mine"], *batch_of(digits)))
    assert_all_is_given_back()


def test_room_for_all_at_once_or_for_nothing_and_what_is_missing_is_told(ray_cluster, caplog):
    parts = [Request.of("replicas of x", Resources(cpus=2), 3), Request.of("workers of y", Resources(), 3)]
    assert_all_is_given_back()  # of the tests before
    told = r"workers of y: the cluster had no room for 3 x 1 CPU within 7 s; free are .*`replicas` or `workers`"
    caplog.set_level("INFO", "teachers.resources.reservation")
    with pytest.raises(EnvironmentUnfit, match=told), reserved(parts, 7):
        pass
    said = [record.getMessage() for record in caplog.records]
    assert any(
        re.match(r"waiting since \d\d:\d\d:\d\d \(\d+ s\): workers of y need 3 x 1 CPU; free", line) for line in said
    )
    assert_all_is_given_back()


def test_two_who_hold_what_the_other_needs_both_come_to_their_turn(ray_cluster):
    done = []

    def work(name):
        with reserved(
            [Request.of(f"teacher {name}", Resources(), 4), Request.of(f"student {name}", Resources(), 3)], 120
        ):
            time.sleep(0.2)
            done.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["a", "b", "c"]
    assert_all_is_given_back()


def test_the_students_room_is_free_again_when_the_teachers_are_there(digits, own, ray_cluster):
    import ray

    beside = [Request.of("workers", Resources(), 5)]
    with live_replicas([own(replicas=2)], digits.folder, beside, 60) as replicas:
        pids_of(replicas)
        with reserved(beside, 30):
            assert ray.available_resources()["CPU"] == 1
    assert_all_is_given_back()
