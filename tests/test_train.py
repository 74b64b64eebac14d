"""Laws of the engine, in the plain session: what a result depends on, and what it does not."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.utils.class_weight import compute_class_weight

from students.config.student import StudentConfig
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.objective.class_weights import class_weights
from students.objective.losses.classification import soft, soft_of_softened, softened
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from students.training.checkpoint import newest_checkpoint
from students.training.optimize import LOOKS, resolve_evaluate_every, resolve_steps
from students.training.train import Training
from teachers.config.training import TrainConfig
from teachers.errors import CollegiumError, DataError, RecipeError, StoreError
from teachers.models.folder import load_model
from tests import training_runs
from tests.rank_runs import on_ranks
from tests.training_runs import HARD, SOFT, TERM, make_run, make_store, outputs, own_loss, run_to_kill, source

SESSION = PlainSession()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(digits, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("wide"), digits)


@pytest.fixture(scope="module")
def other_store(digits, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("deep"), digits, name="deep", seed=1)


def result_of(run, **options):
    (result,) = fit([run], SESSION, **options)
    return result


def training(run, memory_bytes=None):
    return Training(run, SESSION, SharedData(memory_bytes).of([run], SESSION)[0])


def weights_after(run, memory_bytes=None):
    trained = training(run, memory_bytes)
    run.stage.mkdir(parents=True, exist_ok=True)
    trained.train()
    return torch.cat([p.detach().flatten() for p in trained.stepper.module.parameters()])


def records(run):
    lines = (run.stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# what comes of a run


def test_a_student_learns_from_its_teachers_and_becomes_a_sealed_model_folder(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), steps=300)
    result = result_of(run)
    assert result.validation["accuracy"] > 0.8
    assert result.steps == 300 and result.seed == 0
    assert {path.name for path in run.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "result.json",
        "SEAL.json",
    }

    (segment,) = digits.of("validation")
    said = load_model(run.folder)(digits.inputs(segment)).argmax(-1).numpy()
    assert (said == digits.labels(segment)).mean() == pytest.approx(result.validation["accuracy"])


def test_soft_targets_teach_without_a_single_label(digits, store, tmp_path):
    result = result_of(make_run(tmp_path, digits, source(store), objective=[SOFT], steps=300))
    assert result.validation["accuracy"] > 0.8


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(digits, store, tmp_path):
    one, two = (make_run(tmp_path / name, digits, source(store)) for name in "ab")
    other = make_run(tmp_path, digits, source(store), seed=1)
    for run in (one, two, other):
        result_of(run)
    assert outputs(one) == outputs(two)
    assert outputs(one)["model.safetensors"] != outputs(other)["model.safetensors"]


def test_runs_in_one_fit_do_not_depend_on_each_other(digits, store, tmp_path):
    alone = make_run(tmp_path / "alone", digits, source(store), seed=1)
    result_of(alone)
    together = [make_run(tmp_path / "both", digits, source(store), seed=seed) for seed in (0, 1)]
    control = make_run(tmp_path / "both", digits, objective=[HARD], labelled_only=True, name="control")
    results = fit([together[0], control, together[1]], SESSION)
    assert [result.name for result in results] == ["student/seed-0", "control/seed-0", "student/seed-1"]
    assert outputs(together[1]) == outputs(alone)


def test_a_finished_run_is_not_trained_again(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store))
    first = result_of(run)
    touched = (run.folder / "model.safetensors").stat().st_mtime_ns
    assert result_of(run) == first
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == touched


def test_a_sealed_run_that_lost_a_byte_is_not_reused(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store))
    result_of(run)
    (run.folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        result_of(run)


def test_curves_have_a_point_for_every_term_and_every_look(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), steps=40, evaluate_every=10)
    result_of(run)
    points = {(record["key"], record["step"]): record["value"] for record in records(run)}
    steps = (10, 20, 30, 40)
    keys = ["train.loss", "train.soft", "train.hard", "train.learning_rate", "validation.accuracy", "validation.nll"]
    assert set(points) == {(key, step) for key in keys for step in steps}
    for step in steps:
        expected = 0.9 * points["train.soft", step] + 0.1 * points["train.hard", step]
        assert points["train.loss", step] == pytest.approx(expected, rel=1e-5)


# resuming


def spawn(digits, store, out):
    script = [sys.executable, training_runs.__file__, *map(str, (digits.folder, store, out))]
    return subprocess.Popen(script)


def test_a_run_killed_in_the_middle_and_resumed_ends_like_an_undisturbed_one(digits, store, tmp_path):
    undisturbed = run_to_kill(tmp_path / "undisturbed", digits, store)
    result_of(undisturbed)
    run = run_to_kill(tmp_path / "killed", digits, store)
    for step in (60, 250):
        process = spawn(digits, store, run.stage)
        while (checkpoint := newest_checkpoint(run)) is None or int(checkpoint.name[5:]) < step:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (run.folder / "SEAL.json").exists()
    result_of(run)
    assert outputs(run) == outputs(undisturbed)
    curve = {(r["key"], r["step"]): r["value"] for r in records(run)}  # of two points for one step the last counts
    assert curve == {(r["key"], r["step"]): r["value"] for r in records(undisturbed)}
    assert not (run.folder / "attempts").exists()


def stopped_at(run, *steps):
    """A run that was left at the last of `steps`, with a checkpoint at each."""
    left = training(run)
    run.stage.mkdir(parents=True, exist_ok=True)
    batches = Batches(left.data.rows, run, SESSION).from_step(0)
    while left.progress.step < max(steps):
        left.advance(next(batches))
        if left.progress.step in steps:
            left.save()
    return left


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(digits, store, tmp_path):
    whole, run = (make_run(tmp_path / name, digits, source(store), evaluate_every=40) for name in ("whole", "damaged"))
    result_of(whole)
    stopped_at(run, 10, 20)
    newest = newest_checkpoint(run)
    assert newest.name == "step-000020"
    payload = bytearray((newest / "state.pt").read_bytes())
    payload[len(payload) // 2] ^= 1
    (newest / "state.pt").write_bytes(payload)
    assert newest_checkpoint(run).name == "step-000010"
    result_of(run)
    assert outputs(run) == outputs(whole)


def test_an_attempt_keeps_its_newest_checkpoints_only(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store))
    stopped_at(run, 5, 10, 15, 20)
    assert sorted(path.name for path in run.folder.glob("attempts/*/*")) == ["step-000015", "step-000020"]


def test_a_run_left_before_its_seal_is_finished_and_what_lay_there_is_not_mixed_in(digits, store, tmp_path):
    whole, run = (make_run(tmp_path / name, digits, source(store)) for name in ("whole", "left"))
    result_of(whole)
    run.folder.mkdir(parents=True)
    (run.folder / "model.safetensors").write_bytes(b"of somebody who was killed")
    result_of(run)
    assert outputs(run) == outputs(whole)


def test_two_processes_that_train_the_same_run_both_end_well(digits, store, tmp_path):
    run = run_to_kill(tmp_path, digits, store)
    processes = [spawn(digits, store, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    result = result_of(run)
    assert result.steps == run.train.steps
    load_model(run.folder, trust=["training_runs"])
    assert not (run.folder / "attempts").exists()


# the objective


def terms_of_first_step(run):
    """(terms, batch, logits) of the first step, before anything is learnt."""
    fresh = training(run)
    batch = next(Batches(fresh.data.rows, run, SESSION).from_step(0))
    logits = fresh.stepper.module(fresh.data.rows.inputs(batch, None)).detach()
    return fresh.stepper.advance(batch, 0), batch, logits


def test_hard_is_the_mean_over_the_labelled_rows_of_the_batch(digits, store, tmp_path):
    (soft, hard), batch, logits = terms_of_first_step(make_run(tmp_path, digits, source(store), batch_size=256))
    labelled = batch["has_label"] > 0
    assert 0 < labelled.sum() < 256
    expected = torch.nn.functional.cross_entropy(logits[labelled], batch["label"][labelled])
    torch.testing.assert_close(hard, expected)
    assert soft > 0


WEIGHTS = {"3": 20.0, "8": 0.25}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_hard_with_class_weights_is_the_weighted_cross_entropy_of_torch(label_smoothing, digits, store, tmp_path):
    hard = {"loss": "hard", "label_smoothing": label_smoothing}
    options = {"batch_size": 256, "objective": [SOFT, hard]}
    weighted = make_run(tmp_path, digits, source(store), **options, class_weights=WEIGHTS)
    (soft, found), batch, logits = terms_of_first_step(weighted)
    labelled = batch["has_label"] > 0
    weight = torch.tensor([WEIGHTS.get(name, 1.0) for name in digits.classes])
    expected = torch.nn.functional.cross_entropy(
        logits[labelled], batch["label"][labelled], weight, label_smoothing=label_smoothing
    )
    torch.testing.assert_close(found, expected)
    (soft_alone, _), _, _ = terms_of_first_step(make_run(tmp_path, digits, source(store), **options))
    torch.testing.assert_close(soft, soft_alone)


def test_a_control_has_the_class_weights_of_its_student(tmp_path, digits):
    config = StudentConfig.model_validate(
        {"model": "students.models:mlp", "arguments": {"hidden": 8}, "teachers": ["wide"]}
        | {"train": {"steps": 5, "class_weights": WEIGHTS}, "control": {"learning_rate": 1e-3}}
    )
    common = {"stage": tmp_path, "stage_name": "distill/small", "transfer_set": digits.folder, "user_path": tmp_path}
    control = student_run("control", config, 0, folder=tmp_path, sources=(), **common)
    (found,), batch, logits = terms_of_first_step(control)
    weight = torch.tensor([WEIGHTS.get(name, 1.0) for name in digits.classes])
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, batch["label"], weight))


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice(4, 500, p=[0.9, 0.06, 0.035, 0.005])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    found = class_weights("balanced", labels, ["a", "b", "c", "d", "nobody"], "students.small")
    np.testing.assert_allclose(found.numpy(), [*expected, 1.0], rtol=1e-6)


def test_students_with_other_class_weights_do_not_share_what_they_read(digits, store, tmp_path):
    runs = [
        make_run(tmp_path / name, digits, source(store), class_weights=weights, batch_size=256)
        for name, weights in {"plain": None, "weighted": WEIGHTS}.items()
    ]
    together = fit(runs, SESSION)
    (alone,) = fit([dataclasses.replace(runs[1], folder=tmp_path / "alone", stage=tmp_path / "alone")], SESSION)
    assert (together[1].folder / "model.safetensors").read_bytes() == (alone.folder / "model.safetensors").read_bytes()


def test_a_weight_of_a_class_that_is_none_is_refused_with_the_classes(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), class_weights={"three": 2.0})
    with pytest.raises(RecipeError, match=r"train\.class_weights names 'three', and the classes are 0, 1, 2"):
        training(run)


def test_hard_is_0_in_a_batch_without_a_label(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), batch_size=2)
    fresh = training(run)
    batches = Batches(fresh.data.rows, run, SESSION).from_step(0)
    batch = next(batch for batch in batches if batch["has_label"].sum() == 0)
    assert fresh.stepper.advance(batch, 0)[1] == 0


def test_a_row_that_no_teacher_knows_changes_nothing(digits, store, tmp_path):
    """Two objectives that differ in a second term only, whose one teacher knows no class."""
    nobody = source(store, "nobody", class_map=dict.fromkeys(digits.classes))
    plain = make_run(tmp_path, digits, source(store), objective=[SOFT | {"teachers": ["wide"]}])
    silent = make_run(
        tmp_path,
        digits,
        source(store),
        nobody,
        objective=[SOFT | {"teachers": ["wide"]}, SOFT | {"teachers": ["nobody"]}],
    )
    assert torch.equal(weights_after(plain), weights_after(silent))


def test_equal_teacher_weights_are_the_mean_and_weight_0_is_silence(digits, store, other_store, tmp_path):
    heard = [source(store), source(other_store, "deep")]
    weighted = SOFT | {"combine": "weighted"}
    mean = weights_after(make_run(tmp_path, digits, *heard, objective=[SOFT]))
    equal = [weighted | {"teacher_weights": {"wide": 3, "deep": 3}}]
    torch.testing.assert_close(weights_after(make_run(tmp_path, digits, *heard, objective=equal)), mean)
    alone = weights_after(make_run(tmp_path, digits, source(store), objective=[SOFT]))
    one = [weighted | {"teacher_weights": {"wide": 1, "deep": 0}}]
    torch.testing.assert_close(weights_after(make_run(tmp_path, digits, *heard, objective=one)), alone)


def test_a_target_computed_once_is_the_one_computed_in_every_step(digits, store, other_store, tmp_path):
    heard = [source(store), source(other_store, "deep")]
    once = weights_after(make_run(tmp_path, digits, *heard))
    every = [SOFT | {"combine": "training_runs:own_mean"}, HARD]
    per_step = weights_after(make_run(tmp_path, digits, *heard, objective=every))
    torch.testing.assert_close(once, per_step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("also", "is_ready"),
    [
        ([], True),
        ([SOFT], True),
        ([SOFT | {"standardise": True}], False),
        ([{"loss": "dist", "temperature": 2.0}], False),
    ],
)
def test_what_a_loss_makes_of_a_target_alone_is_made_once_unless_another_loss_hears_it(
    also, is_ready, digits, store, other_store, tmp_path
):
    heard = [source(store), source(other_store, "deep")]
    made = [
        SharedData(memory_bytes).of([make_run(tmp_path, digits, *heard, objective=[SOFT, *also, HARD])], SESSION)
        for memory_bytes in (1 << 30, 1)
    ]
    functions = [data.rows.objective.terms[0].loss.func for (data,) in made]
    assert functions == [soft_of_softened if is_ready else soft, soft]
    values = []
    for (data,) in made:
        batch = next(iter(Batches(data.rows, make_run(tmp_path, digits, *heard), SESSION).from_step(0)))
        logits = torch.randn(32, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
        data.rows.objective.sums(logits, data.rows.objective.ask(batch)).sum().backward()
        values.append(logits.grad)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)


def test_a_target_made_ready_beside_all_others_is_to_the_bit_the_one_made_ready_in_its_batch():
    targets = 3 * torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    rows = torch.randperm(1000)[:37]
    assert torch.equal(softened(targets, temperature=3.0)[rows], softened(targets[rows], temperature=3.0))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("alone", r"gives a Tensor, expected two tensors"),
        ("transposed", r"gives target of shape \[10, 32\].*expected \[32, 10\]"),
        ("whole_numbers", r"gives weights of shape \[2, 32\] and torch.int64"),
        ("minus_infinity", r"gives target that are not finite; say -10000 times the temperature"),
        ("unnormalised", r"gives weights that sum over the teachers to 2 in a row"),
        ("beyond", r"gives weights from -1 to 2, expected 0 to 1"),
    ],
)
def test_a_rule_of_the_users_that_gives_something_else_is_refused(rule, told, digits, store, other_store, tmp_path):
    term = SOFT | {"combine": f"training_runs:combine_{rule}"}
    run = make_run(tmp_path, digits, source(store), source(other_store, "deep"), objective=[HARD, term])
    with pytest.raises(
        RecipeError, match=rf"^students\.small\.objective\.1\.combine: training_runs:combine_{rule} {told}"
    ):
        result_of(run)


def test_a_rule_of_the_users_may_leave_rows_to_nobody_and_is_looked_at_once_a_run(digits, store, tmp_path):
    """It turns to nonsense after its first batch: who looked in every step would refuse it, and pay for it."""
    term = SOFT | {"combine": "training_runs:combine_first_rows"}
    assert result_of(make_run(tmp_path, digits, source(store), objective=[HARD, term])).steps == 40


def test_who_learns_some_classes_only_learns_from_their_rows_and_is_measured_on_them(digits, tmp_path):
    names = ("7", "2", "5")
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, steps=100, evaluate_every=10)
    run = dataclasses.replace(run, classes=names)
    result = result_of(run)
    model = load_model(run.folder)
    assert model.config.classes == names
    (segment,) = digits.of("validation")
    labels = np.array(digits.classes)[digits.labels(segment)]
    mine = np.isin(labels, names)
    said = np.array(names)[model(digits.inputs(segment)).argmax(-1).numpy()]
    assert (said == labels)[mine].mean() == pytest.approx(result.validation["accuracy"]) and mine.sum() > 20
    assert result.validation["accuracy"] > 0.8


def test_data_that_does_not_fit_gives_the_same_student(digits, store, other_store, tmp_path):
    heard = [source(store), source(other_store, "deep")]
    fits = weights_after(make_run(tmp_path, digits, *heard, shuffle_window=300))
    mapped = weights_after(make_run(tmp_path, digits, *heard, shuffle_window=300), memory_bytes=10_000)
    torch.testing.assert_close(fits, mapped, rtol=1e-5, atol=1e-6)


def test_a_loss_and_a_weight_of_the_recipe_reach_the_step(digits, store, tmp_path):
    term = {"loss": "training_runs:own_loss", "arguments": {"factor": 3.0}, "temperature": 2.0}
    (found,), batch, logits = terms_of_first_step(make_run(tmp_path, digits, source(store), objective=[term]))
    expected = own_loss(logits, batch["target.0"], temperature=2.0, factor=3.0).mean()
    torch.testing.assert_close(found, expected)


def test_a_teachers_order_of_classes_does_not_matter(digits, store, tmp_path):
    """Sorted and reversed columns of the same logits, up to the noise that they were drawn with."""
    straight = make_store(tmp_path / "straight", digits, noise=0)
    backwards = make_store(tmp_path / "backwards", digits, noise=0, classes=digits.classes[::-1])
    one, two = (weights_after(make_run(tmp_path, digits, source(where))) for where in (straight, backwards))
    assert torch.equal(one, two)


def test_label_stores_teach_by_teacher_label(digits, tmp_path):
    labels = make_store(tmp_path / "labels", digits, encoding="label", noise=0)
    term = {"loss": "teacher_label"}
    result = result_of(make_run(tmp_path, digits, source(labels), objective=[term], steps=300))
    assert result.validation["accuracy"] > 0.8


def test_label_stores_cannot_teach_softly_and_the_error_names_teacher_and_key(digits, tmp_path):
    labels = make_store(tmp_path / "labels", digits, encoding="label")
    with pytest.raises(RecipeError, match=r"objective\.1.*'wide'.*encoding: dense"):
        result_of(make_run(tmp_path, digits, source(labels), objective=[HARD, SOFT]))


def test_a_store_of_other_rows_is_refused(digits, tmp_path):
    (segment,) = digits.of("validation")
    foreign = make_store(tmp_path / "foreign", digits)
    run = make_run(tmp_path, digits, source(foreign))
    wrong = source(foreign, "wide")
    wrong.stores["train-0"] = store_of(segment, digits, tmp_path / "other")
    with pytest.raises(StoreError, match="other rows"):
        result_of(make_run(tmp_path, digits, wrong))
    assert run.sources[0].stores["train-0"] == foreign


@pytest.mark.parametrize(
    ("steps", "batch_size", "validation_rows"),
    [(1500, 64, 180), (188, 64, 1500), (8 * 23, 64, 1500), (1000, 128, 50_000), (3, 8, 100), (40, 64, 0)],
)
def test_looks_at_validation_read_at_most_a_tenth_of_the_rows_that_are_trained_on(steps, batch_size, validation_rows):
    every = resolve_evaluate_every(TrainConfig(batch_size=batch_size), steps, validation_rows)
    looks = -(-steps // every)
    assert looks == 1 or looks * validation_rows <= 0.1 * steps * batch_size
    assert looks <= LOOKS
    if every > 1:  # more often would be too often
        more = -(-steps // (every - 1))
        assert more > LOOKS or more * validation_rows > 0.1 * steps * batch_size


def test_looks_that_a_recipe_asks_for_are_taken_whatever_they_cost():
    assert resolve_evaluate_every(TrainConfig(evaluate_every=7), 100, 10**6) == 7


def test_a_short_training_beside_many_validation_rows_looks_once_at_its_end(digits, store, tmp_path):
    rows = sum(segment.num_rows for segment in digits.of("validation"))
    run = make_run(tmp_path, digits, source(store), steps=20, batch_size=32)
    assert 10 * 2 * rows > 20 * 32
    result_of(run)
    assert [each["step"] for each in records(run) if each["key"] == "validation.accuracy"] == [20]


def test_a_ramp_rises_from_0_to_the_terms_weight(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), objective=[SOFT | {"ramp": {"steps": 4}}])
    weights = [training(run).stepper.objective.weights(step, 1000)[0] for step in (0, 1, 2, 4, 100)]
    assert weights == pytest.approx([0, 0.225, 0.45, 0.9, 0.9])


# budget and rows


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 2}, 200),
        ({"epochs": 0.5, "batch_size": 64}, 8),
        ({"epochs": 1, "batch_size": 4096}, 1),
    ],
)
def test_a_budget_in_epochs_is_converted_to_steps(train, steps):
    assert resolve_steps(TrainConfig(**({"batch_size": 10} | train)), 1000) == steps


def rows_drawn(run, num_batches):
    """The keys of the rows in each of the first batches, by their inputs."""
    data = SharedData().of([run], SESSION)[0]
    everything = data.rows.columns["input."].flatten(1)
    batches = Batches(data.rows, run, SESSION).from_step(0)
    drawn = [next(batches)["input."].flatten(1) for _ in range(num_batches)]
    return [(batch[:, None] == everything[None]).all(-1).int().argmax(1) for batch in drawn], data.rows.labelled


def test_a_control_draws_from_the_labelled_rows_only_and_reshuffles_them(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, batch_size=50)
    drawn, labelled = rows_drawn(run, 4)
    assert labelled.sum() == 100
    assert all(labelled[batch].all() for batch in drawn)
    assert len({*drawn[0].tolist(), *drawn[1].tolist()}) == 100
    assert drawn[0].tolist() != drawn[2].tolist()


def test_fewer_labelled_rows_than_a_batch_are_drawn_more_than_once(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True, batch_size=256)
    ((batch,), labelled) = rows_drawn(run, 1)
    assert len(batch) == 256 and labelled[batch].all()


def test_a_labelled_fraction_is_the_share_of_labelled_rows_in_every_batch(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), labelled_fraction=0.25, batch_size=64)
    drawn, labelled = rows_drawn(run, 10)
    assert [int(labelled[batch].sum()) for batch in drawn] == [16] * 10


def test_without_a_labelled_row_there_is_no_control(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[HARD], labelled_only=True)
    data = SharedData().of([run], SESSION)[0]
    data.rows.labelled[:] = False
    with pytest.raises(DataError, match="no labelled rows"):
        Batches(data.rows, run, SESSION)


def test_parts_of_a_step_add_up_to_the_step(digits, store, tmp_path):
    whole, parts = (make_run(tmp_path, digits, source(store), accumulate=n, clip=1.0) for n in (1, 4))
    torch.testing.assert_close(weights_after(whole), weights_after(parts), rtol=1e-5, atol=1e-6)


# workers


def farthest(one, other):
    """The largest difference of any delivered weight."""
    weights = [safetensors.torch.load_file(run.folder / "model.safetensors") for run in (one, other)]
    return max(float((value - weights[1][name]).abs().max()) for name, value in weights[0].items())


def test_one_and_two_workers_draw_the_same_augmentation_and_dropout(digits, store, tmp_path):
    """Dropout draws for all rows of a part at once, so these have as many parts; augmentation draws for each row."""
    cases = {
        "dropout": ({"accumulate": 2}, {"accumulate": 1}, {"model": "training_runs:Leaky", "augment": "affine"}),
        "four parts": ({"accumulate": 4}, {"accumulate": 2}, {"model": "training_runs:Leaky", "augment": "noise"}),
        "a function": ({"accumulate": 2}, {"accumulate": 1}, {"augment": "training_runs:jittered"}),
        "rows alone": ({}, {}, {"augment": ["affine", "cutout"]}),
        "class weights": ({"accumulate": 2}, {"accumulate": 1}, {"class_weights": "balanced"}),
        "two groups": ({}, {}, {"augment": "affine", "labelled_fraction": 0.25}),
        "all of it": (
            {"accumulate": 2},
            {"accumulate": 1},
            {"model": "training_runs:Leaky", "augment": "affine", "labelled_fraction": 0.3},
        ),
        "a part that is not used": ({}, {}, {"model": "training_runs:WithASpareHead"}),
        "and parts of a batch": ({"accumulate": 4}, {"accumulate": 2}, {"model": "training_runs:WithASpareHead"}),
    }
    options = {"learning_rate": 1e-3, "steps": 20}
    pairs = []
    for name, (alone, shared, more) in cases.items():
        one = make_run(tmp_path / name / "one", digits, source(store), **options | more | alone)
        two = make_run(tmp_path / name / "two", digits, source(store), **options | more | shared)
        pairs.append((name, one, two))
        result_of(one)
    on_ranks(tmp_path / "ranks", [two for _, _, two in pairs], world=2)
    assert {name: farthest(one, two) < 1e-6 for name, one, two in pairs} == dict.fromkeys(cases, True)


# validation, schedules, precision


def test_the_best_weights_are_kept_not_the_last(digits, tmp_path):
    run = make_run(
        tmp_path,
        digits,
        objective=[HARD],
        labelled_only=True,
        steps=60,
        evaluate_every=5,
        optimizer="sgd",
        learning_rate=1.5,
        schedule="constant",
    )
    result = result_of(run)
    looks = {r["step"]: r["value"] for r in records(run) if r["key"] == "validation.accuracy"}
    assert result.validation["accuracy"] == max(looks.values()) == looks[result.best_step]


def test_early_stopping_ends_training_and_leaves_the_schedule_as_it_was(digits, store, tmp_path):
    options = {"steps": 4000, "evaluate_every": 10, "learning_rate": 0.02}
    run = make_run(tmp_path, digits, source(store), early_stopping={"patience": 3}, **options)
    result = result_of(run)
    assert result.steps == result.best_step + 30 < 4000
    rate = next(r["value"] for r in records(run) if r["key"] == "train.learning_rate" and r["step"] == 10)
    assert rate == pytest.approx(
        training(make_run(tmp_path, digits, source(store), **options)).stepper.learning_rate(9)
    )


@pytest.mark.parametrize("options", [{"optimizer": "sgd"}, {"schedule": "cosine"}, {"precision": "bfloat16"}])
def test_every_optimiser_schedule_and_precision_learns(options, digits, store, tmp_path):
    rate = 0.05 if "optimizer" in options else 0.01
    result = result_of(make_run(tmp_path, digits, source(store), steps=300, learning_rate=rate, **options))
    assert result.validation["accuracy"] > 0.75


def test_a_loss_that_is_not_finite_is_named_with_its_run_and_step(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), objective=[{"loss": "training_runs:nan_from_step_3"}])
    with pytest.raises(CollegiumError, match=r"student/seed-0.*'nan_from_step_3' is nan at step 3"):
        result_of(run)
    assert not (run.folder / "SEAL.json").exists()


def test_a_loss_that_takes_the_mean_itself_is_told_so(digits, store, tmp_path):
    run = make_run(tmp_path, digits, source(store), objective=[{"loss": "training_runs:mean_loss"}])
    with pytest.raises(RecipeError, match="one value per row"):
        result_of(run)


def store_of(segment, transfer_set, folder):
    """A store under the name of the train segment that holds the rows of another."""
    from teachers.soft_targets.schema import Spec
    from teachers.soft_targets.store import SoftTargetStore

    spec = Spec("wide", "d", "train-0", segment.digest, "dense", transfer_set.classes, segment.num_rows, 4096)
    store = SoftTargetStore.create(folder, spec)
    store.commit(0, transfer_set.keys(segment), {"logits": np.zeros((segment.num_rows, 10), np.float32)})
    store.seal()
    return folder


def test_terms_of_a_recipe_are_read_as_written():
    assert TERM.validate_python(SOFT).temperature == 2.0
