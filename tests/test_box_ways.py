"""Detectors compared by how they learn, and settings of one searched, as `collegium compare` and `tune` do it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from orchestrator.recipe.model import Recipe
from orchestrator.recipe.variants import by_method
from orchestrator.running.compare import compare
from orchestrator.running.run import run
from orchestrator.running.tune import tune
from orchestrator.search.study import read_trials
from students.config.terms import PseudoTerm
from teachers.errors import RecipeError
from tests import shapes

WAYS = ["pseudo", "teacher_boxes", "nms", "soft_nms", "nmw", "best_detector"]
"""All that two detectors can serve beside `wbf`, which is how `pseudo` hears them anyway."""


def bright(batch: dict[str, Any], least: float = 9.0) -> list[dict[str, Any]]:
    """A box around each bright shape whose sides have `least` pixels; a square fills it."""
    found = []
    for image in batch["image"]:
        height, width = image.shape[:2]
        light = image.max(-1) > 100
        said: dict[str, list[Any]] = {"boxes": [], "scores": [], "classes": []}
        for number, (y, x) in enumerate(ndimage.find_objects(ndimage.label(light)[0]), 1):
            if min(y.stop - y.start, x.stop - x.start) >= least:
                said["boxes"].append([x.start / width, y.start / height, x.stop / width, y.stop / height])
                said["scores"].append(0.9 - 0.01 * number)
                said["classes"].append("square" if light[y, x].mean() > 0.9 else "disc")
        found.append(said)
    return found


def large(batch: dict[str, Any]) -> list[dict[str, Any]]:
    return bright(batch, 14.0)


def recipe(folder: Path, **changes: Any) -> Recipe:
    if not (folder / "rows.parquet").exists():
        pq.write_table(shapes.table(60), folder / "rows.parquet")
    teacher = {"kind": "callable", "output": "boxes", "version": "1", "batch_size": 32, "require": None}
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    return Recipe.from_dict(
        {
            "format": 1,
            "name": "shapes",
            "task": "detection",
            "transfer_set": {
                "source": source,
                "inputs": "image",
                "label": "boxes",
                "labelled": 20,
                "max_boxes": shapes.MOST,
                "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
            },
            "teachers": {
                "all": {**teacher, "function": "tests.test_box_ways:bright"},
                "large": {**teacher, "function": "tests.test_box_ways:large"},
            },
            "students": {
                "small": {
                    "model": "students.models:tiny_detector",
                    "arguments": {"width": 4},
                    "teachers": ["large", "all"],
                    "objective": [{"loss": "pseudo", "keep_above": "auto"}, {"loss": "hard"}],
                    "train": {"steps": 12, "batch_size": 8, "learning_rate": 4e-3, "seeds": [0, 1]},
                    "require": None,
                }
            },
            **changes,
        }
    )


def test_a_detector_is_compared_by_how_it_hears_its_teachers_and_how_their_boxes_are_taught(tmp_path: Path) -> None:
    made = by_method(recipe(tmp_path), "small", "all")
    assert [*made.of] == WAYS and made.left_out == {each: "is the same objective as pseudo here" for each in ("wbf", "recipe")}  # fmt: skip
    terms = {name: student.objective[0] for name, student in made.recipe.students.items()}
    assert all(isinstance(term, PseudoTerm) and term.keep_above == "auto" for term in terms.values())
    assert {name: (term.combine, term.soft) for name, term in terms.items()} == {  # type: ignore[union-attr]
        "pseudo": (None, True),
        "teacher_boxes": (None, False),
        "nms": ("nms", True),
        "soft_nms": ("soft_nms", True),
        "nmw": ("nmw", True),
        "best_detector": ("best", True),
    }


def test_what_makes_a_method_that_one_stands_whatever_the_recipe_says(tmp_path: Path) -> None:
    hard = [{"loss": "pseudo", "soft": False, "combine": "nms", "iou": 0.6}, {"loss": "hard"}]
    students = {"small": {**recipe(tmp_path).model_dump(mode="json")["students"]["small"], "objective": hard}}
    made = by_method(recipe(tmp_path, students=students), "small", "all")
    terms = {name: made.recipe.students[name].objective[0] for name in made.of}
    assert [term.soft for name, term in terms.items() if name != "teacher_boxes"] == [True] * (len(terms) - 1)  # type: ignore[union-attr]
    assert terms["teacher_boxes"].soft is False and terms["teacher_boxes"].iou == 0.6  # type: ignore[union-attr]


def test_a_search_that_would_learn_what_is_ignored_is_refused_before_it_runs(tmp_path: Path) -> None:
    space = {"objective.0.keep_above": {"uniform": [0.02, 0.5]}}
    with pytest.raises(RecipeError, match=r"space.objective.0.keep_above: with 0.02: .*ignore_above is 0.1, more than"):
        recipe(tmp_path, search={"student": "small", "space": space})


@pytest.mark.campaign
def test_ways_are_compared_and_settings_tried_on_labels_that_are_there(ray_cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(recipe(tmp_path), out).report
    found = compare(recipe(tmp_path), out, methods=["teacher_boxes", "best_detector", "pseudo"]).report
    assert [each["method"] for each in found["compared"]["variants"]] == ["pseudo", "teacher_boxes", "best_detector"]
    assert not [each for each in found["stages"] if each["stage"] == "label" and not each["reused"]]
    best = found["students"]["best_detector"]["combinations"]
    assert best[-1]["combine"] == "best" and best[-1]["figures"] == best[0]["figures"] and best[0]["teacher"] == "all"
    assert first["students"]["small"]["test_ap"] == found["students"]["pseudo"]["test_ap"]
    space = {
        "objective.0.keep_above": {"uniform": [0.2, 0.6]},
        "objective.0.combine": {"choice": ["wbf", "best"]},
        "objective.0.soft": {"choice": [True, False]},
        "teachers": {"subset": {"of": ["all", "large"]}},
    }
    search = {"student": "small", "space": space, "trials": 3, "seeds_for_best": 1, "max_concurrent": 1}
    tried = tune(recipe(tmp_path, search=search), out).report["search"]
    assert tried["trials"] == 3 and tried["failed"] == 0 and tried["teacher_forwards"] == 0
    assert len(tried["test_ap"]["runs"]) == 1
    assert {tuple(trial.params) for trial in read_trials(out / "studies" / "small")} >= {tuple(space)}


def test_bright_shapes_are_found() -> None:
    pixels, boxes = shapes.picture(np.random.default_rng(3))
    (said,) = bright({"image": pixels[None]})
    assert len(said["boxes"]) == len(boxes) > 0
    np.testing.assert_allclose(
        sorted(np.array(said["boxes"]).round(6).tolist()),
        sorted([[b["x1"] / 64, b["y1"] / 48, b["x2"] / 64, b["y2"] / 48] for b in boxes]),
        atol=0.04,
    )
