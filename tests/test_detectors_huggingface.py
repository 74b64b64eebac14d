"""`kind: huggingface` of detectors: a folder says, box by box, what its own post-processing says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from teachers.config.published import HuggingFaceTeacher
from teachers.errors import RecipeError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher
from teachers.models.detectors.families import FAMILIES
from teachers.models.detectors.folder import OF_OWN_CLASSES as READ
from teachers.models.teacher import Teacher
from teachers.tasks.boxes import CLASS, SCORE, boxes_of
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

from .detector_folders import CLASSES, OF_OWN_CLASSES, save_detector

IMAGE = Column("image", "image", (40, 56, 3), (0.5,) * 3, (0.2,) * 3)
SPACE = Space("detection", CLASSES, max_boxes=64)
KEYS = np.arange(100, 103, dtype=np.uint64)


def images(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Of blocks, so that a detector sees something in them."""
    rng = np.random.default_rng(1)
    made = [rng.integers(0, 256, (-(-h // 8), -(-w // 8), 3), np.uint8) for h, w in sizes]
    return [np.kron(each, np.ones((8, 8, 1), np.uint8))[:h, :w] for each, (h, w) in zip(made, sizes, strict=True)]


def of_sizes(*sizes: tuple[int, int]) -> NDArray[Any]:
    found = np.empty(len(sizes), object)
    for at, each in enumerate(images(*sizes)):
        found[at] = each
    return found


def a_teacher(folder: Path, space: Space = SPACE, **more: Any) -> tuple[Teacher, HuggingFaceTeacher]:
    config = HuggingFaceTeacher(kind="huggingface", path=str(folder), **more)
    how: dict[str, Any] = {"trained": None, "trust": (), "device": "cpu", "user_path": folder.parent}
    return load_teacher(config, columns=(IMAGE,), space=space, **how), config


def asked(teacher: Teacher, config: HuggingFaceTeacher, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """As labelling asks, f32 [rows, M, 6]."""
    return boxes_of(Questioner(teacher, "mine", config).ask({"image": pixels}, KEYS[: len(pixels)]))


def compare(
    said: NDArray[np.float32], scores: Any, labels: Any, boxes: Any, height: int, width: int, atol: float = 3e-5
) -> int:
    """With boxes in pixels, cut off at the edge; how many there are."""
    corners = np.asarray(boxes) / [width, height, width, height]
    corners = corners.clip(0, 1)
    keep = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    order = np.argsort(-np.asarray(scores)[keep], kind="stable")
    expected = np.column_stack([corners[keep], np.asarray(scores)[keep], np.asarray(labels)[keep]])[order]
    own = said[said[:, CLASS] >= 0]
    assert own.shape == expected.shape
    np.testing.assert_allclose(own, expected, atol=atol)
    assert (said[len(own) :, :CLASS] == 0).all() and (said[len(own) :, CLASS] == -1).all()
    return len(own)


@pytest.mark.parametrize("kind", OF_OWN_CLASSES)
def test_a_folder_says_box_by_box_what_its_own_post_processing_says(tmp_path: Path, kind: str) -> None:
    import transformers

    save_detector(tmp_path / "m", kind)
    network = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / "m").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m", backend="pil")
    teacher, config = a_teacher(tmp_path / "m")
    sizes = [(40, 56), (64, 40), (40, 56)]
    said = asked(teacher, config, of_sizes(*sizes))
    assert (teacher.classes, teacher.output, teacher.answer) == (CLASSES, "boxes", "boxes")
    num_boxes = 0
    for row, image in enumerate(images(*sizes)):
        size = image.shape[:2]
        with torch.inference_mode():
            outputs = network(**processor(images=image, return_tensors="pt", input_data_format="channels_last"))
        [own] = processor.post_process_object_detection(outputs, threshold=0.01, target_sizes=[size])
        num_boxes += compare(said[row], own["scores"], own["labels"], own["boxes"], *size)
    assert num_boxes > 10 and len(np.unique(said[..., CLASS])) > 1
    assert (np.diff(said[..., SCORE]) <= 0).all()


def test_every_kind_that_is_read_is_tested() -> None:
    assert set(FAMILIES) == set(READ) == set(OF_OWN_CLASSES)


LAYER = {
    "detr": "model.input_projection",
    "yolos": "vit.layernorm",
    "rt_detr": "model.encoder.fpn_blocks.0",
    "d_fine": "model.encoder.fpn_blocks.0",
    "deformable_detr": "model.input_proj.0",
}


@pytest.mark.parametrize("kind", LAYER)
def test_a_folder_gives_what_a_layer_has_of_each_image_whoever_else_is_asked_about(tmp_path: Path, kind: str) -> None:
    import transformers

    from teachers.models.skeleton import output_shapes

    save_detector(tmp_path / "m", kind)
    wanted = {"maps": {"layer": LAYER[kind]}, "vector": {"layer": LAYER[kind], "pool": "mean"}}
    teacher, config = a_teacher(tmp_path / "m", outputs=wanted, batch_size=2)
    pixels = np.stack(images(*[(40, 56)] * 3))
    heard = Questioner(teacher, "mine", config).answer({"image": pixels}, KEYS)
    assert {name: each.shape[1:] for name, each in heard.more.items()} == output_shapes(config, (IMAGE,), SPACE)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "m", backend="pil")
    network, seen = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / "m").eval(), []
    network.get_submodule(LAYER[kind]).register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        network(**processor(images=list(pixels), return_tensors="pt", input_data_format="channels_last"))
    np.testing.assert_allclose(heard.more["maps"], seen[0], rtol=1e-3, atol=1e-4)
    over = tuple(range(2, seen[0].ndim)) if seen[0].ndim == 4 else (1,)
    np.testing.assert_allclose(heard.more["vector"], seen[0].mean(over), rtol=1e-3, atol=1e-4)
    mirror, of_both = a_teacher(tmp_path / "m", outputs=wanted, flips=True)
    twice = Questioner(mirror, "mine", of_both).answer({"image": pixels}, KEYS)
    np.testing.assert_allclose(twice.more["maps"], heard.more["maps"], rtol=1e-3, atol=1e-4)
    assert asked(teacher, config, pixels).shape == (3, SPACE.max_boxes, 6)


def test_maps_of_images_of_two_sizes_are_no_one_output_and_their_means_are(tmp_path: Path) -> None:
    save_detector(tmp_path / "m", "detr")
    sizes = of_sizes((40, 56), (64, 40), (40, 56))
    mean, of_mean = a_teacher(tmp_path / "m", outputs={"vector": {"layer": LAYER["detr"], "pool": "mean"}})
    assert Questioner(mean, "mine", of_mean).answer({"image": sizes}, KEYS).more["vector"].shape == (3, 16)
    maps, of_maps = a_teacher(tmp_path / "m", outputs={"maps": {"layer": LAYER["detr"]}})
    with pytest.raises(
        RecipeError, match=r"outputs.maps: it gives \[16, .* of another, for their sizes differ; say `pool: mean`"
    ):
        Questioner(maps, "mine", of_maps).answer({"image": sizes}, KEYS)
