"""Published networks in a recipe: what is in a key, what lies in a store, and a run whose student needs no folder of theirs."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import students
from orchestrator.recipe.checks import check_before_work, class_problems
from orchestrator.recipe.load import recipe_of
from orchestrator.reporting.cautions import cut_off
from orchestrator.stages import keys
from teachers.config.published import HuggingFaceTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore

from .hub_folders import WORDS, save_text_model, save_tokenizer

CLASSES = ["maybe", "no", "yes"]


def write_rows(folder: Path, rows: int = 300) -> dict[str, Any]:
    """JSON lines in which one word decides the label; what a recipe says of them."""
    draw = random.Random(0)
    others = [word for word in WORDS if word not in ("cat", "dog", "house")]
    lines = []
    for number in range(rows):
        words = draw.choices(others, k=draw.randrange(1, 12))
        label, word = draw.choice([("no", "cat"), ("yes", "dog"), ("maybe", "house")])
        words.insert(draw.randrange(len(words)), word)
        lines.append({"id": number, "text": " ".join(words), "label": label})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "jsonl", "path": str(folder / "rows.jsonl")}
    return {"source": source, "id": "id", "inputs": [{"column": "text", "as": "text"}], "label": "label"}


def a_recipe(folder: Path, model: Path, **teacher: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "published",
        "transfer_set": write_rows(folder),
        "teachers": {"bert": {"kind": "huggingface", "path": str(model), "require": None, **teacher}},
    }


def test_where_a_folder_lies_and_how_it_is_computed_decide_no_labels_and_the_rest_does(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "moved")

    def key(model: str, **teacher: Any) -> str:
        recipe = recipe_of(a_recipe(tmp_path, tmp_path / model, **teacher))
        weights = keys.teacher_digest(recipe, "bert", None, "source")
        rows = ("train-0", "digest")
        return keys.label_stage(recipe.teachers["bert"], "bert", rows, weights, CLASSES, "statistics").key

    same = {key("m"), key("moved"), key("m", batch_size=7), key("m", device_map="auto"), key("m", allow_pickle=True)}
    assert len(same) == 1
    others = [
        key("m", max_length=9),
        key("m", dtype="bfloat16"),
        key("m", attention="eager"),
        key("m", columns=["text"]),
    ]
    save_tokenizer(tmp_path / "moved", words=WORDS[::-1])
    assert len({*same, *others, key("moved")}) == 6


def test_a_folder_that_does_not_fit_is_told_before_any_work(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", classes=["LABEL_0", "LABEL_1", "LABEL_2"])
    recipe = recipe_of(a_recipe(tmp_path, tmp_path / "m"))
    check_before_work(recipe)
    [told] = class_problems(recipe, CLASSES)
    assert told.startswith("teachers.bert.classes: config.json in") and "LABEL_0, LABEL_1, LABEL_2" in told
    with pytest.raises(
        RecipeError, match=r"^teachers\.bert\.path: there is no folder bert-base-uncased.*hf download bert"
    ):
        check_before_work(recipe_of(a_recipe(tmp_path, Path("bert-base-uncased"))))


def test_texts_that_the_folders_tokenizer_cuts_off_are_counted_where_the_report_looks(tmp_path: Path) -> None:
    data, segment, task = labelled(tmp_path, max_length=5)
    from transformers import AutoTokenizer

    texts = data.inputs(segment)["text"].tolist()
    expected = sum(len(ids) > 5 for ids in AutoTokenizer.from_pretrained(tmp_path / "m")(texts)["input_ids"])
    store = SoftTargetStore.open(task.store)
    assert store.cut_off() == expected > 0
    stage = {"stage": "label", "name": "bert", "cut_off": store.cut_off(), "texts": len(texts)}
    assert [*cut_off([stage, stage | {"cut_off": 0}])] == [
        f"{expected} of {2 * len(texts)} texts are longer than teacher bert reads: what comes behind is not read; its "
        f"`max_length` says how much is, up to what the model takes."
    ]
    assert not [*cut_off([stage | {"cut_off": 0}])]
    assert "cut_off" in store.record(0).to_json()


def labelled(tmp_path: Path, **about: Any) -> Any:
    """(the rows, the training rows, who holds what the folder says of them)."""
    save_text_model(tmp_path / "m")
    data = prepare(TransferSetConfig.model_validate(write_rows(tmp_path)), tmp_path / "prepared")
    [segment] = data.of("train")
    config = HuggingFaceTeacher(kind="huggingface", path=str(tmp_path / "m"), batch_size=16, **about)
    spec = TeacherSpec("bert", config, None, (), tmp_path)
    about = Spec("bert", "0" * 64, segment.name, segment.digest, "dense", ("no", "yes", "maybe"), segment.num_rows, 64)
    task = LabelTask(data.folder, segment.name, SoftTargetStore.create(tmp_path / "store", about).folder)
    labeller = Labeller(spec, [task], "cpu")
    for number in SoftTargetStore.open(task.store).missing():
        labeller.label(0, number)
    SoftTargetStore.open(task.store).seal()
    return data, segment, task


def test_a_store_holds_what_the_folder_says_of_each_row(tmp_path: Path) -> None:
    data, segment, task = labelled(tmp_path)
    texts = data.inputs(segment)["text"].tolist()
    assert "cut_off" not in SoftTargetStore.open(task.store).record(0).to_json()  # which keeps its bytes of before

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    given = AutoTokenizer.from_pretrained(tmp_path / "m")(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()(**given).logits
    stored = SoftTargets.open(task.store).said()
    shift = (stored - expected).mean(1, keepdim=True)  # a store keeps logits less their largest
    torch.testing.assert_close(stored, expected + shift, rtol=0, atol=0.01)  # in half precision


@pytest.mark.campaign
def test_a_run_delivers_a_student_that_needs_no_folder_of_its_teacher(tmp_path: Path) -> None:
    save_text_model(tmp_path / "m", num_hidden_layers=4)
    student = {
        "teachers": ["bert"],
        "model": "students.models:huggingface",
        "arguments": {"path": str(tmp_path / "m"), "init": {"layers": [0, 3]}},
        "preprocess": {"tokenizer": {"path": str(tmp_path / "m"), "max_length": 16}},
        "train": {"steps": 10, "batch_size": 16, "seeds": [0]},
    }
    recipe = a_recipe(tmp_path, tmp_path / "m") | {"students": {"short": student}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [Path(sys.executable).parent / "collegium"]
    for verb in (["plan", "--check"], ["run"]):
        subprocess.run([*command, *verb, "recipe.yaml", "--out", "out"], cwd=tmp_path, check=True, capture_output=True)
    [delivered] = [path for path in (tmp_path / "out" / "models").iterdir() if (path / "config.json").is_file()]
    shutil.rmtree(tmp_path / "m")
    model = students.load(delivered)
    said = model({"text": np.array(["the cat sat", "a dog"], object)})
    assert said.shape == (2, 3) and bool(said.isfinite().all())
    assert str(tmp_path / "m") not in (delivered / "config.json").read_text()
    assert model.config.arguments["config"]["num_hidden_layers"] == 2
