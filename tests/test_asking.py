"""A `callable` teacher that asks elsewhere: rows that failed are asked again, they alone, after growing pauses."""

import json
import logging
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from orchestrator.stages.keys import label_stage
from teachers.config.teacher import CallableTeacher
from teachers.errors import AskAgain, TeacherError, UsersCodeError
from teachers.models.asking import asked_until_answered
from teachers.users_code.calls import calling

ROWS = {"x": np.arange(6.0)}


class Server(ThreadingHTTPServer):
    """Doubles numbers; the first `busy` requests of each number get 503, and a header that says when to come again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: Counter[float] = Counter()
        self.busy: dict[float, int] = {}
        self.headers: dict[str, str] = {}
        self.status = 503

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.update(rows)
        is_busy = any(self.server.asked[x] <= self.server.busy.get(x, 0) for x in rows)
        self.send_response(self.server.status if is_busy else 200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps([[x, 2 * x] for x in rows]).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def post(url: str, rows: list[float]) -> Any:
    with urllib.request.urlopen(url, json.dumps(rows).encode(), timeout=30) as answer:
        return json.load(answer)


def row_by_row(url: str) -> Any:
    """A user's function that says which rows it could not answer."""

    def ask(batch: Any) -> Any:
        answers = []
        for x in batch["x"].tolist():
            try:
                answers.append(post(url, [x])[0])
            except OSError:
                answers.append(None)
        return answers

    return ask


def whole(url: str) -> Any:
    """A user's function that knows of no mistakes."""

    def ask(batch: Any) -> Any:
        with calling("function", "mine:ask"):
            return np.array(post(url, batch["x"].tolist()))

    return ask


def asked(function: Any, retries: int = 5, pause_s: float = 0.0) -> np.ndarray:
    return np.asarray(asked_until_answered(function, ROWS, "mine:ask", retries=retries, pause_s=pause_s))


def test_failed_rows_alone_are_asked_again_and_every_answer_stands_in_its_place(server: Server) -> None:
    server.busy = {2.0: 1, 4.0: 3}
    assert np.array_equal(asked(row_by_row(server.url)), np.stack([ROWS["x"], 2 * ROWS["x"]], 1))
    assert server.asked == {0.0: 1, 1.0: 1, 2.0: 2, 3.0: 1, 4.0: 4, 5.0: 1}


def test_a_batch_that_nobody_answered_is_asked_again_whole(server: Server) -> None:
    server.busy = {0.0: 2}
    assert np.array_equal(asked(whole(server.url))[:, 1], 2 * ROWS["x"])
    assert set(server.asked.values()) == {3}


def test_pauses_grow_and_are_at_least_what_the_server_asks_for(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.busy = {0.0: 3}
    with caplog.at_level(logging.WARNING):
        begun = time.monotonic()
        asked(whole(server.url), pause_s=0.05)
    assert time.monotonic() - begun >= 0.05 + 0.1 + 0.2
    assert [line.rpartition(" in ")[2] for line in caplog.messages] == ["0.05 s", "0.1 s", "0.2 s"]
    assert "6 of 6 rows (HTTPError: HTTP Error 503" in caplog.messages[0]
    server.asked.clear()
    server.headers, server.busy = {"Retry-After": "1"}, {0.0: 1}
    caplog.clear()
    asked(whole(server.url))
    assert "again in 1 s" in caplog.messages[0]


def test_rows_that_stay_unanswered_end_the_work_with_their_number(server: Server) -> None:
    server.busy = {2.0: 9, 3.0: 9}
    with pytest.raises(TeacherError, match=r"mine:ask could not answer 2 of 6 rows in 3 tries"):
        asked(row_by_row(server.url), retries=2)
    assert server.asked[2.0] == 3 and server.asked[0.0] == 1


@pytest.mark.parametrize("status,tries", [(429, 2), (500, 2), (504, 2), (400, 1), (401, 1), (404, 1)])
def test_what_another_try_would_get_again_is_not_tried(server: Server, status: int, tries: int) -> None:
    server.busy, server.status = {0.0: 1}, status
    if tries == 1:
        with pytest.raises(UsersCodeError, match=f"HTTP Error {status}"):
            asked(whole(server.url))
    else:
        asked(whole(server.url))
    assert server.asked[0.0] == tries


def test_a_server_that_is_not_there_is_asked_again_and_a_mistake_in_the_code_is_not() -> None:
    with pytest.raises(TeacherError, match=r"6 of 6 rows in 2 tries \(URLError: .*refused"):
        asked(whole("http://127.0.0.1:9"), retries=1)

    def wrong(batch: Any) -> Any:
        with calling("function", "mine:ask"):
            return batch["y"]

    with pytest.raises(UsersCodeError, match="KeyError"):
        asked(wrong)


def test_a_function_may_say_itself_when_to_ask_again(caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def ask(batch: Any) -> Any:
        tries.append(len(batch["x"]))
        if len(tries) == 1:
            with calling("function", "mine:ask"):
                raise AskAgain("the quota of this minute", after_s=0.01)
        return [None if len(tries) == 2 and x > 3 else [x] for x in batch["x"]]

    assert np.array_equal(asked(ask)[:, 0], ROWS["x"])
    assert tries == [6, 6, 2] and "(the quota of this minute)" in caplog.messages[0]


def test_answers_of_another_number_or_length_are_refused() -> None:
    with pytest.raises(TeacherError, match="gave 6 answers for the 1 rows that were left"):
        asked(lambda batch: [None, *[[1.0]] * 5])
    with pytest.raises(TeacherError, match="answered some rows otherwise than others"):
        asked(lambda batch: [[1.0]] * 5 + [None] if len(batch["x"]) == 6 else [[1.0, 2.0]])


def test_how_often_is_asked_again_is_in_no_key() -> None:
    keys = {
        label_stage(CallableTeacher(kind="callable", function="json:loads", output="logits", **given), "a", ("t", "0"), "w", [], "s").key
        for given in ({}, {"retries": 9}, {"retry_pause_s": 0.1})
    }  # fmt: skip
    assert len(keys) == 1
