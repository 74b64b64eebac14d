"""`collegium evaluate --model`: a graph from elsewhere on the test rows of a finished run, beside its students."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from orchestrator.cli.main import collegium
from orchestrator.reporting.document import FORMAT
from students.delivering.program import quiet
from students.fitting.fit import fit
from students.measuring.evaluate import evaluate_student
from students.measuring.labelled import Labelled
from students.runs.session import PlainSession
from students.tasks.average_precision import BoxesMeter
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.tasks.boxes import CLASS, boxes_of, labels_of, no_boxes
from teachers.tasks.places import LOGITS
from teachers.transfer_set.transfer_set import TransferSet
from tests import shapes
from tests.test_detectors_onnx import graph
from tests.training_runs import make_run

pytest.importorskip("onnxscript", reason="onnxscript is not installed: no graph can be made")
pytestmark = pytest.mark.usefixtures("one_thread")
EDGE = 64
FED = "preprocess={normalise: null}"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUT as a run leaves it: rows, a trained student with its evaluation, a report that names both."""
    folder = tmp_path_factory.mktemp("out")
    data = shapes.prepared(folder / "scratch", shapes.table(90, height=72, width=96), image_size=EDGE)
    (folder / "prepared").mkdir()
    data.folder.rename(folder / "prepared" / f"transfer_set-{'a' * 12}")
    prepared = TransferSet.open(folder / "prepared" / f"transfer_set-{'a' * 12}")
    how = {"steps": 60, "batch_size": 16, "learning_rate": 4e-3}
    run = make_run(folder / "runs-of-it", prepared, objective=({"loss": "hard"},), labelled_only=True, **how)
    run = replace(run, model="students.models:tiny_detector", arguments={"width": 8})
    fit([run], PlainSession())
    document = evaluate_student(prepared.folder, [], {0: run.folder}, None, 0)
    (folder / "evaluations" / f"small-{'b' * 12}").mkdir(parents=True)
    (folder / "evaluations" / f"small-{'b' * 12}" / "evaluation.json").write_text(json.dumps(document))
    stages = [{"stage": "prepare", "name": "transfer_set", "key": "a" * 64}, {"stage": "evaluate", "name": "small", "key": "b" * 64}]  # fmt: skip
    student = {"runs": document["student"]["runs"], "control_runs": None, "delivered": 0}
    report = {"format": FORMAT, "recipe": {"task": "detection"}, "stages": stages, "teachers": {}, "ensemble": None, "students": {"small": student}}  # fmt: skip
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture(scope="module")
def prepared(out: Path) -> TransferSet:
    return TransferSet.open(next((out / "prepared").iterdir()))


class AsDetr(torch.nn.Module):
    """A detector of ours as others export theirs: images in 0 to 1, a logit a class, centre and size in 0 to 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        model = load_model(folder)
        self.module, column = model.module, model.preprocessor.columns[0]
        mean, std = (torch.tensor(each)[:, None, None] for each in (column.mean, column.std))  # type: ignore[union-attr]
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places = self.module((images - self.mean) / self.std)
        first, last = places[..., :2], places[..., 2:4]
        return places[..., LOGITS:], torch.cat([(first + last) / 2, last - first], -1)


def asked(out: Path, model: Path, *how: str, as_json: bool = True) -> Result:
    options = [part for each in how for part in ("--how", each)] + ["--json"] * as_json
    return CliRunner().invoke(collegium, ["evaluate", "--out", str(out), "--model", str(model), *options])


def test_a_student_that_is_brought_back_as_a_graph_is_as_good_as_it_is(out: Path, tmp_path: Path) -> None:
    folder = next((out / "runs-of-it").rglob("config.json")).parent
    with quiet():
        program = torch.export.export(AsDetr(folder).eval(), (torch.zeros(1, 3, EDGE, EDGE),))
        found = torch.onnx.export(program, input_names=["images"], output_names=["logits", "boxes"], dynamo=True, verbose=False)  # fmt: skip
    assert found is not None
    found.save(str(tmp_path / "best.onnx"))
    done = asked(out, tmp_path / "best.onnx", "decode=detr", "nms_above=0.6", FED)
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    own, brought = document["figures"]["small"], document["figures"]["best.onnx"]
    assert own["ap"] > 0.02
    for key, value in own.items():
        near = 1.0 if key == "false_positives" else 0.02  # a count an image; more candidates meet in its NMS
        assert brought[key] == pytest.approx(value, abs=near), key
    (pair,) = document["pairs"]
    assert pair["student"] == "small" and abs(pair["mean"]) < 0.02 and pair["units"] == document["rows"]
    told = asked(out, tmp_path / "best.onnx", "decode=detr", "nms_above=0.6", FED, as_json=False).output.splitlines()
    assert told[0].split()[1:7] == ["test", "rows", "AP", "AP50", "AP75", "AR100"]
    assert told[1].startswith("small") and told[2].startswith("best.onnx")
    assert "small (seed 0, which is delivered) against best.onnx" in told[3]


def test_its_figures_are_those_of_what_it_says_with_classes_in_its_own_order(
    out: Path, prepared: TransferSet, tmp_path: Path
) -> None:
    """A graph that says the true boxes of one image of every image, and whose classes stand the other way round."""
    rows = Labelled.of(prepared, "test")
    true = labels_of(rows.labels.numpy())
    true = max(([box for box in image if box[CLASS] >= 0] for image in true), key=len)
    boxes = np.array([[*box[:4], 0.9 - 0.1 * place, 1 - box[CLASS]] for place, box in enumerate(true)])
    model = graph(tmp_path / "same.onnx", {"boxes": boxes[None]}, "rows")
    done = asked(out, model, "decode=raw", "classes=[square, disc]", FED)
    assert done.exit_code == 0, done.output
    said = no_boxes(len(rows.labels), 6, shapes.MOST)
    boxes_of(said)[:, : len(boxes)] = boxes
    boxes_of(said)[:, : len(boxes), CLASS] = 1 - boxes[:, CLASS]
    meter = BoxesMeter(prepared.space)
    meter.update(torch.from_numpy(said), rows.labels)
    found = json.loads(done.output)["figures"]["same.onnx"]
    assert found == pytest.approx({key: meter.figures()[key] for key in found}, abs=1e-6)
    assert found["ar100"] > 0


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (("decode=yolo", "layout=yolov8", FED), r"--how decode: .*same.onnx gives 'boxes' \[1, 2, 6\]; `decode: yolo` of 2 classes reads one"),
        (("decode=raw", "classes=[square, ring]", FED), r"--model: the teacher's classes 'ring' are not in the transfer set"),
        (("decode=raw", "preprocess={normalise: null, resize: 96}"), r"--how preprocess.resize: is 96, and .* takes 64 x 64"),
        (("decode=raw",), "--how: say how the graph was fed when it was trained"),
        (("decode=rows", FED), "--how decode: .*yolo.*detr.*raw"),
        (("decode",), "--how decode: expected `path.to.key=value`"),
        ((FED,), "--how output: is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_a_line_by_its_key(
    out: Path, tmp_path: Path, how: tuple[str, ...], why: str
) -> None:
    model = graph(tmp_path / "same.onnx", {"boxes": np.zeros((1, 2, 6))})
    done = asked(out, model, *how)
    assert isinstance(done.exception, RecipeError)
    assert len(str(done.exception).splitlines()) == 1
    with pytest.raises(RecipeError, match=why):
        raise done.exception


def test_without_a_finished_run_it_says_how_to_make_one(tmp_path: Path) -> None:
    model = graph(tmp_path / "same.onnx", {"boxes": np.zeros((1, 2, 6))})
    (tmp_path / "empty").mkdir()
    done = asked(tmp_path / "empty", model, "decode=raw", FED)
    assert isinstance(done.exception, RecipeError) and "`collegium run RECIPE" in str(done.exception)
    assert CliRunner().invoke(collegium, ["evaluate", "--how", "decode=raw"]).exit_code == 2
