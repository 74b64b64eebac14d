"""Whole runs with more transfer data: unlabelled files, mixed rows, rows that are left out; and a growing `extra`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import plan, run
from orchestrator.reporting.page import page

pytestmark = pytest.mark.campaign


def recipe(noise: Path) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "more",
        "transfer_set": {
            "source": {"kind": "sklearn", "name": "digits"},
            "inputs": "image",
            "label": "digit",
            "labelled": 100,
            "extra": {"kind": "numpy", "path": str(noise)},
        },
        "teachers": {
            "wide": {
                "kind": "module",
                "model": "students.models:mlp",
                "arguments": {"hidden": 64},
                "train": {"steps": 200},
            }
        },
        "students": {
            "small": {
                "model": "students.models:mlp",
                "arguments": {"hidden": 16},
                "teachers": ["wide"],
                "energy": {"quantile": 0.9},
                "train": {"steps": 60, "seeds": [0, 1], "mix": {"kind": "mixup"}},
            }
        },
    }


def noise(path: Path, rows: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, image=np.random.default_rng(0).integers(0, 17, (200, 8, 8, 1), np.uint8)[:rows])
    return path


def test_a_run_with_all_of_it_and_one_with_more(ray_cluster: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(recipe(noise(tmp_path / "a" / "noise.npz", 120)), out).report
    assert report["transfer_set"]["beside"] == {"extra": 120, "labels_not_read": []}
    found = report["students"]["small"]["energy"]
    assert found["teacher"] == "wide" and found["training"]["extra"]["rows"] == 120
    assert sum(part["rows"] for part in found["tested"].values()) == report["transfer_set"]["test_rows_evaluated"]
    notes = " ".join(report["notes"])
    assert (
        "120 of `transfer_set.extra`" in notes and "Student small has left out" in notes and "left out" in page(report)
    )
    assert {stage.action for stage in plan(recipe(tmp_path / "a" / "noise.npz"), out).stages} == {"reuse"}

    grown = run(recipe(noise(tmp_path / "b" / "noise.npz", 150)), out).report
    assert grown["transfer_set"]["beside"]["extra"] == 150
    done = {(stage["stage"], stage["part"]): stage["reused"] for stage in grown["stages"] if stage["stage"] == "label"}
    assert {part: reused for (_, part), reused in done.items()} == {
        **dict.fromkeys(("train-0", "extra-0", "validation-0", "test-0"), True),
        "extra-1": False,
    }
    control = [each["students"]["small"]["control_accuracy"] for each in (report, grown)]
    assert control[0] == control[1]
