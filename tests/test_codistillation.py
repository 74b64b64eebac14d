"""Codistillation: laws in one process, where a peer is a folder that somebody wrote; and members under Ray that fail alone."""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from students.cohorts.codistillation import Listener, generations_of
from students.cohorts.generations import drop_after, load_generation, newest_generation, publish_generation, steps_in
from students.cohorts.peers import Diverged
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.codistil import errors_of
from students.fitting.fit import cohort_of, fit
from students.objective.losses.classification import peer
from students.objective.peer_targets import PEER_RULES
from students.runs.of_cohort import alone_runs
from students.runs.run import Live
from students.runs.session import PlainSession
from students.training.train import Clock
from teachers.errors import CollegiumError, StoreError
from teachers.models.folder import CONFIG, WEIGHTS, ModelConfig, load_model
from teachers.models.modules import build_module
from teachers.models.preprocess import Preprocessor
from teachers.users_code.imports import use_user_path
from tests.cohort_runs import CONV, EXACT, MLP, cohort_config, in_turn, make_cohort, on_ranks, only
from tests.training_runs import make_run, source

SESSION = PlainSession()
OTHER = {"model": "cohort_runs:ExactPlain"}
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def codistilling(members=None, **options):
    """Every 10 of 40 steps, after 10; the weights delivered are those after the last step."""
    train = {"steps": 40, "evaluate_every": 10_000, "schedule": "constant", "weight_decay": 0.01}
    options = {"exchange_every": 10, "burn_in": 10, "train": train | options.pop("train", {})} | options
    return cohort_config("codistillation", members or {"a": EXACT, "b": OTHER}, **options)


def alone(folder, digits, config, number=0):
    return only(make_cohort(folder, digits, config), number)


def alone_cohort(folder, digits, config):
    common = {"stage": folder, "stage_name": "distill/trio", "transfer_set": digits.folder}
    return alone_runs("control", "trio", config, 0, folder=folder, sources=(), **common)


def network(run, digits, number, seed=7):
    """Some network of member `number`, and what its generations say of it."""
    member = run.config.members[[*run.config.members][number]]
    use_user_path(run.members[0].user_path)
    preprocessor = Preprocessor(member.preprocess, digits.columns)
    torch.manual_seed(seed)
    module = build_module(member.model, member.arguments, num_classes=10, input_shape=preprocessor.input_shape)
    return module, ModelConfig(member.model, dict(member.arguments), digits.space, preprocessor.resolved())


def speak(run, digits, name="b", step=10, number=1, seed=7):
    """Publish a generation of a member that nobody trains here."""
    module, config = network(run, digits, number, seed)
    publish_generation(generations_of(run, name), step, module.state_dict(), config)
    return module


def weights(run):
    return safetensors.torch.load_file(run.members[0].folder / WEIGHTS)


def farthest(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other)


def curve(run, key, name="a/seed-0"):
    """(step, value) of each point."""
    points = [json.loads(line) for line in (run.stage / "metrics.jsonl").read_text().splitlines()]
    return [(point["step"], point["value"]) for point in points if point["key"] == key and point["run"] == name]


class Mute:
    """Answers for a live teacher that knows nothing."""

    def ask(self, teachers, inputs, sample_key):
        return {name: np.zeros((len(sample_key), 10), np.float32) for name in teachers}

    def answers(self, asked):
        return asked


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_target_is_the_mean_of_the_others_softened_probabilities(temperature):
    logits = 3 * torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = PEER_RULES["class_axis"]["mean_of_others"](logits, torch.zeros(6), 2, temperature=temperature)
    mean = (logits[:, [0, 1, 3]] / temperature).softmax(-1).mean(1)
    assert torch.allclose((target[:, 0] / temperature).softmax(-1), mean, atol=1e-12)
    own = logits[:, 2].clone().requires_grad_()
    gradients = [
        torch.autograd.grad(peer(own, each, temperature=temperature, reduce="mean").sum(), own)[0]
        for each in (target, PEER_RULES["class_axis"]["others"](logits, torch.zeros(6), 2))
    ]
    assert torch.allclose(*gradients, atol=1e-12)  # one mean of peers pulls as the mean of their pulls


@pytest.mark.parametrize("own_preprocess", [{}, {"normalise": None}])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_member_follows_the_generation_it_hears_after_the_burn_in(temperature, own_preprocess, digits, tmp_path):
    """CE + T^2 KL(mean_j p_T(F_j(x)) || p_T), by hand; the peers' preprocess may be another."""
    members = {"a": EXACT, "b": {**OTHER, "preprocess": own_preprocess}, "c": EXACT}
    objective = [{"loss": "hard"}, {"loss": "peer", "temperature": temperature}]
    run = alone(tmp_path, digits, codistilling(members, objective=objective, burn_in=15))
    peers = [speak(run, digits, name, number=number, seed=number) for number, name in ((1, "b"), (2, "c"))]
    in_turn(run)
    assert curve(run, "peers.heard") == [(15, 2), (20, 2), (30, 2)]
    assert curve(run, "peers.staleness") == [(15, 5), (20, 10), (30, 20)]

    (data,) = SharedData().of(run.members, SESSION)
    torch.manual_seed(run.members[0].draw_seed)
    module = build_module(EXACT["model"], EXACT["arguments"], num_classes=10, input_shape=(1, 8, 8))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.01)
    stream = Batches(data.rows, run.members[0], SESSION).from_step(0)
    preprocessors = [Preprocessor(run.config.members[name].preprocess, digits.columns) for name in "bc"]
    for step in range(40):
        batch = next(stream)
        own = module(data.rows.inputs(batch, None))
        labels = torch.where(batch["has_label"] > 0, batch["label"], -1)
        loss = F.cross_entropy(own, labels, ignore_index=-1)
        if step >= 15:
            if own_preprocess:
                seen = [preprocessor({"image": batch["input.image"]}) for preprocessor in preprocessors]
            else:
                seen = [data.rows.inputs(batch, None)] * 2
            said = [(each(inputs) / temperature).softmax(-1) for each, inputs in zip(peers, seen, strict=True)]
            mean = torch.stack(said).mean(0).detach()
            loss = loss + temperature**2 * F.kl_div((own / temperature).log_softmax(-1), mean, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert farthest(weights(run), module.state_dict()) < 1e-8


@pytest.mark.parametrize("live", [False, True])
def test_a_peer_with_its_own_preprocess_sees_the_rows_as_its_folder_would_augmented_as_the_members_are(
    live, digits, tmp_path
):
    session, options = PlainSession(live=Mute()) if live else SESSION, {}
    if live:
        options = {"teachers": ["wide"], "objective": [{"loss": "soft"}, {"loss": "peer"}]}
    sources = (source(None, live=Live(tuple(digits.classes), 2)),) if live else ()
    members = {"a": EXACT, "b": {**CONV, "preprocess": {"resize": 12, "normalise": None}}}
    config = codistilling(members, train={"augment": "affine", "accumulate": 2}, **options)
    run = only(make_cohort(tmp_path, digits, config, sources=sources), 0)
    speak(run, digits)
    cohort = cohort_of(run, session, SharedData())
    cohort.listeners[0].look(None)
    stepper = cohort.trainings[0].stepper
    (batch,) = next(cohort.batches())
    work = stepper.begin(batch, 0)
    stored = next(Batches(stepper.rows, run.members[0], SESSION).from_step(0))
    moved = stepper.rows.canonical(stored, stepper.views(stored, 0))
    assert not torch.equal(moved["image"], stored["input.image"])
    assert torch.equal(stepper.preprocessor(moved), work.inputs)
    (generation,) = cohort.listeners[0].heard_at(0, 0)
    said = torch.cat([stepper.ask(generation, work, number) for number in (0, 1)])
    folder = generations_of(run, "b") / "step-000010"
    expected = load_model(folder)({name: column for name, column in moved.items()})
    assert torch.allclose(said, expected, atol=1e-5)


def test_where_there_is_nothing_to_hear_a_member_is_plain_training_bit_for_bit(digits, tmp_path):
    config = codistilling({"a": MLP, "b": CONV}, train={"evaluate_every": 10})
    run = alone(tmp_path / "cohort", digits, config)
    in_turn(run)
    plain = make_run(
        tmp_path / "plain", digits, objective=[{"loss": "hard"}], steps=40, learning_rate=1e-2, evaluate_every=10,
        schedule="constant", weight_decay=0.01,
    )  # fmt: skip
    fit([plain], SESSION)
    for name in (WEIGHTS, CONFIG, "result.json"):
        assert (run.members[0].folder / name).read_bytes() == (plain.folder / name).read_bytes()
    assert {value for _, value in curve(run, "peers.heard")} == {0} and not curve(run, "peers.staleness")


def test_a_generation_is_not_heard_when_ten_exchanges_have_passed_or_as_many_steps_as_the_recipe_says():
    assert codistilling(exchange_every=7).staleness_bound == 70
    assert codistilling(exchange_every=7, max_staleness=14).staleness_bound == 14


def test_a_generation_older_than_the_bound_is_not_heard_at_any_step(digits, tmp_path):
    run = alone(tmp_path, digits, codistilling(max_staleness=14))
    speak(run, digits, step=10)
    in_turn(run)
    silent = alone(tmp_path / "silent", digits, codistilling(train={"steps": 40}, burn_in=40))
    in_turn(silent)
    assert curve(run, "peers.heard") == [(10, 1), (20, 1), (30, 0)]
    assert farthest(weights(run), weights(silent)) > 1e-6
    listener = Listener.of(run, run.members[0], SESSION)
    listener.look(None)
    assert [len(listener.heard_at(step, 14)) for step in (0, 24, 25)] == [1, 1, 0]


def test_a_generation_is_written_once_and_the_newest_three_are_kept(digits, tmp_path):
    run = make_cohort(tmp_path, digits, codistilling())
    folder = generations_of(run, "b")
    for step in (10, 20, 30, 40):
        speak(run, digits, step=step)
    assert steps_in(folder) == [40, 30, 20]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    speak(run, digits, step=30, seed=8)  # a later life of the same member, or a second process
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    drop_after(folder, 20)
    assert steps_in(folder) == [20]


def test_only_whole_generations_are_heard(digits, tmp_path):
    run = make_cohort(tmp_path, digits, codistilling())
    folder = generations_of(run, "b")
    assert newest_generation(folder) is None
    for step in (10, 20, 30):
        speak(run, digits, step=step)
    (folder / "step-000030" / "SEAL.json").unlink()  # its writer was killed
    damaged = folder / "step-000020" / WEIGHTS
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    assert newest_generation(folder) == 10
    assert newest_generation(folder, up_to=9) is None
    assert load_generation(folder, 40, ("cohort_runs",), CPU) is None  # removed between the look and the load
    speak(run, digits, step=30)  # the killed one's weights are whole, and get their seal
    assert newest_generation(folder) == 30


def test_weights_that_are_not_finite_are_not_published(digits, tmp_path, caplog):
    run = make_cohort(tmp_path, digits, codistilling())
    module, config = network(run, digits, 1)
    state = {name: value * float("nan") for name, value in module.state_dict().items()}
    publish_generation(generations_of(run, "b"), 10, state, config)
    assert steps_in(generations_of(run, "b")) == [] and "not finite" in caplog.text


def test_a_generation_whose_logits_overflow_is_passed_over(digits, tmp_path):
    wild = {"model": "cohort_runs:Overflowing"}
    beside, silent = (
        alone(tmp_path / name, digits, codistilling({"a": MLP, "b": wild})) for name in ("beside", "none")
    )
    speak(beside, digits)
    for run in (beside, silent):
        in_turn(run)
    assert curve(beside, "peers.heard")[-1] == (30, 1)
    assert farthest(weights(beside), weights(silent)) == 0


def test_a_generation_that_names_code_beyond_the_recipe_is_refused(digits, tmp_path):
    run = alone(tmp_path, digits, codistilling())
    module, config = network(run, digits, 1)
    foreign = ModelConfig("training_runs:Leaky", {}, config.space, config.preprocess)
    publish_generation(generations_of(run, "b"), 10, module.state_dict(), foreign)
    with pytest.raises(StoreError, match=r"training_runs:Leaky.*trust"):
        in_turn(run)


def test_members_own_rows_are_disjoint_and_together_all(digits, tmp_path):
    drawn = {}
    for own_rows in (True, False):
        config = codistilling({"a": MLP, "b": MLP, "c": MLP}, own_rows=own_rows, train={"steps": 1000})
        run = make_cohort(tmp_path, digits, config)
        cohort = cohort_of(run, SESSION, SharedData())
        seen = [set(), set(), set()]
        for _, batches in zip(range(60), cohort.batches(), strict=False):
            for rows, batch in zip(seen, batches, strict=True):
                rows |= {row.numpy().tobytes() for row in batch["input."]}
        drawn[own_rows] = seen
    first, second, third = drawn[True]
    assert not (first & second or first & third or second & third)
    assert first | second | third == drawn[False][0] == drawn[False][1]


def in_turn_config(**train):
    members = {"a": MLP, "b": {**CONV, "preprocess": {"normalise": None}}}
    return codistilling(members, own_rows=True, train={"steps": 60, "evaluate_every": 15, **train})


def files_of(run):
    return [(member.folder / name).read_bytes() for member in run.members for name in (WEIGHTS, CONFIG, "result.json")]


def test_members_in_turn_give_the_same_files_again_and_leave_no_generation(digits, tmp_path):
    runs = [make_cohort(tmp_path / name, digits, in_turn_config()) for name in ("one", "two")]
    for run in runs:
        in_turn(run)
    assert files_of(runs[0]) == files_of(runs[1])
    assert {path.name for path in tmp_path.joinpath("one").iterdir()} == {"a", "b", "metrics.jsonl"}
    for name in ("a/seed-0", "b/seed-0"):
        assert curve(runs[0], "peers.heard", name) == [(step, 1) for step in (10, 20, 30, 40, 50)]
        assert {value for _, value in curve(runs[0], "peers.staleness", name)} == {0}


def stop_at(run, step, saved):
    """Train without a look, saving at `saved`, until `step`; then nothing is tidied up."""
    run.stage.mkdir(parents=True, exist_ok=True)
    cohort = cohort_of(run, SESSION, SharedData())
    for batches in cohort.batches():
        due = cohort.advance(batches, Clock(0))
        if cohort.step % 15 == 0:
            cohort.look()
        if cohort.step == saved:
            assert due == (cohort.step % 10 == 0 or not cohort.in_turn)
            cohort.save()
        if cohort.step == step:
            return cohort


def test_members_in_turn_that_are_killed_and_go_on_end_like_undisturbed_ones(digits, tmp_path):
    whole, stopped = (make_cohort(tmp_path / name, digits, in_turn_config()) for name in ("whole", "stopped"))
    in_turn(whole)
    stop_at(stopped, step=55, saved=20)  # generations of steps 30 to 50 are there, 10 and 20 are not
    assert steps_in(generations_of(stopped, "a")) == [50, 40, 30]
    in_turn(stopped)
    assert files_of(stopped) == files_of(whole)


def test_a_resumed_member_ends_like_an_undisturbed_one_where_no_peer_moves(digits, tmp_path):
    whole, stopped = (alone(tmp_path / name, digits, in_turn_config()) for name in ("whole", "stopped"))
    for run in (whole, stopped):
        speak(run, digits)
    in_turn(whole)
    stop_at(stopped, step=41, saved=37)
    in_turn(stopped)
    assert files_of(stopped) == files_of(whole)
    assert curve(stopped, "peers.staleness")[-3:] == [(37, 27), (40, 30), (50, 40)]


def test_two_workers_of_a_member_hear_what_one_hears(digits, tmp_path):
    members = {"a": EXACT, "b": {**CONV, "preprocess": {"normalise": None}}}
    one, two = (codistilling(members, workers_per_member=n, train={"accumulate": 2 // n}) for n in (1, 2))
    single, double = (alone(tmp_path / name, digits, config) for name, config in (("one", one), ("two", two)))
    for run in (single, double):
        speak(run, digits)
    in_turn(single)
    on_ranks(tmp_path / "two", digits, two, world=2, only=0)
    assert farthest(weights(double), weights(single)) < 1e-8
    assert curve(double, "peers.heard") == [(10, 1), (20, 1), (30, 1)]
    assert steps_in(generations_of(double, "a")) == [40, 30, 20]


def test_a_member_that_stands_still_holds_no_other_up(digits, tmp_path):
    config = codistilling({"a": MLP, "b": CONV})
    fast, slow = (alone(tmp_path, digits, config, number) for number in (0, 1))
    stop_at(slow, step=12, saved=10)
    (result,) = in_turn(fast)
    assert result.steps == 40 and not (slow.members[0].folder / "SEAL.json").exists()
    assert curve(fast, "peers.staleness") == [(10, 0), (20, 10), (30, 20)]
    in_turn(slow)
    assert curve(slow, "peers.staleness", "b/seed-0")[-1] == (30, -10)  # of the fast one's last generation


def test_a_member_that_diverges_takes_its_generations_back_and_goes_on_at_half_its_rate(digits, tmp_path, caplog):
    wild = {
        "model": "cohort_runs:Exploding",
        "arguments": {"limit": 2.0},
        "train": {"learning_rate": 1.0, "optimizer": "sgd"},
    }
    config = codistilling({"a": MLP, "b": wild}, exchange_every=1, max_rollbacks=20)
    run = alone(tmp_path, digits, config, number=1)
    run.members[0].folder.mkdir(parents=True)
    cohort = cohort_of(run, SESSION, SharedData())
    with pytest.raises(Diverged):
        cohort.go_on(Clock(1e9))
    assert steps_in(generations_of(run, "b"))
    cohort.set_back([0])
    assert cohort.step == 0 and not steps_in(generations_of(run, "b"))
    cohort.train(1e9)
    assert cohort.step == 40 and steps_in(generations_of(run, "b")) == [40, 39, 38]
    assert any("half the learning rate" in message for message in caplog.messages)


def test_a_control_in_a_trainer_of_its_own_is_the_control_beside_others(digits, tmp_path):
    folders = (tmp_path / "together", tmp_path / "apart")
    together, apart = (alone_cohort(folder, digits, codistilling({"a": MLP, "b": CONV})) for folder in folders)
    in_turn(together)
    for number in (1, 0):
        in_turn(only(apart, number))
    assert files_of(apart) == files_of(together)
    assert not any((folder / "peers").exists() for folder in folders)


@pytest.mark.parametrize(
    "objective",
    [[{"loss": "hard"}], [{"loss": "peer", "temperature": 1.0}, {"loss": "peer", "temperature": 2.0}]],
)
def test_peers_are_heard_at_one_temperature(objective):
    with pytest.raises(ValidationError, match="all such at one temperature"):
        codistilling(objective=objective)


@pytest.mark.parametrize(("number", "other"), [(0, 1), (1, 0)])
def test_an_error_of_ours_in_one_trainer_ends_the_wait_for_no_other(number, other):
    done = []
    works = [partial(int, "no number"), lambda: time.sleep(0.5) or done.append("the other")]
    with pytest.raises(ValueError, match="no number"):
        errors_of({"a": works[number], "b": works[other]}, at_once=2)
    assert done == ["the other"]


class Fated(torch.nn.Module):
    """Plain, but in training step `at` it is killed unless the file `spare` is there, or waits for `wait_for`."""

    def __init__(self, num_classes, input_shape, at, spare=None, wait_for=None):
        super().__init__()
        self.layer = torch.nn.Linear(int(torch.tensor(input_shape).prod()), num_classes)
        self.at, self.spare, self.wait_for, self.steps = at, spare, wait_for, 0

    def forward(self, inputs):
        if self.training:
            self.steps += 1
        if self.training and self.steps == self.at:
            self.meet_its_fate()
        return self.layer(inputs.flatten(1))

    def meet_its_fate(self):
        import os
        import signal
        import time

        if self.spare and not Path(self.spare).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(6000):  # ends in the end: then what was heard says that it was in vain
            if self.wait_for is None or Path(self.wait_for).exists():
                break
            time.sleep(0.1)


@pytest.mark.campaign
def test_a_dead_and_a_slow_member_stop_no_other_and_the_same_call_goes_on_with_the_dead_one(
    digits, ray_cluster, tmp_path
):
    from students.fitting.codistil import codistil_on_ray
    from teachers.config.resources import Resources

    model = "test_codistillation:Fated"
    spare, sealed = tmp_path / "spare", tmp_path / "a" / "seed-0" / "SEAL.json"
    members = {
        "a": MLP,
        "dead": {"model": model, "arguments": {"at": 25, "spare": str(spare)}},
        "slow": {"model": model, "arguments": {"at": 15, "wait_for": str(sealed)}},
    }
    run = make_cohort(tmp_path, digits, codistilling(members))
    with pytest.raises(CollegiumError, match=r"distill/trio: member dead: worker 0 .*goes on with dead alone"):
        codistil_on_ray([run], resources=Resources(), max_failures=0)
    done = {member.name for member in run.members if (member.folder / "SEAL.json").exists()}
    assert done == {"a/seed-0", "slow/seed-0"}
    heard = dict(curve(run, "peers.staleness", "slow/seed-0"))
    assert (
        heard[20] <= 0
    )  # what it heard was as old as itself, or older in steps: the dead one may have said nothing yet
    assert curve(run, "train.loss", "a/seed-0")[-1][0] == 40
    assert newest_generation(generations_of(run, "a")) == 40  # which the slow one found at its step 20
    before = sealed.stat().st_mtime_ns

    spare.touch()
    results = codistil_on_ray([run], resources=Resources(), max_failures=0)
    assert [(result.name, result.steps) for result in results] == [(member.name, 40) for member in run.members]
    assert curve(run, "peers.heard", "dead/seed-0")[-1] == (30, 2)
    assert sealed.stat().st_mtime_ns == before and not (tmp_path / "peers").exists()
