"""`kind: onnx`: a graph says what the network said that it was exported from; what it is fed is checked by name."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from teachers.config.preprocess import Preprocess, Tokenizer
from teachers.config.published import OnnxTeacher
from teachers.errors import RecipeError, TeacherError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher
from teachers.models.published_files import content_of
from teachers.models.teacher import Teacher
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

from .hub_folders import TEXTS, save_text_model

SPACE = Space("classification", ("a", "b", "c"))
NUMBERS = Column("features", "number", (4,), (0.0,) * 4, (1.0,) * 4)
FED = Preprocess(normalise=None)


class Two(nn.Module):
    """Two outputs, of which one holds the scores."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(numbers).relu()
        return hidden, self.head(hidden)


def export(
    network: nn.Module, path: Path, given: tuple[Tensor, ...], names: list[str], outputs: list[str], **how: Any
) -> Path:
    torch.onnx.export(
        network.eval(), given, str(path), input_names=names, output_names=outputs, verbose=False, dynamo=True, **how
    )
    return path


def two(tmp_path: Path, rows: int | None = None, **how: Any) -> Path:
    """A graph of numbers; `rows`: of a batch, where the graph fixes it."""
    shapes = None if rows else ({0: torch.export.Dim("rows")},)
    given = (torch.randn(rows or 2, 4),)
    return export(Two(), tmp_path / "two.onnx", given, ["numbers"], ["hidden", "scores"], dynamic_shapes=shapes, **how)


def a_teacher(path: Path, columns: tuple[Column, ...] = (NUMBERS,), **more: Any) -> Teacher:
    config = OnnxTeacher.model_validate(
        {"kind": "onnx", "path": str(path), "output": "logits", "preprocess": FED} | more
    )
    return load_teacher(
        config, columns=columns, space=SPACE, trained=None, trust=(), device="cpu", user_path=path.parent
    )


@pytest.mark.parametrize("rows", [None, 4])
def test_a_graph_says_what_the_network_says_in_batches_of_any_size(tmp_path: Path, rows: int | None) -> None:
    teacher = a_teacher(two(tmp_path, rows), inputs={"numbers": "features"}, graph_output="scores")
    features = np.random.default_rng(0).standard_normal((11, 4), np.float32)
    with torch.inference_mode():
        expected = Two()(torch.from_numpy(features))[1]
    for some in (features, features[:3], features[:1]):
        said = torch.as_tensor(teacher({"features": some}))
        torch.testing.assert_close(said, expected[: len(some)], rtol=0, atol=1e-5)
    assert (teacher.classes, teacher.output) == (SPACE.names, "logits")


class Pair(nn.Module):
    """A graph of two inputs, one of them in half precision."""

    def forward(self, image: Tensor, weights: Tensor) -> Tensor:
        return image.mean((2, 3)) * weights.float()


def test_inputs_are_given_by_name_in_the_graphs_own_dtype(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("rows")},) * 2
    given = (torch.rand(2, 3, 4, 4), torch.rand(2, 3).half())
    path = export(Pair(), tmp_path / "pair.onnx", given, ["image", "weights"], ["scores"], dynamic_shapes=shapes)
    columns = (Column("image", "image", (4, 4, 3), (), ()), Column("w", "number", (3,), (), ()))
    teacher = a_teacher(path, columns, inputs={"weights": "w"})
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    weights = np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 3)
    expected = pixels.mean((1, 2)) / 255 * weights.astype(np.float16)
    np.testing.assert_allclose(teacher({"image": pixels, "w": weights}), expected, atol=1e-4)


class OfTokens(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        said: Tensor = self.network(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return said


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_graph_of_tokens_hears_the_tokenizer_of_the_recipe(tmp_path: Path, dynamic: bool) -> None:
    network = save_text_model(tmp_path / "m", attn_implementation="eager")
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=32)
    shapes = ({0: rows, 1: length} if dynamic else {0: rows},) * 3
    given = tuple(torch.ones(2, 12, dtype=torch.int64) for _ in range(3))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    path = export(OfTokens(network), tmp_path / "m.onnx", given, names, ["logits"], dynamic_shapes=shapes)
    preprocess = Preprocess(tokenizer=Tokenizer(path=str(tmp_path / "m"), max_length=12))
    pair = (Column("text", "text", (), (), ()), Column("other", "text", (), (), ()))
    teacher = a_teacher(path, pair, preprocess=preprocess)
    batch = {"text": np.array(TEXTS, object), "other": np.array(TEXTS[::-1], object)}

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    with torch.inference_mode():
        given = tokenizer(TEXTS, TEXTS[::-1], padding=True, truncation=True, max_length=12, return_tensors="pt")
        expected = network(**given).logits
    config = OnnxTeacher(kind="onnx", path=str(path), output="logits", preprocess=preprocess, batch_size=4)
    asked = Questioner(teacher, "mine", config).ask(batch, np.arange(len(TEXTS), dtype=np.uint64))
    for said in (teacher(batch), asked):
        torch.testing.assert_close(torch.as_tensor(said), expected, rtol=0, atol=1e-4)


def test_tensors_beside_the_graph_count_and_must_be_there(tmp_path: Path) -> None:
    path = two(tmp_path)
    model = onnx.load(path)
    external = {"save_as_external_data": True, "location": "two.weights", "size_threshold": 0}
    (tmp_path / "big").mkdir()
    onnx.save_model(model, tmp_path / "big" / "two.onnx", **external)
    config = OnnxTeacher(kind="onnx", path=str(tmp_path / "big" / "two.onnx"), output="logits", preprocess=FED)
    before = content_of(config)
    assert len(before) == 2
    shutil.copytree(tmp_path / "big", tmp_path / "elsewhere")
    assert content_of(config.model_copy(update={"path": str(tmp_path / "elsewhere" / "two.onnx")})) == before
    weights = tmp_path / "big" / "two.weights"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert content_of(config) != before
    weights.unlink()
    with pytest.raises(TeacherError, match=r"tensors of it lie in two\.weights, which is not beside it"):
        content_of(config)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, r"graph_output: .* has several outputs, hidden, scores: say which"),
        ({"graph_output": "nothing"}, r"graph_output: .* has no output 'nothing'; it has hidden, scores"),
        ({"graph_output": "hidden"}, r"graph_output: output 'hidden' of .* is tensor\(float\) .*8\], expected numbers \[rows, 3\]"),
        ({"graph_output": "scores", "inputs": {"wrong": "features"}}, r"inputs: .* has no input 'wrong'; it has numbers"),
        ({"graph_output": "scores", "inputs": {"numbers": "wrong"}}, r"inputs: there is no 'wrong'; there is features"),
    ],
)  # fmt: skip
def test_a_graph_is_refused_for_names_and_shapes_that_it_does_not_have(tmp_path: Path, more: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        a_teacher(two(tmp_path), **more)


def test_rows_of_another_shape_and_files_that_are_no_graph_are_told(tmp_path: Path) -> None:
    path = two(tmp_path)
    wide = Column("features", "number", (5,), (0.0,) * 5, (1.0,) * 5)
    with pytest.raises(RecipeError, match=r"input 'numbers' of .* takes \['rows', 4\], and is given \['rows', 5\]"):
        a_teacher(path, (wide,), graph_output="scores")
    path.write_bytes(b"no graph")
    with pytest.raises(TeacherError, match="onnxruntime cannot load it"):
        a_teacher(path, graph_output="scores")
    with pytest.raises(RecipeError, match=r"path: there is no file .*nowhere\.onnx"):
        a_teacher(tmp_path / "nowhere.onnx")
    with pytest.raises(ValueError, match="say how the graph was fed"):
        OnnxTeacher(kind="onnx", path="x", output="logits")
