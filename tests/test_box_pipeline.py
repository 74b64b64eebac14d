"""A recipe of boxes from its source to its report: `collegium run` on squares and discs."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.running.run import run
from tests import shapes
from tests.test_detectors_onnx import graph

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
    assert [each["seed"] for each in small["runs"]] == [0, 1]
    assert {each.get("combine") for each in small["combinations"]} >= {"wbf"}
    assert small["by_class"]["classes"] == list(shapes.KINDS)
    assert (done.folder / "report.html").stat().st_size > 10_000
    again = run(made, tmp_path / "out")
    assert all(stage["reused"] for stage in again.report["stages"])
    assert again.report["students"] == done.report["students"]
    leaves_for_a_device(tmp_path)
    meets_a_graph_from_elsewhere(tmp_path, done.report)


@pytest.mark.campaign
def test_a_detector_that_is_asked_live_gives_hints_of_images_of_four_through_the_whole_product(ray_cluster, tmp_path):
    pq.write_table(shapes.table(90, without_label=10), tmp_path / "rows.parquet")
    document = recipe(tmp_path / "rows.parquet")
    document["teachers"]["one"] |= {"mode": "live", "outputs": {"eight": {"layer": "eight"}}}
    small = document["students"]["small"]
    small["hints"] = [{"loss": "hint", "teacher": "one", "output": "eight", "layer": "eight", "weight": 1.0}]
    small["train"] |= {"augment": ["mosaic", "flip", "zoom", "colour"], "seeds": [0]}
    report = run(Recipe.model_validate(document), tmp_path / "out").report
    labelled = {each["part"] for each in report["stages"] if (each["stage"], each["name"]) == ("label", "one")}
    assert labelled == {"validation-0", "test-0"}
    assert {each.get("combine") for each in report["students"]["small"]["combinations"]} >= {"wbf"}
    points = [*(tmp_path / "out" / "students").rglob("metrics.jsonl")]
    assert any('"train.hint"' in each.read_text() for each in points)


def leaves_for_a_device(folder):
    options = ["--int8", "--max-drop", "1", "--out", str(folder / "out"), "--output", str(folder / "device")]
    exported = CliRunner().invoke(collegium, ["export", "shapes-small", *options])
    assert exported.exit_code == 0 and "8 bits: test ap" in exported.output, exported.output
    asked_again = CliRunner().invoke(collegium, ["verify-model", str(folder / "device")])
    assert asked_again.exit_code == 0, asked_again.output


def meets_a_graph_from_elsewhere(folder, report):
    model = graph(folder / "best.onnx", {"boxes": np.array([[[0.1, 0.1, 0.4, 0.4, 0.9, 0]]])}, size=shapes.HEIGHT)
    how = ["--how", "decode=raw", "--how", "preprocess={normalise: null}"]
    judged = CliRunner().invoke(
        collegium, ["evaluate", "--out", str(folder / "out"), "--model", str(model), *how, "--json"]
    )
    assert judged.exit_code == 0, judged.output
    found = json.loads(judged.output)
    everybody = ["teacher one", "teacher other", "teachers together", "control of small", "small", "best.onnx"]
    assert [*found["figures"]] == everybody
    small = report["students"]["small"]
    assert found["figures"]["small"]["ap"] == pytest.approx(small["test_ap"]["mean"])
    (pair,) = found["pairs"]
    delivered = next(run for run in small["runs"] if run["seed"] == small["delivered"])
    assert pair["mean"] == pytest.approx(delivered["ap"] - found["figures"]["best.onnx"]["ap"], abs=1e-6)


def test_cells_is_shipped():
    assert "cells" in recipes()
