"""A recipe of boxes from its source to its report: `collegium run` on squares and discs."""

import pyarrow.parquet as pq
import pytest

from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.running.run import run
from tests import shapes

DETECTOR = {"model": "students.models:tiny_detector"}


def recipe(rows):
    train = {"steps": 60, "batch_size": 16, "learning_rate": 4e-3, "ema": 0.95}
    teacher = {"kind": "module", **DETECTOR, "arguments": {"width": 8}, "train": train, "require": None}
    return {
        "format": 1,
        "name": "shapes",
        "task": "detection",
        "transfer_set": {
            "source": {"kind": "parquet", "path": str(rows)},
            "inputs": "image",
            "label": "boxes",
            "labelled": 20,
            "max_boxes": shapes.MOST,
        },
        "teachers": {"one": teacher, "other": {**teacher, "train": {**train, "augment": ["flip"], "seed": 1}}},
        "students": {
            "small": {
                **DETECTOR,
                "arguments": {"width": 4},
                "teachers": ["one", "other"],
                "objective": [{"loss": "pseudo", "keep_above": "auto"}, {"loss": "hard"}],
                "train": {**train, "steps": 20, "augment": ["flip", "zoom", "colour"], "seeds": [0, 1]},
            }
        },
    }


@pytest.mark.campaign
def test_a_recipe_of_boxes_runs_to_its_report_and_is_reused(ray_cluster, tmp_path):
    pq.write_table(shapes.table(90, without_label=10), tmp_path / "rows.parquet")
    made = Recipe.model_validate(recipe(tmp_path / "rows.parquet"))
    done = run(made, tmp_path / "out")
    small = done.report["students"]["small"]
    assert [each["seed"] for each in small["student"]["runs"]] == [0, 1]
    assert {each.get("combine") for each in small["combinations"]} >= {"wbf"}
    assert small["by_class"]["classes"] == list(shapes.KINDS)
    assert (done.folder / "report.html").stat().st_size > 10_000
    again = run(made, tmp_path / "out")
    assert all(stage["reused"] for stage in again.report["stages"])
    assert again.report["students"] == done.report["students"]


def test_cells_is_shipped():
    assert "cells" in recipes()
