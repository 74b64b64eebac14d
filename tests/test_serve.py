"""A delivered model as a JSON server, in a process of its own: what predict says, and what is wrong with a request."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from students.delivering.records import of_records
from students.delivering.serving import answered
from teachers.config.preprocess import Preprocess
from teachers.errors import RecipeError
from teachers.models.folder import load_model
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet

from .task_runs import prepared as of_task
from .task_runs import table as task_table
from .test_elsewhere import odd_images
from .test_mixed_tables import INPUTS, config, mixed
from .test_predict import model_of, said

LIMIT = 200_000


class Server:
    """`collegium serve` on a port that was free."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [Path(sys.executable).parent / "collegium", "serve", str(model), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.told = self.process.stdout.readline() + self.process.stdout.readline()
        found = re.search(r"http://[][\d.:]+/", self.told)
        assert found, self.process.communicate()
        self.url = found.group()

    def ask(self, document: Any, **headers: str) -> tuple[int, Any]:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text)["error"] if text.startswith("{") else text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        rest, errors = self.process.communicate(timeout=60)
        return self.process.returncode, rest, errors


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    pq.write_table(mixed(), folder / "data.pq")
    model_of(prepare(config(folder / "data.pq", INPUTS, id="id"), folder / "prepared"), folder / "model")
    return folder


@pytest.fixture(scope="module")
def server(tables: Path) -> Iterator[Server]:
    with Server(tables / "model", "--most-rows", "300", "--most-bytes", str(LIMIT)) as found:
        yield found


def rows_of_mixed(rows: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(mixed(rows, seed=3).drop(["id", "y"]).to_pylist(), default=str))
    return found


def test_rows_get_the_answers_of_predict_and_bad_ones_are_named(server: Server, tables: Path, tmp_path: Path) -> None:
    rows = rows_of_mixed(40)
    rows[3]["age"], rows[7]["start"], rows[9] = "x", "2020-02-30", [1]  # type: ignore[assignment]
    status, found = server.ask({"rows": rows})
    assert status == 200 and found["classes"] == ["0", "1"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected, bad, _ = said(tables / "model", tmp_path / "rows.jsonl", probabilities=True)
    assert [i for i, scores in enumerate(found["scores"]) if scores is None] == [3, 7, 9]
    assert [f"rows.jsonl#{row}: {why}" for row, why in found["bad"].items()] == bad
    for scores, row in zip(found["scores"], expected, strict=True):
        assert scores is None or scores == pytest.approx([row["0"], row["1"]], abs=1e-6)


def test_the_form_of_scores_is_what_is_asked_for(server: Server) -> None:
    rows = rows_of_mixed(5)
    forms = {name: np.array(server.ask({"rows": rows, "output": name})[1]["scores"]) for name in ("probabilities", "log_probabilities", "logits")}  # fmt: skip
    np.testing.assert_allclose(np.exp(forms["log_probabilities"]), forms["probabilities"], rtol=1e-5)
    softmax = torch.tensor(forms["logits"]).softmax(-1).numpy()
    np.testing.assert_allclose(softmax, forms["probabilities"], rtol=1e-5)


def test_what_is_no_request_is_told_and_the_server_goes_on(server: Server) -> None:
    row = rows_of_mixed(1)[0]
    for document, status, why in (
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ([], 400, "expected"),
        ({"rows": {}}, 400, "expected"),
        ({"rows": [row], "output": "magic"}, 400, "output is 'magic'"),
        (
            {"rows": [row], "output": "values"},
            400,
            "output is 'values', expected probabilities",
        ),  # which are of numbers
        ({"rows": [{"age": 3}]}, 400, "no row has 'fare', which the model takes"),
        ({"rows": [row] * 301}, 413, "301 rows, at most 300"),
        ({"rows": [row | {"note": "x" * LIMIT}]}, 413, "more than 200,000 bytes"),
    ):
        found = server.ask(document)
        assert found[0] == status and why in found[1], found
    assert server.ask({"rows": [row]}, Host="evil.example")[0] == 400  # whose name was led to this machine
    assert server.ask({"rows": []}) == (200, {"classes": ["0", "1"], "scores": [], "bad": {}})
    with urllib.request.urlopen(server.url, timeout=60) as answer:
        about = json.load(answer)
    assert about["takes"] == dict.fromkeys(["age", "fare"], "number") | {"start": "date"} | dict.fromkeys(
        ["color", "member"], "category"
    )
    assert (about["classes"], about["most_rows"]) == (["0", "1"], 300)


def test_it_listens_on_loopback_alone_and_ctrl_c_stops_it(tables: Path) -> None:
    with Server(tables / "model") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.told == f"model answers at {server.url}\nCtrl-C stops the server\n"
        port = int(server.url.rstrip("/").rpartition(":")[2])
        command = [Path(sys.executable).parent / "collegium", "serve", str(tables / "model"), "--port", str(port)]
        taken = subprocess.run(command, capture_output=True, text=True, check=False)
        assert taken.returncode == 4 and f"127.0.0.1:{port}" in taken.stderr and "--port" in taken.stderr
        with pytest.raises(ConnectionRefusedError):  # also a name of this machine, which a server of all addresses has
            socket.create_connection(("127.0.0.2", port), timeout=2).close()
        assert server.stop() == (0, "server stopped\n", "")


def test_images_come_as_files_in_base64_or_as_pixels(digits: TransferSet, tmp_path: Path) -> None:
    model = load_model(model_of(digits, tmp_path / "model"))
    images = np.array(digits.inputs(digits.of("test")[0], 0, 3)["image"])
    expected = model({"image": images}).softmax(-1).tolist()
    found = answered(model, [{"image": pixels.tolist()} for pixels in images])
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)
    odd_images(tmp_path / "odd")
    files = [base64.b64encode((tmp_path / "odd" / name).read_bytes()).decode() for name in ("la.png", "no_image.jpg")]
    found = answered(
        model, [{"image": files[0]}, {"image": files[1]}, {"image": "???"}, {"image": {"path": "/etc/hosts"}}]
    )
    assert found["scores"] == [None] * 4 and len(found["bad"]) == 4


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_say_their_own_numbers(task: str, tmp_path: Path) -> None:
    model = load_model(model_of(of_task(tmp_path, task), tmp_path / "model"))
    rows = task_table(task).select([f"x{number}" for number in range(6)]).slice(0, 4).to_pylist()
    found = answered(model, rows)
    logits = model({"features": np.array([list(row.values()) for row in rows], np.float32)})
    expected = logits.sigmoid() if task == "multilabel" else logits
    np.testing.assert_allclose(found["scores"], expected.numpy(), rtol=1e-5)
    assert found["classes" if task == "multilabel" else "names"] == list(model.config.classes)


def test_text_comes_as_it_is(tmp_path: Path) -> None:
    rows = pa.table({"text": ["play some music", "my card was stolen"] * 20, "y": np.arange(40) % 2})
    pq.write_table(rows, tmp_path / "rows.pq")
    prepared = prepare(config(tmp_path / "rows.pq", [{"column": "text", "as": "text"}]), tmp_path / "prepared")
    preprocess = Preprocess.model_validate({"ngrams": {"max_length": 40, "buckets": 500}})
    model = load_model(model_of(prepared, tmp_path / "model", preprocess, "students.models:bag", {"dim": 8}))
    texts = ["play it", "", "card 北京"]
    found = answered(model, [{"text": text} for text in [*texts, None, 3]])
    expected = model({"text": np.array(texts, object)}).softmax(-1).numpy()
    np.testing.assert_allclose(found["scores"][:3], expected, rtol=1e-5)
    assert list(found["bad"]) == ["3"] and found["scores"][4] is not None  # 3 is text where the others are


def test_half_a_character_is_a_bad_row_and_no_column_at_all_is_refused(tables: Path) -> None:
    model = load_model(tables / "model")
    rows = rows_of_mixed(2)
    rows[1]["color"] = "\ud800"
    found = answered(model, rows)
    assert found["scores"][0] is not None and "lone surrogate" in found["bad"]["1"]
    with pytest.raises(RecipeError, match="no row has 'age'"):
        of_records(model.config, [{"other": 1}])
