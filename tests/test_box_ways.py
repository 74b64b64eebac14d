"""Detectors compared by how they learn, and settings of one searched, as `collegium compare` and `tune` do it."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from orchestrator.recipe.model import Recipe
from orchestrator.recipe.tries import tries_of
from orchestrator.recipe.variants import by_method
from orchestrator.running.compare import compare
from orchestrator.running.run import run
from orchestrator.running.tune import tune
from orchestrator.search.study import read_trials
from students.config.hints import HintLossName
from students.config.student import StudentConfig
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
    assert [*made.of] == WAYS and {*made.left_out} == {"wbf", "recipe", *get_args(HintLossName)}
    assert made.left_out["wbf"] == made.left_out["recipe"] == "is the same objective as pseudo here"
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


NETWORK = {
    "kind": "module",
    "model": "students.models:tiny_detector",
    "arguments": {"width": 4},
    "train": {"steps": 12, "batch_size": 8, "learning_rate": 4e-3},
    "outputs": {"eight": {"layer": "eight"}, "vector": {"layer": "head", "pool": "mean"}},
    "require": None,
}
HINT = {"loss": "hint", "teacher": "network", "output": "eight", "layer": "eight", "weight": 1.0}


def with_hints(folder: Path, *hints: dict[str, Any], mode: str = "cached", **train: Any) -> Recipe:
    document = recipe(folder).model_dump(mode="json")
    document["teachers"]["network"] = {**NETWORK, "mode": mode}
    small = document["students"]["small"]
    small |= {"teachers": ["network", "all"], "hints": [*hints]}
    small["train"] |= train
    return Recipe.from_dict(document)


def test_hints_of_detectors_are_methods_beside_pseudo(tmp_path: Path) -> None:
    made = by_method(with_hints(tmp_path, HINT), "small", "all")
    hints = [*get_args(HintLossName)]
    assert {*made.of} == {*hints, *WAYS} and made.left_out["recipe"] == "is the same objective as hint here"
    for name in hints:
        student = made.recipe.students[name]
        assert isinstance(student, StudentConfig)
        assert [term.loss for term in student.objective] == ["pseudo", "hard"]
        assert [(hint.loss, hint.teacher, hint.outputs) for hint in student.hints] == [(name, "network", ["eight"])]
    assert made.recipe.students["hint"].hints[0].weight == 1.0  # type: ignore[union-attr]
    assert not made.recipe.students["pseudo"].hints  # type: ignore[union-attr]
    tried = tries_of(with_hints(tmp_path, HINT), by_method(with_hints(tmp_path, HINT), "small", "pseudo,attention"))
    assert len(tried.of) == 8 and {method for method, _ in tried.of.values()} == {"pseudo", "attention"}
    assert "hint" in by_method(recipe(tmp_path), "small", "all").left_out


@pytest.mark.parametrize(
    ("hint", "how", "told"),
    [
        (HINT, {"augment": "mosaic"}, r"hints.0.teacher: the store of 'network' keeps layers of single images, and `mosaic` shows four"),
        ({**HINT, "loss": "contrastive"}, {"augment": "mosaic", "mode": "live"}, r"hints.0.loss: tells rows apart, and `mosaic` shows four images as one"),
        ({**HINT, "loss": "contrastive", "positive": "relax"}, {}, r"hints.0.positive: `relax` goes by the one class that a row is of.*say `exact`"),
        ({**HINT, "teacher": "all"}, {}, r"hints.0.output: teacher 'all' is of kind callable, which has no layers to name"),
    ],
)  # fmt: skip
def test_what_no_hint_of_a_detector_can_be_is_told(tmp_path: Path, hint: dict[str, Any], how: dict[str, Any], told: str) -> None:  # fmt: skip
    with pytest.raises(RecipeError, match=told):
        with_hints(tmp_path, hint, **how)
    with_hints(tmp_path, HINT, augment="mosaic", mode="live")


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
