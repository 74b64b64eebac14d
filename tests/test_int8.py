"""Graphs in 8 bits: smaller, judged on test rows, refused where they lost too much; and exported folders asked again."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from students.delivering.edge import in_8_bits
from students.delivering.elsewhere import INT8, EightBits, Exported, export_elsewhere
from students.delivering.forms import said_by_onnx, to_onnx
from students.delivering.golden import GOLDEN, golden_rows
from students.delivering.int8 import is_static, quantised
from students.delivering.manifest import MANIFEST, ROWS, verified
from students.fitting.fit import fit
from students.runs.session import PlainSession
from teachers.errors import CollegiumError, DataError, StoreError
from teachers.models.folder import load_model
from teachers.transfer_set.transfer_set import TransferSet
from tests.test_elsewhere import alone
from tests.training_runs import make_run

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(digits: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conv net that has learnt something, with golden rows."""
    run = make_run(tmp_path_factory.mktemp("runs"), digits, objective=({"loss": "hard"},), labelled_only=True, steps=80)
    run = replace(run, model="teachers.zoo:conv_net", arguments={"width": 16})
    fit([run], PlainSession())
    golden = golden_rows(load_model(run.folder), digits.folder)
    assert golden is not None
    (run.folder / GOLDEN).write_bytes(golden)
    return run.folder


@pytest.fixture(scope="module")
def elsewhere(trained: Path, digits: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    folder = tmp_path_factory.mktemp("int8") / "out"
    return folder, export_elsewhere(
        trained, folder, ["onnx"], name="digits-small", int8=EightBits(digits.folder, max_drop=0.02)
    )


def test_a_graph_in_8_bits_is_smaller_and_says_almost_the_same(elsewhere, trained, digits):
    folder, done = elsewhere
    before, after = done.forms["model.onnx"], done.forms[INT8]
    assert after["bytes"] <= 0.45 * before["bytes"]  # of a larger one a quarter: scales and nodes weigh here
    assert after["drop"] <= 0.02 == after["max_drop"]
    assert after["calibrated_on"] == 512 and after["rows"] == sum(segment.num_rows for segment in digits.of("test"))
    assert after["figures"]["accuracy"] > 0.8 and before["figures"]["accuracy"] > 0.8
    assert all(found["p95_ms"] >= found["p50_ms"] > 0 for found in (before, after))
    inputs = digits.inputs(digits.of("test")[0], 0, 64)
    own, eight = (said_by_onnx((folder / file).read_bytes(), inputs) for file in ("model.onnx", INT8))
    assert not np.array_equal(own, eight) and (own.argmax(1) == eight.argmax(1)).mean() > 0.95
    assert done.agreements["model.onnx"].largest_difference < 1e-4


def test_the_headline_is_that_of_the_graph_by_hand(elsewhere, digits):
    folder, done = elsewhere
    (segment,) = digits.of("test")
    said = said_by_onnx((folder / INT8).read_bytes(), digits.inputs(segment))
    right = (said.argmax(1) == digits.labels(segment)).mean()
    assert done.forms[INT8]["figures"]["accuracy"] == pytest.approx(right)
    assert done.forms[INT8]["drop"] == pytest.approx(done.forms["model.onnx"]["figures"]["accuracy"] - right)


def test_the_script_asks_the_graph_in_8_bits(elsewhere, digits, tmp_path):
    from PIL import Image

    folder, _ = elsewhere
    (segment,) = digits.of("test")
    images = digits.inputs(segment, 0, 5)["image"]
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    said = torch.from_numpy(said_by_onnx((folder / INT8).read_bytes(), {"image": images})).softmax(1)
    found, _, code = alone(folder, tmp_path)
    assert code == 0
    assert [row["class"] for row in found] == [str(number) for number in said.argmax(1).tolist()]
    assert [row["probability"] for row in found] == pytest.approx(said.amax(1).tolist(), abs=1e-4)


def test_what_lost_too_much_is_refused_with_both_figures(elsewhere, trained, digits):
    graph = (elsewhere[0] / "model.onnx").read_bytes()
    with pytest.raises(CollegiumError, match=r"in 8 bits the test accuracy is .* %, of the graph itself .*--max-drop"):
        in_8_bits(load_model(trained), graph, digits.folder, None, max_drop=-1.0)


def test_convolutions_are_static_and_all_else_is_dynamic(elsewhere):
    import onnx

    payload = (elsewhere[0] / "model.onnx").read_bytes()
    assert is_static(payload)
    made = onnx.load(elsewhere[0] / INT8)
    nodes = {node.op_type for node in made.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes and "DynamicQuantizeLinear" not in nodes


def test_a_table_is_quantised_without_calibration(digits, tmp_path):
    import onnx

    run = make_run(tmp_path, digits, objective=({"loss": "hard"},), labelled_only=True, steps=20)
    fit([run], PlainSession())
    graph = to_onnx(model := load_model(run.folder))
    assert not is_static(graph)
    found = quantised(graph, [])
    assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load_from_string(found).graph.node}
    assert in_8_bits(model, graph, digits.folder, None, 1.0).drop < 0.2


def test_a_graph_without_products_says_so():
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(CollegiumError, match="no convolution and no matrix product"):
        quantised(model.SerializeToString(), [])


def test_rows_of_other_classes_are_no_rows_to_judge_by(trained, digits):
    model = load_model(trained)
    other = replace(model.config.space, names=("a", *model.config.space.names[1:]))
    model.config = replace(model.config, space=other)
    with pytest.raises(DataError, match="the model says"):
        in_8_bits(model, b"", digits.folder, None, 1.0)


def test_an_exported_folder_says_again_what_it_said(elsewhere):
    folder, _ = elsewhere
    found = verified(folder)
    assert found.keys() == {"model.onnx", INT8} and all(each.same_class == 1.0 for each in found.values())
    assert found[INT8].largest_difference < 1e-6  # beside what it said itself, not beside the model
    assert json.loads((folder / MANIFEST).read_text())["forms"].keys() == {"model.onnx", INT8}


def tampered(elsewhere: tuple[Path, Exported], to: Path) -> Path:
    to.mkdir()
    for file in elsewhere[0].iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_changed_byte_a_missing_file_and_another_answer_are_refused(elsewhere, tmp_path):
    folder = tampered(elsewhere, tmp_path / "byte")
    payload = bytearray((folder / INT8).read_bytes())
    payload[len(payload) // 2] ^= 1
    (folder / INT8).write_bytes(payload)
    with pytest.raises(StoreError, match=rf"{INT8}: its checksum is .*, SHA256SUMS has"):
        verified(folder)
    folder = tampered(elsewhere, tmp_path / "missing")
    (folder / INT8).unlink()
    with pytest.raises(StoreError, match=f"'{INT8}' is missing"):
        verified(folder)
    folder = tampered(elsewhere, tmp_path / "answer")
    with np.load(folder / ROWS) as rows:
        said = dict(rows)
    said["said:model.onnx"] = -said["said:model.onnx"]
    np.savez(folder / ROWS, **said)
    digest = hashlib.sha256((folder / ROWS).read_bytes()).hexdigest()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text(
        "\n".join(f"{digest}  {ROWS}" if line.endswith(ROWS) else line for line in lines)
    )
    with pytest.raises(StoreError, match=r"model.onnx says something else than it said"):
        verified(folder)
    with pytest.raises(StoreError, match="has no SHA256SUMS"):
        verified(tmp_path)


def test_sums_that_name_a_file_outside_are_refused(elsewhere, tmp_path):
    folder = tampered(elsewhere, tmp_path / "outside")
    (tmp_path / "secret").write_text("x")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../secret\n")
    with pytest.raises(StoreError):
        verified(folder)


def test_without_golden_rows_nobody_can_ask(elsewhere, tmp_path):
    folder = tampered(elsewhere, tmp_path / "out")
    (folder / ROWS).unlink()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text("\n".join(line for line in lines if not line.endswith(ROWS)))
    with pytest.raises(StoreError, match="without golden rows"):
        verified(folder)


def test_the_command_tells_where_rows_to_calibrate_by_would_be(trained, elsewhere):
    done = CliRunner().invoke(collegium, ["export", str(trained), "--int8"], standalone_mode=False)
    assert isinstance(done.exception, StoreError) and "OUT/models/" in str(done.exception)
    told = CliRunner().invoke(collegium, ["verify-model", str(elsewhere[0])])
    assert told.exit_code == 0 and told.stdout.count("golden rows") == 2
