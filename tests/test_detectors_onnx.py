"""`kind: onnx` of detectors: each layout read as NumPy reads it by hand, boxes back in the image, another layout refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from teachers.config.published import OnnxTeacher
from teachers.errors import RecipeError, TeacherError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher, teacher_classes
from teachers.models.detectors.fitting import letterbox
from teachers.models.teacher import Teacher
from teachers.tasks.boxes import CLASS, boxes_of
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

IMAGE = Column("image", "image", (60, 80, 3), (0.5,) * 3, (0.2,) * 3)
SPACE = Space("detection", ("cat", "dog"), max_boxes=20)
SIDE = 64
RNG = np.random.default_rng(0)


def graph(
    path: Path, outputs: dict[str, NDArray[Any]], rows: int | str = 1, size: int | str = SIDE, **metadata: str
) -> Path:
    """A graph that gives `outputs`, whatever the image: each of one row, for `rows`."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [rows, 3, size, size])
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Squeeze", ["nothing", "last"], ["of_row"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(np.array([3]), "last"),
    ]
    told = []
    for name, values in outputs.items():
        constants.append(numpy_helper.from_array(values.astype(np.float32), f"{name}_values"))
        nodes.append(helper.make_node("Add", ["of_row", f"{name}_values"], [name]))
        told.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, *values.shape[1:]]))
    made = helper.make_model(
        helper.make_graph(nodes, "detector", [image], told, constants), opset_imports=[helper.make_opsetid("", 18)]
    )
    made.ir_version = 9
    helper.set_model_props(made, metadata)
    onnx.save(made, path)
    return path


def a_teacher(path: Path, space: Space = SPACE, column: Column = IMAGE, **more: Any) -> tuple[Teacher, OnnxTeacher]:
    given = {"kind": "onnx", "path": str(path), "decode": "yolo", "preprocess": {"normalise": None}} | more
    config = OnnxTeacher.model_validate(given)
    how: dict[str, Any] = {"trained": None, "trust": (), "device": "cpu", "user_path": path.parent}
    return load_teacher(config, columns=(column,), space=space, **how), config


def asked(teacher: Teacher, config: OnnxTeacher, rows: int = 2) -> NDArray[np.float32]:
    pixels = RNG.integers(0, 256, (rows, 60, 80, 3), np.uint8)
    return boxes_of(Questioner(teacher, "mine", config).ask({"image": pixels}, np.arange(rows, dtype=np.uint64)))


def places(num: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(centres and sizes in pixels of the input, in the part that shows the image; scores of two classes)."""
    centre = np.stack([RNG.uniform(2, 62, num), RNG.uniform(10, 54, num)], 1)
    return np.concatenate([centre, RNG.uniform(3, 20, (num, 2))], 1), RNG.uniform(0, 1, (num, 2))


def iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    wide, high = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = max(wide, 0) * max(high, 0)
    area = sum(float(np.prod(each[2:] - each[:2])) for each in (one, other))
    return common / (area - common)


def by_hand(corners: NDArray[Any], scores: NDArray[Any], label: NDArray[Any], above: float | None) -> NDArray[Any]:
    """Greedy class-wise NMS, then out of the letterbox of an 80 x 60 image in 64 x 64: 64 x 48 of it, 8 pixels down."""
    kept: list[int] = []
    for at in np.argsort(-scores, kind="stable"):
        beaten = above is not None and any(label[at] == label[k] and iou(corners[at], corners[k]) > above for k in kept)
        if scores[at] > 0.01 and not beaten:
            kept.append(int(at))
    own = corners[kept].copy()
    own[:, [0, 2]] = own[:, [0, 2]] / 64
    own[:, [1, 3]] = (own[:, [1, 3]] - 8) / 48
    return np.column_stack([own.clip(0, 1), scores[kept], label[kept]])


def corners_of(boxes: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def check(said: NDArray[np.float32], expected: NDArray[Any]) -> None:
    for row in said:
        own = row[row[:, CLASS] >= 0]
        np.testing.assert_allclose(own, expected[: len(row)], atol=2e-6)


@pytest.mark.parametrize("rows", [1, "rows"])
def test_yolov8_is_read_with_class_wise_nms_out_of_its_letterbox(tmp_path: Path, rows: int | str) -> None:
    boxes, scores = places(50)
    path = graph(tmp_path / "m.onnx", {"output0": np.concatenate([boxes, scores], 1).T[None]}, rows)
    expected = by_hand(corners_of(boxes), scores.max(1), scores.argmax(1), 0.7)
    check(asked(*a_teacher(path), rows=3), expected)
    fewer = by_hand(corners_of(boxes), scores.max(1), scores.argmax(1), 0.2)
    assert len(fewer) < len(expected)
    check(asked(*a_teacher(path, nms_above=0.2)), fewer)


def test_yolov5_multiplies_by_whether_there_is_anything(tmp_path: Path) -> None:
    boxes, scores = places(50)
    there = RNG.uniform(0, 1, (50, 1))
    path = graph(tmp_path / "m.onnx", {"output": np.concatenate([boxes, there, scores], 1)[None]})
    scores = scores * there
    check(asked(*a_teacher(path)), by_hand(corners_of(boxes), scores.max(1), scores.argmax(1), 0.7))


def test_offsets_in_grids_become_pixels(tmp_path: Path) -> None:
    cells = [(x, y, stride) for stride in (16, 32) for y in range(SIDE // stride) for x in range(SIDE // stride)]
    offsets = np.concatenate([RNG.uniform(0, 1, (len(cells), 2)), RNG.uniform(-1, 0, (len(cells), 2))], 1)
    scores, there = RNG.uniform(0, 1, (len(cells), 2)), np.ones((len(cells), 1))
    path = graph(tmp_path / "m.onnx", {"output": np.concatenate([offsets, there, scores], 1)[None]})
    boxes = np.array([[(o[0] + x) * s, (o[1] + y) * s, np.exp(o[2]) * s, np.exp(o[3]) * s] for o, (x, y, s) in zip(offsets, cells, strict=True)])  # fmt: skip
    expected = by_hand(corners_of(boxes), scores.max(1), scores.argmax(1), 0.7)
    has_area = (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])
    check(asked(*a_teacher(path, layout="yolov5", strides=[16, 32])), expected[has_area])
    with pytest.raises(RecipeError, match=r"strides: \[8, 16\] of 64 x 64 pixels are 80 cells, .* has 20 places"):
        asked(*a_teacher(path, layout="yolov5", strides=[8, 16]))


def test_end_to_end_answers_are_taken_as_they_are(tmp_path: Path) -> None:
    boxes, scores = places(30)
    label = scores.argmax(1)
    values = np.column_stack([corners_of(boxes), scores.max(1), label])
    values[-5:] = 0  # of boxes that are none
    expected = by_hand(corners_of(boxes)[:-5], scores.max(1)[:-5], label[:-5], None)
    check(asked(*a_teacher(graph(tmp_path / "m.onnx", {"output0": values[None]}))), expected)


@pytest.mark.parametrize("with_none", [False, True])
def test_detr_says_logits_and_boxes_of_a_squashed_image(tmp_path: Path, with_none: bool) -> None:
    boxes, logits = RNG.uniform(0.2, 0.4, (15, 4)), RNG.normal(size=(15, 2 + with_none))
    path = graph(tmp_path / "m.onnx", {"logits": logits[None], "pred_boxes": boxes[None]})
    said = asked(*a_teacher(path, Space("detection", ("cat", "dog"), max_boxes=100), decode="detr"))
    if with_none:
        odds = np.exp(logits)
        p = (odds / odds.sum(1, keepdims=True))[:, :-1]
        found = np.column_stack([corners_of(boxes), p.max(1), p.argmax(1)])
    else:
        p = 1 / (1 + np.exp(-logits))
        found = np.column_stack([np.repeat(corners_of(boxes), 2, 0), p.reshape(-1), np.tile([0, 1], 15)])
    check(said, found[np.argsort(-found[:, 4], kind="stable")])


def test_raw_boxes_are_parts_of_the_input(tmp_path: Path) -> None:
    values = np.array([[0.1, 0.2, 0.3, 0.4, 0.9, 1], [0.5, 0.5, 0.7, 0.8, 0.6, 0]])
    path = graph(tmp_path / "m.onnx", {"boxes": values[None]})
    check(asked(*a_teacher(path, decode="raw")), values)
    turned = values.copy()
    turned[:, [1, 3]] = (values[:, [1, 3]] * 64 - 8) / 48
    check(asked(*a_teacher(path, decode="raw", fit="letterbox")), turned)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (
            (1, 7, 50),
            r"gives 'output0' \[1, 7, 50\]; .* of 2 classes reads one output, \[rows, 6, places\] \(yolov8\), ",
        ),
        (
            (1, 50, 9),
            r"\[rows, places, 7\] \(yolov5\), \[rows, places, 6\] \(end_to_end\): export it so, or say in `classes`",
        ),
        ((1, 2, 3, 4), r"gives 'output0' \[1, 2, 3, 4\]"),
    ],
)
def test_another_layout_is_refused_with_what_was_found_and_expected(
    tmp_path: Path, shape: tuple[int, ...], told: str
) -> None:
    path = graph(tmp_path / "m.onnx", {"output0": np.zeros((1, *shape[1:]))})
    with pytest.raises(RecipeError, match=told):
        a_teacher(path)


def test_a_shape_of_two_layouts_must_be_told(tmp_path: Path) -> None:
    one = Space("detection", ("cat",), max_boxes=20)
    boxes, _ = places(10)
    values = np.column_stack([boxes, np.full((10, 2), 0.5)])
    path = graph(tmp_path / "m.onnx", {"output0": values[None]})
    with pytest.raises(RecipeError, match=r"layout: .* may be yolov5 or end_to_end of 1 classes; say which"):
        a_teacher(path, one)
    said = asked(*a_teacher(path, one, layout="yolov5"))
    check(said, by_hand(corners_of(boxes), np.full(10, 0.25), np.zeros(10), 0.7))


def test_outputs_that_are_not_those_of_the_decoding_are_refused(tmp_path: Path) -> None:
    two = graph(tmp_path / "two.onnx", {"a": np.zeros((1, 6, 50)), "b": np.zeros((1, 6, 50))})
    with pytest.raises(RecipeError, match=r"gives 'a' .*, 'b' .*; `decode: yolo`"):
        a_teacher(two)
    with pytest.raises(RecipeError, match=r"`decode: detr` reads two outputs, logits \[rows, places, 2\] \(or 3"):
        a_teacher(two, decode="detr")
    with pytest.raises(RecipeError, match=r"`decode: raw` reads one output, \[rows, places, 6\]"):
        a_teacher(two, decode="raw")


def test_scores_that_are_none_and_boxes_that_are_no_pixels_are_told(tmp_path: Path) -> None:
    boxes, scores = places(50)
    logits = graph(tmp_path / "l.onnx", {"output0": np.concatenate([boxes, 8 * scores - 4], 1).T[None]})
    with pytest.raises(TeacherError, match=r"gives scores from -3.* expected 0 to 1: export it with the sigmoid"):
        asked(*a_teacher(logits))
    parts = graph(tmp_path / "p.onnx", {"output0": np.concatenate([boxes / 64, scores], 1).T[None]})
    with pytest.raises(TeacherError, match=r"gives boxes of at most .*, expected pixels of its input \(64 x 64\)"):
        asked(*a_teacher(parts))
    broken = graph(tmp_path / "n.onnx", {"output0": np.concatenate([boxes * np.nan, scores], 1).T[None]})
    with pytest.raises(
        TeacherError, match=r"teacher 'mine' says NaN or infinity in a box, in 2 of 2 rows; sample_key 0, 1"
    ):
        asked(*a_teacher(broken))


def test_a_graph_of_any_size_is_told_one_or_says_it_itself(tmp_path: Path) -> None:
    boxes, scores = places(50)
    values = {"output0": np.concatenate([boxes, scores], 1).T[None]}
    free = graph(tmp_path / "free.onnx", values, "rows", "side")
    with pytest.raises(RecipeError, match="takes images of any size, and nothing says which it was made for"):
        a_teacher(free)
    expected = by_hand(corners_of(boxes), scores.max(1), scores.argmax(1), 0.7)
    check(asked(*a_teacher(free, preprocess={"normalise": None, "resize": SIDE})), expected)
    check(asked(*a_teacher(graph(tmp_path / "told.onnx", values, "rows", "side", imgsz="[64, 64]"))), expected)
    with pytest.raises(RecipeError, match=r"preprocess.resize: is 32, and .* takes 64 x 64"):
        a_teacher(graph(tmp_path / "fixed.onnx", values), preprocess={"normalise": None, "resize": 32})


def test_classes_are_the_recipes_else_the_graphs_own_else_the_transfer_sets(tmp_path: Path) -> None:
    values = {"output0": np.zeros((1, 7, 50))}
    named = graph(tmp_path / "named.onnx", values, names="{0: 'person', 1: 'cat', 2: 'dog'}")

    def classes(path: Path, **more: Any) -> tuple[str, ...]:
        given = {"kind": "onnx", "path": str(path), "decode": "yolo", "preprocess": {"normalise": None}} | more
        return teacher_classes(OnnxTeacher.model_validate(given), SPACE, None)

    assert classes(named) == ("person", "cat", "dog")
    assert classes(named, classes=["a", "b", "c"]) == ("a", "b", "c")
    assert classes(graph(tmp_path / "none.onnx", values)) == SPACE.names
    assert a_teacher(named)[0].classes == ("person", "cat", "dog")


class Seeing(torch.nn.Module):
    """Finds the red of an image: one box around all that is red, by the image it is given."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = ((images[:, 0] > 0.9) & (images[:, 1] < 0.1)).float()
        side = torch.arange(SIDE, dtype=torch.float32)
        far, edges = 1000.0, []
        for axis in (1, 2):
            there = red.amax(axis)
            edges.append(((side + far * (1 - there)).amin(1), ((side + 1) * there).amax(1)))
        (x1, x2), (y1, y2) = edges
        return torch.stack([x1, y1, x2, y2, torch.ones_like(x1), torch.ones_like(x1)], 1)[:, None]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeing") / "m.onnx"
    how: dict[str, Any] = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("rows")},), "verbose": False}
    torch.onnx.export(Seeing(), (torch.zeros(2, 3, SIDE, SIDE),), str(path), input_names=["images"], output_names=["out"], **how)  # fmt: skip
    return path


@pytest.mark.parametrize("fit", ["letterbox", "squash"])
def test_what_a_graph_sees_is_where_it_is_in_the_image(seeing: Path, fit: str) -> None:
    teacher, config = a_teacher(seeing, fit=fit, layout="end_to_end")
    rows: NDArray[Any] = np.empty(2, object)
    wanted = []
    for at, (high, wide) in enumerate([(96, 128), (192, 64)]):
        rows[at] = np.zeros((high, wide, 3), np.uint8)
        rows[at][high // 4 : high // 2, wide // 4 : 3 * wide // 4] = (255, 0, 0)
        wanted.append([0.25, 0.25, 0.75, 0.5])
    said = boxes_of(Questioner(teacher, "mine", config).ask({"image": rows}, np.arange(2, dtype=np.uint64)))
    np.testing.assert_allclose(said[:, 0, :4], wanted, atol=0.05)
    config = config.model_copy(update={"flips": True})
    flipped = load_teacher(
        config, columns=(IMAGE,), space=SPACE, trained=None, trust=(), device="cpu", user_path=seeing.parent
    )
    both = boxes_of(Questioner(flipped, "mine", config).ask({"image": rows}, np.arange(2, dtype=np.uint64)))
    assert ((both[..., CLASS] >= 0).sum(1) == 1).all()
    np.testing.assert_allclose(both[:, 0, :4], wanted, atol=0.05)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (64, 64), (31, 57)])
def test_a_letterbox_is_grey_around_the_image_and_is_undone(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    fitted = letterbox(image, SIDE, SIDE)
    inside = fitted.pixels[:, fitted.top : fitted.top + fitted.height, fitted.left : fitted.left + fitted.width]
    assert (inside == 200).all() and (fitted.pixels == 114).sum() == 3 * (SIDE * SIDE - fitted.height * fitted.width)
    whole = torch.tensor([fitted.left, fitted.top, fitted.left + fitted.width, fitted.top + fitted.height])
    assert fitted.back(whole).tolist() == [0, 0, 1, 1]
    assert max(fitted.height, fitted.width) == SIDE


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"decode": "detr", "layout": "yolov8"}, "`layout` is of `decode: yolo`"),
        ({"strides": [8]}, "say `layout: yolov5` with it"),
        ({"graph_output": "output0"}, "leave `inputs`, `graph_output` and `outputs` out"),
        ({"preprocess": {"function": "a:b"}}, "`decode` is of images"),
    ],
)
def test_a_recipe_that_says_two_things_of_a_graph_is_refused(more: dict[str, Any], told: str) -> None:
    given = {"kind": "onnx", "path": "m.onnx", "decode": "yolo", "preprocess": {"normalise": None}} | more
    with pytest.raises(ValidationError, match=told):
        OnnxTeacher.model_validate(given)


def test_a_graph_that_takes_more_than_images_is_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", {"output0": np.zeros((1, 6, 50))})
    made = onnx.load(path)
    made.graph.input.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    onnx.save(made, path)
    with pytest.raises(RecipeError, match=r"takes 'images' .*, 'orig_target_sizes' .*; expected one input, images"):
        a_teacher(path)
