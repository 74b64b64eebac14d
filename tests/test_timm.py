"""`kind: timm`: an architecture by its name, weights from a file, fed as timm itself feeds it. Students by `timm:create_model`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from teachers.config.published import TimmTeacher
from teachers.errors import RecipeError, StoreError, TeacherError
from teachers.models.adapters import load_teacher, teacher_classes
from teachers.models.folder import ModelConfig, load_model, read_config, save_model
from teachers.models.modules import build_module
from teachers.models.published_files import content_of
from teachers.models.teacher import Teacher
from teachers.models.timm_teacher import Images, fed_in_words
from teachers.models.torchvision_build import make_importable
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

make_importable()
timm = pytest.importorskip("timm")

NAME = "test_resnet.r160_in1k"
SPACE = Space("classification", ("a", "b", "c"))
COLUMN = Column("image", "image", (40, 52, 3), (), ())


def a_network(name: str = NAME, **more: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=3, **more).eval()


def a_teacher(column: Column = COLUMN, **fields: Any) -> Teacher:
    config = TimmTeacher(kind="timm", **fields)
    return load_teacher(
        config, columns=(column,), space=SPACE, trained=None, trust=(), device="cpu", user_path=Path.cwd()
    )


def some_images(channels: int = 3) -> np.ndarray:
    """Smooth ones, as photographs are: noise would tell resizing algorithms apart that agree on pictures."""
    place = np.linspace(0, 3, 40)[:, None, None], np.linspace(0, 4, 52)[None, :, None]
    waves = [np.sin(place[0] * (n + 1) + np.arange(channels)) * np.cos(place[1] * (n + 2)) for n in range(4)]
    return np.round(127.5 + 127 * np.stack(waves)).astype(np.uint8)


def by_timm(network: Any, images: np.ndarray) -> torch.Tensor:
    """The oracle: its own evaluation transform, an image of Pillow at a time."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    return torch.stack([transform(Image.fromarray(image)) for image in images])


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_made_as_timm_makes_them(crop_mode: str, interpolation: str) -> None:
    overlay = {"crop_mode": crop_mode, "interpolation": interpolation, "crop_pct": 0.9, "input_size": (3, 64, 64)}
    network = a_network(pretrained_cfg_overlay=overlay)
    made, expected = Images(network, COLUMN).inputs(some_images()), by_timm(network, some_images())
    step = 1 / 255 / min(timm.data.resolve_model_data_config(network)["std"])
    torch.testing.assert_close(made, expected, rtol=0, atol=1.01 * step)  # one of 255, by Pillow's rounding
    assert (made - expected).abs().mean() < 0.5 * step


def test_weights_from_a_file_say_what_that_network_says(tmp_path: Path) -> None:
    network = a_network()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{n}": t for n, t in network.state_dict().items()}}, tmp_path / "w.pth")
    with torch.inference_mode():
        expected = network(Images(network, COLUMN).inputs(some_images()))
    for more in (
        {"weights": str(tmp_path / "w.safetensors")},
        {"weights": str(tmp_path / "w.pth"), "strip_prefix": "module."},
    ):
        teacher = a_teacher(architecture=NAME, **more)
        torch.testing.assert_close(torch.as_tensor(teacher({"image": some_images()})), expected, rtol=0, atol=1e-5)
        assert (teacher.classes, teacher.output) == (SPACE.names, "logits")


def test_a_download_says_its_architecture_its_classes_and_how_it_is_fed(tmp_path: Path) -> None:
    network = a_network()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    cfg = {
        "input_size": [3, 48, 48],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5] * 3,
    }
    about = {"architecture": "test_resnet", "num_classes": 3, "label_names": ["c", "b", "a"], "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(about))
    config = TimmTeacher(kind="timm", weights=str(tmp_path))
    assert teacher_classes(config, SPACE, None) == a_teacher(weights=str(tmp_path)).classes == ("c", "b", "a")
    told = fed_in_words(config)
    assert "48 x 48 (bilinear, center crop of 1)" in told and "0.1, 0.2, 0.3" in told
    before = content_of(config)
    (tmp_path / "config.json").write_text(json.dumps(about | {"label_names": ["a", "b", "c"]}))
    assert content_of(config) != before
    with pytest.raises(StoreError, match=r"a timm model \(test_resnet\), which `kind: timm` with `weights: "):
        read_config(tmp_path)


def test_grey_images_count_as_red_green_and_blue(tmp_path: Path) -> None:
    network = a_network()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    grey = some_images(1)
    one = a_teacher(
        Column("image", "image", (40, 52, 1), (), ()), architecture=NAME, weights=str(tmp_path / "w.safetensors")
    )
    three = a_teacher(architecture=NAME, weights=str(tmp_path / "w.safetensors"))
    said = one({"image": grey}), three({"image": np.repeat(grey, 3, -1)})
    torch.testing.assert_close(*map(torch.as_tensor, said))


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"architecture": "test_resnot"}, RecipeError, r"architecture: timm has no 'test_resnot'; it has .*test_"),
        ({}, RecipeError, r"architecture: .* does not say it"),
        ({"architecture": NAME, "weights": "nowhere.pth"}, RecipeError, r"weights: there is no file nowhere\.pth"),
        ({"architecture": NAME, "classes": ["a", "b"]}, TeacherError, r"does not fit.*fc\.weight"),
        ({"architecture": NAME, "arguments": {"nonsense": 1}}, TeacherError, r"timm cannot make test_resnet.*nonsense"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(tmp_path: Path, fields: dict[str, Any], error: type[Exception], told: str) -> None:
    save_file(a_network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(error, match=told):
        a_teacher(**{"weights": str(tmp_path / "w.safetensors"), **fields})


def test_a_network_of_timm_is_a_student_and_its_folder_opens_for_who_vouches(tmp_path: Path) -> None:
    arguments = {"model_name": "test_resnet", "num_classes": 3, "in_chans": 1}
    torch.manual_seed(0)
    network = build_module("timm:create_model", arguments, num_classes=3, input_shape=(1, 32, 32)).eval()
    shape = {"name": "image", "kind": "image", "shape": [32, 32, 1], "resize": None, "mean": None, "std": None}
    about = ModelConfig("timm:create_model", arguments, SPACE, {"columns": [shape], "function": None})
    save_model(tmp_path / "m", network.state_dict(), about)
    with pytest.raises(StoreError, match=r"'timm:create_model'.*list it under `trust:`"):
        load_model(tmp_path / "m")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    said = load_model(tmp_path / "m", trust=["timm:create_model"])({"image": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)
