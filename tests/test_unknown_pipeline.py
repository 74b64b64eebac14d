"""A whole run whose teachers know different rows and classes: what is told before, while and after."""

import json
from pathlib import Path

import pytest

from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from teachers.errors import RecipeError

FUNCTIONS = '''
import numpy as np

CLASSES = [str(number) for number in range(9)]  # nobody says 9


def brightness(batch):
    return batch["image"].reshape(len(batch["image"]), -1).sum(1)


def say(batch, seed, modulus):
    """Knows the digits roughly, by their nearest mean image; of some rows it knows nothing."""
    from sklearn.datasets import load_digits
    digits = load_digits()
    means = np.stack([digits.images[digits.target == number].mean(0).reshape(-1) for number in range(9)])
    images = batch["image"].reshape(len(batch["image"]), -1).astype(float)
    distance = ((images[:, None] - means) ** 2).sum(-1) / 100 + seed * np.sin(np.outer(images.sum(1), np.arange(9)))
    return -distance, brightness(batch) % modulus > 0
'''
TEACHER = "{{kind: callable, function: 'knows_few:say', arguments: {{seed: {}, modulus: {}}}, output: logits, classes: {}, class_map: {{}}}}"
CLASSES = "['0', '1', '2', '3', '4', '5', '6', '7', '8']"
QUICK = [
    f"teachers={{one: {TEACHER.format(0, 7, CLASSES)}, two: {TEACHER.format(2, 11, CLASSES)}}}",
    "students.small.teachers=[one, two]",
    "students.small.objective=[{loss: soft, combine: fitted, weight: 0.5}, {loss: hard, weight: 0.5}]",
    "students.small.train={steps: 300, batch_size: 64, seeds: [0, 1]}",
]


@pytest.mark.campaign
def test_teachers_that_know_different_things_teach_together_and_all_is_told(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "knows_few.py").write_text(FUNCTIONS)
    recipe, out, given = load_recipe(find("digits"), QUICK), tmp_path / "out", {"user_path": tmp_path}
    finished = run(recipe, out, **given)
    report = finished.report
    unknown = report["teachers"]["one"]["unknown"]
    rows, of = (sum(each) for each in zip(*unknown.values(), strict=True))
    assert of == 1797 and 150 < rows < 400
    facts = {
        stage["part"]: stage["unknown_rows"]
        for stage in report["stages"]
        if (stage["stage"], stage["name"]) == ("label", "one")
    }
    assert sum(facts.values()) == rows
    assert any(note.startswith("Teacher one knows nothing of ") for note in report["notes"])
    after = plan(recipe, out, **given)
    assert f"teachers.one: knows nothing of {rows:,} of 1,797 rows" in after.notes
    student = report["students"]["small"]
    single, mean, rule = student["combinations"]
    assert single["teacher"] in ("one", "two") and (mean["combine"], rule["combine"]) == ("mean_probability", "fitted")
    assert set(rule["counts"]) == {"one", "two"} and sum(rule["counts"].values()) == pytest.approx(1)
    assert any(note.startswith("small hears its teachers by `fitted`") for note in report["notes"])
    curves = report["curves"]["small"]["student/seed-0"]
    weights = [curves[f"train.weight.soft.{name}"][0][1] for name in ("one", "two")]
    assert sum(weights) == pytest.approx(1) and min(weights) > 0.1
    (nine,) = [each for each in student["known_by_few"] if each["class"] == "9"]
    assert nine["known_by"] == [] and nine["recall"]["ensemble"] == 0
    assert nine["recall"]["student"] > 0.25  # learnt from labels alone, which half of the objective is
    page = next((out / "runs").glob("*/report.html")).read_text()
    assert "Teachers as one" in page and "nobody" in page and "all by fitted" in page
    json.dumps(report, allow_nan=False)


def test_a_rule_that_weighs_by_labelled_validation_rows_is_refused_without_any(tmp_path: Path) -> None:
    (tmp_path / "knows_few.py").write_text(FUNCTIONS)
    (tmp_path / "rows").mkdir()
    for split, labels in (("train", "a,b"), ("test", "a,b"), ("validation", ",")):
        lines = [f"{number},{labels.split(',')[number % 2]}" for number in range(40)]
        (tmp_path / "rows" / f"{split}.csv").write_text("\n".join(["x,y", *lines]))
    files = "{train: train.csv, validation: validation.csv, test: test.csv}"
    rows = f"{{source: {{kind: csv, path: '{tmp_path / 'rows'}'}}, inputs: x, label: y, split: {{files: {files}}}}}"
    teacher = "{one: {kind: callable, function: 'knows_few:say', arguments: {seed: 0, modulus: 7}, output: logits}}"
    recipe = load_recipe(
        find("digits"), [f"transfer_set={rows}", f"teachers={teacher}", "students.small.teachers=[one]", QUICK[2]]
    )
    with pytest.raises(
        RecipeError, match=r"students\.small\.objective\.0\.combine: `fitted` weighs teachers by labelled"
    ):
        plan(recipe, tmp_path / "out", check=True, user_path=tmp_path)
