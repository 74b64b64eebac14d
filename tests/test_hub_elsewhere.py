"""Students of transformers in a form for elsewhere: `collegium export --onnx`, and its predict.py where there is no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from students.delivering.golden import GOLDEN, golden_rows
from teachers.config.preprocess import Preprocess
from teachers.config.transfer_set import TransferSetConfig
from teachers.models.folder import ModelConfig, load_model, save_model
from teachers.models.modules import network_for
from teachers.models.preprocess import Preprocessor
from teachers.models.transformers_network import lasting_arguments
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet

from .hub_folders import TEXTS, WORDS, save_image_model, save_text_model
from .test_elsewhere import agrees, csv, jsonl
from .test_mixed_tables import config
from .test_predict import photos

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no graph can be run")


def delivered(data: TransferSet, folder: Path, preprocess: Preprocess, **arguments: Any) -> Path:
    """As training leaves it, and a run delivers it: without the folder that it came from, with golden rows."""
    torch.manual_seed(0)
    ready, network = Preprocessor(preprocess, data.columns), "students.models:huggingface"
    module = network_for(ready, network, arguments, num_classes=len(data.classes), classes=data.classes)
    given = lasting_arguments(module, arguments)
    about = ModelConfig(network, given, data.space, ready.resolved(), data.made_of, files=ready.files)
    save_model(folder, module.state_dict(), about)
    (folder / GOLDEN).write_bytes(golden_rows(load_model(folder), data.folder) or b"")
    return folder


def exported(model: Path, output: Path) -> str:
    done = CliRunner().invoke(collegium, ["export", str(model), "--onnx", "--output", str(output)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "pairs"])
def test_a_network_of_texts_gets_the_answers_of_predict(kind: str, tmp_path: Path) -> None:
    save_text_model(tmp_path / "hub", "bert" if kind == "pairs" else kind)
    random = np.random.default_rng(0)
    words = [" ".join(random.choice(WORDS, 5)) for _ in range(60)] + TEXTS
    rows = pa.table({"text": words, "other": words[::-1], "y": random.integers(0, 2, len(words))})
    inputs = [{"column": name, "as": "text"} for name in ("text", "other")[: 1 + (kind == "pairs")]]
    source = jsonl(rows, tmp_path / "rows.jsonl")
    data = prepare(config(source, inputs), tmp_path / "prepared")
    made = Preprocess.model_validate({"tokenizer": {"path": str(tmp_path / "hub"), "max_length": 16}})
    model = delivered(data, tmp_path / "model", made, path=str(tmp_path / "hub"))
    told = exported(model, tmp_path / "out")
    assert "there is no predict.py" not in told
    found = agrees(tmp_path / "out", model, source)
    assert len({row["probability"] for row in found}) > 30
    agrees(tmp_path / "out", model, csv(rows.slice(0, 60), tmp_path / "rows.csv"))


def test_a_network_of_images_gets_the_answers_of_predict(tmp_path: Path) -> None:
    save_image_model(tmp_path / "hub")
    photos(tmp_path / "photos")
    given = {"source": {"kind": "image_folder", "path": str(tmp_path / "photos")}, "inputs": "image", "label": "label"}
    data = prepare(TransferSetConfig.model_validate(given | {"image_size": 16}), tmp_path / "prepared")
    model = delivered(data, tmp_path / "model", Preprocess(), path=str(tmp_path / "hub"))
    exported(model, tmp_path / "out")
    agrees(tmp_path / "out", model, tmp_path / "photos")
