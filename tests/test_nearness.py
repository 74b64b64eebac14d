"""Hints of several teachers that count, row by row, by who is nearer to the label (CA-MKD's term of features)."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError

from orchestrator.planning.rehearsal import rehearse
from orchestrator.recipe.checks import judging_problems
from orchestrator.recipe.model import Recipe
from orchestrator.running.run import smoke
from orchestrator.stages.trainings import training_stages
from students.config.hints import Hint, check_heard
from students.config.student import StudentConfig
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.runs.run import Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.outputs import NamedOutput
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.models.linear_head import linear_head
from teachers.preparing.sample import Sample
from teachers.soft_targets.combine.by_row import ERRORS, by_label
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from teachers.zoo import conv_net, mlp
from tests.test_hints import SHAPES, keep_features
from tests.training_runs import HARD, make_run

pytestmark = pytest.mark.usefixtures("one_thread")

SESSION = PlainSession()
HINTS = TypeAdapter(list[Hint])
LAYERS = {"vector": NamedOutput(layer="2"), "late": NamedOutput(layer="stages.2")}
WIDE = {"loss": "hint", "teacher": "wide", "output": "vector", "layer": "flat", "combine": "correctness"}
DEEP = {"loss": "hint", "teacher": "deep", "output": "late", "layer": "conv", "combine": "correctness"}
NET = "test_nearness:Exact"


class Exact(torch.nn.Sequential):
    """In float64: a map [6, 2, 2], and all of it in a row."""

    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 6, 4, stride=4)
        self.flat, self.head = torch.nn.Flatten(), torch.nn.Linear(24, num_classes)
        self.double()

    def forward(self, inputs):
        return super().forward(inputs.double())


class Softened(torch.nn.Sequential):
    """No linear layer gives what it gives."""

    def __init__(self, num_classes, input_shape):
        layers = torch.nn.Linear(64, 20), torch.nn.ReLU(), torch.nn.Linear(20, num_classes)
        super().__init__(torch.nn.Flatten(), *layers, torch.nn.Tanh())


@pytest.fixture(scope="module")
def teachers(digits, tmp_path_factory):
    """Two, of what each says and of their networks: one whose last layer is given a vector, and one the mean of a map."""
    folder = tmp_path_factory.mktemp("teachers")
    store, networks = keep_features(digits, folder / "store"), {}
    made = {"wide": ("teachers.zoo:mlp", {"hidden": 20}), "deep": ("teachers.zoo:conv_net", {"width": 3})}
    for name, (model, arguments) in made.items():
        run = make_run(folder / name, digits, model=model, objective=(HARD,), labelled_only=True, steps=30)
        fit([run := replace(run, arguments=arguments)], SESSION)
        networks[name] = run.folder
    shared = {"stores": {"train-0": store}, "outputs": SHAPES, "layers": LAYERS}
    return {name: Source(name, network=networks[name], **shared) for name in made}


def hinted(folder, digits, teachers, *hints, model=NET, **train):
    run = make_run(folder, digits, *teachers.values(), model=model, objective=(HARD,), **train)
    return replace(run, hints=tuple(HINTS.validate_python(hints)))


def training(run):
    return Training(run, SESSION, SharedData().of([run], SESSION)[0])


def test_value_and_gradient_are_those_of_the_formula(digits, teachers, tmp_path):
    """sum_k mean_i w_ik MSE_ik, w = (1 - softmax_k CE(W_k P_k h + b_k, y)) / (K - 1), through which the gradient goes, too."""
    teachers = {**teachers, "deep": replace(teachers["deep"], class_map={"9": None})}
    run = hinted(tmp_path, digits, teachers, {**WIDE, "after_passes": 0}, {**DEEP, "after_passes": 0}, batch_size=400)
    stepper = training(run).stepper
    batch = next(iter(Batches(stepper.rows, run, SESSION).from_step(0)))
    work = stepper.begin(batch, 0)
    loss = stepper.loss(work, 0, *stepper.answer(work, 0))
    parameters = [*stepper.guided.parameters()]
    found = torch.autograd.grad(loss, parameters)

    net = stepper.module
    maps = net.conv(work.inputs.double())
    flat = maps.flatten(1)
    of_wide = flat @ stepper.guided.projections["hint"].projectors[0].map.weight.T
    of_deep = torch.einsum(
        "oc,nchw->nohw", stepper.guided.projections["hint_2"].projectors[0].map.weight[..., 0, 0], maps
    )
    heads = {name: load_model(each.network).module[-1].double() for name, each in teachers.items()}
    said = [heads["wide"](of_wide), heads["deep"](of_deep.mean((2, 3)))[:, :9]]
    labels, has = batch["label"], batch["has_label"] > 0
    errors = torch.stack([F.cross_entropy(said[0], labels, reduction="none"),
                          F.cross_entropy(said[1], labels.clamp_max(8), reduction="none")])  # fmt: skip
    weights = 1 - errors.softmax(0)
    weights = torch.where(labels == 9, torch.tensor([[1.0], [0.0]]), weights)  # nobody else knows it
    weights = torch.where(has, weights, 0.5)
    assert 10 < int(has.sum()) < 100 and int((has & (labels == 9)).sum()) > 0
    squares = [(of_wide - batch["wide.vector.value"].double()).square().mean(1),
               (of_deep - batch["deep.late.value"].double().reshape(-1, 12, 2, 2)).square().mean((1, 2, 3))]  # fmt: skip
    hard = (F.cross_entropy(net.head(flat), labels, reduction="none") * has).sum() / has.sum()
    terms = [hard, (weights[0] * squares[0]).mean(), (weights[1] * squares[1]).mean()]
    torch.testing.assert_close(work.terms[0], torch.stack(terms).detach(), rtol=1e-9, atol=0)
    expected = torch.autograd.grad(0.1 * terms[0] + 50 * terms[1] + 50 * terms[2], parameters, retain_graph=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)
    still = torch.autograd.grad(50 * (weights.detach() * torch.stack(squares)).sum() / 400, parameters[0])[0]
    assert (still - expected[0]).abs().max() > 1e-3 * expected[0].abs().max()  # weights are no constants


def test_it_is_heard_behind_the_first_pass_over_the_rows_unless_the_recipe_says_otherwise(digits, teachers, tmp_path):
    passes = [{}, {"after_passes": 2}, {"after_passes": 0}]
    runs = [hinted(tmp_path, digits, teachers, {**WIDE, **each}, DEEP, batch_size=400, steps=12) for each in passes]
    heard = [SharedData().of([run], SESSION)[0].rows.objective for run in runs]
    rows = digits.of("train")[0].num_rows // 400
    for objective, first in zip(heard, (rows, 2 * rows, 0), strict=True):
        assert [objective.weights(step, 12)[1] for step in range(12)] == [0.0] * first + [50.0] * (12 - first)


def test_a_training_is_the_same_in_parts(digits, teachers, tmp_path):
    states = []
    for accumulate in (1, 2):
        hints = {**WIDE, "after_passes": 0}, {**DEEP, "after_passes": 0}
        trained = training(hinted(tmp_path / str(accumulate), digits, teachers, *hints, accumulate=accumulate, steps=6))
        trained.run.stage.mkdir(parents=True)
        trained.train()
        states.append(trained.module.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-9, atol=1e-12)


def test_weights_sum_to_one_and_of_a_single_hint_it_is_one(digits, teachers, tmp_path):
    generator = torch.Generator().manual_seed(0)
    said, known = torch.randn(3, 8, 5, generator=generator), torch.ones(3, 8, 5, dtype=torch.bool)
    weights = by_label(ERRORS["class_axis"], said, known, torch.randint(5, (8,), generator=generator))
    torch.testing.assert_close(weights.sum(0), torch.ones(8))
    run = hinted(tmp_path, digits, {"wide": teachers["wide"]}, {**WIDE, "after_passes": 0})
    stepper = training(run).stepper
    work = stepper.begin(next(iter(Batches(stepper.rows, run, SESSION).from_step(0))), 0)
    assert stepper.answer(work, 0)[1].hint_weights["hint"].tolist() == [1.0] * 32


@pytest.mark.parametrize(
    ("layer", "pool", "way"),
    [("stages.2", None, "mean_over_positions"), ("stages.2", "mean", "as_it_is"), ("flatten", None, "as_it_is")],
)
def test_a_last_layer_reads_a_layer_as_its_network_does(layer, pool, way):
    network, inputs = conv_net(4, num_classes=3, input_shape=(1, 8, 8)).eval(), torch.randn(5, 1, 8, 8)
    head = linear_head(network, torch.zeros(2, 1, 8, 8), 3, NamedOutput(layer=layer, pool=pool))
    given = network.stages(network.stem(inputs))
    given = given.mean((2, 3)) if pool or layer == "flatten" else given
    assert head.way.__name__ == way
    torch.testing.assert_close(head(given), network(inputs))


def test_what_stands_before_an_activation_is_not_what_a_last_layer_is_given():
    network = mlp(6, num_classes=3, input_shape=(4,))
    with pytest.raises(RecipeError, match=r"last layer, '3', is not given what '1' gives.*the layer right before it"):
        linear_head(network, torch.zeros(2, 4), 3, NamedOutput(layer="1"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"network": None}, "hints.0.combine: 'wide' is no network in a model folder"),
        ({"layers": {"vector": NamedOutput(layer="1")}}, "hints.0.combine: the last layer, '3', is not given what '1'"),
    ],
)
def test_a_teacher_whose_last_layer_cannot_read_the_output_is_refused(change, told, digits, teachers, tmp_path):
    run = hinted(tmp_path, digits, {**teachers, "wide": replace(teachers["wide"], **change)}, WIDE, DEEP)
    with pytest.raises(RecipeError, match=told):
        training(run)


def test_a_teacher_without_a_linear_last_layer_is_refused(digits, teachers, tmp_path):
    run = make_run(tmp_path, digits, model="test_nearness:Softened", objective=(HARD,), labelled_only=True, steps=2)
    fit([run], SESSION)
    odd = replace(teachers["wide"], network=run.folder)
    made = replace(hinted(tmp_path / "s", digits, {**teachers, "wide": odd}, WIDE, DEEP), trust=("test_nearness",))
    with pytest.raises(RecipeError, match=r"hints.0.combine: the last layer of this Softened is no head.*a Tanh"):
        training(made)


MODULE = {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 20}, "train": {"steps": 10},
          "outputs": {"vector": {"layer": "2"}, "early": {"layer": "1"}}}  # fmt: skip
ROWS = {"source": {"kind": "csv", "path": "rows.csv"}, "inputs": "x", "label": "y"}
EVEN = [{"loss": "hint", "teacher": name, "output": "vector", "layer": "2", "combine": "correctness"} for name in ("wide", "deep")]  # fmt: skip


def recipe(*hints, task="classification", wide=MODULE, train=None, **rows):
    student = {"model": "students.models:mlp", "arguments": {"hidden": 8}, "teachers": ["wide", "deep"]}
    student |= {"hints": [*hints], "train": {"steps": 100, "seeds": [0]} | (train or {})}
    document = {"format": 1, "name": "near", "task": task, "transfer_set": {**ROWS, **rows}}
    teachers = {"wide": wide, "deep": MODULE}
    return Recipe.from_dict(deepcopy({**document, "teachers": teachers, "students": {"small": student}}))


def keys(made, **networks):
    stages = training_stages(made, "small", "da7a", {"wide": "1a", "deep": "7e"}, networks)
    return {stage.part: stage.key for stage in stages.values()}


def test_the_teachers_networks_are_in_the_students_key_and_not_in_its_controls():
    made, plain = recipe(*EVEN), recipe(*({**hint, "combine": None} for hint in EVEN))
    first, other = keys(made, wide="a", deep="b"), keys(made, wide="a", deep="c")
    assert len({each["student/seed-0"] for each in (first, other, keys(plain))}) == 3
    assert len({each["control/seed-0"] for each in (first, other, keys(plain))}) == 1
    assert "combine" not in json.dumps(plain.model_dump(mode="json")["students"]["small"]["hints"])
    assert made.students["small"].hints[0].weight == 50 and plain.students["small"].hints[0].weight == 100


FROM_A_FILE = {key: value for key, value in MODULE.items() if key != "train"} | {
    "weights": "w.safetensors",
    "preprocess": {"normalise": None},
}
REFUSED = [
    (EVEN, {"wide": FROM_A_FILE}, r"small\.hints\.0\.combine: reads a last layer, and 'wide' has its weights from a file"),
    (EVEN, {"task": "regression", "wide": MODULE}, r"hints\.0\.combine: `correctness` goes by how likely.*regression"),
    ([{**EVEN[0], "standardise": "phi_s"}], {}, r"hints\.0: `combine: correctness`: .*remove `standardise`"),
    ([{**EVEN[0], "alone": 0.5}], {}, r"hints\.0: `combine: correctness` begins behind a pass"),
    ([{**EVEN[0], "output": ["early", "vector"], "layer": ["1", "2"]}], {}, r"hints\.0: .*the one output.*here are 2"),
    ([{**EVEN[0], "combine": None, "after_passes": 1}], {}, r"hints\.0: `after_passes` is of `combine: correctness`"),
    ([{**EVEN[0], "loss": "linear_embedding"}], {}, r"hints\.0\.combine: unknown key"),
    (EVEN, {"train": {"steps": 100, "mix": {"kind": "mixup"}}}, r"hints\.0\.combine: goes by the one label of a row"),
]  # fmt: skip


@pytest.mark.parametrize(("hints", "more", "told"), REFUSED)
def test_what_does_not_go_with_it_is_told_in_one_line(hints, more, told):
    with pytest.raises(RecipeError, match=told) as error:
        recipe(*hints, **more)
    assert all(line.startswith("students.small.hints.") for line in str(error.value).splitlines())


def test_without_labels_nobody_is_nearer_to_one():
    assert not [*judging_problems(recipe(*EVEN), 0, 5)]
    first, _ = judging_problems(recipe(*EVEN), 0, 0)
    assert first.startswith("students.small.hints.0.combine: `correctness` weighs teachers by the labels of training")


def test_a_training_of_one_pass_would_never_hear_it():
    made = recipe(*EVEN).students["small"]
    check_heard(made.hints, made.train, 99 * made.train.batch_size)
    with pytest.raises(ValueError, match=r"hints\.0\.combine: is heard behind 100 steps.*and there are 100"):
        check_heard(made.hints, made.train, 100 * made.train.batch_size)
    assert [hint.after_passes for hint in smoke(recipe(*EVEN)).students["small"].hints] == [0, 0]
    with pytest.raises(ValidationError, match="after_passes"):
        StudentConfig(model="m:n", teachers=["wide", "deep"], hints=[{**EVEN[0], "after_passes": -1}])


@pytest.mark.parametrize(
    ("output", "told"), [("vector", None), ("early", "students.small.hints.0.combine: the last layer, '3', ")]
)
def test_plan_with_check_reads_the_last_layers_of_networks_that_are_yet_to_be_trained(output, told):
    values = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    column = Column("x", "number", (6,), (0.0,), (1.0,))
    sample = Sample((column,), Space("classification", ("a", "b")), {"x": values}, np.arange(32, dtype=np.int32) % 2)
    hints = [{**hint, "output": output} for hint in EVEN]
    shapes = {name: {"vector": (20,), "early": (20,)} for name in ("wide", "deep")}
    found = rehearse(recipe(*hints), sample, Path.cwd(), shapes)
    assert [each.startswith(told) for each in found.problems] == ([] if told is None else [True])
