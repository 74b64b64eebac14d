"""Detectors that are told what to look for say, box by box, what their own post-processing says; what cannot be asked is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from teachers.config.published import HuggingFaceTeacher
from teachers.errors import CollegiumError, RecipeError
from teachers.models.adapters import teacher_classes
from teachers.models.published_files import content_of, problem_of
from teachers.tasks.boxes import CLASS, SCORE
from teachers.tasks.space import Space

from .detector_folders import CLASSES, save_detector, save_grounding_dino, save_owl
from .test_detectors_huggingface import IMAGE, SPACE, a_teacher, asked, compare, images, of_sizes

PROMPTS = {"the cat": "cat", "a big dog": "dog", "the red house": "house", "a small blue cat": "cat"}
SIZES = [(40, 56), (64, 40), (40, 56)]


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl_is_asked_in_words_and_the_best_prompt_of_a_class_counts(tmp_path: Path, kind: str) -> None:
    network, processor = save_owl(tmp_path / "m", kind)
    teacher, config = a_teacher(tmp_path / "m", prompts=PROMPTS)
    assert teacher.classes == ("cat", "dog", "house")
    said = asked(teacher, config, of_sizes(*SIZES))
    words, num_boxes, labels = list(PROMPTS), 0, set[str]()
    for row, image in enumerate(images(*SIZES)):
        given = processor(text=[words], images=Image.fromarray(image), return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**given)
        target = [image.shape[:2]]
        [own] = processor.post_process_grounded_object_detection(outputs, 0.01, target, [words])
        named = [teacher.classes.index(PROMPTS[text]) for text in own["text_labels"]]
        num_boxes += compare(said[row], own["scores"], named, own["boxes"], *image.shape[:2], atol=1e-4)
        labels |= set(own["text_labels"])
    assert num_boxes > 20 and len(labels) > 1


@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_owl_is_shown_an_example_and_finds_what_its_image_guided_detection_finds(tmp_path: Path, kind: str) -> None:
    network, processor = save_owl(tmp_path / "m", kind)
    crop = images((24, 32))[0]
    Image.fromarray(crop).save(tmp_path / "crop.png")
    teacher, config = a_teacher(
        tmp_path / "m", examples={"dog": [str(tmp_path / "crop.png")]}, nms_above=0.3, score_above=0
    )
    assert teacher.classes == ("dog",)
    said = asked(teacher, config, of_sizes(*SIZES))
    for row, image in enumerate(images(*SIZES)):
        given = processor(images=Image.fromarray(image), query_images=Image.fromarray(crop), return_tensors="pt")
        with torch.inference_mode():
            outputs = network.image_guided_detection(**given)
        sizes = torch.tensor([image.shape[:2]])
        [own] = processor.post_process_image_guided_detection(
            outputs, threshold=0.0, nms_threshold=0.3, target_sizes=sizes
        )
        best = float(
            outputs.logits.sigmoid().max()
        )  # transformers says how far each is from a tenth of the best, which we do not
        within = said[row][(said[row, :, CLASS] >= 0) & (said[row, :, SCORE] > 0.1 * (best + 1e-6))]
        scores = np.asarray(own["scores"]) * 0.9 * (best + 1e-6) + 0.1 * (best + 1e-6)
        assert compare(within, scores, np.zeros(len(scores)), own["boxes"], *image.shape[:2]) > 1


def test_words_and_examples_are_asked_together_and_the_better_one_counts(tmp_path: Path) -> None:
    save_owl(tmp_path / "m")
    Image.fromarray(images((24, 32))[0]).save(tmp_path / "crop.png")
    shown = {"dog": [str(tmp_path / "crop.png")]}
    pixels = of_sizes(*SIZES)
    ways: list[dict[str, Any]] = [{"prompts": {"the cat": "cat"}}, {"examples": shown}]
    words, crop = (asked(*a_teacher(tmp_path / "m", score_above=0, **how), pixels) for how in ways)
    both = asked(*a_teacher(tmp_path / "m", score_above=0, **ways[0], **ways[1]), pixels)
    assert both[..., SCORE].max() == max(words[..., SCORE].max(), crop[..., SCORE].max())
    assert (both[..., SCORE].sum(1) >= np.maximum(words[..., SCORE].sum(1), crop[..., SCORE].sum(1)) - 1e-5).all()


@pytest.mark.parametrize("kind", ["grounding-dino", "mm-grounding-dino"])
def test_grounding_dino_is_asked_in_one_text_and_each_box_has_its_phrase(tmp_path: Path, kind: str) -> None:
    network, processor = save_grounding_dino(tmp_path / "m", kind)
    prompts = {"White cell": "cat", "a big dog": "dog", "red house": "house"}
    teacher, config = a_teacher(tmp_path / "m", prompts=prompts)
    said = asked(teacher, config, of_sizes(*SIZES))
    num_boxes = 0
    for row, image in enumerate(images(*SIZES)):
        given = processor(images=Image.fromarray(image), text=[list(prompts)], return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**given)
        target = [image.shape[:2]]
        [own] = processor.post_process_grounded_object_detection(
            outputs, threshold=0.01, text_threshold=0.0, target_sizes=target
        )
        # [CLS] white cell . a big dog . red house . [SEP]: which tokens are of which prompt, by hand
        tokens = [[1, 2], [4, 5, 6], [8, 9]]
        by_prompt = torch.stack([outputs.logits[0][:, each].amax(1) for each in tokens], 1)
        kept = outputs.logits[0].sigmoid().amax(1) > 0.01
        num_boxes += compare(
            said[row], own["scores"], by_prompt.argmax(1)[kept], own["boxes"], *image.shape[:2], atol=1e-4
        )
    assert num_boxes > 15


def test_a_folder_with_one_file_for_its_processor_is_read_too(tmp_path: Path) -> None:
    save_owl(tmp_path / "one", processor_file=True)
    save_owl(tmp_path / "two")
    one, two = (asked(*a_teacher(tmp_path / name, prompts=PROMPTS), of_sizes(*SIZES)) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_images_of_one_size_and_a_list_are_answered_alike_and_grey_ones_as_their_png(tmp_path: Path) -> None:
    save_owl(tmp_path / "m")
    teacher, config = a_teacher(tmp_path / "m", prompts=PROMPTS)
    stacked = np.stack(images((40, 56), (40, 56)))
    np.testing.assert_array_equal(asked(teacher, config, stacked), asked(teacher, config, of_sizes((40, 56), (40, 56))))
    grey = stacked[..., :1]
    np.testing.assert_array_equal(asked(teacher, config, grey), asked(teacher, config, np.repeat(grey, 3, -1)))


def test_prompts_and_crops_are_in_the_key_by_content_and_not_by_place(tmp_path: Path) -> None:
    save_owl(tmp_path / "m")
    Image.fromarray(images((24, 32))[0]).save(tmp_path / "crop.png")
    shutil.copy(tmp_path / "crop.png", tmp_path / "moved.png")

    def of(**more: Any) -> list[Any]:
        return content_of(HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"), **more))

    first = of(examples={"dog": [str(tmp_path / "crop.png")]})
    assert of(examples={"dog": [str(tmp_path / "moved.png")]}) == first
    assert of(examples={"cat": [str(tmp_path / "crop.png")]}) != first
    assert of(prompts={"a dog": "dog"}) == [each for each in first if each[0] != "example"]


FOLDERS = {"owl": save_owl, "grounding": save_grounding_dino, "own": lambda folder: save_detector(folder, "yolos")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("detectors")
    for name, save in FOLDERS.items():
        save(root / name)
    return root


@pytest.mark.parametrize(
    ("folder", "more", "told"),
    [
        ("owl", {}, "prompts: .* knows no classes of its own; say what to look for"),
        ("grounding", {"examples": {"cat": ["x.png"]}}, "examples: .* is asked in words only"),
        ("owl", {"examples": {"cat": ["nowhere.png"]}}, "examples.cat: there is no file nowhere.png"),
        ("own", {"prompts": {"a cat": "cat"}}, "prompts: .* knows classes of its own"),
    ],
)
def test_what_a_folder_cannot_be_asked_is_told_before_work(
    folders: Path, folder: str, more: dict[str, Any], told: str
) -> None:
    problem = problem_of(HuggingFaceTeacher(kind="huggingface", path=str(folders / folder), **more), "boxes")
    assert re.search(told, problem)


def test_a_folder_that_is_no_detector_is_refused_and_a_detector_says_no_classes(tmp_path: Path, folders: Path) -> None:
    from .hub_folders import save_image_model

    save_image_model(tmp_path / "m")
    classifier = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    assert "ViTForImageClassification, which is no detector" in problem_of(classifier, "boxes")
    detector = HuggingFaceTeacher(kind="huggingface", path=str(folders / "own"))
    assert "says where things are in an image, for `task: detection`" in problem_of(detector, "class_axis")


def test_a_folder_without_its_image_processor_or_of_an_unknown_kind_is_refused(tmp_path: Path, folders: Path) -> None:
    shutil.copytree(folders / "own", tmp_path / "m")
    (tmp_path / "m" / "preprocessor_config.json").unlink()
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    assert "there is no preprocessor_config.json" in problem_of(config, "boxes")
    about = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**about, "model_type": "rf_detr"}))
    assert "is of a kind that is not read here (model_type 'rf_detr'" in problem_of(config, "boxes")


def test_words_that_lead_to_no_class_and_classes_that_nobody_is_asked_for_are_told(folders: Path) -> None:
    from teachers.soft_targets.class_map import mapped

    def classes(prompts: dict[str, str], **more: Any) -> tuple[str, ...]:
        config = HuggingFaceTeacher(kind="huggingface", path=str(folders / "owl"), prompts=prompts, **more)
        return teacher_classes(config, SPACE, None)

    with pytest.raises(RecipeError, match="prompts: 'a cow' leads to 'cow', which is no class of the transfer set"):
        classes({"a cow": "cow"})
    assert classes({"a cow": "cow"}, class_map={"cow": "dog"}) == ("cow",)
    with pytest.raises(
        RecipeError, match=r"does not know the classes 'dog', 'house'; `class_map: \{\}` says that this is meant"
    ):
        mapped(classes({"a cat": "cat"}), CLASSES, None, "boxes")
    assert mapped(classes({"a cat": "cat"}), CLASSES, {}, "boxes") == {"cat": "cat"}


@pytest.mark.parametrize(
    ("folder", "prompts", "told"),
    [
        ("owl", {" ".join(["cat"] * 20): "cat"}, "has 22 tokens, .* takes 16; say it shorter"),
        ("grounding", {"a cat. a dog": "cat"}, "is no phrase .* ends one; leave it out"),
        (
            "grounding",
            {f"{'cat ' * n}": "cat" for n in range(1, 9)},
            "are .* tokens together, .* takes 32; ask for fewer",
        ),
    ],
)
def test_words_that_a_network_cannot_take_are_refused(
    folders: Path, folder: str, prompts: dict[str, str], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        a_teacher(folders / folder, prompts=prompts)


def test_a_tokenizer_of_another_network_and_a_head_of_another_width_are_refused(tmp_path: Path, folders: Path) -> None:
    from .hub_folders import WORDS, save_tokenizer

    shutil.copytree(folders / "owl", tmp_path / "m")
    save_tokenizer(tmp_path / "m", [*WORDS, "more", "words"], model_max_length=16)
    with pytest.raises(RecipeError, match="it is the tokenizer of another network"):
        a_teacher(tmp_path / "m", prompts={"more words": "cat"})
    space = Space("detection", ("a", "b"), max_boxes=8)
    with pytest.raises(CollegiumError, match=r"classes: 2 are named, the head in .* gives 3"):
        a_teacher(folders / "own", space, classes=["a", "b"])


def test_only_the_best_boxes_are_kept_and_only_those_with_the_score_that_is_asked_for(folders: Path) -> None:
    pixels: NDArray[Any] = of_sizes(*SIZES)
    whole = asked(*a_teacher(folders / "owl", prompts=PROMPTS, score_above=0), pixels)
    few = asked(
        *a_teacher(folders / "owl", Space("detection", CLASSES, max_boxes=5), prompts=PROMPTS, score_above=0), pixels
    )
    np.testing.assert_array_equal(few, whole[:, :5])
    above = float(np.median(whole[whole[..., CLASS] >= 0][:, SCORE]))
    high = asked(*a_teacher(folders / "owl", prompts=PROMPTS, score_above=above), pixels)
    there = high[..., CLASS] >= 0
    assert 0 < there.sum() < (whole[..., CLASS] >= 0).sum() and high[there][:, SCORE].min() > above


def test_of_a_detector_that_is_told_what_to_look_for_no_layers_are_named(folders: Path, tmp_path: Path) -> None:
    from teachers.models.skeleton import skeleton_of

    config = HuggingFaceTeacher(kind="huggingface", path=str(folders / "owl"), prompts=PROMPTS)
    with pytest.raises(RecipeError, match="is told what to look for, and of such a detector no layers are named"):
        skeleton_of(config, (IMAGE,), SPACE)
    shutil.copytree(folders / "own", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    pickled = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    assert "AutoModelForObjectDetection as M" in problem_of(pickled, "boxes")


def test_crops_that_a_detector_is_shown_go_along_with_a_job(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.recipe.along import files_along
    from orchestrator.recipe.model import Recipe

    monkeypatch.chdir(tmp_path)
    Image.fromarray(images((24, 32))[0]).save("crop.png")
    source = {"kind": "import", "function": "tests.shapes:many"}

    def along(*crops: str) -> dict[str, Path]:
        teacher = {"kind": "huggingface", "path": str(folders / "owl"), "examples": {"disc": list(crops)}}
        rows = {"source": source, "inputs": "image", "label": "boxes"}
        about = {"format": 1, "name": "r", "task": "detection", "transfer_set": rows, "teachers": {"owl": teacher}}
        return files_along(Recipe.model_validate(about))

    assert along("crop.png", str(tmp_path / "crop.png")) == {"crop.png": Path("crop.png")}
    with pytest.raises(RecipeError, match=r"teachers.owl.examples.disc: there is no file other.png"):
        along("other.png")


def test_encoded_images_are_seen_at_their_own_size_and_upright(folders: Path) -> None:
    import io

    teacher, config = a_teacher(folders / "owl", prompts=PROMPTS)
    assert teacher.as_stored
    upright = images((40, 56), (64, 40))
    files: NDArray[Any] = np.empty(2, object)
    for at, pixels in enumerate(upright):
        held, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6  # is shown turned by a quarter to the right
        Image.fromarray(np.rot90(pixels)).save(held, "PNG", exif=exif)
        files[at] = held.getvalue()
    for flips in (False, True):
        how = {"prompts": PROMPTS, "flips": flips}
        said = asked(*a_teacher(folders / "owl", **how), files)
        np.testing.assert_array_equal(said, asked(*a_teacher(folders / "owl", **how), of_sizes((40, 56), (64, 40))))
    assert not np.array_equal(said, asked(teacher, config, files))
