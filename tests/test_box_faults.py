"""A run of detection whose driver is killed while it labels, and again while it trains, ends as one that nobody killed."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests import faults, shapes

DETECTS = '''
import time

import numpy as np


def bright(batch):
    """One box around all that is bright, so slowly that somebody can be killed meanwhile."""
    time.sleep(0.02 * len(batch["image"]))
    found = []
    for image in batch["image"]:
        y, x = np.nonzero(image.max(-1) > 140)
        height, width = image.shape[:2]
        boxes = [[x.min() / width, y.min() / height, (x.max() + 1) / width, (y.max() + 1) / height]] if len(x) else []
        found.append({"boxes": boxes, "scores": [0.8] * len(boxes), "classes": ["disc"] * len(boxes)})
    return found
'''


def recipe() -> dict:
    train = {"steps": 400, "batch_size": 8, "learning_rate": 4e-3, "ema": 0.95, "augment": ["mosaic", "flip", "zoom"]}
    detector = {"model": "students.models:tiny_detector", "arguments": {"width": 4}}
    learnt = {"kind": "module", **detector, "train": {**train, "steps": 10, "seed": 1}, "require": None}
    slow = {"kind": "callable", "function": "detects:bright", "output": "boxes", "batch_size": 8, "require": None}
    source = {"kind": "parquet", "path": "rows.parquet"}
    rows = {"source": source, "inputs": "image", "label": "boxes", "labelled": {"train": 16, "teachers": 20}}
    objective = [{"loss": "pseudo"}, {"loss": "hard"}]
    small = {**detector, "teachers": ["slow", "learnt"], "objective": objective, "control": False}
    small["train"] = {**train, "seeds": [0]}
    return {
        "format": 1,
        "name": "shapes",
        "task": "detection",
        "transfer_set": {**rows, "max_boxes": shapes.MOST},
        "teachers": {"slow": slow, "learnt": learnt},
        "students": {"small": small},
    }


def start(folder: Path, out: Path) -> "subprocess.Popen[bytes]":
    setup = faults.Setup("boxes", str(folder / "shapes.yaml"), (), "distill")
    with (folder / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(faults.command(out, setup), cwd=folder, stdout=subprocess.DEVNULL, stderr=log)


def killed_when(happens: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
    begun = time.monotonic()
    while not happens():
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() - begun < faults.PATIENCE_S
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def found(out: Path, pattern: str) -> Iterator[Path]:
    return out.glob(pattern)


@pytest.mark.campaign
def test_a_driver_killed_in_labelling_and_in_training_costs_no_row_and_changes_no_bit(tmp_path: Path) -> None:
    pq.write_table(shapes.table(150, without_label=20), tmp_path / "rows.parquet")
    (tmp_path / "detects.py").write_text(DETECTS)
    (tmp_path / "shapes.yaml").write_text(yaml.safe_dump(recipe()))
    calm, out = tmp_path / "calm", tmp_path / "out"
    faults.finish(start(tmp_path, calm), calm)
    expected = faults.outcome(calm)

    killed_when(lambda: any(found(out, "soft_targets/slow*/commits/*.json")), start(tmp_path, out))
    assert len([*found(out, "soft_targets/*/SEAL.json")]) < len(expected.keys)
    killed_when(
        lambda: any(path.stat().st_size for path in found(out, "students/*/metrics.jsonl")), start(tmp_path, out)
    )
    assert not [*found(out, "students/**/model.safetensors")]
    faults.finish(start(tmp_path, out), out)

    assert len(expected.keys) == 6 and len(expected.students) == 1
    assert faults.compare(faults.outcome(out), expected) == []
