import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml

import students
from orchestrator.recipe.model import Recipe, public
from students.delivering.export import code, deliverable_metrics, export_student, model_card
from students.delivering.predict import predict_file
from students.fitting.fit import fit
from students.runs.session import PlainSession
from teachers.errors import StoreError
from teachers.models.folder import read_config
from tests.training_runs import make_run

FILES = ["model.safetensors", "config.json", "golden.arrow", "README.md", "metrics.json", "recipe.yaml"]


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs"), digits, objective=({"loss": "hard"},), labelled_only=True, steps=5)
    fit([run], PlainSession())
    return run.folder


@pytest.fixture(scope="module")
def recipe_yaml():
    recipe = Recipe.model_validate(
        {
            "format": 1,
            "name": "digits",
            "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
            "teachers": {"wide": {"kind": "callable", "function": "a:b", "output": "logits"}},
            "students": {"small": {"model": "students.models:mlp", "arguments": {"hidden": 16}, "teachers": ["wide"]}},
        }
    )
    return yaml.safe_dump(public(recipe), sort_keys=False)


@pytest.fixture
def evaluation():
    quantiles = {"p50_ms": 0.1, "p95_ms": 0.2}
    latency = {"device": "a | b", "threads": 1, "batch_1": quantiles, "batch_32": quantiles}
    figures = {
        "accuracy": 0.92,
        "balanced_accuracy": 0.9,
        "brier": 0.11,
        "macro_f1": 0.91,
        "nll": 0.3,
        "ece": 0.02,
        "agreement": 0.95,
        "kl": 0.1,
    }
    size = {"parameters": 1210, "bytes": 5000, "latency": latency}
    return {
        "student": {"runs": [{"seed": seed, **figures, **size} for seed in (0, 1)]},
        "ensemble": figures,
        "gain": {"low": 0.03, "mean": 0.06, "high": 0.09},
        "verdict": "Distillation helps.",
        "source_digest": "a" * 64,
        "delivered": 1,
    }


@pytest.fixture
def delivered(run, evaluation, recipe_yaml, digits):
    return {"name": "small", "evaluation": evaluation, "recipe_yaml": recipe_yaml, "transfer_set": digits.folder}


@pytest.fixture
def exported(run, delivered, tmp_path):
    folder = tmp_path / "small-0123"
    export_student(run, folder, **delivered)
    return folder


def test_the_exported_model_is_the_run(exported, run, digits):
    inputs = digits.inputs(digits.of("test")[0])
    assert torch.equal(students.load(exported)(inputs), students.load(run)(inputs))


def test_the_deliverable_says_all_that_it_lists_and_sha256sum_agrees(exported):
    assert {path.name for path in exported.iterdir()} == {*FILES, "SHA256SUMS"}
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=exported, check=False).returncode == 0


def test_the_card_has_front_matter_and_the_figures_of_the_delivered_seed(exported):
    _, front, body = (exported / "README.md").read_text().split("---\n", 2)
    parsed = yaml.safe_load(front)
    assert parsed["library_name"] == "collegium"
    (result,) = parsed["model-index"][0]["results"]
    assert {"type": "accuracy", "name": "test accuracy", "value": 0.92} in result["metrics"]
    assert "| accuracy | 92.0 % |" in body
    assert "Distillation helps." in body
    assert 'model({"image": image})' in body
    assert "seed 1" in body
    assert json.loads((exported / "metrics.json").read_text())["delivered_seed"] == 1


def test_the_card_says_of_what_the_inputs_are_made_and_which_code_must_be_trusted(run, evaluation, recipe_yaml):
    made = {"name": "image", "sources": ["age", "sum"], "types": ["int64", "double"]}
    config = replace(read_config(run), model="mine:net", inputs=(made,))
    figures = deliverable_metrics("classification", evaluation)
    card = model_card("small", config, figures, yaml.safe_load(recipe_yaml))
    assert "of `age` (int64), `sum` (double), in this order" in card
    assert "trust=['mine:net']" in card and card.count(" --trust mine:net`") == 2
    ours = model_card("small", read_config(run), figures, yaml.safe_load(recipe_yaml))
    assert "trust" not in ours and "Nothing but Collegium is" in ours and "collegium export FOLDER --onnx`" in ours


def test_text_from_elsewhere_breaks_no_table():
    assert code("a | b\n`c`") == "`a ¦ b 'c'`"


def test_an_export_that_was_killed_is_completed_and_a_foreign_file_is_refused(exported, run, delivered):
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    for name in ("SHA256SUMS", "metrics.json"):
        (exported / name).unlink()
    export_student(run, exported, **delivered)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    (exported / "metrics.json").write_text("{}")
    with pytest.raises(StoreError, match="move it away"):
        export_student(run, exported, **delivered)


def test_the_deliverable_is_all_that_a_prediction_needs(exported, digits, tmp_path):
    import numpy as np

    np.savez(tmp_path / "rows.npz", image=digits.inputs(digits.of("test")[0])["image"][:3], other=np.zeros(3))
    lines = []
    done = predict_file(exported, tmp_path / "rows.npz", None, write_line=lines.append, tell_bad=pytest.fail)
    assert (len(lines), done.num_bad) == (3, 0)


def test_importing_students_imports_no_torch():
    assert (
        subprocess.run(
            [sys.executable, "-c", "import sys, students; sys.exit('torch' in sys.modules)"], check=False
        ).returncode
        == 0
    )
