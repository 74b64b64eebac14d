"""A whole run through Ray: teachers out of fold, an estimator that learns and then teaches; rows that are appended."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_wine

import students
from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.running.run import run
from students.delivering.predict import predict_file
from teachers.soft_targets.reader import SoftTargets
from teachers.transfer_set.folds import Folds
from teachers.transfer_set.transfer_set import TransferSet

TREE = {"kind": "sklearn", "model": "sklearn.tree:DecisionTreeClassifier"}
NAMES = [f"x{number}" for number in range(13)]


def write_rows(path: Path, rows: slice) -> None:
    features, labels = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[rows]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", *NAMES, "kind"])
        writer.writerows([f"w{row}", *features[row], "abc"[labels[row]]] for row in order.tolist())


def recipe_of(folder: Path, **rules: Any) -> Recipe:
    seeds = {"seeds": [0, 1]}
    document = {
        "format": 1,
        "name": "wine",
        "transfer_set": {
            "source": {"kind": "csv", "path": str(folder / "rows")},
            "inputs": NAMES,
            "label": "kind",
            "id": "who",
        },
        "teachers": {
            "tree": {**TREE, "train": {"folds": 3}, "require": None},
            "net": {
                "kind": "module",
                "model": "teachers.zoo:linear",
                "train": {"steps": 40, "folds": 2, "refit": True},
            },
        },
        "students": {
            "rules": {
                **TREE,
                "arguments": {"max_depth": 3},
                "teachers": ["tree", "net"],
                "train": seeds,
                "require": None,
            }
            | rules,
            "small": {"model": "students.models:linear", "teachers": ["rules"], "train": {"steps": 20, **seeds}},
        },
    }
    return Recipe.from_dict(document)


def built(report: Mapping[str, Any]) -> set[str]:
    stages = [stage for stage in report["stages"] if not stage["reused"]]
    return {"/".join(filter(None, (stage["stage"], stage["name"], stage.get("part")))) for stage in stages}


def labels_and_folds(out: Path, report: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """By id of a row that the tree has learnt: its fold, and what is said of it."""
    prepared = next(out.glob(f"prepared/*-{key_of(report, 'prepare')[:12]}"))
    transfer_set = TransferSet.open(prepared)
    trained = next(out.glob(f"teachers/tree-{key_of(report, 'train_teacher', 'tree')[:12]}"))
    folds, said = {}, {}
    for segment in transfer_set.of("train"):
        key = key_of(report, "label", "tree", segment.name)
        logits = SoftTargets.open(next(out.glob(f"soft_targets/tree-{key[:12]}"))).said(1e-3)
        fold = Folds(3, 0, False).of_rows(transfer_set, segment, trained)
        for row, name in enumerate(transfer_set.ids(segment).to_pylist()):
            folds[name], said[name] = int(fold[row]), logits[row].numpy()
    return folds, said


def key_of(report: Mapping[str, Any], stage: str, name: str = "transfer_set", part: str | None = None) -> str:
    found = [s for s in report["stages"] if (s["stage"], s["name"]) == (stage, name) and part in (None, s.get("part"))]
    return str(found[-1]["key"])


@pytest.mark.campaign
def test_teachers_out_of_fold_and_estimators_go_through_the_whole_product(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows" / "a.csv", slice(0, 140))
    out = tmp_path / "out"
    report = run(recipe_of(tmp_path), out).report
    rules = report["students"]["rules"]
    assert rules["test_accuracy"]["mean"] > 0.7 and len(rules["control_runs"]) == 2 and rules["parameters"] > 0
    assert sum("labels out of fold" in note for note in report["notes"]) == 2
    assert not any("by heart" in caution for caution in report["cautions"])
    assert report["teachers"]["tree"]["training"]["accuracy"] < 1

    assert {stage.action for stage in plan(recipe_of(tmp_path), out).stages} == {"reuse"}
    again = run(recipe_of(tmp_path, least_weight=0.05), out).report
    assert {name for name in built(again) if name.startswith(("distill/rules", "train_teacher", "label/tree"))} == {
        f"distill/rules/{kind}/seed-{seed}" for kind in ("student", "control") for seed in (0, 1)
    }

    delivered = next(out.glob(f"models/rules-{key_of(report, 'export', 'rules')[:12]}"))
    assert students.load(delivered).config.estimator is not None
    lines: list[str] = []
    predict_file(delivered, tmp_path / "rows" / "a.csv", None, write_line=lines.append, tell_bad=lines.append)
    assert len(lines) == 140 and json.loads(lines[0])["class"] in "abc"

    write_rows(tmp_path / "rows" / "b.csv", slice(140, 178))
    grown = run(recipe_of(tmp_path), out).report
    (before, _), (after, said) = labels_and_folds(out, report), labels_and_folds(out, grown)
    assert len(after) > len(before) and all(after[name] == fold for name, fold in before.items())
    assert all(np.isfinite(each).all() for each in said.values())
