"""What a recipe says of teachers of boxes that has no room there, and keys that know nothing of boxes where there are none."""

from typing import Any

import pytest

from orchestrator.recipe.load import load_recipe
from teachers.config.detecting import OF_BOXES, AskedInWords, DecodedGraph
from teachers.config.predictions import PredictionsTeacher
from teachers.config.teacher import CallableTeacher
from teachers.errors import CollegiumError

RECIPE = """
format: 1
name: boxes
task: TASK
transfer_set:
  source: {kind: import, function: "tests.shapes:many"}
  inputs: image
  label: boxes
teachers:
  one: TEACHER
"""


def refused(tmp_path: Any, teacher: str, task: str = "detection") -> str:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("TASK", task).replace("TEACHER", teacher))
    with pytest.raises(CollegiumError) as error:
        load_recipe(tmp_path / "recipe.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        (
            '{kind: huggingface, path: m, prompts: {"a cat": cat}}',
            "teachers.one.prompts: is of boxes, which only `task: detection` has",
        ),
        ("{kind: huggingface, path: m, score_above: 0.2}", "teachers.one.score_above: is of boxes"),
        ('{kind: callable, function: "a:b", output: logits, flips: true}', "teachers.one.flips: is of boxes"),
        ("{kind: onnx, path: m, decode: yolo, preprocess: {normalise: null}}", "teachers.one.decode: is of boxes"),
        ("{kind: predictions, path: m, output: boxes, format: yolo}", "teachers.one.format: is of boxes"),
        (
            '{kind: callable, function: "a:b", output: boxes}',
            "teachers.one.output: `boxes` is nothing that `task: classification` has",
        ),
    ],
)
def test_what_is_of_boxes_is_refused_elsewhere(tmp_path: Any, teacher: str, told: str) -> None:
    assert told in refused(tmp_path, teacher, "classification")


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("{kind: timm, weights: m}", "teachers.one.kind: `timm` says no boxes"),
        ("{kind: onnx, path: m, output: boxes, preprocess: {normalise: null}}", "teachers.one.decode: nothing says how the graph's numbers are boxes"),
        ('{kind: huggingface, path: m, prompts: {"an a": a}, outputs: {a: {layer: b}}}', "teachers.one.outputs: of a detector that is told what to look for no layers are named"),
        ('{kind: callable, function: "a:b", output: probabilities}', "teachers.one.output: `probabilities` is nothing that `task: detection` has; say `boxes`"),
        ("{kind: predictions, path: m, id: x, output: classes, scores: c}", "teachers.one.output: `classes` is nothing that `task: detection` has; say `boxes`"),
        ('{kind: huggingface, path: m, classes: [a], prompts: {"an a": a}}', "`prompts` and `examples` say which classes it looks for"),
        ("{kind: huggingface, path: m, prompts: {}}", "prompts"),
        ("{kind: huggingface, path: m, examples: {a: []}}", "examples"),
        ("{kind: huggingface, path: m, score_above: 1}", "score_above"),
        ("{kind: onnx, path: m, decode: ssd, preprocess: {normalise: null}}", "decode"),
    ],
)  # fmt: skip
def test_what_a_teacher_of_boxes_lacks_or_cannot_have_is_told(tmp_path: Any, teacher: str, told: str) -> None:
    assert told in refused(tmp_path, teacher)


def test_where_nothing_is_said_of_boxes_keys_are_what_they_were() -> None:
    config = CallableTeacher.model_validate({"kind": "callable", "function": "a:b", "output": "logits"})
    for model in (AskedInWords, DecodedGraph):
        assert set(model.model_fields) <= set(OF_BOXES)
    said = PredictionsTeacher.model_validate({"kind": "predictions", "path": "x", "id": "i", "output": "logits"})
    assert not set(OF_BOXES) & (set(config.model_dump(mode="json")) | set(said.model_dump(mode="json")))


def test_a_mosaic_is_for_boxes_alone_and_a_control_s_is_looked_at_too(tmp_path: Any) -> None:
    network = '{kind: module, model: "students.models:tiny_detector", train: {steps: 9, augment: [mosaic]}}'
    told = "teachers.one.train.augment: `mosaic` shows four images as one, which only boxes can follow; remove it"
    assert told in refused(tmp_path, network, "classification")
    student = (
        'students: {small: {model: "students.models:tiny_detector", teachers: [one], objective: [{loss: pseudo}], '
    )
    student += "train: {steps: 9, batch_size: 6}, control: {augment: AUGMENT}}}"
    for augment, told in (
        ("mosaic", "students.small.control.augment: a `mosaic` is of four rows, and batch_size 6 is no multiple of 4"),
        ("affine", "students.small.control.augment: boxes cannot follow `affine`"),
    ):
        assert told in refused(tmp_path, network + "\n" + student.replace("AUGMENT", augment))
