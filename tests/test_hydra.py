"""A head for each teacher on one body (Hydra): what it learns in its two phases, what it says, and what it knows of its doubts."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from scipy.special import softmax
from scipy.stats import entropy, spearmanr

from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.page import page
from orchestrator.reporting.uncertainty import about_heads, tables
from orchestrator.running.compare import compare
from orchestrator.running.run import run
from students.config.hydra import HYDRA, Hydra, single_steps
from students.data.batches import Batches
from students.data.shared import SharedData
from students.delivering.elsewhere import export_elsewhere
from students.delivering.forms import FORMS
from students.delivering.predict import predict_file
from students.fitting.cost import for_one
from students.fitting.fit import fit
from students.fitting.rehearsal import at_chance, rehearse
from students.fitting.trial import Looks
from students.measuring.evaluate import evaluate_student
from students.measuring.uncertainty import said_by_each
from students.models import bag, huggingface, mlp, small_conv_net, tiny_transformer
from students.runs.run import Live
from students.runs.session import PlainSession
from students.tasks.ensemble import TOGETHER
from students.tasks.uncertainty import uncertainty
from students.training.headed import HeadedAndHinted
from students.training.train import Training
from teachers.errors import CollegiumError, RecipeError
from teachers.labelling.heard import Heard
from teachers.models.folder import load_model
from teachers.models.heads import MEANS, head_in, heads_of, with_heads
from teachers.soft_targets.combine.rules import COMBINE
from teachers.tasks.space import Space
from teachers.zoo import conv_net
from tests import task_runs
from tests.hub_folders import save_text_model
from tests.rank_runs import on_ranks
from tests.test_evaluate import make_source
from tests.test_hints import HINTS, SHAPES, keep_features
from tests.training_runs import HARD, SOFT, make_run, make_store, outputs, source

pytestmark = pytest.mark.usefixtures("one_thread")
SESSION = PlainSession()
CONV = "students.models:small_conv_net"
SPACES = {
    "class_axis": Space("classification", ("a", "b", "c")),
    "class_set": Space("multilabel", ("a", "b", "c")),
    "values": Space("regression", ("a", "b", "c"), (0.0, 1.0, 2.0), (1.0, 10.0, 0.1)),
}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# what several heads say


@pytest.mark.parametrize("answer", [*MEANS])
def test_heads_say_together_what_networks_do(answer):
    said = drawn(4, 6, 3)
    head = torch.nn.Linear(5, 3).double()
    network = with_heads(torch.nn.Sequential(torch.nn.Flatten(), head), "1", 4, answer, 3)
    heads = heads_of(network)
    assert [torch.equal(each.weight, head.weight) for each in heads.each] == [True] * 4
    for number, each in enumerate(heads.each):
        each.weight.data.copy_(drawn(3, 5, seed=number))
    inputs = drawn(6, 5, seed=9)
    apart = torch.stack([each(inputs) for each in heads.each])
    torch.testing.assert_close(network(inputs), TOGETHER[answer](apart))
    torch.testing.assert_close(MEANS[answer](said, torch.full((4, 1, 3), 0.25).double()), TOGETHER[answer](said))
    with heads.keeping():
        network(inputs)
    torch.testing.assert_close(heads.taken(), apart)
    network(inputs)
    assert heads.kept is None
    heads.alone = True
    assert torch.equal(network(inputs), heads.each[0](inputs))


def test_the_mean_is_that_of_probabilities():
    said = drawn(3, 5, 4)
    torch.testing.assert_close(MEANS["class_axis"](said, None).exp(), said.softmax(-1).mean(0))
    torch.testing.assert_close(MEANS["class_set"](said, None).sigmoid(), said.sigmoid().mean(0))
    torch.testing.assert_close(MEANS["values"](said, None), said.mean(0))


@pytest.mark.parametrize("answer", [*MEANS])
def test_heads_of_different_classes_say_what_teachers_of_these_do_together(answer):
    said, known = drawn(3, 5, 4), [[0, 1], [1, 2, 3], [1]]
    knows = torch.zeros(3, 5, 4, dtype=torch.bool)
    for head, names in enumerate(known):
        knows[head][:, names] = True
    network = with_heads(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 4)), "1", 3, answer, 4, known)
    found = MEANS[answer](said, heads_of(network).share.double())
    rule = next(iter(COMBINE[answer].values()))
    expected, _ = rule(said, temperature=1.0, known=knows)
    torch.testing.assert_close(found, expected)


def test_what_nobody_teaches_all_heads_answer_for():
    network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 3))
    share = heads_of(with_heads(network, "1", 2, "class_axis", 3, [[0], [0, 1]])).share
    assert share[:, 0].tolist() == [[0.5, 0.0, 0.5], [0.5, 1.0, 0.5]]
    said = drawn(2, 5, 3)
    found = MEANS["class_axis"](said, share.double()).exp()
    assert (found > 0).all() and found.sum(-1).sub(1).abs().max() < 1e-9


# the layer that becomes the heads


@pytest.mark.parametrize(
    ("network", "inputs", "layer"),
    [
        (small_conv_net(num_classes=4, input_shape=(1, 8, 8)), torch.zeros(2, 1, 8, 8), "5"),
        (mlp([8, 6], num_classes=4, input_shape=(3,)), torch.zeros(2, 3), "5"),
        (conv_net(4, num_classes=4, input_shape=(1, 8, 8)), torch.zeros(2, 1, 8, 8), "classifier"),
        (
            bag(8, hidden=6, num_classes=4, input_shape=(5,), vocabulary_size=9),
            torch.zeros(2, 5, dtype=torch.int32),
            "head.2",
        ),
        (bag(8, num_classes=4, input_shape=(5,), vocabulary_size=9), torch.zeros(2, 5, dtype=torch.int32), "head.0"),
        (
            tiny_transformer(8, 1, 2, num_classes=4, input_shape=(5,), vocabulary_size=9),
            torch.zeros(2, 5, dtype=torch.int32),
            "head",
        ),
    ],
)
def test_the_last_layer_is_found_and_becomes_heads(network, inputs, layer):
    before = network.eval()(inputs)
    assert head_in(network, inputs, 4) == head_in(network, inputs, 4, layer) == layer
    grown = with_heads(network, layer, 3, "class_axis", 4)
    torch.testing.assert_close(grown(inputs), before.log_softmax(-1))


@pytest.mark.parametrize(
    ("kind", "layer"), [("bert", "network.classifier"), ("roberta", "network.classifier.out_proj")]
)
def test_a_hugging_face_network_has_its_classifier(kind, layer, tmp_path):
    save_text_model(tmp_path, kind)
    told = {"num_classes": 3, "classes": ("no", "yes", "maybe"), "input_shape": (16,), "vocabulary_size": 24}
    network = huggingface(str(tmp_path), **told)
    ids = torch.tensor([[1, 2, 3], [4, 5, -1]], dtype=torch.int32)
    assert head_in(network, ids, 3) == layer
    before = network.eval()(ids)
    torch.testing.assert_close(with_heads(network, layer, 2, "class_axis", 3).eval()(ids), before.log_softmax(-1))


class Scaled(torch.nn.Sequential):
    """What it gives is more than its last layer gives."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Embedded(torch.nn.Sequential):
    def forward(self, inputs):
        return F.relu(super().forward(inputs))


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        (Scaled, (), "no layer with weights gives what the network gives"),
        (Embedded, (), "the last layer of this Embedded is no head"),
        (torch.nn.Sequential, (torch.nn.LogSoftmax(-1),), "after the last weights comes '2', a LogSoftmax"),
    ],
)
def test_a_network_whose_last_layer_is_no_head_is_refused(kind, more, told):
    network = kind(torch.nn.Flatten(), torch.nn.Linear(3, 4), *more)
    with pytest.raises(RecipeError, match=told):
        head_in(network, torch.zeros(2, 3), 4)


def test_a_layer_that_is_named_has_to_be_the_last():
    network = mlp([4, 4], num_classes=4, input_shape=(3,))
    with pytest.raises(RecipeError, match="'3' gives something else than the network itself"):
        head_in(network, torch.zeros(2, 3), 4, "3")
    with pytest.raises(RecipeError, match="has no layer '55'; the nearest"):
        head_in(network, torch.zeros(2, 3), 4, "55")


# what is not known, and of what


@pytest.mark.parametrize("answer", ["class_axis", "class_set"])
def test_total_is_aleatoric_and_epistemic_and_each_is_at_least_nothing(answer):
    found = uncertainty(drawn(3, 200, 3) * 4, SPACES[answer])
    torch.testing.assert_close(found.total, found.aleatoric + found.epistemic)
    assert (found.epistemic >= 0).all() and (found.aleatoric >= 0).all()
    most = math.log(3) if answer == "class_axis" else math.log(2)
    assert (found.epistemic <= most).all() and ((found.disagreement >= 0) & (found.disagreement <= 1)).all()


@pytest.mark.parametrize("answer", [*SPACES])
def test_who_say_the_same_do_not_disagree(answer):
    said = drawn(1, 20, 3).expand(4, -1, -1)
    found = uncertainty(said, SPACES[answer])
    assert found.epistemic.abs().max() < 1e-7
    assert found.disagreement is None or not found.disagreement.any()


def test_it_agrees_with_scipy():
    said = drawn(3, 50, 4).numpy()
    p = softmax(said, -1)
    found = uncertainty(torch.from_numpy(said), Space("classification", tuple("abcd")))
    np.testing.assert_allclose(found.total, entropy(p.mean(0), axis=-1))
    np.testing.assert_allclose(found.aleatoric, entropy(p, axis=-1).mean(0))
    classes = p.argmax(-1)
    pairs = [(classes[i] != classes[j]) for i in range(3) for j in range(i)]
    np.testing.assert_allclose(found.disagreement, np.mean(pairs, 0))
    numbers = uncertainty(torch.from_numpy(said[..., :1]), Space("regression", ("a",), (3.0,), (7.0,)))
    np.testing.assert_allclose(numbers.epistemic, said[..., 0].std(0))  # in the units of the label
    assert [*numbers.parts] == ["epistemic"]


@pytest.mark.parametrize("answer", [*SPACES])
def test_of_whom_knows_nothing_of_a_row_nothing_is_asked(answer):
    said = drawn(3, 6, 3)
    said[2, 0], said[1:, 1] = torch.nan, torch.nan
    found = uncertainty(said, SPACES[answer])
    torch.testing.assert_close(found.epistemic[0], uncertainty(said[:2], SPACES[answer]).epistemic[0])
    assert found.epistemic[1].isnan() and found.epistemic[2:].isfinite().all()  # one alone does not disagree


# what is trained


@pytest.fixture(scope="module")
def stores(digits, tmp_path_factory):
    names = ("wide", "deep", "trees")
    folder = tmp_path_factory.mktemp("teachers")
    return {name: make_store(folder / name, digits, name=name, seed=n) for n, name in enumerate(names)}


def hydra_run(folder, digits, stores, phase_one=0.5, **options):
    heard = [source(store, name) for name, store in stores.items()]
    options = {"model": CONV, "steps": 20, **options}
    return replace(make_run(folder, digits, *heard, **options), hydra=Hydra(phase_one=phase_one))


def training(run):
    return Training(run, SESSION, SharedData().of([run], SESSION)[0])


def weights(module):
    return {name: each.detach().clone() for name, each in module.state_dict().items()}


def one_step(trained, step):
    """What the step's objective comes to, `[terms]`, and its batch; nothing moves, gradients stay."""
    stepper = trained.stepper
    batch = next(iter(Batches(trained.data.rows, trained.run, SESSION).from_step(step)))
    work = stepper.begin(batch, step)
    student, heard = stepper.answer(work, 0)
    stepper.backward(work, 0, student, heard)
    return work.terms[0], batch, work, student


def part_heads(stepper):
    """Make the heads differ."""
    for number, head in enumerate(stepper.heads.each):
        for each in head.parameters():
            each.data += 0.1 * drawn(*each.shape, seed=number).float()


def said_of(batch, name, digits, stores):
    return batch[f"{name}.logits.value"] if f"{name}.logits.value" in batch else batch[f"{name}.logits"]


def test_each_head_learns_its_own_teacher_by_the_mean_of_their_divergences(digits, stores, tmp_path):
    trained = training(hydra_run(tmp_path, digits, stores))
    part_heads(trained.stepper)
    (found_soft, found_hard), batch, work, student = one_step(trained, 15)
    rows = trained.data.rows
    with trained.stepper.heads.keeping():
        trained.stepper.module(rows.inputs(batch, None))
    heads = trained.stepper.heads.taken()
    said = work.asked[0].target
    assert said.shape == (32, 3, 10)
    expected = [
        4
        * F.kl_div((head / 2).log_softmax(-1), (said[:, k] / 2).log_softmax(-1), log_target=True, reduction="batchmean")
        for k, head in enumerate(heads)
    ]
    torch.testing.assert_close(found_soft, torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)
    labelled = batch["has_label"] > 0
    mean = heads.softmax(-1).mean(0).log()
    torch.testing.assert_close(found_hard, F.nll_loss(mean[labelled], batch["label"][labelled]))
    torch.testing.assert_close(student, mean)


def test_what_a_teacher_says_does_not_touch_another_ones_head(digits, stores, tmp_path):
    trained = training(hydra_run(tmp_path, digits, stores, objective=[SOFT]))
    stepper = trained.stepper
    part_heads(stepper)
    batch = next(iter(Batches(trained.data.rows, trained.run, SESSION).from_step(15)))
    found = {}
    for silent in (None, 1):
        stepper.optimizer.zero_grad()
        work = stepper.begin(batch, 15)
        if silent is not None:
            said = work.asked[0].target.clone()
            said[:, silent] = drawn(32, 10, seed=silent).float()
            work.asked[0] = work.asked[0]._replace(target=said)
        stepper.backward(work, 0, *stepper.answer(work, 0))
        found[silent] = [head.weight.grad.clone() for head in stepper.heads.each]
    same = [torch.equal(*pair) for pair in zip(found[None], found[1], strict=True)]
    assert same == [True, False, True]


def test_equal_heads_of_equal_teachers_have_the_loss_of_one(digits, stores, tmp_path):
    equal = dict.fromkeys(("wide", "deep", "trees"), stores["wide"])
    run = hydra_run(tmp_path / "hydra", digits, equal, phase_one=0.0)
    one = make_run(tmp_path / "one", digits, source(stores["wide"]), model=CONV, steps=20)
    losses = [one_step(training(each), 3)[0] for each in (run, one)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    results = fit([run], SESSION)
    model = load_model(results[0].folder)
    said = said_by_each(model, digits.inputs(digits.of("test")[0]))
    assert torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])  # nothing parts them
    assert uncertainty(said, digits.space).epistemic.max() < 1e-6


def test_the_first_phase_is_that_of_one_head_on_what_all_say_together(digits, stores, tmp_path):
    hydra = training(hydra_run(tmp_path / "hydra", digits, stores, phase_one=0.95))
    heard = [source(store, name) for name, store in stores.items()]
    one = training(make_run(tmp_path / "one", digits, *heard, model=CONV, steps=20))
    for batch_of in (hydra, one):
        for batch in batch_of.batches():
            batch_of.advance(batch)
            if batch_of.progress.step == 19:
                break
    own, others = weights(hydra.module), weights(one.module)
    for name, each in others.items():
        place, _, leaf = name.rpartition(".")
        twins = [own[name]] if name in own else [own[f"{place}.each.{k}.{leaf}"] for k in range(3)]
        for twin in twins:  # all heads are one, at every step
            torch.testing.assert_close(twin, each, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_second_phase_begins_from_the_head_of_the_first(digits, stores, tmp_path, optimizer):
    trained = training(hydra_run(tmp_path, digits, stores, optimizer=optimizer))
    stepper, seen = trained.stepper, {}
    for batch in trained.batches():
        before = [weights(head) for head in stepper.heads.each]
        trained.advance(batch)
        seen[trained.progress.step - 1] = before
        if trained.progress.step == 20:
            break
    for step in range(11):  # 10 is the first of the second phase
        assert all(torch.equal(seen[step][0][name], each[name]) for each in seen[step] for name in each), step
    assert not torch.equal(seen[11][0]["weight"], seen[11][1]["weight"])
    state = stepper.optimizer.state
    assert [len(state[head.weight]) for head in stepper.heads.each] == [len(state[stepper.heads.each[0].weight])] * 3
    assert single_steps(Hydra(phase_one=0.99), 20) == 19 and single_steps(Hydra(phase_one=0.0), 20) == 0


@pytest.mark.parametrize("killed_after", [4, 10, 14])
def test_a_run_that_is_killed_in_either_phase_ends_as_one_that_was_not(digits, stores, tmp_path, killed_after):
    whole, parted = (
        hydra_run(tmp_path / name, digits, stores, evaluate_every=4, optimizer="sgd") for name in ("whole", "parted")
    )
    fit([whole], SESSION)
    parted.folder.mkdir(parents=True)
    first = training(parted)
    for batch in first.batches():
        first.advance(batch)
        if first.progress.step % 4 == 0:
            first.look()
        if first.progress.step == killed_after:
            break
    first.save()
    fit([parted], SESSION)
    assert outputs(parted) == outputs(whole)


def test_what_is_kept_is_of_the_second_phase(digits, stores, tmp_path):
    run = hydra_run(tmp_path, digits, stores, phase_one=0.8, evaluate_every=4, learning_rate=0.01)
    (result,) = fit([run], SESSION)
    assert result.best_step == 20 and result.validation is not None
    lines = [json.loads(line) for line in (run.stage / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if line["key"] == "validation.accuracy"} == {4, 8, 12, 16, 20}


def test_the_folder_says_the_mean_of_its_heads_and_loads_as_any(digits, stores, tmp_path):
    (result,) = fit([hydra_run(tmp_path, digits, stores, steps=60)], SESSION)
    config = json.loads((result.folder / "config.json").read_text())
    assert config["model"] == HYDRA
    assert config["arguments"] == {
        "of": {"model": CONV, "arguments": {}},
        "layer": "5",
        "heads": 3,
        "answer": "class_axis",
    }
    model, inputs = load_model(result.folder), digits.inputs(digits.of("test")[0])
    each = said_by_each(model, inputs)
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(model(inputs), each.softmax(-1).mean(0).log(), rtol=1e-4, atol=1e-5)
    tensors = load_file(result.folder / "model.safetensors")
    assert {name for name in tensors if name.startswith("5.")} == {
        f"5.each.{k}.{leaf}" for k in range(3) for leaf in ("weight", "bias")
    }


def test_teachers_of_some_classes_only_have_heads_of_these(digits, tmp_path):
    low, high = digits.classes[:6], digits.classes[4:]
    stores = {
        name: make_store(tmp_path / name, digits, name=name, classes=classes, seed=n)
        for n, (name, classes) in enumerate((("low", list(low)), ("high", list(high))))
    }
    run = hydra_run(tmp_path / "run", digits, stores, steps=60)
    run = replace(run, sources=tuple(replace(each, class_map={}) for each in run.sources))
    (result,) = fit([run], SESSION)
    config = json.loads((result.folder / "config.json").read_text())
    assert config["arguments"]["known"] == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9]]
    model, inputs = load_model(result.folder), digits.inputs(digits.of("test")[0])
    each = said_by_each(model, inputs)
    p = each.softmax(-1)
    assert p[0, :, 6:].max() == 0 == p[1, :, :4].max()
    knows = (p > 0).any(1)[:, None].expand_as(each)
    expected, _ = COMBINE["class_axis"]["mean_probability"](each, temperature=1.0, known=knows)
    torch.testing.assert_close(model(inputs).softmax(-1), expected.softmax(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_have_heads_too(task, tmp_path):
    data = task_runs.prepared(tmp_path, task)
    stores = {n: task_runs.make_store(tmp_path / n, data, name=n, seed=k) for k, n in enumerate(("wide", "deep"))}
    run = hydra_run(tmp_path / "run", data, stores, model=None, steps=200, learning_rate=0.01)
    trained = training(run)
    part_heads(trained.stepper)
    (found, _), batch, work, _ = one_step(trained, 150)
    with trained.stepper.heads.keeping():
        said = trained.stepper.module(trained.data.rows.inputs(batch, None))
    heads, target = trained.stepper.heads.taken(), work.asked[0].target
    if task == "regression":
        target = (target - torch.tensor(data.space.mean)) / torch.tensor(data.space.scale)
        expected = [(head - target[:, k]).square().mean(-1) for k, head in enumerate(heads)]
        torch.testing.assert_close(said, heads.mean(0))
    else:
        ps = [((target[:, k] / 2).sigmoid(), head / 2) for k, head in enumerate(heads)]
        of_zero = [F.binary_cross_entropy(p, p, reduction="none") for p, _ in ps]
        expected = [
            4 * (F.binary_cross_entropy_with_logits(z, p, reduction="none") - h).sum(-1)
            for (p, z), h in zip(ps, of_zero, strict=True)
        ]
        torch.testing.assert_close(said.sigmoid(), heads.sigmoid().mean(0))
    ratio = found / torch.stack(expected).mean()
    assert ratio.item() == pytest.approx(1, rel=1e-4) or ratio.item() * data.space.width == pytest.approx(1, rel=1e-4)
    (result,) = fit([run], SESSION)
    model = load_model(result.folder)
    rows = data.inputs(data.of("test")[0])
    each = said_by_each(model, rows)
    torch.testing.assert_close(model(rows), TOGETHER[data.space.answer](each), rtol=1e-3, atol=1e-3)


class Answering:
    """Who answers for the teachers when they are asked live."""

    def __init__(self, digits, names):
        (segment,) = digits.of("train")
        self.keys, self.said = digits.keys(segment), {}
        for number, name in enumerate(names):
            drawn = np.random.default_rng(number).standard_normal((segment.num_rows, 10)).astype(np.float32)
            drawn[np.arange(segment.num_rows), digits.labels(segment)] += 4
            self.said[name] = drawn

    def ask(self, teachers, inputs, sample_key):
        return np.searchsorted(self.keys, sample_key)

    def answers(self, asked):
        return {name: Heard(said[asked], {}) for name, said in self.said.items()}


def test_teachers_may_be_asked_live(digits, stores, tmp_path):
    cached = hydra_run(tmp_path / "cached", digits, stores)
    live = hydra_run(tmp_path / "live", digits, stores)
    asked = tuple(replace(each, stores={}, live=Live(tuple(digits.classes))) for each in live.sources)
    live = replace(live, sources=asked)
    fit([cached], SESSION)
    fit([live], PlainSession(live=Answering(digits, stores)))
    one, other = (load_file(run.folder / "model.safetensors") for run in (cached, live))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-2, atol=1e-3)  # stores keep float16


@pytest.mark.parametrize(
    "objective",
    [
        [{"loss": "teacher_label"}],
        [{"loss": "dkd", "unlabelled": "teacher_label", "weight": 0.1}, HARD],
        [{"loss": "dist"}, {"loss": "logit_mse", "standardise": True, "weight": 0.01}],
        [SOFT | {"combine": "entropy"}, {"loss": "ps_kd"}],
        [SOFT | {"combine": "weighted", "teacher_weights": {"wide": 2, "deep": 1, "trees": 1}}],
        [SOFT | {"combine": "training_runs:own_mean"}, {"loss": "mean_teacher", "deliver": "average"}],
        [SOFT | {"standardise": True, "ramp": {"share": 0.5}}, HARD],
    ],
    ids=lambda objective: objective[0]["loss"] + "," + str(objective[0].get("combine")),
)
def test_every_loss_and_rule_has_both_phases(digits, stores, tmp_path, objective):
    run = hydra_run(tmp_path, digits, stores, objective=objective, accumulate=2)
    assert not rehearse(run, "cpu").idle
    (result,) = fit([run], SESSION)
    each = said_by_each(load_model(result.folder), digits.inputs(digits.of("test")[0]))
    assert each.isfinite().all() and not torch.equal(each[0], each[1])


def test_ranks_train_what_one_process_does(digits, stores, tmp_path):
    alone, both = (
        hydra_run(tmp_path / name, digits, stores, model="test_hints:Exact", steps=10) for name in ("alone", "both")
    )
    fit([alone], SESSION)
    on_ranks(tmp_path / "both", [both], 2)
    one, other = (load_file(run.folder / "model.safetensors") for run in (alone, both))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-7)


def test_a_model_folder_of_chance_is_what_it_would_train(digits, stores, tmp_path):
    run = hydra_run(tmp_path, digits, stores)
    module = load_model(at_chance(run, tmp_path / "chance")).module
    assert len(heads_of(module).each) == 3
    assert for_one(run).hydra.phase_one == 0


def test_the_last_layer_has_to_be_one_before_anything_is_trained(digits, stores, tmp_path):
    run = hydra_run(tmp_path, digits, stores, model="test_hydra:Doubled")
    with pytest.raises(
        CollegiumError, match=r"students\.small\.hydra\.layer: the last layer of this Doubled is no head"
    ):
        rehearse(run, "cpu")
    named = replace(hydra_run(tmp_path, digits, stores), hydra=Hydra(layer="3"))
    with pytest.raises(CollegiumError, match=r"students\.small\.hydra\.layer: '3' gives something else"):
        rehearse(named, "cpu")


class Doubled(torch.nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.body = torch.nn.Linear(int(np.prod(input_shape)), num_classes)

    def forward(self, inputs):
        return 2 * self.body(inputs.flatten(1))


def test_a_trial_ends_with_what_its_second_phase_was_worth(digits, stores, tmp_path):
    run, told = hydra_run(tmp_path, digits, stores), []
    looks = Looks(run, lambda step, best: told.append((step, best["validation.accuracy"])))
    for step, value in ((5, 0.5), (10, 0.9), (15, 0.6), (20, 0.7)):
        looks.take([{"run": run.name, "step": step, "key": "validation.accuracy", "value": value}])
    assert told == [(5, 0.5), (10, 0.9), (15, 0.6), (20, 0.7)]


def test_hints_are_of_the_body(digits, tmp_path):
    wide = source(keep_features(digits, tmp_path / "wide"), outputs=SHAPES)
    other = source(make_store(tmp_path / "deep", digits, name="deep", seed=1), "deep")
    hint = HINTS.validate_python([{"loss": "hint", "teacher": "wide", "output": "early", "layer": "1", "alone": 0.2}])
    run = replace(make_run(tmp_path, digits, wide, other, model=CONV, steps=20), hints=tuple(hint), hydra=Hydra())
    assert isinstance(training(run).stepper, HeadedAndHinted) and not rehearse(run, "cpu").idle
    (result,) = fit([run], SESSION)
    assert not [name for name in load_file(result.folder / "model.safetensors") if "projection" in name]
    each = said_by_each(load_model(result.folder), digits.inputs(digits.of("test")[0]))
    assert not torch.equal(each[0], each[1])


def test_it_trains_in_bfloat16(digits, stores, tmp_path):
    (result,) = fit([hydra_run(tmp_path, digits, stores, precision="bfloat16")], SESSION)
    assert result.validation is not None


# what is measured and delivered


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """(sources, run folder) of a Hydra of two teachers, and of a student with one head."""
    folder = tmp_path_factory.mktemp("trained")
    sources = tuple(
        make_source(folder, digits, name, seed=seed, splits=("train", "validation", "test"))
        for seed, name in enumerate(("wide", "deep"))
    )
    folders = {}
    for name, hydra in (("hydra", Hydra()), ("one", None)):
        run = make_run(folder / name, digits, *sources, model=CONV, steps=150, learning_rate=0.01)
        folders[name] = fit([replace(run, hydra=hydra)], SESSION)[0].folder
    return sources, folders


@pytest.fixture(scope="module")
def evaluated(digits, trained):
    sources, folders = trained
    return {name: evaluate_student(digits.folder, sources, {0: folder}, None, 0) for name, folder in folders.items()}


def test_an_evaluation_tells_what_heads_and_teachers_disagree_by(digits, trained, evaluated):
    _, folders = trained
    assert "uncertainty" not in evaluated["one"]
    found = evaluated["hydra"]["uncertainty"]
    (own,), theirs = found["runs"], found["teachers"]
    assert own["seed"] == 0 and own["heads"] == 2
    for each in (own, theirs):
        assert each["total"] == pytest.approx(each["aleatoric"] + each["epistemic"])
        assert 0 < each["epistemic"] < math.log(2) and 0 < each["disagreement"] < 1
    (segment,) = digits.of("test")
    said = said_by_each(load_model(folders["hydra"]), digits.inputs(segment)).double()
    teachers = [np.random.default_rng(seed).normal(size=(segment.num_rows, 10)) for seed in (0, 1)]
    for logits in teachers:
        logits[np.arange(segment.num_rows), digits.labels(segment)] += 2
    doubts = [
        entropy(p.mean(0), axis=-1) - entropy(p, axis=-1).mean(0)
        for p in (softmax(said.numpy(), -1), softmax(np.stack(teachers), -1))
    ]
    assert own["epistemic"] == pytest.approx(doubts[0].mean(), rel=1e-3)
    assert theirs["epistemic"] == pytest.approx(doubts[1].mean(), rel=1e-2)  # stores keep float16
    assert own["rank_correlation"] == pytest.approx(spearmanr(*doubts).statistic, abs=0.01)
    labels = torch.from_numpy(digits.labels(segment)).long()
    alone = [float(F.cross_entropy(head, labels)) for head in said]
    assert own["alone"]["nll"] == pytest.approx(np.mean(alone), rel=1e-4)
    assert evaluated["hydra"]["student"]["runs"][0]["nll"] < own["alone"]["nll"]  # -log is convex


def test_a_report_has_a_table_and_a_sentence(evaluated):
    student = {"model": CONV, "arguments": {}, "preprocess": {}, "teachers": ["wide", "deep"], "train": {}}
    report = {
        "recipe": {"task": "classification", "students": {"small": {**student, "hydra": {}}, "plain": student}},
        "students": {
            name: {
                "runs": found["student"]["runs"],
                "ensemble": found["ensemble"],
                "control_runs": None,
                **({"uncertainty": found["uncertainty"]} if "uncertainty" in found else {}),
            }
            for name, found in (("small", evaluated["hydra"]), ("plain", evaluated["one"]))
        },
    }
    (sentence,) = about_heads(report)
    assert sentence.startswith(
        "small has 2 heads on one body, one a teacher: the mutual information of what they say is 0."
    )
    assert "nats on test rows, of its teachers 0." in sentence and "rank correlation of" in sentence
    (table,) = tables(report)
    assert [row[0] for row in table["rows"]] == [
        "small",
        "one of its heads",
        "plain, with one head",
        "teachers together",
    ]
    assert all(len(row) == 1 + len(table["columns"]) for row in table["rows"])
    assert table["columns"][:3] == ["accuracy", "NLL", "ECE"]


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_in_every_form_it_says_the_mean_of_its_heads(digits, trained, tmp_path, form):
    _, folders = trained
    inputs = digits.inputs(digits.of("test")[0])
    rows = tmp_path / "rows.npz"
    np.savez(rows, image=inputs["image"])
    done = export_elsewhere(folders["hydra"], tmp_path / "out", [form], name="hydra", rows=rows)
    assert done.agreements[FORMS[form].file].largest_difference < 1e-4


def test_predictions_say_how_unsure_they_are(digits, trained, tmp_path):
    _, folders = trained
    inputs, lines = digits.inputs(digits.of("test")[0]), []
    np.savez(tmp_path / "rows.npz", image=inputs["image"])
    told = {"write_line": lines.append, "tell_bad": lines.append, "uncertainty": True}
    predict_file(folders["hydra"], tmp_path / "rows.npz", None, **told)
    rows = [json.loads(line) for line in lines]
    assert [*rows[0]] == ["id", "class", "probability", "total", "aleatoric", "epistemic"]
    expected = uncertainty(said_by_each(load_model(folders["hydra"]), inputs), digits.space)
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose([row[name] for row in rows], expected.parts[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(RecipeError, match=r"this model has one head.*leave `--uncertainty` out"):
        predict_file(folders["one"], tmp_path / "rows.npz", None, **told)


TEACHER = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier", "arguments": {"n_estimators": 20}}
STUDENT = {
    "model": CONV,
    "teachers": ["wide", "deep", "trees"],
    "train": {"steps": 60, "seeds": [0, 1]},
    "require": None,
}
RECIPE = {
    "format": 1,
    "name": "heads",
    "transfer_set": {
        "source": {"kind": "sklearn", "name": "digits"},
        "inputs": "image",
        "label": "digit",
        "labelled": 200,
    },
    "teachers": {name: {**TEACHER, "seed": seed, "require": None} for seed, name in enumerate(STUDENT["teachers"])},
    "students": {"small": {**STUDENT, "hydra": {}}, "plain": STUDENT},
}


@pytest.mark.campaign
def test_through_the_whole_product(ray_cluster, tmp_path):
    made = Recipe.from_dict(RECIPE)
    assert plan(made, tmp_path / "out", check=True).stages
    report = run(made, tmp_path / "out").report
    found = report["students"]["small"]["uncertainty"]
    assert [each["seed"] for each in found["runs"]] == [0, 1] and found["teachers"]["epistemic"] > 0
    assert any("small has 3 heads on one body" in note for note in report["notes"])
    assert "How unsure students with several heads are" in page(report)
    (folder,) = (tmp_path / "out" / "models").glob("small-*")
    written = json.loads((folder / "config.json").read_text())
    assert (written["model"], written["arguments"]["heads"]) == (HYDRA, 3)
    controls = [stage for stage in report["stages"] if stage.get("part") == "control/seed-0"]
    assert len({stage["key"] for stage in controls}) == 1  # both students have one
    again = run(Recipe.from_dict(yaml.safe_load((folder / "recipe.yaml").read_text())), tmp_path / "out").report
    assert all(stage["reused"] for stage in again["stages"])


@pytest.mark.campaign
def test_it_can_be_compared(ray_cluster, tmp_path):
    one = {**RECIPE, "students": {"plain": STUDENT}}
    report = compare(one, tmp_path / "out", methods="soft,hydra").report
    assert [each["method"] for each in report["compared"]["variants"]] == ["soft", "hydra"]
    (table,) = tables(report)
    assert [row[0] for row in table["rows"]] == [
        "hydra",
        "one of its heads",
        "soft, with one head",
        "teachers together",
    ]
