"""Students that are a teacher's network with fewer filters: which are kept, what a folder says of it, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from orchestrator.planning.rehearsal import rehearse
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.chains import about_beginnings
from students.config.init import Init
from students.config.student import PRUNED
from students.fitting.fit import fit
from students.runs.session import PlainSession
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.models.modules import make_module
from teachers.models.pruned import Pruning, changed, cut_to
from teachers.preparing.sample import Sample
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from tests.training_runs import HARD, SOFT, make_run, make_store, source

pytest.importorskip("torch_pruning")
SESSION = PlainSession()
SHAPE = {"num_classes": 10, "input_shape": (1, 8, 8)}
CONV = {"model": "students.models:small_conv_net", "arguments": {"width": 8}}
RESIDUAL = {"model": "teachers.zoo:conv_net", "arguments": {"width": 8}}


class Plain(nn.Sequential):
    """Two convolutions with batch statistics between them, and a linear layer."""

    def __init__(self, num_classes):
        super().__init__(
            nn.Conv2d(1, 10, 3, padding=1),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.Conv2d(10, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, num_classes),
        )


PLAIN = {"model": "tests.test_pruned:Plain", "arguments": {}}


def random_network(of):
    torch.manual_seed(3)
    module = make_module(of["model"], of["arguments"], **SHAPE)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_mean, -1, 1)
    return module


def strongest(weight, ratio):
    """The filters of a layer that have the largest L1 norm, in their order."""
    count = int(len(weight) * (1 - ratio) + 1e-9)  # what is left of a filter goes
    return weight.abs().flatten(1).sum(1).topk(count).indices.sort().values


# which filters


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_the_filters_that_stay_are_those_of_the_largest_l1_norm_done_by_hand(ratio):
    before = random_network(PLAIN).state_dict()
    after = Pruning(PLAIN, SHAPE, ratio).pruned(random_network(PLAIN)).state_dict()
    first, second = strongest(before["0.weight"], ratio), strongest(before["3.weight"], ratio)
    assert torch.equal(after["0.weight"], before["0.weight"][first])
    assert torch.equal(after["0.bias"], before["0.bias"][first])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(after[f"1.{name}"], before[f"1.{name}"][first])
    assert torch.equal(after["3.weight"], before["3.weight"][second][:, first])
    assert torch.equal(after["8.weight"], before["8.weight"][:, second])
    assert torch.equal(after["8.bias"], before["8.bias"])


def test_hidden_units_go_where_there_are_no_convolutions():
    of = {"model": "teachers.zoo:mlp", "arguments": {"hidden": [12, 6]}}
    before = random_network(of).state_dict()
    after = Pruning(of, SHAPE, 0.5).pruned(random_network(of)).state_dict()
    first = strongest(before["1.weight"], 0.5)
    assert torch.equal(after["1.weight"], before["1.weight"][first])
    assert after["3.weight"].shape == (3, 6) and after["5.weight"].shape == (10, 3)


def test_layers_that_are_added_to_each_other_lose_the_same_filters_and_the_network_still_runs():
    network = Pruning(RESIDUAL, SHAPE, 0.5).pruned(random_network(RESIDUAL))
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert network.stages[0].convolution_1.out_channels == 4 and network.classifier.in_features == 16


def test_layers_that_are_kept_stay_whole():
    network = Pruning(PLAIN, SHAPE, 0.5, ("3",)).pruned(random_network(PLAIN))
    assert network[0].out_channels == 5 and network[3].out_channels == 8


def test_nine_of_ten_filters_are_nine():
    assert Pruning(PLAIN, SHAPE, 0.7).pruned(random_network(PLAIN))[0].out_channels == 3
    wide = {"model": "students.models:small_conv_net", "arguments": {"width": 10}}
    assert Pruning(wide, SHAPE, 0.9).pruned(random_network(wide))[0].out_channels == 1


# the network that learns


def test_shapes_rebuild_the_network_without_torch_pruning():
    for of in (PLAIN, CONV, RESIDUAL):
        pruned = Pruning(of, SHAPE, 0.5).pruned(random_network(of))
        shapes = changed(random_network(of), pruned)
        again = random_network(of)
        cut_to(again, shapes)
        again.load_state_dict(pruned.state_dict())
        inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(again.eval()(inputs), pruned.eval()(inputs), rtol=0, atol=0)
        assert str(again) == str(pruned)


def test_shapes_of_another_network_are_refused():
    for shapes in ({"0.weight": [20, 1, 3, 3]}, {"nowhere.weight": [1]}, {"0.weight": [0, 1, 3, 3]}, {"0.weight": [5]}):
        with pytest.raises(RecipeError, match="is no part of a tensor of this network"):
            cut_to(random_network(PLAIN), shapes)


def test_without_a_teachers_weights_it_is_the_same_network_with_weights_of_chance():
    torch.manual_seed(0)
    made = make_module(PRUNED, {"of": RESIDUAL, "ratio": 0.5}, **SHAPE)
    assert made.stages[0].convolution_1.weight.shape == (4, 4, 3, 3)
    bound = (1 / (4 * 9)) ** 0.5  # of a layer that hears four channels, not eight
    assert 0.9 * bound < made.stages[0].convolution_1.weight.abs().max() <= bound


@pytest.fixture(scope="module")
def store(digits, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("wide"), digits)


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("teacher"), digits, objective=[HARD], labelled_only=True, steps=60)
    run = replace(run, **RESIDUAL)
    fit([run], SESSION)
    return run.folder


def pruned_run(folder, digits, store, teacher, **train):
    run = make_run(folder, digits, replace(source(store), network=teacher), objective=[SOFT, HARD], **train)
    init = Init.model_validate({"from": "wide"})
    return replace(run, model=PRUNED, arguments={"of": RESIDUAL, "ratio": 0.5}, init=init)


def test_a_pruned_student_begins_with_the_teachers_strongest_filters_and_its_folder_opens_by_itself(
    digits, store, teacher, tmp_path
):
    run = pruned_run(tmp_path, digits, store, teacher, steps=1, learning_rate=1e-9)
    fit([run], SESSION)
    config = json.loads((run.folder / "config.json").read_bytes())
    assert set(config["arguments"]) == {"of", "shapes"} and config["arguments"]["of"] == RESIDUAL
    whole = load_file(teacher / "model.safetensors")
    stem = load_file(run.folder / "model.safetensors")["stem.0.weight"]
    assert stem.shape == (4, 1, 3, 3)
    norms = {round(float(each), 4) for each in whole["stem.0.weight"].abs().flatten(1).sum(1)}
    assert {round(float(each), 4) for each in stem.abs().flatten(1).sum(1)} <= norms
    (segment,) = digits.of("test")
    assert load_model(run.folder)(digits.inputs(segment)).shape == (segment.num_rows, 10)


def test_a_pruned_student_is_exported_to_onnx(digits, store, teacher, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    run = pruned_run(tmp_path, digits, store, teacher, steps=3)
    fit([run], SESSION)
    network = load_model(run.folder).module
    inputs = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.onnx.export(network, (inputs,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (said,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    np.testing.assert_allclose(said, network(inputs).numpy(), atol=1e-4)


# what a recipe can say


IMAGE = Column("image", "image", (8, 8, 1), (0.5,), (0.5,))
WIDE = {"kind": "module", **RESIDUAL, "train": {"steps": 5}}


def recipe(arguments, *, more=None, **student):
    students = {"small": {"model": PRUNED, "arguments": arguments, "teachers": ["wide"], **student}, **(more or {})}
    return Recipe.from_dict(
        {
            "format": 1,
            "name": "pruned",
            "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
            "teachers": {"wide": WIDE},
            "students": students,
        }
    )


def tried(made):
    generator = np.random.default_rng(0)
    inputs = {"image": generator.integers(0, 200, (32, 8, 8, 1)).astype(np.uint8)}
    sample = Sample((IMAGE,), Space("classification", ("a", "b")), inputs, np.arange(32, dtype=np.int32) % 2)
    return rehearse(made, sample, Path.cwd()).problems


def test_a_name_becomes_the_network_and_its_weights():
    made = recipe({"of": "wide", "ratio": 0.5})
    small = made.students["small"]
    assert small.arguments == {"of": RESIDUAL, "ratio": 0.5} and small.init.from_ == "wide"
    assert Recipe.from_dict(made.model_dump(mode="json")) == made
    assert PRUNED in made.trusted() and RESIDUAL["model"] in made.trusted()


def test_its_inputs_are_made_as_those_of_the_network_that_it_is_made_of_unless_it_says_otherwise():
    document = recipe({"of": "wide", "ratio": 0.5}).model_dump(mode="json")
    document["teachers"]["wide"]["preprocess"] = {"resize": 6}
    small = document["students"]["small"] | {"arguments": {"of": "wide", "ratio": 0.5}}
    del small["preprocess"]
    for said, size in (({}, 6), ({"preprocess": {"resize": 7}}, 7)):
        made = Recipe.from_dict({**document, "students": {"small": {**small, **said}}})
        assert made.students["small"].preprocess.resize == size


def test_with_init_null_it_begins_by_chance_and_stays_so_when_it_is_read_again():
    made = recipe({"of": "wide", "ratio": 0.5}, init=None)
    assert made.students["small"].init is None
    assert Recipe.from_dict(made.model_dump(mode="json")).students["small"].init is None
    (told,) = about_beginnings(made.model_dump(mode="json"))
    assert "weights of chance, as its control is" in told


def test_another_student_can_be_pruned():
    middle = {"model": "students.models:small_conv_net", "arguments": {"width": 8}, "teachers": ["wide"]}
    made = recipe({"of": "middle", "ratio": 0.5}, teachers=["middle"], more={"middle": middle})
    assert made.students["small"].arguments["of"]["model"] == "students.models:small_conv_net"
    assert not tried(made)


def test_plan_tries_it_before_anything_is_trained():
    assert not tried(recipe({"of": "wide", "ratio": 0.5}))


def test_a_ratio_that_empties_a_layer_is_refused_by_plan_in_one_line():
    (told,) = tried(recipe({"of": "wide", "ratio": 0.9}))
    assert told.startswith("students.small.") and "\n" not in told
    assert "arguments.ratio: 0.9 leaves nothing of layer 'stem.0', which has 8; a ratio of at most 0.875" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"of": "wide", "ratio": 1.5}, "arguments.ratio: 1.5 is no share between 0 and 1"),
        ({"of": "wide"}, "arguments: give `ratio`"),
        ({"of": "wide", "ratio": 0.5, "keep": ["stm"]}, "arguments.keep: 'stm' is none of its layers"),
    ],
)
def test_what_cannot_be_pruned_is_refused_by_plan(arguments, told):
    assert any(told in problem for problem in tried(recipe(arguments)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"of": "wiide", "ratio": 0.5},
            "students.small: arguments.of: it begins with the weights of 'wiide', which is not",
        ),
        ({"ratio": 0.5}, "students.small.arguments: say whose network is pruned"),
    ],
)
def test_nobody_to_prune_is_refused_by_its_key(arguments, told):
    with pytest.raises(RecipeError, match=told):
        recipe(arguments)
