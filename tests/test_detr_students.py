"""Detectors of transformers as students: queries that learn a box each, delivered and exported like any other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from students.delivering.elsewhere import export_elsewhere
from students.delivering.golden import GOLDEN, Golden, compared, golden_rows
from students.delivering.manifest import verified
from students.fitting.fit import fit
from students.measuring.labelled import Labelled
from students.models import huggingface
from students.objective.losses.detection import hard
from students.runs.session import PlainSession
from teachers.errors import RecipeError
from teachers.models.detectors.families import FAMILIES
from teachers.models.folder import load_model
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet
from tests import shapes
from tests.training_runs import make_run

detector_folders = pytest.importorskip("tests.detector_folders", reason="transformers is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")
HOW: dict[str, Any] = {"steps": 60, "evaluate_every": 60, "batch_size": 16, "learning_rate": 3e-3, "clip": 0.5}
GIVEN: dict[str, Any] = {"num_classes": 3, "classes": detector_folders.CLASSES, "input_shape": (3, 64, 64)}


@pytest.mark.parametrize("kind", [name for name, family in FAMILIES.items() if not family.has_none])
def test_it_begins_with_the_weights_of_a_folder_and_its_queries_stand_where_their_boxes_are(kind: str, tmp_path: Path):
    teacher = detector_folders.save_detector(tmp_path / "m", kind)
    student = huggingface(str(tmp_path / "m"), **GIVEN).eval()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        given, expected = student(pixels), teacher(pixel_values=pixels)
    torch.testing.assert_close(given[..., 6:], expected.logits)
    torch.testing.assert_close(given[..., 4:6], expected.pred_boxes[..., :2])
    torch.testing.assert_close(given[..., 2:4] - given[..., :2], expected.pred_boxes[..., 2:])
    again = huggingface(**student.rebuilt_by, **GIVEN).eval()
    again.load_state_dict(student.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels), given)


def test_one_that_says_none_by_a_class_of_its_own_is_refused(tmp_path: Path):
    detector_folders.save_detector(tmp_path / "m", "yolos")
    with pytest.raises(RecipeError, match=r"a yolos says of each query which one class it is, or none; .* rt_detr"):
        huggingface(str(tmp_path / "m"), **GIVEN)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    rows = shapes.table(60, height=64, width=64)
    return shapes.prepared(tmp_path_factory.mktemp("shapes"), rows, image_size=64)


@pytest.mark.parametrize("kind", ["d_fine", "rt_detr"])
def test_it_learns_boxes_and_says_them_elsewhere(kind: str, data: TransferSet, tmp_path: Path):
    detector_folders.save_detector(tmp_path / "m", kind)
    run = make_run(tmp_path / "run", data, objective=({"loss": "hard"},), labelled_only=True, **HOW)
    arguments = {"config": str(tmp_path / "m" / "config.json")}
    run = replace(run, model="students.models:huggingface", arguments=arguments)
    fit([run], PlainSession())
    model = load_model(run.folder)
    torch.manual_seed(run.seed)
    fresh = huggingface(**arguments, num_classes=2, classes=shapes.KINDS, input_shape=(3, 64, 64)).eval()
    rows = Labelled.of(data, "train")
    labels = torch.from_numpy(np.array(rows.labels))
    pixels = model.preprocessor(data.inputs(rows.segments[0]))
    with torch.inference_mode():
        after, before = (float(hard(each(pixels), labels).mean()) for each in (model.module, fresh))
    assert after < 0.8 * before
    if kind == "rt_detr":  # of those that count their rows by `len`, one
        (run.folder / GOLDEN).write_bytes(golden_rows(model, data.folder) or b"")
        export_elsewhere(run.folder, tmp_path / "out", ["onnx"], name="shapes")
        assert {each.largest_difference < 1e-3 for each in verified(tmp_path / "out").values()} == {True}


def test_queries_have_no_order():
    numbers = torch.rand(2, 7, 8, generator=torch.Generator().manual_seed(0))
    said = torch.cat([numbers[..., :4], (numbers[..., :2] + numbers[..., 2:4]) / 2, numbers[..., 6:]], -1)
    space = Space("detection", shapes.KINDS, max_boxes=shapes.MOST)
    golden = Golden({}, said.numpy())
    assert compared(said[:, torch.randperm(7)].numpy(), golden, space).largest_difference == 0
    moved = said.clone()
    moved[1, 3, 7] += 1
    assert compared(moved.flip(1).numpy(), golden, space).largest_difference > 0.1
