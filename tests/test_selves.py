"""Students that learn from themselves: from their last epoch (PS-KD), and from the average of their weights (mean teacher)."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from students.config.estimator import EstimatorStudent
from students.config.student import StudentConfig
from students.config.terms import labels_alone
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.fitting.ranks import Ranks
from students.measuring.evaluate import evaluate_student
from students.objective.losses.table import LOSSES
from students.objective.own import LAST_SAID, ROW, mixed, row_numbers
from students.runs.of_student import student_run
from students.runs.session import PlainSession
from students.training.selves import Average, LastSaid, last_of_each
from students.training.train import Training
from tests.rank_runs import on_ranks
from tests.training_runs import HARD, TERM, make_run, outputs
from tests.warm import side_by_side

SESSION = PlainSession()
PS_KD = {"loss": "ps_kd"}
MEAN_TEACHER = {"loss": "mean_teacher", "decay": 0.9}
OWN = [PS_KD, MEAN_TEACHER]
LEAKY = {"model": "training_runs:Leaky", "augment": "affine", "steps": 60, "evaluate_every": 20}
"""With dropout and augmentation, over 15 epochs of the hundred labelled rows."""


pytestmark = pytest.mark.usefixtures("one_thread")


def training(run):
    run.stage.mkdir(parents=True, exist_ok=True)
    return Training(run, SESSION, SharedData().of([run], SESSION)[0])


def memory_of(trained, kind):
    return next(memory for memory in trained.stepper.selves if isinstance(memory, kind))


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# losses


def test_ps_kd_is_the_cross_entropy_of_torch_with_a_distribution_and_so_is_its_gradient():
    student, target = random(6, 5).requires_grad_(), random(6, 5, seed=1).softmax(-1)
    own = LOSSES["classification"]["ps_kd"](student, target)
    torch.testing.assert_close(own, F.cross_entropy(student, target, reduction="none"), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(own.sum(), student)
    torch.testing.assert_close(gradient, student.softmax(-1).detach() - target, rtol=0, atol=1e-12)


def test_weights_of_classes_count_in_ps_kd_by_the_label_of_the_row():
    student, target, labels = random(6, 5), random(6, 5, seed=1).softmax(-1), torch.tensor([0, 1, 4, 4, 2, 0])
    weights = random(5, seed=2).exp()
    loss = LOSSES["classification"]["ps_kd"]
    found = loss(student, target, labels=labels, class_weights=weights)
    torch.testing.assert_close(found, weights[labels] * loss(student, target))


def test_ps_kd_of_several_classes_is_the_binary_cross_entropy_of_torch_over_those_that_are_known():
    student, target = random(6, 5), random(6, 5, seed=1).sigmoid()
    target[2, 3] = math.nan
    found = LOSSES["multilabel"]["ps_kd"](student, target)
    each = F.binary_cross_entropy_with_logits(student, target.nan_to_num(0.5), reduction="none")
    each[2, 3] = 0
    torch.testing.assert_close(found, each.sum(-1), rtol=0, atol=1e-12)


def test_a_mean_teacher_that_is_the_student_teaches_nothing():
    logits = random(6, 5).requires_grad_()
    for task in ("classification", "multilabel"):
        loss = LOSSES[task]["mean_teacher"](logits, logits.detach(), temperature=1.0)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.abs().max() < 1e-12 and gradient.abs().max() < 1e-12


def test_the_target_of_ps_kd_is_the_label_and_what_was_said_by_their_shares():
    said = random(3, 4).softmax(-1)
    said[2] = math.nan
    target = mixed(torch.tensor([1, -1, 3]), said, 0.25)
    torch.testing.assert_close(target[0], 0.75 * F.one_hot(torch.tensor(1), 4) + 0.25 * said[0])
    torch.testing.assert_close(target[2], F.one_hot(torch.tensor(3), 4).double())  # not seen yet: the label alone
    torch.testing.assert_close(target.sum(-1), torch.ones(3, dtype=torch.float64))
    labels = torch.tensor([[1.0, 0.0, math.nan, 1.0]])
    assert mixed(labels, said[:1], 0.25).isnan().tolist() == [[False, False, True, False]]


# PS-KD at work


def test_a_student_remembers_what_it_last_said_of_each_labelled_row(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[PS_KD], steps=400, batch_size=32)
    trained = training(run)
    memory, said = memory_of(trained, LastSaid), {}
    assert memory.said.shape == (100, 10) and memory.said.isnan().all()
    batches = Batches(trained.data.rows, run, SESSION).from_step(0)
    forward = trained.stepper.forward
    for step in range(60):
        batch = next(batches)
        with torch.no_grad():
            now = forward(trained.stepper.begin(batch, step), 0).softmax(-1)
        trained.advance(batch)
        said |= {row: now[place] for place, row in enumerate(batch[ROW].tolist()) if row >= 0}
    for row, probabilities in said.items():
        torch.testing.assert_close(memory.said[row], probabilities)
    unseen = sorted(set(range(100)) - set(said))
    assert memory.said[unseen].isnan().all() and len(unseen) < 100


def test_the_share_of_the_student_itself_rises_by_epochs_to_alpha(digits, tmp_path):
    rows = sum(segment.num_rows for segment in digits.of("train"))
    run = make_run(tmp_path, digits, objective=[{**PS_KD, "alpha": 0.6}], steps=4 * (rows // 32), batch_size=32)
    memory = memory_of(training(run), LastSaid)
    of_epoch = rows // 32
    found = [memory.share(step) for step in (0, of_epoch - 1, of_epoch, 3 * of_epoch, 4 * of_epoch - 1)]
    assert found == pytest.approx([0.15, 0.15, 0.3, 0.6, 0.6])


@pytest.mark.parametrize("options", [{}, {"class_weights": {"3": 5.0, "8": 0.2}}])
def test_alpha_0_is_plain_training_with_labels(options, digits, tmp_path):
    one = make_run(tmp_path / "one", digits, objective=[{**PS_KD, "alpha": 0.0}], steps=60, **options)
    other = make_run(tmp_path / "other", digits, objective=[{"loss": "hard"}], steps=60, **options)
    fit([one, other], SESSION)
    weights = [load_file(run.folder / "model.safetensors") for run in (one, other)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])


def test_of_a_row_that_is_drawn_twice_in_a_batch_the_last_counts():
    numbers = torch.tensor([4, -1, 2, 4, 0, 2, 2])
    assert last_of_each(numbers, 5).tolist() == [False, False, False, True, True, False, True]
    assert row_numbers((torch.tensor([3, 0, 7]) > 0).numpy()).tolist() == [0, -1, 1]


def test_rows_without_a_label_are_neither_compared_nor_remembered(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[PS_KD])
    trained = training(run)
    batch = next(Batches(trained.data.rows, run, SESSION).from_step(0))
    assert ((batch[ROW] >= 0) == (batch["has_label"] > 0)).all()
    ((_, weight, *_),) = [tuple(asked) for asked in trained.stepper.begin(batch, 0).asked]
    assert torch.equal(weight, batch["has_label"])
    assert LAST_SAID in trained.stepper.with_own(
        batch, trained.stepper.inputs(batch, trained.stepper.views(batch, 0)), 0
    )


# the average


def test_the_average_is_that_of_torch_at_a_constant_decay(digits, tmp_path):
    """From where on 1 - 1 / (n + 1) is above the decay; before, it is the mean of all weights so far."""
    run = make_run(tmp_path, digits, objective=[{"loss": "hard"}, {**MEAN_TEACHER, "decay": 0.5}], steps=30)
    trained = training(run)
    memory = memory_of(trained, Average)
    theirs = AveragedModel(trained.stepper.module, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    theirs.update_parameters(trained.stepper.module)  # its first call takes the weights as they are
    batches = Batches(trained.data.rows, run, SESSION).from_step(0)
    for _ in range(10):
        trained.advance(next(batches))
        theirs.update_parameters(trained.stepper.module)
    for own, their in zip(memory.copy.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(own, their)


def test_the_average_begins_as_the_mean_of_all_weights(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[{"loss": "hard"}, {**MEAN_TEACHER, "decay": 0.999}], steps=30)
    trained = training(run)
    batches = Batches(trained.data.rows, run, SESSION).from_step(0)
    seen = [torch.cat([p.detach().flatten().clone() for p in trained.stepper.module.parameters()])]
    for _ in range(8):
        trained.advance(next(batches))
        seen.append(torch.cat([p.detach().flatten().clone() for p in trained.stepper.module.parameters()]))
    average = torch.cat([p.flatten() for p in memory_of(trained, Average).copy.parameters()])
    torch.testing.assert_close(average, torch.stack(seen).mean(0))


def test_which_weights_are_delivered_the_recipe_says(digits, tmp_path):
    terms = {who: [{"loss": "hard"}, {**MEAN_TEACHER, "deliver": who}] for who in ("student", "average")}
    # the last look decides, so that both keep weights of the same step
    runs = {
        who: make_run(tmp_path / who, digits, objective=each, steps=40, evaluate_every=40)
        for who, each in terms.items()
    }
    fit([*runs.values()], SESSION)
    trained = training(make_run(tmp_path / "again", digits, objective=terms["student"], steps=40, evaluate_every=40))
    batches = Batches(trained.data.rows, trained.run, SESSION).from_step(0)
    for _ in range(40):
        trained.advance(next(batches))
    expected = {"student": trained.stepper.module, "average": memory_of(trained, Average).copy}
    for who, run in runs.items():
        kept = load_file(run.folder / "model.safetensors")
        for name, value in expected[who].state_dict().items():
            torch.testing.assert_close(kept[name], value)


def test_no_gradient_reaches_the_average(digits, tmp_path):
    run = make_run(tmp_path, digits, objective=[MEAN_TEACHER], steps=5)
    trained = training(run)
    trained.advance(next(Batches(trained.data.rows, run, SESSION).from_step(0)))
    assert all(parameter.grad is None for parameter in memory_of(trained, Average).copy.parameters())


# resuming, workers


def test_a_run_that_is_left_and_resumed_ends_like_an_undisturbed_one(digits, tmp_path):
    whole, run = (make_run(tmp_path / name, digits, objective=OWN, **LEAKY) for name in ("whole", "left"))
    fit([whole], SESSION)
    left = training(run)
    batches = left.batches()
    for _ in range(37):
        left.advance(next(batches))
        if left.progress.step % left.evaluate_every == 0:
            left.look()
    left.save()
    fit([run], SESSION)
    assert outputs(run) == outputs(whole)


def test_one_and_two_workers_learn_the_same_from_themselves(digits, tmp_path):
    options = {"learning_rate": 1e-3, "steps": 40, "augment": "affine", "objective": OWN}
    cases = {
        "all rows": {},
        "two groups": {"labelled_fraction": 0.25},
        "rows that come twice": {"labelled_fraction": 0.5, "batch_size": 256},
    }
    pairs = {
        name: [make_run(tmp_path / name / who, digits, **options | more) for who in ("one", "two")]
        for name, more in cases.items()
    }
    fit([one for one, _ in pairs.values()], SESSION)
    on_ranks(tmp_path / "ranks", [two for _, two in pairs.values()], world=2)
    for one, two in pairs.values():
        weights = [load_file(run.folder / "model.safetensors") for run in (one, two)]
        for name, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-6)


class Normalised(torch.nn.Sequential):
    """With batch statistics, which each rank has of its own rows."""

    def __init__(self, num_classes, input_shape):
        width = int(torch.tensor(input_shape).prod())
        layers = [torch.nn.Linear(width, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, num_classes)]
        super().__init__(torch.nn.Flatten(), *layers)


def averages_of_a_rank(rank, folder, run):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    session = Ranks(torch.device("cpu"))
    trained = Training(run, session, SharedData().of([run], session)[0])
    batches = Batches(trained.data.rows, run, session).from_step(0)
    for _ in range(3):
        trained.advance(next(batches))
    statistics = {"own": trained.stepper.module, "average": memory_of(trained, Average).copy}
    torch.save({name: dict(each.named_buffers()) for name, each in statistics.items()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_the_average_has_the_batch_statistics_of_all_workers_between_looks_too(digits, tmp_path):
    model = "test_selves:Normalised"
    objective = [{"loss": "hard"}, MEAN_TEACHER]
    run = make_run(tmp_path, digits, objective=objective, model=model, steps=20, evaluate_every=20)
    run.stage.mkdir(parents=True, exist_ok=True)
    side_by_side(averages_of_a_rank, [(rank, tmp_path, run) for rank in range(2)])
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert not torch.equal(one["own"]["2.running_mean"], two["own"]["2.running_mean"])
    for name, value in one["average"].items():
        assert torch.equal(value, two["average"][name]), name


def test_a_student_without_teachers_is_judged_beside_its_control_and_agrees_with_its_seeds(digits, tmp_path):
    common = {"steps": 60, "evaluate_every": 30}
    own = [make_run(tmp_path, digits, objective=[PS_KD], seed=seed, **common) for seed in (0, 1)]
    controls = [
        make_run(tmp_path, digits, objective=[HARD], seed=seed, labelled_only=True, name="control", **common)
        for seed in (0, 1)
    ]
    fit([*own, *controls], SESSION)
    folders = [{run.seed: run.folder for run in runs} for runs in (own, controls)]
    found = evaluate_student(digits.folder, (), *folders, 0)
    assert found["gain"] is not None and found["combinations"] == []
    assert found["agreement"]["names"] == ["ensemble", "student", "control"]
    assert all(0 < run["agreement"] <= 1 for run in found["student"]["runs"])


# what a recipe can say


def student(**said):
    return StudentConfig.model_validate({"model": "students.models:mlp", "arguments": {"hidden": 4}, **said})


def test_a_student_may_learn_from_itself_alone_and_its_control_learns_from_labels(digits, tmp_path):
    config = student(objective=OWN, train={"steps": 5})
    common = {"folder": tmp_path, "stage": tmp_path, "stage_name": "distill/small", "transfer_set": digits.folder}
    control = student_run("control", config, 0, sources=(), **common)
    assert [term.loss for term in control.objective] == ["hard"] and control.labelled_only
    assert labels_alone(config.objective)[0].weight == 1.0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"objective": [{"loss": "hard"}]}, "`teachers` names nobody"),
        ({"objective": [PS_KD, PS_KD]}, "objective.1: loss 'ps_kd' is there twice"),
        ({"objective": [{"loss": "soft"}, PS_KD]}, "objective.0: loss 'soft' needs `teachers`"),
        ({"objective": [PS_KD], "teachers": ["wide"]}, "no term listens to the teachers"),
    ],
)
def test_what_cannot_be_learnt_is_refused(said, told):
    with pytest.raises(ValidationError, match=told):
        student(**said)


def test_an_estimator_has_no_earlier_self():
    with pytest.raises(ValidationError, match=r"objective.0.loss: an estimator is fitted at once"):
        EstimatorStudent.model_validate(
            {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier", "teachers": ["a"], "objective": [PS_KD]}
        )


def test_own_terms_are_read_as_written():
    term = TERM.validate_python({"loss": "mean_teacher", "decay": 0.99, "deliver": "average"})
    assert (term.loss, term.decay, term.temperature, term.deliver) == ("mean_teacher", 0.99, 1.0, "average")
    assert TERM.validate_python(PS_KD).alpha == 0.8
