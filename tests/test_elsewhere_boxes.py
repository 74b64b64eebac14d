"""Detectors in forms for elsewhere: the student's boxes where there is neither torch nor Collegium, in 8 bits, in other sizes."""

import base64
import hashlib
import io
import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from orchestrator.cli.main import collegium
from students.delivering.edge import in_8_bits
from students.delivering.elsewhere import INT8, EightBits, export_elsewhere
from students.delivering.forms import said_by_onnx
from students.delivering.golden import GOLDEN, golden_rows, read_golden
from students.delivering.manifest import MANIFEST, ROWS, licences_beside, verified
from students.delivering.serving import answered
from students.delivering.sizes import at_edge
from students.fitting.fit import fit
from students.measuring.labelled import Labelled, ask
from students.runs.session import PlainSession
from students.tasks.average_precision import BoxesMeter
from teachers.errors import CollegiumError, DataError, RecipeError, StoreError
from teachers.models.folder import load_model, save_model
from teachers.tasks.said import said_by
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet
from tests import shapes
from tests.test_elsewhere import alone, odd_images
from tests.test_predict import said
from tests.training_runs import make_run

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no graph can be run")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: no graph can be made")
pytestmark = pytest.mark.usefixtures("one_thread")

THRESHOLDS = {"disc": 0.04, "square": 0.06}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    rows = shapes.table(90, height=72, width=96)
    return shapes.prepared(tmp_path_factory.mktemp("shapes"), rows, image_size=64)


@pytest.fixture(scope="module")
def detector(data: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learnt a little, as a run delivers it."""
    how = {"steps": 60, "batch_size": 16, "learning_rate": 4e-3}
    run = make_run(tmp_path_factory.mktemp("run"), data, objective=({"loss": "hard"},), labelled_only=True, **how)
    run = replace(run, model="students.models:tiny_detector", arguments={"width": 8})
    fit([run], PlainSession())
    (run.folder / GOLDEN).write_bytes(golden_rows(load_model(run.folder), data.folder) or b"")
    (run.folder / "metrics.json").write_text(json.dumps({"thresholds": THRESHOLDS}))
    return run.folder


@pytest.fixture(scope="module")
def elsewhere(detector: Path, data: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere") / "out"
    done = export_elsewhere(detector, folder, ["onnx"], name="shapes-small", int8=EightBits(data.folder, 0.1))
    assert done.no_script is None
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all sizes, upright or lying, in colour and grey; and what is none."""
    folder = tmp_path_factory.mktemp("photos")
    numbers = np.random.default_rng(7)
    for name, height, width in (("tall", 160, 90), ("wide", 70, 200), ("same", 64, 64)):
        pixels, _ = shapes.picture(numbers, height, width, most=8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    lying = Image.Exif()
    lying[0x0112] = 6
    Image.fromarray(shapes.picture(numbers, 60, 100, most=40)[0]).save(folder / "lying.jpg", exif=lying, quality=95)
    odd_images(folder / "odd")
    return folder


def same_boxes(found: list[dict[str, Any]], expected: list[dict[str, Any]], within: float = 1e-3) -> int:
    """How many boxes both say, of which each lies where the other's does."""
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() and one["classes"] == other["classes"], (one, other)
        if other["boxes"] is None:
            assert one["boxes"] is one["scores"] is None
            continue
        np.testing.assert_allclose(np.reshape(one["boxes"], (-1, 4)), np.reshape(other["boxes"], (-1, 4)), atol=within)
        np.testing.assert_allclose(one["scores"], other["scores"], atol=within)
    return sum(len(row["boxes"] or ()) for row in found)


@pytest.fixture(scope="module")
def in_float32(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder, whose script asks the graph that is not in 8 bits."""
    folder = tmp_path_factory.mktemp("float32")
    for file in elsewhere.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"graph": "model.onnx"}))
    return folder


def test_its_script_says_the_students_boxes_in_pixels_of_each_image(in_float32, detector, photos):
    assert len((in_float32 / "predict.py").read_text().splitlines()) <= 80
    found, told, code = alone(in_float32, photos)
    expected, bad, _ = said(detector, photos)
    assert same_boxes(found, expected) > 30
    assert [line.partition(": ")[0] for line in told] == [line.partition(": ")[0] for line in bad] and len(bad) == 2
    assert code == 5
    lying = next(row for row in found if row["id"] == "lying.jpg#0")
    assert lying["boxes"] and max(box[3] for box in lying["boxes"]) > 60  # 60 wide and 100 high, as it is seen


@pytest.fixture(scope="module")
def script(elsewhere: Path) -> dict[str, Any]:
    return runpy.run_path(str(elsewhere / "predict.py"), run_name="script")


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_its_script_takes_the_boxes_of_places_that_training_takes(script, seed, queries):
    """Of many that overlap, of both classes, beyond the image and turned about."""
    numbers = np.random.default_rng(seed)
    given = np.zeros((1, 64, 8), np.float32)
    given[0, :, :2] = numbers.uniform(-0.1, 0.6, (64, 2))
    given[0, :, 2:4] = given[0, :, :2] + numbers.uniform(-0.05, 0.5, (64, 2))
    given[0, :, 4:6] = (given[0, :, :2] + given[0, :, 2:4]) / 2 if queries else numbers.uniform(0, 1, (64, 2))
    given[0, :, 6:] = numbers.normal(-1, 3, (64, 2))
    found = script["boxes"](given[0], (1, 1) * 2)
    space = Space("detection", shapes.KINDS, max_boxes=shapes.MOST)
    own = said_by(torch.from_numpy(given), space).reshape(-1, 6)
    own = own[(own[:, 5] >= 0) & (own[:, 4] >= torch.tensor([*THRESHOLDS.values()])[own[:, 5].long()])]
    assert len(own) == shapes.MOST
    np.testing.assert_allclose(found["boxes"], own[:, :4], atol=1e-6)
    np.testing.assert_allclose(found["scores"], own[:, 4], atol=1e-6)
    assert found["classes"] == [shapes.KINDS[int(number)] for number in own[:, 5]]


def test_golden_rows_are_the_places_of_test_images(detector, data):
    model = load_model(detector)
    golden = read_golden(detector, model)
    assert golden is not None and golden.said.shape[1:] == (64, 8)
    rows = Labelled.of(data, "test")
    own = said_by(torch.tensor(golden.said), model.config.space)
    torch.testing.assert_close(own, ask(model, rows)[: len(own)], atol=1e-4, rtol=0)


def test_its_manifest_says_what_a_device_has_to_know(elsewhere):
    about = json.loads((elsewhere / MANIFEST).read_text())
    (image,) = about["inputs"]
    assert image["shape"] == [64, 64, 3] and image["fit"] == "squash"
    assert about["names"] == list(shapes.KINDS) and about["thresholds"] == THRESHOLDS
    assert len(about["preprocess"]["columns"][0]["mean"]) == 3
    assert about["decoding"]["max_boxes"] == shapes.MOST and about["decoding"]["nms_above"] == 0.6
    assert len(about["decoding"]["place"]) == 8
    for file, form in about["forms"].items():
        assert form["sha256"] == hashlib.sha256((elsewhere / file).read_bytes()).hexdigest()
    assert set(about["forms"][INT8]["figures"]) >= {"ap", "ap50"} and about["forms"][INT8]["p95_ms"] > 0


def test_in_8_bits_it_is_judged_by_the_boxes_that_it_says(elsewhere, data, detector):
    about = json.loads((elsewhere / MANIFEST).read_text())["forms"]
    rows = Labelled.of(data, "test")
    inputs = data.inputs(rows.segments[0])
    for file in ("model.onnx", INT8):
        given = torch.from_numpy(said_by_onnx((elsewhere / file).read_bytes(), inputs))
        meter = BoxesMeter(data.space)
        meter.update(said_by(given, data.space), rows.labels)
        assert about[file]["figures"]["ap"] == pytest.approx(meter.figures()["ap"], abs=1e-9)
    assert about["model.onnx"]["figures"]["ap"] > 0.02
    assert about[INT8]["bytes"] < 0.7 * about["model.onnx"]["bytes"]
    graph = (elsewhere / "model.onnx").read_bytes()
    with pytest.raises(CollegiumError, match=r"in 8 bits the test AP is .*--max-drop"):
        in_8_bits(load_model(detector), graph, data.folder, None, max_drop=-1.0)


def test_a_graph_in_8_bits_computes_in_them_all_but_pixels_and_names_no_file_of_ours(elsewhere):
    import onnx

    graph = onnx.load(elsewhere / INT8).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    weights = [made_by.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert weights == [None, *["DequantizeLinear"] * (len(weights) - 1)] and len(weights) > 10
    assert {each.data_type for each in graph.initializer} >= {onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    for file in ("model.onnx", INT8):
        assert str(Path(__file__).parents[1]).encode() not in (elsewhere / file).read_bytes()


def test_an_exported_detector_says_again_what_it_said_and_a_changed_one_is_named(elsewhere, detector, tmp_path):
    found = verified(elsewhere)
    assert found.keys() == {"model.onnx", INT8}
    assert all(each.same_class == 1.0 and each.largest_difference < 1e-4 for each in found.values())
    other = tmp_path / "other"
    other.mkdir()
    for file in elsewhere.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    with np.load(other / ROWS) as rows:
        changed = dict(rows)
    changed["said:model.onnx"][:, :, :4] += 0.01
    np.savez(other / ROWS, **changed)
    digest = hashlib.sha256((other / ROWS).read_bytes()).hexdigest()
    lines = (other / "SHA256SUMS").read_text().splitlines()
    lines = [f"{digest}  {ROWS}" if line.endswith(ROWS) else line for line in lines]
    (other / "SHA256SUMS").write_text("\n".join(lines))
    with pytest.raises(StoreError, match=r"model.onnx says something else than it said: .*corners and scores differ"):
        verified(other)
    (other / "model.onnx").write_bytes((elsewhere / INT8).read_bytes())
    with pytest.raises(StoreError, match=r"model.onnx: its checksum is"):
        verified(other)


def test_a_server_says_the_boxes_of_the_model_and_null_of_what_is_no_image(detector, photos):
    model = load_model(detector)
    files = [(photos / name).read_bytes() for name in ("same.png", "wide.png")]
    rows = [{"image": base64.b64encode(file).decode()} for file in (files[0], b"none", files[1])]
    document = answered(model, rows)
    assert document["classes"] == list(shapes.KINDS)
    assert document["scores"][1] is None and set(document["bad"]) == {"1"}
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each)).resize((64, 64), Image.Resampling.BILINEAR)) for each in files])  # fmt: skip
    for found, own in zip(document["scores"][::2], model({"image": pixels}).reshape(2, -1, 6), strict=True):
        assert len(found) > 0
        torch.testing.assert_close(torch.tensor(found), own[own[:, 5] >= 0])


def test_a_delivered_detector_is_asked_its_golden_images_again(detector, tmp_path):
    model = load_model(detector)

    def delivered(to: Path, shift: float) -> Path:
        state = model.module.state_dict()
        save_model(to, state | {"scores.bias": state["scores.bias"] + shift}, model.config)
        (to / GOLDEN).write_bytes((detector / GOLDEN).read_bytes())
        files = ("model.safetensors", "config.json", GOLDEN)
        sums = [f"{hashlib.sha256((to / file).read_bytes()).hexdigest()}  {file}\n" for file in files]
        (to / "SHA256SUMS").write_text("".join(sums))
        return to

    told = CliRunner().invoke(collegium, ["verify-model", str(delivered(tmp_path / "same", 0.0))])
    assert told.exit_code == 0 and "100.0% of all places" in told.output
    with pytest.raises(StoreError, match=r"model.safetensors says something else than it said"):
        verified(delivered(tmp_path / "other", 0.5))


def test_licences_are_told_as_the_recipe_declares_them(tmp_path):
    recipe = {"transfer_set": {"licence": "CC-BY-4.0"}, "teachers": {"one": {"licence": "AGPL-3.0"}, "other": {}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert licences_beside(tmp_path) == {"data": "CC-BY-4.0", "teacher one": "AGPL-3.0"}


def shape_of(folder: Path) -> list[Any]:
    (given,) = onnxruntime.InferenceSession(folder / "model.onnx").get_inputs()
    return list(given.shape)


@pytest.mark.campaign
def test_a_graph_takes_one_row_or_any_number_one_size_or_any(detector, elsewhere, photos, tmp_path):
    assert shape_of(elsewhere) == ["rows", 64, 64, 3]
    export_elsewhere(detector, tmp_path / "one", ["onnx", "pt2"], name="m", one_row=True)
    assert shape_of(tmp_path / "one") == [1, 64, 64, 3] and len(verified(tmp_path / "one")) == 2
    export_elsewhere(detector, tmp_path / "any", ["onnx"], name="m", size="any")
    assert shape_of(tmp_path / "any") == ["rows", "height", "width", 3]
    expected, _, _ = said(detector, photos)
    for folder in ("one", "any"):
        assert same_boxes(alone(tmp_path / folder, photos)[0], expected) > 30


@pytest.mark.campaign
def test_a_graph_of_another_size_resizes_images_to_it(detector, photos, tmp_path):
    done = CliRunner().invoke(
        collegium, ["export", str(detector), "--onnx", "--size", "96", "--output", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert shape_of(tmp_path / "out") == ["rows", 96, 96, 3]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["inputs"][0]["edge"] == 96
    model = load_model(detector)
    found = {row["id"]: row for row in alone(tmp_path / "out", photos)[0]}
    pixels = np.asarray(Image.open(photos / "tall.png").resize((96, 96), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        column = model.preprocessor.columns[0]
        own = said_by(model.module(column(torch.from_numpy(pixels.copy())[None])), model.config.space)
    boxes = own.reshape(-1, 6)
    boxes = boxes[(boxes[:, 5] >= 0) & (boxes[:, 4] >= torch.tensor([0.04, 0.06])[boxes[:, 5].long()])]
    np.testing.assert_allclose(found["tall.png#0"]["boxes"], boxes[:, :4] * torch.tensor([90, 160] * 2), atol=1e-3)


class OneSize(torch.nn.Module):
    """Places of a grid that was fixed when it was made."""

    def __init__(self, num_classes: int, input_shape: Any) -> None:
        super().__init__()
        self.last = torch.nn.Conv2d(3, 6 + num_classes, 8, 8)
        self.places = torch.nn.Parameter(torch.zeros(input_shape[1] // 8 * (input_shape[2] // 8), 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(inputs).flatten(2).transpose(1, 2) + self.places


def test_a_size_that_the_network_has_not_is_refused_in_one_line(detector, data, tmp_path):
    model, ours = load_model(detector), "tests.test_elsewhere_boxes"
    config = replace(model.config, model=f"{ours}:OneSize", arguments={})
    save_model(tmp_path / "model", OneSize(2, (3, 64, 64)).state_dict(), config)
    (tmp_path / "model" / GOLDEN).write_bytes(
        golden_rows(load_model(tmp_path / "model", trust=[ours]), data.folder) or b""
    )
    how: dict[str, Any] = {"name": "m", "trust": [ours]}
    for size, why in (
        (96, r"--size 96: the network takes no images of 96 x 96"),
        ("any", "--size any: the network takes no images of 48 x 32"),
    ):
        with pytest.raises(CollegiumError, match=why) as raised:
            export_elsewhere(tmp_path / "model", tmp_path / "out", ["onnx"], size=size, **how)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(DataError, match=r"holds images of 64 x 64 pixels, the graph takes 96 x 96.*leave --size out"):
        in_8_bits(at_edge(model, 96), b"", data.folder, None, 1.0)
    resized = replace(model.config, preprocess={**model.config.preprocess, "columns": [{**model.config.preprocess["columns"][0], "resize": 32}]})  # fmt: skip
    save_model(tmp_path / "resized", model.module.state_dict(), resized)
    (tmp_path / "resized" / GOLDEN).write_bytes(golden_rows(load_model(tmp_path / "resized"), data.folder) or b"")
    with pytest.raises(RecipeError, match=r"this network gets 32 x 32 pixels \(`preprocess.resize`\)"):
        export_elsewhere(tmp_path / "resized", tmp_path / "8", ["onnx"], name="m", size="any")
    assert CliRunner().invoke(collegium, ["export", str(detector), "--onnx", "--size", "huge"]).exit_code == 2
