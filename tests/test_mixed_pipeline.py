"""A table of numbers, categories and gaps through a whole run: teachers, a student and its control, report, predictions."""

import json
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest

from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.page import page
from orchestrator.running.run import run
from students.delivering.predict import predict_file
from teachers.errors import RecipeError
from teachers.transfer_set.transfer_set import TransferSet

from .test_categories import TRUSTED
from .test_mixed_tables import INPUTS, mixed


def recipe(folder: Path, **changes: Any) -> Recipe:
    path = folder / "data.csv"
    if not path.exists():
        pyarrow.csv.write_csv(mixed(), path)
    boosted = {"categories": "native", "missing": "keep"}
    teachers = {
        "boosted": {
            "kind": "sklearn",
            "model": "sklearn.ensemble:HistGradientBoostingClassifier",
            "arguments": {"max_iter": 5},
            "preprocess": boosted,
            "trusted": TRUSTED,
        },
        "wide": {"kind": "module", "model": "teachers.zoo:mlp", "arguments": {"hidden": 8}, "train": {"steps": 30}},
    }
    for name, teacher in changes.pop("teachers", {}).items():
        teachers[name] |= teacher
    for teacher in teachers.values():
        teacher["require"] = None  # labels are drawn at random
    student = {
        "model": "students.models:linear",
        "teachers": ["boosted", "wide"],
        "objective": [{"loss": "soft", "temperature": 2.0, "weight": 1.0}],
        "train": {"steps": 30, "seeds": [0, 1]},
        "preprocess": {"missing_indicator": True},
    }
    return Recipe.from_dict(
        {
            "format": 1,
            "name": "mixed",
            "transfer_set": {
                "source": {"kind": "csv", "path": str(path), "delimiter": "auto"},
                "inputs": INPUTS,
                "label": "y",
                "id": "id",
            },
            "teachers": teachers,
            "students": {"small": student},
        }
    )


@pytest.mark.campaign
def test_a_mixed_table_runs_through_and_its_student_predicts_the_raw_file(ray_cluster: None, tmp_path: Path) -> None:
    report = run(recipe(tmp_path), tmp_path / "out").report
    columns = report["transfer_set"]["columns"]
    assert list(columns) == ["fare", "color", "member"] and columns["fare"]["missing"]["train"] > 0
    assert any(note.startswith("Missing is `fare` in") for note in report["notes"])
    assert "Columns that may lack a value" in page(report)
    mistake = report["students"]["small"]["mistakes"][0]["inputs"]
    assert [shown["names"] for shown in mistake] == [["age", "fare", "start"], ["color", "member"]]
    (model,) = (tmp_path / "out" / "models").glob("small-*")
    (manifest,) = (tmp_path / "out" / "prepared").glob("*/transfer_set.json")
    prepared = TransferSet.open(manifest.parent)
    lines: list[str] = []
    done = predict_file(model, tmp_path / "data.csv", None, write_line=lines.append, tell_bad=pytest.fail)
    said = [json.loads(line)["class"] for line in lines]
    test = prepared.of("test")[0]
    rows = [int(name.split()[1]) for name in prepared.ids(test).to_pylist()]
    right = sum(said[row] == prepared.classes[label] for row, label in zip(rows, prepared.labels(test), strict=True))
    delivered = report["students"]["small"]["delivered"]
    (figures,) = [each for each in report["students"]["small"]["runs"] if each["seed"] == delivered]
    assert right / len(rows) == pytest.approx(figures["accuracy"]) and done.num_bad == 0
    assert "`color`: 0 missing, 1 unknown, from 2 on" in (model / "README.md").read_text()


def test_a_plan_says_what_it_takes_for_categories_and_who_takes_no_gaps(tmp_path: Path) -> None:
    made = plan(recipe(tmp_path), tmp_path / "out", check=True)
    assert any("'color', 'member' are categories, being text" in note for note in made.notes)
    estimator = {"model": "sklearn.linear_model:LogisticRegression", "arguments": {}}
    with pytest.raises(
        RecipeError, match=r"^teachers.boosted.preprocess: `missing: keep` gives NaN, which LogisticRegression"
    ):
        plan(recipe(tmp_path, teachers={"boosted": estimator}), tmp_path / "out", check=True)
