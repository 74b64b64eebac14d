"""Students of transformers: begun with a folder, with some of its layers, or with a configuration; delivered without any of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from students.models import huggingface
from teachers.config.preprocess import Preprocess, Tokenizer
from teachers.errors import RecipeError
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import network_for
from teachers.models.preprocess import Preprocessor
from teachers.models.transformers_network import TransformersNetwork, lasting_arguments
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

from .hub_folders import SIZES, TEXTS, save_image_model, save_text_model

CLASSES = ("no", "yes", "maybe")
TEXT = Column("text", "text", (), (), ())


def a_student(folder: Path | None = None, classes: tuple[str, ...] = CLASSES, **arguments: Any) -> TransformersNetwork:
    given = arguments if folder is None else {"path": str(folder), **arguments}
    made = huggingface(**given, num_classes=len(classes), classes=classes, input_shape=(16,), vocabulary_size=24)
    assert isinstance(made, TransformersNetwork)
    return made.eval()


def tokens_of(folder: Path) -> torch.Tensor:
    preprocess = Preprocess(tokenizer=Tokenizer(path=str(folder), max_length=16))
    ready = Preprocessor(preprocess, [TEXT])({"text": np.array(TEXTS, object)})
    assert isinstance(ready, torch.Tensor)
    return ready


def by_transformers(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return network(**tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")).logits


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_student_with_all_layers_answers_as_the_folder_does(tmp_path: Path, kind: str) -> None:
    save_text_model(tmp_path / "m", kind)
    for more in ({}, {"init": {"layers": [0, 1]}}):
        student = a_student(tmp_path / "m", **more)
        with torch.inference_mode():
            said = student(tokens_of(tmp_path / "m"))
        torch.testing.assert_close(said, by_transformers(tmp_path / "m"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "stack"), [("bert", "bert.encoder.layer"), ("distilbert", "distilbert.transformer.layer")]
)
def test_chosen_layers_are_the_folders_and_stand_one_behind_the_other(tmp_path: Path, kind: str, stack: str) -> None:
    more = {"n_layers": 4} if kind == "distilbert" else {"num_hidden_layers": 4}
    teacher = save_text_model(tmp_path / "m", kind, **more).state_dict()
    student = a_student(tmp_path / "m", init={"layers": [1, 3]}).network.state_dict()
    theirs = {name for name in teacher if not name.startswith(stack)}
    assert all(torch.equal(student[name], teacher[name]) for name in theirs)
    for here, there in ((0, 1), (1, 3)):
        names = [name for name in teacher if name.startswith(f"{stack}.{there}.")]
        assert names
        for name in names:
            assert torch.equal(student[name.replace(f"{stack}.{there}.", f"{stack}.{here}.")], teacher[name])
    assert not any(name.startswith(f"{stack}.2.") for name in student)


def test_the_head_is_taken_for_the_same_classes_in_the_same_order_alone(tmp_path: Path) -> None:
    teacher = save_text_model(tmp_path / "m").state_dict()["classifier.weight"]
    same, turned = a_student(tmp_path / "m"), a_student(tmp_path / "m", CLASSES[::-1])
    assert torch.equal(same.network.classifier.weight, teacher)
    assert not torch.equal(turned.network.classifier.weight, teacher)
    assert a_student(tmp_path / "m", ("a", "b")).network.classifier.weight.shape == (2, 16)
    save_text_model(tmp_path / "e", "encoder")  # an encoder alone begins a student, with a head of chance
    assert a_student(tmp_path / "e").network.classifier.weight.shape == (3, 16)


def test_a_configuration_makes_a_network_of_chance_that_a_seed_repeats(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    config = {"model_type": "distilbert", "vocab_size": 24, "dim": 16, "n_heads": 2, "hidden_dim": 24, "n_layers": 1}
    for given in (config, str(tmp_path / "m" / "config.json"), str(tmp_path / "m")):
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(a_student(config=given).state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_delivered_student_opens_without_the_folder_that_it_came_from(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", num_hidden_layers=4)
    arguments = {"path": str(tmp_path / "m"), "init": {"layers": [0, 3]}}
    preprocessor = Preprocessor(Preprocess(tokenizer=Tokenizer(path=str(tmp_path / "m"), max_length=16)), [TEXT])
    module = network_for(preprocessor, "students.models:huggingface", arguments, num_classes=3, classes=CLASSES).eval()
    lasting = lasting_arguments(module, arguments)
    assert set(lasting) == {"config"} and str(tmp_path) not in json.dumps(lasting)
    space = Space("classification", CLASSES)
    about = ModelConfig(
        "students.models:huggingface", lasting, space, preprocessor.resolved(), files=preprocessor.files
    )
    save_model(tmp_path / "delivered", module.state_dict(), about)
    with torch.inference_mode():
        before = module(tokens_of(tmp_path / "m"))
    shutil.rmtree(tmp_path / "m")
    opened = load_model(tmp_path / "delivered")
    after = opened({"text": np.array(TEXTS, object)})
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert lasting_arguments(opened.module, {}) == lasting
    assert lasting_arguments(torch.nn.Linear(1, 1), {"width": 3}) == {"width": 3}


def test_a_graph_of_it_has_one_width_and_the_same_answers(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", "distilbert")
    student, tokens = a_student(tmp_path / "m"), tokens_of(tmp_path / "m")
    graph = torch.export.export(student, (tokens,), dynamic_shapes=({0: torch.export.Dim("rows")},)).module()
    with torch.inference_mode():
        torch.testing.assert_close(graph(tokens[:3]), student(tokens)[:3], rtol=0, atol=1e-5)


def test_an_image_network_is_a_student_too(tmp_path: Path) -> None:
    teacher = save_image_model(tmp_path / "m")
    given = {"num_classes": 3, "classes": CLASSES, "input_shape": (3, 16, 16)}
    student = huggingface(str(tmp_path / "m"), **given).eval()
    pixels = torch.randn(4, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(student(pixels), teacher(pixel_values=pixels).logits, rtol=0, atol=1e-5)
    save_image_model(tmp_path / "r", "resnet")
    with pytest.raises(
        RecipeError, match=r"init\.layers: a ResNetForImageClassification has no one list of all its layers"
    ):
        huggingface(str(tmp_path / "r"), init={"layers": [0]}, **given)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, r"give `path` .* or `config`, one of them"),
        ({"path": "nowhere"}, r"there is no folder nowhere.*hf download nowhere"),
        ({"config": "nowhere.json"}, r"arguments\.config: nowhere\.json is not readable"),
        ({"config": {"vocab_size": 3}}, r"names no `model_type`"),
        ({"config": {"model_type": "no such"}}, r"transformers makes no network of this configuration"),
        ({"config": {"model_type": "bert", **SIZES, "vocab_size": 9}}, r"24 ids of text, and a BertFor.* has an embedding of 9 \(vocab_size\)"),
        ({"config": {"model_type": "bert"}, "init": {"layers": [0]}}, r"init: chooses layers of a folder"),
        ({"init": {"layers": [0, 5]}}, r"init\.layers: \[0, 5\] are not ascending numbers from 0 to 1"),
        ({"init": {"layers": [1, 0]}}, r"init\.layers: \[1, 0\] are not ascending"),
        ({"init": {"heads": 2}}, r"init: has no 'heads'"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_network_are_told_in_one_line(
    tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    if "init" in arguments and "config" not in arguments:
        save_text_model(tmp_path / "m")
        arguments = {"path": str(tmp_path / "m"), **arguments}
    with pytest.raises(RecipeError, match=told) as error:
        a_student(**arguments)
    assert "\n" not in str(error.value)
