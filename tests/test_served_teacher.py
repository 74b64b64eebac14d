"""A delivered student teaches from where it is served: `collegium serve`, asked by a `kind: endpoint` teacher, says what the model says."""

import datetime
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from students.delivering.serving import answered, described
from students.measuring.judged import Voice
from students.measuring.labelled import Labelled
from students.measuring.mistakes import worst_mistakes
from teachers.config.endpoint import EndpointTeacher
from teachers.labelling.endpoint import EndpointQuestioner
from teachers.models.endpoint.rows import Fields
from teachers.models.folder import load_model
from teachers.preparing.prepare import prepare
from teachers.transfer_set.transfer_set import TransferSet

from .task_runs import prepared as of_task
from .test_mixed_tables import INPUTS, config, mixed
from .test_predict import model_of
from .test_serve import Server

httpx = pytest.importorskip("httpx", reason="httpx is not installed: no endpoint can be asked")

OUTPUTS = {"classification": "logits", "multilabel": "logits", "regression": "values"}


def asked(url: str, data: TransferSet, output: str, **about: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(what a teacher at `url` says of the training rows, these rows)."""
    told = {"kind": "endpoint", "url": url, "version": "1", "output": output, "rows_per_request": 100, **about}
    segment = data.of("train")[0]
    questioner = EndpointQuestioner("served", EndpointTeacher.model_validate(told), data)
    inputs = data.inputs(segment)
    return questioner.ask(inputs, data.keys(segment)), inputs


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_served_student_says_as_a_teacher_what_it_says_as_a_student(task: str, tmp_path: Path) -> None:
    if task == "classification":
        pq.write_table(mixed(), tmp_path / "data.pq")
        data = prepare(config(tmp_path / "data.pq", INPUTS, id="id"), tmp_path / "prepared")
    else:
        data = of_task(tmp_path, task)
    folder = model_of(data, tmp_path / "model")
    with Server(folder) as server:
        said, inputs = asked(server.url, data, OUTPUTS[task])
        sure, _ = asked(server.url, data, {"regression": "values"}.get(task, "probabilities"))
    expected = load_model(folder)(inputs)
    assert torch.isfinite(expected).all() and not np.isnan(said).any()
    np.testing.assert_allclose(said, expected, atol=1e-5, rtol=1e-5)
    if task != "regression":
        share = (lambda x: torch.as_tensor(x).softmax(-1)) if task == "classification" else (lambda x: torch.as_tensor(x).sigmoid())  # fmt: skip
        np.testing.assert_allclose(share(sure), share(expected), atol=2e-3)  # E of a probability_floor apart


DAY = datetime.date(2020, 2, 28)
ROWS = 120


def moments() -> list[datetime.datetime]:
    return [datetime.datetime(1969, 12, 31, 23, 59, 59, 250_000) + n * datetime.timedelta(days=91, seconds=n, microseconds=7) for n in range(ROWS)]  # fmt: skip


def dated() -> tuple[pa.Table, list[Any]]:
    """Dates as sources hold them, some of which are missing, and how a recipe takes them."""
    gap = np.arange(ROWS) % 7 == 3
    columns = {
        "day": pa.array([DAY + datetime.timedelta(days=n) for n in range(ROWS)], pa.date32(), mask=gap),
        "at": pa.array(moments(), pa.timestamp("us")),
        "near": pa.array(moments(), pa.timestamp("ms")),
        "written": [f"{(DAY + datetime.timedelta(days=n)):%d.%m.%Y}" for n in range(ROWS)],
        "iso": [f"{(DAY + datetime.timedelta(days=n)).isoformat()}T08:30:00+02:00" for n in range(ROWS)],
        "took": pa.array([datetime.timedelta(seconds=n / 8) for n in range(ROWS)], pa.duration("us")),
        "hour": pa.array([datetime.time(n % 24, n % 60) for n in range(ROWS)], pa.time32("s")),
    }
    about = {"day": {"missing": "allow"}, "at": {"unit": "seconds"}, "near": {"unit": "hours"}, "written": {"format": "%d.%m.%Y"}}  # fmt: skip
    inputs = [{"column": name, "as": "date", **about.get(name, {})} for name in columns]
    return pa.table({**columns, "y": np.arange(ROWS) % 2}), inputs


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferSet, Path]:
    folder = tmp_path_factory.mktemp("dates")
    table, inputs = dated()
    pq.write_table(table, folder / "data.pq")
    data = prepare(config(folder / "data.pq", inputs), folder / "prepared")
    return data, model_of(data, folder / "model")


def test_dates_are_told_as_dates_and_come_back_to_the_microsecond(dates: tuple[TransferSet, Path]) -> None:
    data, folder = dates
    segment = data.of("train")[0]
    inputs = data.inputs(segment)
    rows = Fields.of(data.columns, data.made_of).rows(inputs)
    table, _ = dated()
    days = {None, *(each.isoformat() for each in table["day"].to_pylist() if each is not None)}
    assert {row["day"] for row in rows} <= days and any(row["day"] is None for row in rows)
    assert {row["at"] for row in rows} <= {f"{each.isoformat()}Z" for each in moments()}
    assert {row["written"] for row in rows} <= {(DAY + datetime.timedelta(days=n)).isoformat() for n in range(ROWS)}
    assert all(row["iso"].endswith("T06:30:00Z") for row in rows)  # 08:30 two hours east of Greenwich
    assert all(isinstance(row["took"], int | float) and isinstance(row["hour"], int | float) for row in rows)
    model = load_model(folder)
    said = answered(model, rows, "logits")
    assert not said["bad"]
    np.testing.assert_allclose(said["scores"], model(inputs), atol=1e-5)


def test_a_report_tells_the_dates_of_wrong_rows_as_dates(dates: tuple[TransferSet, Path]) -> None:
    rows = Labelled.of(dates[0], "test")
    wrong = torch.nn.functional.one_hot(1 - rows.labels.long(), 2).float() * 5
    found = worst_mistakes(Voice(wrong), wrong, rows)
    assert found
    for mistake in found:
        (shown,) = mistake["inputs"]
        told = dict(zip(shown["names"], shown["values"], strict=True))
        assert told["written"].startswith("2020-") and told["at"].endswith("Z") and isinstance(told["took"], float)


def test_a_date_of_a_request_is_text_in_its_format_or_iso_or_a_number(dates: tuple[TransferSet, Path]) -> None:
    model = load_model(dates[1])
    assert described(model, "m")["takes"] == dict.fromkeys(
        ["day", "at", "near", "written", "iso", "took", "hour"], "date"
    )
    row = {"day": "2020-03-01", "at": 1e9, "near": "2001-09-09", "written": "01.03.2020", "iso": "2020-03-01", "took": 0.5, "hour": 0.25}  # fmt: skip
    days = (datetime.date(2020, 3, 1) - datetime.date(1970, 1, 1)).days
    same = [row, row | {"day": days}, row | {"written": "2020-03-01"}, row | {"at": "2001-09-09T01:46:40Z"}]
    wrong = [row | {"written": "30.02.2020"}, row | {"at": True}, row | {"iso": None}, row | {"day": 10**400}]
    said = answered(model, [*same, *wrong, row | {"day": None}])
    assert said["scores"][:4] == [said["scores"][0]] * 4 and said["scores"][8] is not None
    assert said["bad"] == {
        "4": "written is '30.02.2020', no date like %d.%m.%Y",
        "5": "at is True, no date",
        "6": "iso is missing; `missing: allow` takes that",
        "7": "day is inf, not a finite float32",
    }


def test_a_server_of_the_new_loopback_address_tells_a_url_that_can_be_asked(dates: tuple[TransferSet, Path]) -> None:
    if not has_new_loopback():
        pytest.skip("this machine has no ::1")
    with Server(dates[1], "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        with urllib.request.urlopen(server.url, timeout=60) as answer:
            assert answer.status == 200
        port = server.url.rstrip("/").rpartition(":")[2]
        for name, status in ((f"localhost:{port}", 200), ("[::1]", 200), ("LOCALHOST", 200), ("evil.example", 400), ("[::2]", 400), ("[", 400)):  # fmt: skip
            assert server.ask({"rows": []}, Host=name)[0] == status, name


def has_new_loopback() -> bool:
    import socket

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
