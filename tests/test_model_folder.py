import json
import sys

import pytest
import torch
from torch import nn

from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError, StoreError
from teachers.models import folder
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import build_module
from teachers.models.preprocess import Preprocessor
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from teachers.zoo import conv_net, mlp

CLASSES = ("a", "b", "c")
COLUMN = Column("image", "image", (8, 8, 1), (0.5,), (0.25,))
CONV = "teachers.zoo:conv_net"


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = conv_net(width=4, num_classes=3, input_shape=(1, 8, 8))
    module(torch.randn(16, 1, 8, 8))  # so that the batch statistics are not those of a new network
    return module.eval()


def config(model=CONV, arguments=None, function=None):
    preprocess = Preprocessor(Preprocess(), [COLUMN]).resolved() | ({"function": function} if function else {})
    return ModelConfig(
        model, {"width": 4} if arguments is None else arguments, Space("classification", CLASSES), preprocess
    )


def images(rows=5):
    return torch.randint(0, 256, (rows, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_loaded_model_says_what_the_saved_one_said(module, tmp_path):
    save_model(tmp_path, module.state_dict(), config())
    loaded = load_model(tmp_path)
    standardised = (images().float() / 255 - 0.5) / 0.25
    expected = module(standardised.permute(0, 3, 1, 2))
    torch.testing.assert_close(loaded({"image": images()}), expected)
    torch.testing.assert_close(loaded({"image": images().numpy()}), expected)
    assert loaded.config == config()


def test_the_same_model_makes_the_same_bytes(module, tmp_path):
    for name in "ab":
        save_model(tmp_path / name, module.state_dict(), config())
    for file in (folder.WEIGHTS, folder.CONFIG):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_first_writer_of_a_folder_wins(module, tmp_path):
    save_model(tmp_path, module.state_dict(), config())
    save_model(tmp_path, conv_net(width=4, num_classes=3, input_shape=(1, 8, 8)).state_dict(), config())
    torch.testing.assert_close(load_model(tmp_path).module.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_tied_weights_survive(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    save_model(tmp_path, module.state_dict(), config())
    state = folder.read_safetensors(tmp_path / folder.WEIGHTS, StoreError)
    assert set(state) == set(module.state_dict())


@pytest.mark.parametrize(
    "named", ["os:system", "teachers.users_code.imports:load", "teachers.zoo:Tensor", "teachers.zoo:nn"]
)
def test_a_folder_that_names_foreign_code_is_refused(module, tmp_path, named):
    save_model(tmp_path, module.state_dict(), config(model=named))
    with pytest.raises(StoreError, match=rf"{named}.*trust"):
        load_model(tmp_path)


def test_foreign_code_is_refused_before_it_is_imported_and_taken_when_trusted(module, tmp_path, monkeypatch):
    (tmp_path / "stranger_model.py").write_text("from teachers.zoo import conv_net as make\n")
    monkeypatch.syspath_prepend(tmp_path)
    save_model(tmp_path, module.state_dict(), config(model="stranger_model:make"))
    with pytest.raises(StoreError, match="stranger_model:make"):
        load_model(tmp_path)
    assert "stranger_model" not in sys.modules
    assert load_model(tmp_path, trust=["stranger_model:make"]).config.model == "stranger_model:make"


def test_preprocessing_by_foreign_code_is_refused_too(module, tmp_path):
    save_model(tmp_path, module.state_dict(), config(function="os:system"))
    with pytest.raises(StoreError, match="os:system"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_are_listed_by_name(module, tmp_path):
    state = module.state_dict()
    state["extra.weight"] = torch.zeros(1)
    state["classifier.weight"] = torch.zeros(3, 7)
    del state["stem.0.weight"]
    save_model(tmp_path, state, config())
    told = r"1 missing: stem\.0\.weight; 1 unexpected: extra\.weight; 1 misshaped: classifier\.weight \[3, 7\], expected \[3, 16\]"
    with pytest.raises(StoreError, match=told):
        load_model(tmp_path)


def test_a_newer_format_is_refused_naming_both(module, tmp_path):
    save_model(tmp_path, module.state_dict(), config())
    path = tmp_path / folder.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(StoreError, match=r"format 9, this program reads 1; update"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"), [(None, "is no Collegium model folder"), ("{", "JSON"), ('{"format": 1}', "'model'")]
)
def test_what_is_no_model_folder_is_said_to_be_none(tmp_path, content, told):
    if content is not None:
        (tmp_path / folder.CONFIG).write_text(content)
    with pytest.raises(StoreError, match=told):
        load_model(tmp_path)


FOLDER = {"format": 1, "model": CONV, "arguments": {}, "classes": ["a", "b"], "preprocess": {"columns": []}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": 3}, "classes is 3, expected a list"),
        ({"classes": None}, "classes is None, expected a list"),
        ({"model": ["x"]}, "model is .*expected a str"),
        ({"arguments": [1]}, "arguments is .*expected a dict"),
        ({"preprocess": {"columns": 3}}, "preprocess is not as Collegium writes it"),
        ({"preprocess": {}}, "preprocess is not as Collegium writes it"),
    ],
)
def test_a_config_of_other_parts_is_told_by_the_part(tmp_path, changes, said):
    (tmp_path / "config.json").write_text(json.dumps(FOLDER | changes))
    with pytest.raises(StoreError, match=rf"config.json: {said}"):
        load_model(tmp_path)


@pytest.mark.parametrize("what", ["a file", "a folder as config", "a folder as weights", "deep", "too long", "no text"])
def test_a_path_that_leads_to_no_model_folder_is_one_line(module, tmp_path, what):
    path = tmp_path
    save_model(tmp_path, module.state_dict(), config())
    if what == "a file":
        path = tmp_path / "model.safetensors"
    elif what == "too long":
        path = tmp_path / ("a" * 5000)
    elif what == "a folder as weights":
        (tmp_path / "model.safetensors").unlink()
        (tmp_path / "model.safetensors").mkdir()
    else:
        (tmp_path / "config.json").unlink()
        if what == "a folder as config":
            (tmp_path / "config.json").mkdir()
        else:
            (tmp_path / "config.json").write_bytes(b"[" * 100_000 if what == "deep" else b"\xff{}")
    with pytest.raises(StoreError) as raised:
        load_model(path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_weights_is_refused(module, tmp_path):
    save_model(tmp_path, module.state_dict(), config())
    (tmp_path / folder.WEIGHTS).unlink()
    with pytest.raises(StoreError, match="no such file"):
        load_model(tmp_path)


def test_a_model_is_told_of_classes_and_shape_only_as_far_as_it_asks():
    linear = build_module("torch.nn:Linear", {"in_features": 2, "out_features": 3}, num_classes=9, input_shape=(2,))
    assert linear.out_features == 3
    assert build_module("teachers.zoo:mlp", {"hidden": 5}, num_classes=9, input_shape=(2,))[-1].out_features == 9
    given = build_module("teachers.zoo:mlp", {"hidden": 5, "num_classes": 4}, num_classes=9, input_shape=(2,))
    assert given[-1].out_features == 4


@pytest.mark.parametrize(
    ("model", "arguments", "told"),
    [
        ("teachers.zoo:mlp", {"hiden": 5}, "cannot be called with .*hiden"),
        ("collections:Counter", {}, "returned a Counter"),
        ("builtins:dict", {}, "no signature"),
        ("teachers.zoo:math", {}, "no function or class"),
    ],
)
def test_what_makes_no_module_is_a_mistake_in_the_recipe(model, arguments, told):
    with pytest.raises(RecipeError, match=told):
        build_module(model, arguments, num_classes=2, input_shape=(2,))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 33, 20), (3, 1, 1)])
@pytest.mark.parametrize("depth", [1, 2])
def test_conv_net_takes_images_of_any_size(shape, depth):
    network = conv_net(width=4, depth=depth, num_classes=3, input_shape=shape)
    assert network(torch.randn(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize(("hidden", "num_linear"), [(5, 2), ([6, 5], 3), ([], 1)])
@pytest.mark.parametrize("shape", [(4,), (1, 8, 8)])
def test_mlp_takes_numbers_and_images(hidden, num_linear, shape):
    network = mlp(hidden, num_classes=3, input_shape=shape)
    assert network(torch.randn(2, *shape)).shape == (2, 3)
    assert sum(isinstance(layer, nn.Linear) for layer in network) == num_linear
