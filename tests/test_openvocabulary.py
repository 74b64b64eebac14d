"""The recipe `openvocabulary` with a random tiny OWL-ViT: what is asked in words becomes stored boxes that a small detector learns."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.stages.keys import teacher_digest
from teachers.errors import RecipeError
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.boxes import CLASS, SCORE, boxes_of

from .detector_folders import save_detector, save_owl
from .hub_folders import WORDS
from .shapes import picture

CLASSES = ("Platelets", "RBC", "WBC")
SPLITS = {"train": 20, "val": 6, "test": 8}


def write_cells(root: Path) -> None:
    """A folder as BCCD's: images of two sizes, XML, lists."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    rng, number = np.random.default_rng(0), 0
    for split, count in SPLITS.items():
        names = [f"cell_{number + at:03}" for at in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        for at, name in enumerate(names):
            high, wide = (48, 64) if at % 2 else (64, 48)
            pixels, boxes = picture(rng, high, wide)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            objects = "".join(
                f"<object><name>{CLASSES[place % 3]}</name><bndbox><xmin>{box['x1']:.0f}</xmin><ymin>{box['y1']:.0f}</ymin>"
                f"<xmax>{box['x2']:.0f}</xmax><ymax>{box['y2']:.0f}</ymax></bndbox></object>"
                for place, box in enumerate(boxes)
            )
            size = f"<size><width>{wide}</width><height>{high}</height><depth>3</depth></size>"
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        number += count


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("openvocabulary")
    write_cells(root / "cells")
    save_owl(root / "owl", words=[*WORDS, "white", "purple", "blood", "cell", "platelet"])
    save_detector(root / "yolos", "yolos")
    return root


def the_recipe(home: Path, *more: str) -> Recipe:
    about = (
        f"transfer_set.source.path={home / 'cells'}",
        "transfer_set.image_size=64",
        "transfer_set.labelled=8",
        f"teachers.owl.path={home / 'owl'}",
        "teachers.owl.require=null",
        "students.small.train.steps=5",
        "students.small.arguments.width=4",
    )
    return load_recipe(recipes()["openvocabulary"], [*about, *more])


def test_what_is_asked_in_words_lies_in_a_store_as_boxes_of_the_whole_image(home: Path, tmp_path: Path) -> None:
    recipe = the_recipe(home)
    data = prepare(recipe.transfer_set, tmp_path / "rows")
    assert data.classes == CLASSES and data.columns[0].encoded
    config, segment = recipe.teachers["owl"], data.of("train")[0]
    names = ("RBC", "WBC", "Platelets")  # in the order of the prompts
    digest = teacher_digest(recipe, "owl", None, "source")
    about = (segment.name, segment.digest, "dense", names, segment.num_rows, 8, "boxes")
    store = SoftTargetStore.create(tmp_path / "store", Spec("owl", digest, *about, max_boxes=data.space.max_boxes))
    task = LabelTask(data.folder, segment.name, store.folder)
    labeller = Labeller(TeacherSpec("owl", config, None, (), home), [task], "cpu")
    for number in range(store.num_shards):
        labeller.label(0, number)
    store.seal()
    reader = SoftTargets.open(store.folder)
    fields = {name: torch.from_numpy(np.concatenate(values.parts)) for name, values in reader.rows().items()}
    said = boxes_of(reader.spec.answered.encodes.decode(fields, reader.spec.answered.width, 1e-3).numpy())
    there = said[..., CLASS] >= 0
    assert said.shape == (SPLITS["train"], 60, 6) and there.any(1).all()
    corners = said[there][:, :SCORE]
    assert (corners >= 0).all() and (corners <= 1).all() and (corners[:, 2:] > corners[:, :2]).all()
    assert (np.diff(np.where(there, said[..., SCORE], 0), axis=1) <= 0).all()


def test_a_plan_tries_the_folder_and_the_student_on_some_images(home: Path, tmp_path: Path) -> None:
    made = plan(the_recipe(home), tmp_path / "out", check=True)
    assert made.stages


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (['teachers.owl.prompts={"a cell": "Cell"}'], "teachers.owl.prompts: 'a cell' leads to 'Cell', which is no class of the transfer set; it has Platelets, RBC, WBC"),
        (['teachers.owl.prompts={"a red blood cell": "RBC"}'], "teachers.owl: the teacher does not know the classes 'Platelets', 'WBC'; `class_map: {}` says that this is meant"),
        (["teachers.owl.prompts=null"], "teachers.owl.prompts: .* knows no classes of its own; say what to look for"),
        (["teachers.owl.prompts=null", "teachers.owl.path=YOLOS"], "teachers.owl: the teacher's classes 'cat', 'dog', 'house' are not in the transfer set"),
        (["teachers.owl.path=YOLOS"], "teachers.owl.prompts: .* knows classes of its own"),
        (["teachers.owl.path=nowhere"], "teachers.owl.path: there is no folder nowhere, and nothing is fetched from a hub"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_work(home: Path, tmp_path: Path, more: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        plan(the_recipe(home, *(each.replace("YOLOS", str(home / "yolos")) for each in more)), tmp_path / "out")


def test_a_class_that_is_not_asked_for_may_be_left_out_where_that_is_said(home: Path, tmp_path: Path) -> None:
    some: list[Any] = ['teachers.owl.prompts={"a red blood cell": "RBC"}', "teachers.owl.class_map={}"]
    plan(the_recipe(home, *some), tmp_path / "out")


@pytest.mark.campaign
def test_a_whole_run_leaves_a_student_that_needs_no_folder(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "owl", tmp_path / "owl")
    about = [f"transfer_set.source.path={home / 'cells'}", "transfer_set.image_size=64", "transfer_set.labelled=8"]
    about += [f"teachers.owl.path={tmp_path / 'owl'}", "teachers.owl.require=null", "students.small.train.steps=20"]
    command = [sys.executable, "-m", "orchestrator", "run", "openvocabulary", "--out", str(tmp_path / "out")]
    for each in about:
        command += ["-o", each]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert set(report["students"]) == {"small"}
