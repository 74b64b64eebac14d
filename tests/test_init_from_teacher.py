"""Students that begin with a teacher's weights: what is copied, what is not, and what it decides."""

import logging
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from orchestrator.recipe.model import Recipe
from orchestrator.reporting.chains import about_beginnings
from orchestrator.stages.trainings import training_stages
from students.config.init import Init
from students.config.student import StudentConfig
from students.fitting.fit import fit
from students.runs.session import PlainSession
from students.training.begin import begin_with, renamed
from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError
from teachers.models.modules import make_module
from teachers.models.preprocess import Preprocessor
from tests.training_runs import HARD, SOFT, make_run, make_store, source

SESSION = PlainSession()
SHAPE = {"num_classes": 10, "input_shape": (1, 8, 8)}


@pytest.fixture(scope="module")
def store(digits, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("wide"), digits)


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    """A trained residual network of two blocks a stage."""
    folder = tmp_path_factory.mktemp("teacher")
    run = replace(
        make_run(folder, digits, objective=[HARD], labelled_only=True, steps=5, name="networks"),
        model="teachers.zoo:conv_net",
        arguments={"width": 4, "depth": 2},
    )
    fit([run], SESSION)
    return run.folder


def as_usual(digits):
    return Preprocessor(Preprocess(), digits.columns).resolved()


def run_of(folder, digits, store, teacher, init, *, model="teachers.zoo:conv_net", arguments=None, **train):
    run = make_run(folder, digits, replace(source(store), network=teacher), **train)
    arguments = {"width": 4, "depth": 1} if arguments is None else arguments
    return replace(run, model=model, arguments=arguments, init=Init.model_validate({"from": "wide", **init}))


def begun(run, digits, classes=None):
    torch.manual_seed(0)
    module = make_module(run.model, run.arguments, **SHAPE)
    chance = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    begin_with(module, run, classes or digits.classes, as_usual(digits))
    return module.state_dict(), chance


def test_each_tensor_of_the_same_name_and_shape_is_copied_and_no_other(digits, store, teacher, tmp_path):
    run = run_of(tmp_path, digits, store, teacher, {}, arguments={"width": 4, "depth": 1})
    found, chance = begun(run, digits)
    theirs = load_file(teacher / "model.safetensors")
    assert {"stem.0.weight", "classifier.weight", "stages.0.convolution_1.weight"} <= set(found)
    for name, tensor in found.items():
        same = name in theirs and theirs[name].shape == tensor.shape
        assert torch.equal(tensor, theirs[name] if same else chance[name]), name


def test_a_list_says_which_of_the_teachers_layers_the_students_are(digits, store, teacher, tmp_path):
    found, _ = begun(run_of(tmp_path, digits, store, teacher, {"layers": [0, 2, 4]}), digits)
    theirs = load_file(teacher / "model.safetensors")
    for own, their in enumerate([0, 2, 4]):
        for name in ("convolution_1.weight", "norm_2.running_mean"):
            assert torch.equal(found[f"stages.{own}.{name}"], theirs[f"stages.{their}.{name}"])
    assert torch.equal(found["classifier.weight"], theirs["classifier.weight"])


def test_a_mapping_takes_these_modules_alone(digits, store, teacher, tmp_path):
    found, chance = begun(run_of(tmp_path, digits, store, teacher, {"layers": {"stages.1": "stages.2"}}), digits)
    theirs = load_file(teacher / "model.safetensors")
    assert torch.equal(found["stages.1.convolution_1.weight"], theirs["stages.2.convolution_1.weight"])
    assert torch.equal(found["classifier.weight"], chance["classifier.weight"])
    assert torch.equal(found["stages.0.convolution_1.weight"], chance["stages.0.convolution_1.weight"])


def test_of_a_teacher_of_other_classes_the_head_is_left_and_the_log_says_so(digits, store, teacher, tmp_path, caplog):
    other_order = [*digits.classes[1:], digits.classes[0]]
    run = run_of(tmp_path, digits, store, teacher, {"layers": [0, 2, 4]})
    with caplog.at_level(logging.INFO):
        found, chance = begun(run, digits, other_order)
    assert torch.equal(found["classifier.weight"], chance["classifier.weight"])
    assert not torch.equal(found["stem.0.weight"], chance["stem.0.weight"])
    (line,) = [record.getMessage() for record in caplog.records if "begins with weights of wide" in record.getMessage()]
    assert "by chance classifier.weight, classifier.bias" in line


def test_inputs_that_are_made_otherwise_than_the_teachers_were_are_warned_of(digits, store, teacher, tmp_path, caplog):
    run = run_of(tmp_path, digits, store, teacher, {"layers": [0, 2, 4]})
    same, other = as_usual(digits), Preprocessor(Preprocess(normalise=None), digits.columns).resolved()
    for preprocess in (same, other):
        begin_with(make_module(run.model, run.arguments, **SHAPE), run, digits.classes, preprocess)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "gets its inputs otherwise than that one did" in warning


@pytest.mark.parametrize(
    ("init", "options", "told"),
    [
        ({"layers": {"stagse.1": "stages.2"}}, {}, "the student has no module 'stagse.1', did you mean 'stages.1'"),
        ({"layers": {"stages.1": "stage.2"}}, {}, "the teacher has no module 'stage.2', did you mean 'stages.2'"),
        ({"layers": [0, 2, 9]}, {}, "has no lists of so many of which the teacher has these too"),
        ({}, {"model": "students.models:mlp", "arguments": {"hidden": 5}}, "none of the 4 tensors of the student"),
    ],
)
def test_what_fits_nowhere_is_refused_in_one_line(init, options, told, digits, store, teacher, tmp_path):
    with pytest.raises(RecipeError, match=told) as refused:
        begun(run_of(tmp_path, digits, store, teacher, init, **options), digits)
    assert "\n" not in str(refused.value)


def test_layers_of_a_list_at_the_top_are_found_too():
    theirs = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4))).state_dict()
    own = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    found = renamed(theirs, own, [1, 3])
    assert torch.equal(found["0.weight"], theirs["1.weight"]) and torch.equal(found["1.bias"], theirs["3.bias"])


def test_a_student_with_its_teachers_weights_stands_where_the_teacher_stood(digits, store, teacher, tmp_path):
    same = {"width": 4, "depth": 2}
    run = run_of(tmp_path, digits, store, teacher, {}, arguments=same, steps=1, learning_rate=1e-9)
    fit([run], SESSION)
    theirs = load_file(teacher / "model.safetensors")
    for name, tensor in load_file(run.folder / "model.safetensors").items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-7)


# what a recipe can say


MODULE = {"kind": "module", "model": "teachers.zoo:conv_net", "arguments": {"width": 4}, "train": {"steps": 5}}
SMALL = {"model": "teachers.zoo:conv_net", "arguments": {"width": 4}, "teachers": ["wide"]}


def recipe(student, **teachers):
    return Recipe.from_dict(
        {
            "format": 1,
            "name": "begun",
            "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
            "teachers": {"wide": MODULE, **teachers},
            "students": {"small": {**SMALL, **student}},
        }
    )


def keys_of(made, weights="w"):
    networks = {} if weights is None else {"wide": weights}
    stages = training_stages(made, "small", "prepared", {"wide": "labels"}, networks)
    return {kind: stages[kind, 0].key for kind in ("student", "control")}


def test_the_weights_are_in_the_students_key_and_never_in_the_controls():
    plain, init = recipe({}), recipe({"init": {"from": "wide"}})
    assert keys_of(plain)["control"] == keys_of(init)["control"]
    assert keys_of(plain, None) == keys_of(plain)
    assert len({keys_of(plain)["student"], keys_of(init)["student"], keys_of(init, "other")["student"]}) == 3
    stage = training_stages(init, "small", "prepared", {"wide": "labels"}, {"wide": "w"})["student", 0]
    assert stage.inputs["initial weights"] == "w" and stage.config["init"]["from"] == 0
    assert "init" not in plain.students["small"].model_dump(mode="json")
    assert "init" not in training_stages(plain, "small", "prepared", {"wide": "labels"})["student", 0].config


def test_a_recipe_says_the_same_when_it_is_read_again():
    made = recipe({"init": {"from": "wide", "layers": [0, 1, 2]}})
    again = Recipe.from_dict(made.model_dump(mode="json"))
    assert again == made and again.students["small"].init.layers == [0, 1, 2]


def test_weights_may_be_all_that_a_teacher_gives():
    made = recipe({"init": {"from": "wide"}, "objective": [HARD]})
    assert made.students["small"].teachers == ["wide"]


@pytest.mark.parametrize(
    ("student", "teachers", "told"),
    [
        ({"init": {"from": "deep"}}, {}, "students.small: init.from is 'deep', which is not among the teachers"),
        (
            {"init": {"from": "trees"}, "teachers": ["trees"]},
            {"trees": {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier"}},
            "students.small.init.from: 'trees' is a teacher of `kind: sklearn`; name a network that is trained here",
        ),
        (
            {"init": {"from": "parts"}, "teachers": ["parts"]},
            {"parts": {**MODULE, "train": {"steps": 5, "folds": 3}}},
            "students.small.init.from: 'parts' is several networks, one a fold",
        ),
    ],
)
def test_who_has_no_weights_to_give_is_refused_by_its_key(student, teachers, told):
    with pytest.raises(RecipeError, match=told):
        recipe(student, **teachers)


def test_the_report_says_whose_weights_and_that_the_control_had_none():
    document = recipe({"init": {"from": "wide"}}).model_dump(mode="json")
    (told,) = about_beginnings(document)
    assert told.startswith("small begins with weights of wide, its control the same network with weights of chance")
    assert not [*about_beginnings(recipe({}).model_dump(mode="json"))]


def test_a_mapping_and_a_list_are_told_apart_from_anything_else():
    with pytest.raises(ValidationError):
        Init.model_validate({"from": "wide", "layers": "all"})
    assert StudentConfig.model_validate({**SMALL, "init": None}).init is None


def test_soft_targets_and_weights_go_together(digits, store, teacher, tmp_path):
    run = run_of(tmp_path, digits, store, teacher, {"layers": [0, 2, 4]}, objective=[SOFT], steps=3)
    (result,) = fit([run], SESSION)
    assert result.steps == 3
