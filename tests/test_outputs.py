"""Named outputs of teachers: a layer of any kind of network, pooled, of every row in its place; and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from teachers.config.outputs import NamedOutput
from teachers.config.preprocess import Preprocess
from teachers.config.teacher import ModuleTeacher, TeacherConfig
from teachers.errors import RecipeError, TeacherError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher
from teachers.models.folded import FoldedTeacher, Said
from teachers.models.folder import ModelConfig, save_model
from teachers.models.outputs import pooled, tokens_there, with_outputs
from teachers.models.preprocess import Preprocessor
from teachers.models.skeleton import layers_of_graph, output_shapes, skeleton_of
from teachers.models.teacher import LoadedTeacher, Teacher
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from teachers.transfer_set.folds import Folds
from teachers.zoo import mlp

from .hub_folders import TEXTS, save_image_model, save_text_model

TEACHER: TypeAdapter[Any] = TypeAdapter(TeacherConfig)
SPACE = Space("classification", ("a", "b", "c"))
IMAGES = Column("image", "image", (8, 8, 1), (0.5,), (0.5,))
NUMBERS = Column("features", "number", (4,), (0.0,) * 4, (1.0,) * 4)
TEXT = Column("text", "text", (), (), ())
FED = {"normalise": None}


class Maps(nn.Module):
    """Two stages with activations in place."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)])
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = self.activation(stage(images))
        return self.head(images.mean((2, 3)))


def some_images(rows: int = 5) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).integers(0, 255, (rows, 8, 8, 1)).astype(np.uint8)}


def of_maps(folder: Path, **more: Any) -> tuple[Maps, ModuleTeacher]:
    torch.manual_seed(0)
    network = Maps(3)
    save_file(network.state_dict(), folder / "maps.safetensors")
    given = {
        "kind": "module",
        "model": f"{__name__}:Maps",
        "weights": str(folder / "maps.safetensors"),
        "preprocess": FED,
    }
    return network.eval(), TEACHER.validate_python(given | more)


def loaded(config: Any, *columns: Column, space: Space = SPACE) -> Teacher:
    return load_teacher(
        config, columns=columns, space=space, trained=None, trust=(), device="cpu", user_path=Path.cwd()
    )


def said(teacher: Teacher, batch: Mapping[str, np.ndarray]) -> Said:
    found = teacher(batch)
    assert isinstance(found, Said)
    return found


# of any kind


@pytest.mark.parametrize("pool", ["mean", None])
def test_a_module_gives_what_its_layer_gave_before_the_activation_in_place(tmp_path: Path, pool: str | None) -> None:
    network, config = of_maps(tmp_path, outputs={"hidden": {"layer": "stages.1", "pool": pool}})
    found = said(loaded(config, IMAGES), some_images())
    given = torch.from_numpy(some_images()["image"]).permute(0, 3, 1, 2) / 255
    expected = network.stages[1](network.stages[0](given).relu())
    torch.testing.assert_close(found.more["hidden"], expected.mean((2, 3)) if pool else expected)
    torch.testing.assert_close(torch.as_tensor(found.scores), network(given))
    assert output_shapes(config, [IMAGES], SPACE) == {"hidden": (6,) if pool else (6, 2, 2)}


def test_a_teacher_without_outputs_gives_its_scores_alone(tmp_path: Path) -> None:
    _, config = of_maps(tmp_path)
    assert isinstance(loaded(config, IMAGES)(some_images()), Tensor)
    assert "outputs" not in config.model_dump(mode="json")


def test_a_model_folder_gives_the_layers_of_its_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, preprocessor = (
        mlp(16, num_classes=3, input_shape=(4,)),
        Preprocessor(Preprocess(normalise=None), [NUMBERS]),
    )
    about = ModelConfig("teachers.zoo:mlp", {"hidden": 16}, SPACE, preprocessor.resolved())
    save_model(tmp_path / "m", network.state_dict(), about)
    first = next(name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    config = TEACHER.validate_python(
        {"kind": "checkpoint", "path": str(tmp_path / "m"), "outputs": {"hidden": {"layer": first}}}
    )
    batch = {"features": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}
    found = said(loaded(config, NUMBERS), batch)
    torch.testing.assert_close(found.more["hidden"], network.get_submodule(first)(torch.from_numpy(batch["features"])))
    assert output_shapes(config, [NUMBERS], SPACE) == {"hidden": (16,)}


def by_transformers(folder: Path, texts: list[str]) -> tuple[Tensor, Tensor]:
    """The oracle: the last layer's hidden states of the longest width, and which of them are tokens."""
    from transformers import AutoModel, AutoTokenizer

    given = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state, given["attention_mask"].bool()


OF_TEXT = {"bert": "bert.encoder.layer.1", "distilbert": "distilbert.transformer.layer.1"}


@pytest.mark.parametrize("kind", OF_TEXT)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_mean_of_a_text_is_over_its_tokens(tmp_path: Path, kind: str, attention: str) -> None:
    save_text_model(tmp_path / "m", kind, ("a", "b", "c"))
    outputs = {"hidden": {"layer": OF_TEXT[kind], "pool": "mean"}}
    config = TEACHER.validate_python(
        {"kind": "huggingface", "path": str(tmp_path / "m"), "outputs": outputs, "attention": attention}
    )
    found = said(loaded(config, TEXT), {"text": np.array(TEXTS, object)})
    hidden, there = by_transformers(tmp_path / "m", TEXTS)
    expected = torch.stack([states[tokens].mean(0) for states, tokens in zip(hidden, there, strict=True)])
    torch.testing.assert_close(found.more["hidden"], expected, rtol=0, atol=1e-5)
    assert output_shapes(config, [TEXT], SPACE) == {"hidden": (16,)}


def test_the_states_of_a_text_do_not_depend_on_the_texts_beside_it(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", "distilbert", ("a", "b", "c"))
    outputs = {"hidden": {"layer": "distilbert.transformer.layer.1"}}
    config = TEACHER.validate_python(
        {"kind": "huggingface", "path": str(tmp_path / "m"), "outputs": outputs, "max_length": 20}
    )
    assert output_shapes(config, [TEXT], SPACE) == {"hidden": (20, 16)}
    teacher = loaded(config, TEXT)
    together = said(teacher, {"text": np.array(TEXTS, object)}).more["hidden"]
    alone = torch.cat([said(teacher, {"text": np.array([text], object)}).more["hidden"] for text in TEXTS])
    assert together.shape == (len(TEXTS), 20, 16)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_answers_to_texts_that_were_asked_about_by_length_are_in_their_own_order(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", "distilbert", ("a", "b", "c"))
    outputs = {"hidden": {"layer": "distilbert.transformer.layer.1", "pool": "mean"}}
    config = TEACHER.validate_python(
        {"kind": "huggingface", "path": str(tmp_path / "m"), "outputs": outputs, "batch_size": 2}
    )
    teacher = loaded(config, TEXT)
    texts = np.array([*TEXTS, *TEXTS[::-1]], object)
    heard = Questioner(teacher, "bert", config).answer({"text": texts}, np.arange(len(texts), dtype=np.uint64))
    np.testing.assert_allclose(heard.more["hidden"], said(teacher, {"text": texts}).more["hidden"], atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "layer", "shape"), [("vit", "vit.layernorm", (5, 16)), ("resnet", "resnet.encoder", (16, 2, 2))]
)
def test_a_folder_of_images_gives_its_layers(tmp_path: Path, kind: str, layer: str, shape: tuple[int, ...]) -> None:
    save_image_model(tmp_path / "m", kind, ("a", "b", "c"))
    column = Column("image", "image", (24, 24, 3), (), ())
    config = TEACHER.validate_python(
        {"kind": "huggingface", "path": str(tmp_path / "m"), "outputs": {"hidden": {"layer": layer}}}
    )
    images = np.random.default_rng(0).integers(0, 255, (3, 24, 24, 3)).astype(np.uint8)
    found = said(loaded(config, column), {"image": images}).more["hidden"]
    assert output_shapes(config, [column], SPACE) == {"hidden": tuple(found.shape[1:])}
    assert kind == "resnet" or found.shape[1:] == shape


def test_a_network_of_timm_gives_its_layers(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "t.safetensors")
    about = {"kind": "timm", "weights": str(tmp_path / "t.safetensors"), "architecture": "test_resnet.r160_in1k"}
    config = TEACHER.validate_python(
        about | {"outputs": {"maps": {"layer": "layer3"}, "mean": {"layer": "layer3", "pool": "mean"}}}
    )
    column = Column("image", "image", (40, 52, 3), (), ())
    images = np.random.default_rng(0).integers(0, 255, (2, 40, 52, 3)).astype(np.uint8)
    found = said(loaded(config, column), {"image": images}).more
    torch.testing.assert_close(found["maps"].mean((2, 3)), found["mean"])
    assert output_shapes(config, [column], SPACE) == {name: tuple(values.shape[1:]) for name, values in found.items()}


# in folds


def test_in_folds_a_learnt_row_has_the_features_of_who_has_not_seen_it_and_others_the_mean(tmp_path: Path) -> None:
    parts = []
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        torch.manual_seed(seed)
        network = Maps(3)
        save_file(network.state_dict(), tmp_path / str(seed) / "maps.safetensors")
        given = {
            "kind": "module",
            "model": f"{__name__}:Maps",
            "weights": str(tmp_path / str(seed) / "maps.safetensors"),
        }
        outputs = {"hidden": {"layer": "stages.1", "pool": "mean"}}
        parts.append(loaded(TEACHER.validate_python(given | {"preprocess": FED, "outputs": outputs}), IMAGES))
    folds = Folds(2, 0, False)
    teacher = FoldedTeacher(SPACE.names, "logits", folds, tmp_path, parts)
    each = [said(part, some_images()).more["hidden"] for part in parts]
    found = teacher.out_of_fold(some_images(), np.array([0, 1, -1, 1, 0], np.int16))
    assert isinstance(found, Said)
    expected = torch.stack([each[0][0], each[1][1], (each[0][2] + each[1][2]) / 2, each[1][3], each[0][4]])
    torch.testing.assert_close(found.more["hidden"], expected)


# pooled


def test_what_is_no_token_counts_nothing_in_a_mean_whatever_it_is() -> None:
    values = torch.tensor([[[1.0], [3.0], [torch.nan]], [[4.0], [torch.inf], [9.0]]])
    there = torch.tensor([[True, True, False], [True, False, False]])
    assert pooled(values, "mean", there).tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize("left", [False, True])
def test_tokens_come_first_and_zeros_behind_them_up_to_the_longest(left: bool) -> None:
    there = torch.tensor(
        [[False, True, True], [True, True, True]] if left else [[True, True, False], [True, True, True]]
    )
    values = torch.tensor(
        [[[9.0], [1.0], [2.0]], [[4.0], [5.0], [6.0]]] if left else [[[1.0], [2.0], [9.0]], [[4.0], [5.0], [6.0]]]
    )
    assert pooled(values, None, there, 4)[..., 0].tolist() == [[1, 2, 0, 0], [4, 5, 6, 0]]


def test_there_is_no_mean_of_what_has_no_positions() -> None:
    with pytest.raises(RecipeError, match=r"pool: `mean` is over positions, and the layer gives \[7\] of a row"):
        pooled(torch.ones(2, 7), "mean")


def test_whole_numbers_are_tokens_and_images_are_none() -> None:
    tokens = torch.tensor([[3, 4, -1], [5, -1, -1]], dtype=torch.int32)
    expected = [[True, True, False], [True, False, False]]
    for given in (tokens, {"tokens": tokens}):
        there = tokens_there((given,), {})
        assert there is not None and there.tolist() == expected
    assert tokens_there((torch.ones(2, 3),), {}) is None
    assert tokens_there((), {"attention_mask": torch.tensor([[1, 0]])}) is not None


# refused


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (
            {"hidden": {"layer": "stages.2"}},
            r"outputs\.hidden\.layer: a Maps has no layer 'stages\.2'; the nearest of 5 are 'stages",
        ),
        (
            {"hidden": {"layer": "stages"}},
            r"outputs\.hidden\.layer: layer 'stages' of a Maps is a ModuleList that is never called",
        ),
        ({"hidden": {"layer": "head", "pool": "mean"}}, r"outputs\.hidden\.pool: `mean` is over positions.*\[3\]"),
    ],
)
def test_a_layer_that_is_not_there_is_told_before_and_when_it_is_asked(tmp_path: Path, outputs: Any, told: str) -> None:
    _, config = of_maps(tmp_path, outputs=outputs)
    with pytest.raises(RecipeError, match=rf"^{told}"):
        output_shapes(config, [IMAGES], SPACE)
    with pytest.raises(RecipeError, match=rf"^{told}"):
        loaded(config, IMAGES)(some_images())


class Windows(nn.Module):
    """Attention in windows: what goes by them goes by no rows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.cut, self.head = nn.Unflatten(1, (4, 1)), nn.Linear(4, num_classes)
        self.windows = nn.Flatten(0, 1)

    def forward(self, numbers: Tensor) -> Tensor:
        self.windows(self.cut(numbers))
        return self.head(numbers)


def test_a_layer_that_does_not_go_by_rows_is_refused() -> None:
    config = TEACHER.validate_python(
        {
            "kind": "module",
            "model": f"{__name__}:Windows",
            "train": {"steps": 1},
            "outputs": {"hidden": {"layer": "windows"}},
        }
    )
    with pytest.raises(RecipeError, match=r"outputs\.hidden\.layer: 'windows' gives \[8, 1\] for 2 rows"):
        output_shapes(config, [NUMBERS], SPACE)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"kind": "callable", "function": "a:b", "output": "logits"}, "`outputs` are of layers, which only `module`"),
        ({"kind": "sklearn", "model": "a:b"}, "`outputs` are of layers, which only `module`"),
        ({"kind": "predictions", "path": "a.csv"}, "`outputs` are of layers, which only `module`"),
    ],
)
def test_who_has_no_layers_has_no_outputs(teacher: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TEACHER.validate_python({**teacher, "outputs": {"hidden": {"layer": "x"}}})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("logits", "'logits' is what its answer is called"),
        ("a.b", "String should match"),
        ("../x", "String should match"),
        ("", "String should match"),
    ],
)
def test_a_name_that_means_something_else_is_refused(name: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TEACHER.validate_python({"kind": "checkpoint", "path": "x", "outputs": {name: {"layer": "x"}}})


def test_a_model_folder_with_an_estimator_has_no_layers() -> None:
    estimator = LoadedTeacher(SPACE.names, "logits", lambda batch: torch.zeros(1, 3))
    with pytest.raises(RecipeError, match="outputs: it is no network"):
        with_outputs(estimator, {"hidden": NamedOutput(layer="x")})


class SaysNaN(nn.Linear):
    def __init__(self, num_classes: int) -> None:
        super().__init__(4, num_classes)
        self.hidden = nn.Identity()

    def forward(self, numbers: Tensor) -> Tensor:
        self.hidden(torch.where(numbers > 1, torch.nan, numbers))
        return super().forward(numbers)


def test_features_that_are_not_finite_are_a_fault_that_names_its_rows(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    config = TEACHER.validate_python(
        {
            "kind": "module",
            "model": f"{__name__}:SaysNaN",
            "weights": str(tmp_path / "w.safetensors"),
            "preprocess": FED,
            "outputs": {"hidden": {"layer": "hidden"}},
        }
    )
    batch = {"features": np.array([[0, 0, 0, 0], [0, 2, 0, 0]], np.float32)}
    with pytest.raises(TeacherError, match=r"'odd' gives NaN or infinity as hidden, in 1 of 2 rows; sample_key 8"):
        Questioner(loaded(config, NUMBERS), "odd", config).answer(batch, np.array([7, 8], np.uint64))


def test_the_layers_of_a_teacher_are_listed_without_its_weights(tmp_path: Path) -> None:
    _, config = of_maps(tmp_path)
    (tmp_path / "maps.safetensors").unlink()
    listed = {layer.path: layer for layer in skeleton_of(config, [IMAGES], SPACE).layers()}
    assert listed["stages.1"].shape == (6, 2, 2) and listed["activation"].num_calls == 2
    assert listed["stages"].shape is None and listed["head"].num_parameters == 21


def test_a_graph_gives_the_outputs_that_it_names_in_batches_of_its_own(tmp_path: Path) -> None:
    from .test_onnx_teacher import Two, two

    given = {
        "kind": "onnx",
        "path": str(two(tmp_path, 4)),
        "output": "logits",
        "preprocess": FED,
        "graph_output": "scores",
    }
    config = TEACHER.validate_python(
        given | {"inputs": {"numbers": "features"}, "outputs": {"last": {"layer": "hidden"}}}
    )
    batch = {"features": np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)}
    found = said(loaded(config, NUMBERS), batch)
    hidden, scores = Two()(torch.from_numpy(batch["features"]))
    torch.testing.assert_close(found.more["last"], hidden.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(found.scores), scores.detach(), rtol=0, atol=1e-5)
    assert output_shapes(config, [NUMBERS], SPACE) == {"last": (8,)}
    assert [layer.path for layer in layers_of_graph(config, [NUMBERS], SPACE)] == ["hidden"]
    wrong = config.model_copy(update={"outputs": {"last": NamedOutput(layer="hiden")}})
    with pytest.raises(
        RecipeError, match=r"outputs\.last\.layer: .* has no output 'hiden'; it has hidden, scores\. Of a graph"
    ):
        loaded(wrong, NUMBERS)
