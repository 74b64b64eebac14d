"""An endpoint as a teacher: every answer is paid once and stands at its row, whatever the server and the machine do."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet

from benchmarks.paid import CLASSES, CountingServer, even_or_odd, fill, held, killed_and_filled, numbered, stores
from teachers.config.endpoint import EndpointTeacher
from teachers.errors import BudgetSpent, CollegiumError, EnvironmentUnfit, RecipeError, TeacherError
from teachers.labelling.endpoint import EndpointQuestioner, told_of
from teachers.labelling.journal import Answers, Journal, journal_of, spent_in, unknown_in, write_texts
from teachers.labelling.shard import LabelTask
from teachers.models.checked import check_scores
from teachers.models.endpoint.apis import Question, Told
from teachers.models.endpoint.asked import Asked
from teachers.models.endpoint.purse import Spent, Tokens
from teachers.models.teacher import LoadedTeacher
from teachers.process.variables import masked
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

pytest.importorskip("httpx", reason="httpx is not installed: no endpoint can be asked")

ROWS = 120


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    return numbered(tmp_path_factory.mktemp("numbered"), ROWS)


def config(url: str = "http://x/", **about: Any) -> EndpointTeacher:
    told = {"kind": "endpoint", "version": "1", "rows_per_request": 1, "url": url, **about}
    return EndpointTeacher.model_validate(told)


def said(tasks: list[LabelTask], data: TransferSet) -> dict[int, np.ndarray]:
    """By the number of a row, its probabilities as the store has them."""
    found: dict[int, np.ndarray] = {}
    for task in tasks:
        SoftTargetStore.open(task.store).seal()
        segment, opened = data.segment(task.segment), SoftTargets.open(task.store)
        fields = {name: torch.from_numpy(np.concatenate(values.parts)) for name, values in opened.rows().items()}
        output = opened.spec.answered
        p = output.encodes.decode(fields, output.width, 1e-3).softmax(1).numpy()
        found |= dict(zip(data.inputs(segment)["features"][:, 0].astype(int).tolist(), p, strict=True))
    return found


def check(found: dict[int, np.ndarray], unknown: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    assert set(found) == set(range(ROWS))
    assert {x for x, p in found.items() if np.isnan(p).all()} == unknown
    for x in set(found) - unknown:
        assert np.abs(found[x] - (0.999 * np.array(even_or_odd({"x": x})) + 0.0005)).max() < 3e-3


@pytest.mark.parametrize("rows_per_request", [1, 7, 1000])
def test_every_row_gets_its_own_answer_and_is_paid_once(
    data: TransferSet, tmp_path: Path, rows_per_request: int
) -> None:
    server = CountingServer()
    with server.serving() as url:
        how = config(url, rows_per_request=rows_per_request)
        fill(how, tasks := stores(tmp_path, data, how))
    check(said(tasks, data))
    assert set(server.paid.values()) == {1} and len(server.paid) == ROWS
    assert server.asked[0]["classes"] == list(CLASSES) and server.asked[0]["version"] == "1"
    told = told_of(how, [task.store for task in tasks])
    assert told["spent"]["requests"] == server.num_requests and told["unanswered"] == {}


def once(reply: Any) -> Any:
    """Every third row gets this the first time that it is asked about."""
    met: set[int] = set()

    def fault(number: int, asked: Any) -> Any:
        rows = {int(row["x"]) for row in asked["rows"] if int(row["x"]) % 3 == 0} - met
        met.update(rows)
        return (reply() if callable(reply) else reply) if rows else None

    return fault


WRONG = {
    "429": (429, {}, b"slow down"),
    "429 with a time": (429, {"Retry-After": "0.2"}, b"slow down"),
    "500": (500, {}, b"oops"),
    "503": (503, {}, b"away"),
    "half an answer": (200, {}, None),
    "no JSON": (200, {}, b"<html>"),
    "a list": (200, {}, b"[]"),
    "no scores": (200, {}, b"{}"),
    "rows of another number": (200, {}, b'{"scores": [[0.9, 0.1], [0.9, 0.1]]}'),
    "null": (200, {}, b'{"scores": [null]}'),
    "scores of another number": (200, {}, b'{"scores": [[0.9, 0.05, 0.05]]}'),
    "words": (200, {}, b'{"scores": [["much", 0.1]]}'),
    "NaN": (200, {}, b'{"scores": [[NaN, 0.1]]}'),
    "unnormalised": (200, {}, b'{"scores": [[0.9, 0.9]]}'),
    "a number that no float holds": (200, {}, b'{"scores": [[1' + 400 * b"0" + b", 0.1]]}"),
    "no gzip": (200, {"Content-Encoding": "gzip"}, b'{"scores": [[0.9, 0.1]]}'),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_answer_is_asked_for_again(data: TransferSet, tmp_path: Path, case: str) -> None:
    server = CountingServer(faults=once(WRONG[case]))
    with server.serving() as url:
        fill(how := config(url), tasks := stores(tmp_path, data, how))
    check(said(tasks, data))
    assert server.num_requests == ROWS + ROWS // 3
    assert spent_in_all(tasks).requests == server.num_requests


def spent_in_all(tasks: list[LabelTask]) -> Spent:
    return sum((spent_in(task.store) for task in tasks), Spent())


def test_a_slow_answer_is_asked_for_again(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer()
    met: set[int] = set()

    def slow(asked: Any) -> Any:
        x = int(asked["rows"][0]["x"])
        server.latency_s = 1.0 if x % 40 == 0 and x not in met else 0.0
        met.add(x)
        return {"scores": [even_or_odd(row) for row in asked["rows"]]}

    server.faults = lambda number, asked: slow(asked) and None
    with server.serving() as url:
        fill(how := config(url, timeout_s=0.4), tasks := stores(tmp_path, data, how))
    check(said(tasks, data))
    assert server.num_requests > ROWS


def of_row(bad: int, reply: Any) -> Any:
    return lambda number, asked: reply if any(int(row["x"]) == bad for row in asked["rows"]) else None


@pytest.mark.parametrize(
    ("reply", "tries"), [((500, {}, b"oops"), 3), ((200, {}, b"<html>"), 3), ((400, {}, b"bad words"), 1)]
)
def test_a_row_that_keeps_failing_is_unknown_harms_no_other_and_is_listed(
    data: TransferSet, tmp_path: Path, reply: Any, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = CountingServer(faults=of_row(17, reply))
    with server.serving() as url:
        how = config(url, max_attempts=3)
        fill(how, tasks := stores(tmp_path / "one", data, how))
        assert sum(any(row["x"] == 17 for row in each["rows"]) for each in server.asked) == tries
        check(said(tasks, data), {17})
        many = config(url, rows_per_request=16, max_attempts=2)
        fill(many, more := stores(tmp_path / "many", data, many))
    check(said(more, data), {17})
    (why,) = told_of(how, [task.store for task in tasks])["unanswered"].values()
    assert reply[2].decode() in why
    assert "is unknown" in caplog.text


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((500, {}, b"oops"), r"teachers.asked: http.* did not answer 2 rows, and max_failed_share = 0.01 lets 1 be unknown; by sample_key: \w{16}: HTTP 500: oops"),
        ((200, {}, b'{"scores": []}'), r"did not answer 2 rows.*0 rows of scores for 1 rows that were asked about"),
        ((200, {}, b'{"scores": [[0.5, 0.5]], "classes": ["even", "prime"]}'), r"scores the classes \['even', 'prime'\], asked for were \['even', 'odd'\]"),
        ((401, {}, b"who are you?"), r"refuses what it is asked: HTTP 401: who are you\?; look at `url`, `key`"),
    ],
)  # fmt: skip
def test_a_server_that_fails_everywhere_ends_the_run_with_what_it_said(
    data: TransferSet, tmp_path: Path, reply: Any, why: str
) -> None:
    server = CountingServer(faults=lambda number, asked: reply)
    with server.serving() as url, pytest.raises(TeacherError, match=why):
        fill(how := config(url, max_attempts=2), stores(tmp_path, data, how))


def test_a_server_that_is_away_costs_no_row_and_ends_the_run_after_a_while(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer(faults=lambda number, asked: (503, {}, b"back soon"))
    with server.serving() as url:
        tasks = stores(tmp_path, data, config(url))
        with pytest.raises(
            TeacherError, match=r"has not answered for [\d.]+ s, and patience_s is 0.5: HTTP 503: back soon"
        ):
            fill(config(url, patience_s=0.5), tasks)
        server.faults = lambda number, asked: (429, {"Retry-After": "1000"}, b"tomorrow")
        with pytest.raises(TeacherError, match=r"asks for 1000 s more, and patience_s is 300: HTTP 429: tomorrow"):
            fill(config(url), tasks)
        server.faults = lambda number, asked: None
        fill(config(url), tasks)
    check(said(tasks, data))
    with pytest.raises(TeacherError, match=r"has not answered for [\d.]+ s, and patience_s is 0.2: ConnectError"):
        fill(how := config("http://127.0.0.1:9/", patience_s=0.2), stores(tmp_path / "none", data, how))


def test_a_budget_ends_labelling_and_a_higher_one_goes_on(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer(latency_s=0.01)
    with server.serving() as url:
        tasks = stores(tmp_path, data, config(url))
        for most in (0, 30, 70):
            with pytest.raises(BudgetSpent) as ended:
                fill(config(url, budget={"requests": most}), tasks)
            assert server.num_requests == most
            assert f"{most} requests (of {most})" in str(ended.value)
            assert f"{most} of {ROWS} rows are answered, and kept: a higher `budget` goes on" in str(ended.value)
        fill(config(url, budget={"requests": ROWS}), tasks)
    check(said(tasks, data))
    assert server.num_requests == ROWS
    assert BudgetSpent.exit_code == 3


@pytest.mark.parametrize("budget", [{"tokens": 300}, {"money": 0.003}])
def test_a_budget_of_tokens_or_money_is_kept_to(data: TransferSet, tmp_path: Path, budget: dict[str, float]) -> None:
    server = CountingServer(latency_s=0.01)
    server.answer = lambda asked: {
        "scores": [even_or_odd(row) for row in asked["rows"]],
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    price = {"million_input_tokens": 10, "million_output_tokens": 10}
    with server.serving() as url, pytest.raises(BudgetSpent, match=r"by its prices"):
        fill(how := config(url, budget=budget, price=price), tasks := stores(tmp_path, data, how))
    spent = spent_in_all(tasks)
    assert spent.within(how.budget, how.price)
    assert spent.requests == 30 and spent.tokens == 10 * spent.requests


def test_answers_outlive_processes_that_are_killed_and_none_is_bought_twice(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer(latency_s=0.02, limit_per_s=100)
    with server.serving() as url:
        how = config(url, limits={"requests_per_minute": 6000})
        killed_and_filled(server, how, tasks := stores(tmp_path, data, how), kills=3, most_s=0.25)
    check(said(tasks, data))
    assert server.bought_again == []
    assert sum(server.paid.values()) == ROWS and set(server.paid.values()) == {1}
    assert held(tasks) == set(range(ROWS))
    assert spent_in_all(tasks).requests >= server.num_requests  # some were killed on their way to it


def journal(path: Path, **about: Any) -> Journal:
    return Journal(path, "d" * 64, 2, **about)


def test_a_torn_last_line_is_cut_off_and_all_before_it_stays(tmp_path: Path) -> None:
    path, keys = journal_of(tmp_path, 0), np.arange(5, dtype=np.uint64)
    with journal(path) as written:
        for key in range(5):
            answer(written, key, 0.1 * key)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in {last + 1, last + (len(whole) - last) // 2, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        with journal(path) as again:
            assert [again.has(key) for key in range(5)] == [True] * 4 + [False]
            assert again.of(keys[:4]).tolist() == written.of(keys[:4]).tolist()
            answer(again, 4, 0.5)
        with journal(path) as again:
            assert again.has(4)
    path.write_bytes(whole + bytes(100))  # what a file system may leave of a line that was not on the disk
    with journal(path) as again:
        assert again.of(keys).tolist() == written.of(keys).tolist()
    for _ in range(2):
        with pytest.raises(CollegiumError, match=r"holds answers of d+, not of e+"):
            Journal(path, "e" * 64, 2)


def answer(kept: Journal, key: int, p: float) -> None:
    kept.answered(kept.sent(Tokens(3, 0)), {key: Told(np.array([p, 1 - p], np.float32))}, Tokens(2, 1))


def test_what_a_killed_process_had_under_way_counts_as_spent(tmp_path: Path) -> None:
    with journal(journal_of(tmp_path, 0)) as written:
        answer(written, 1, 0.5)
        written.sent(Tokens(10, 5))
    assert spent_in(tmp_path) == Spent(2, 12, 6)
    with journal(journal_of(tmp_path, 0)) as again:
        again.finish({2: "why"})
    assert spent_in(tmp_path) == Spent(2, 12, 6)
    assert len(journal_of(tmp_path, 0).read_text().splitlines()) == 3


def test_one_process_at_a_time_appends_to_a_journal(tmp_path: Path) -> None:
    with journal(journal_of(tmp_path, 0)) as first:
        script = f"from tests.test_endpoint import *; print(journal(journal_of(Path({str(tmp_path)!r}), 0)).has(7))"
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        while not _has_open(other.pid, journal_of(tmp_path, 0)):
            time.sleep(0.05)
        answer(first, 7, 0.5)
    assert other.communicate()[0].strip() == "True"


def _has_open(pid: int, path: Path) -> bool:
    return any(os.path.realpath(each) == str(path) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_a_server_whose_limit_nobody_told_is_asked_as_fast_as_it_lets(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer(latency_s=0.02, limit_per_s=100)
    with server.serving() as url:
        fill(how := config(url), tasks := stores(tmp_path, data, how))
    check(said(tasks, data))
    assert server.busy < ROWS / 2


def test_it_answers_about_rows_as_a_student_sees_them(data: TransferSet) -> None:
    server = CountingServer(faults=once((500, {}, b"oops")))
    with server.serving() as url:
        questioner = EndpointQuestioner("live", config(url, mode="live"), data)
        inputs = {"features": np.array([[4.0], [4.0], [7.0]], np.float32)}
        p = np.exp(questioner.ask(inputs, np.array([5, 5, 9], np.uint64)))
    assert np.allclose(p, [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]], atol=2e-3)


def test_a_key_goes_with_requests_and_stands_nowhere(
    data: TransferSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "sesame-1234")
    for header, expected in (("Authorization", "Bearer sesame-1234"), ("api-key", "sesame-1234")):
        server = CountingServer()
        with server.serving() as url:
            how = config(url, key="${ENDPOINT_KEY}", key_header=header)
            fill(how, stores(tmp_path / header, data, how))
        assert {each[header.lower()] for each in server.headers} == {expected}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    with pytest.raises(ValueError, match="key"):
        config("http://x/", key="sesame-1234")


def test_a_key_that_ends_with_a_new_line_is_the_key_and_one_that_is_none_is_not_shown(
    data: TransferSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "sesame-1234\n")
    server = CountingServer(faults=of_row(17, (400, {}, b"not for sesame-1234")))
    with server.serving() as url:
        how = config(url, key="${ENDPOINT_KEY}")
        fill(how, tasks := stores(tmp_path, data, how))
    assert {each["authorization"] for each in server.headers} == {"Bearer sesame-1234"}
    told = told_of(how, [task.store for task in tasks])["unanswered"]
    assert list(told.values()) == ["HTTP 400: not for ${ENDPOINT_KEY}"]
    assert masked(repr("Bearer sesame-1234\n")) == r"'Bearer ${ENDPOINT_KEY}\n'"
    for wrong in ("sesame\n1234", "sésame-1234", " \n"):
        monkeypatch.setenv("ENDPOINT_KEY", wrong)
        with pytest.raises(
            EnvironmentUnfit, match=r"^key: what the environment has as \$\{ENDPOINT_KEY\} is"
        ) as refused:
            EndpointQuestioner("asked", how, data)
        assert "same" not in str(refused.value)


def first_shard(task: LabelTask, data: TransferSet) -> tuple[SoftTargetStore, np.ndarray, dict[str, np.ndarray]]:
    """A store, and the keys and inputs of its first shard."""
    store, segment = SoftTargetStore.open(task.store), data.segment(task.segment)
    rows = slice(0, store.shard_rows(0)[1])
    return store, data.keys(segment)[rows], {name: values[rows] for name, values in data.inputs(segment).items()}


def test_a_server_that_knows_requests_gives_no_question_the_answer_to_another(
    data: TransferSet, tmp_path: Path
) -> None:
    server = CountingServer()
    with server.serving() as url:
        how = config(url, mode="live")
        questioner = EndpointQuestioner("live", how, data)
        keys = np.arange(2, dtype=np.uint64)
        for x in ([4.0, 7.0], [7.0, 4.0], [7.0, 4.0]):
            p = np.exp(questioner.ask({"features": np.array([x], np.float32).T}, keys))
            assert (p[:, 0] > 0.5).tolist() == [each == 4.0 for each in x]
        assert server.replayed == 0  # of a live teacher every batch is asked about anew
        journals = []
        for folder, more in (("old", 0), ("corrected", 1), ("again", 1)):
            store, keys, inputs = first_shard(stores(tmp_path / folder, data, config(url))[0], data)
            asker = EndpointQuestioner("asked", config(url), data, [store])
            with Journal(journal_of(store.folder, 0), store.spec.teacher_digest, 2) as kept:
                asked = Asked({"features": inputs["features"] + more}, keys, kept)
                asyncio.run_coroutine_threadsafe(asker.client.ask(asked), asker.loop).result(60)
                journals.append(kept.of(keys))
    assert ((journals[0] > 0.5) != (journals[1] > 0.5)).all()
    assert (journals[1] == journals[2]).all() and server.replayed == len(keys)


def test_a_full_disk_ends_asking_and_loses_no_answer(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with server.serving() as url:
        store, keys, inputs = first_shard(stores(tmp_path, data, config(url))[0], data)
        questioner = EndpointQuestioner("asked", config(url), data, [store])
        path = journal_of(store.folder, 0)
        with Journal(path, store.spec.teacher_digest, 2) as kept:
            for size in (path.stat().st_size + 5, 2000):
                asking = questioner.client.ask(Asked(inputs, keys, kept))
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # a write that would pass it is cut short there
                try:
                    with pytest.raises(EnvironmentUnfit, match="make room there"):
                        asyncio.run_coroutine_threadsafe(asking, questioner.loop).result(30)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                questioner = EndpointQuestioner("asked", config(url), data, [store])
            had = [key for key in keys.tolist() if kept.has(key)]
            assert 0 < len(had) < len(keys)
        with Journal(path, store.spec.teacher_digest, 2) as again:
            assert [key for key in keys.tolist() if again.has(key)] == had
        questioner.label(store, 0, keys, inputs)
        assert store.has(0)


def test_a_shard_that_another_has_committed_meanwhile_is_not_bought_again(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer()
    with server.serving() as url:
        store, keys, inputs = first_shard(stores(tmp_path, data, config(url))[0], data)
        questioner = EndpointQuestioner("asked", config(url), data, [store])
        record = questioner.label(store, 0, keys, inputs)
        assert questioner.label(store, 0, keys, inputs) == record
    assert server.num_requests == len(keys)


class Killed(BaseException):
    pass


class DiesWhenCommitted(SoftTargetStore):
    def commit(self, *args: Any) -> Any:
        super().commit(*args)
        raise Killed


def test_rows_that_are_unknown_are_known_as_such_when_and_only_when_their_shard_is_committed(
    data: TransferSet, tmp_path: Path
) -> None:
    server = CountingServer(faults=of_row(17, (400, {}, b"bad words")))
    with server.serving() as url:
        how = config(url, max_failed_share=1)
        tasks = stores(tmp_path, data, how)
        (task,) = [each for each in tasks if 17 in data.inputs(data.segment(each.segment))["features"][:, 0]]
        store, keys, inputs = first_shard(task, data)
        key = int(keys[inputs["features"][:, 0].tolist().index(17)])
        with Journal(journal_of(store.folder, 0), store.spec.teacher_digest, 2) as journal:
            journal.note_unknown({key: "once", 1: "answered since"})
        assert unknown_in(store) == {}
        questioner = EndpointQuestioner("asked", how, data, [store])
        with pytest.raises(Killed):
            questioner.label(DiesWhenCommitted.open(task.store), 0, keys, inputs)
    assert unknown_in(store) == {key: "HTTP 400: bad words"}


def test_an_address_that_is_none_is_the_recipe_s_mistake(data: TransferSet, tmp_path: Path) -> None:
    how = config("http://localhost:port/")
    with pytest.raises(RecipeError, match=r"teachers\.asked\.url: 'http://localhost:port' is no address: Invalid port"):
        fill(how, stores(tmp_path, data, how))


def test_probabilities_of_several_classes_at_once_lie_between_0_and_1() -> None:
    question = Question.of(config(), CLASSES, ["x"], "class_set")
    told = question.told({"scores": [[0.9, 0.9], [1.7, 0.1], [-0.5, 0.1]]}, 3)
    assert [bool(each.why_not) for each in told] == [False, True, True]
    assert told[1].why_not == "[1.7, 0.1] are no `probabilities`, which lie between 0 and 1"
    logits = Question.of(config(output="logits"), CLASSES, ["x"], "class_set")
    assert not logits.told({"scores": [[1.7, -5]]}, 1)[0].why_not


def test_half_a_character_in_a_text_keeps_no_shard_from_its_table(tmp_path: Path) -> None:
    kept = Answers(2)
    kept.answered(1, {7: Told(np.array([0.5, 0.5], np.float32), text="odd \ud83d")}, Tokens())
    write_texts(tmp_path, 0, kept)
    assert parquet.read_table(tmp_path / "texts" / "000000.parquet").to_pydict() == {
        "sample_key": [7],
        "text": ["odd ?"],
    }


def test_what_it_wrote_is_kept_beside_its_answers(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer()
    server.answer = lambda asked: {
        "scores": [even_or_odd(row) for row in asked["rows"]],
        "texts": [f"{row['x']} by two" for row in asked["rows"]],
    }
    with server.serving() as url:
        how = config(url, keep="text", rows_per_request=10)
        fill(how, tasks := stores(tmp_path, data, how))
    kept = {}
    for task in tasks:
        segment = data.segment(task.segment)
        x = dict(zip(data.keys(segment).tolist(), data.inputs(segment)["features"][:, 0].tolist(), strict=True))
        for file in (task.store / "texts").glob("*.parquet"):
            table = parquet.read_table(file).to_pydict()
            kept |= {x[key]: text for key, text in zip(table["sample_key"], table["text"], strict=True)}
    assert kept == {float(x): f"{x} by two" for x in range(ROWS)}


def test_a_budget_that_no_price_counts_and_the_like_are_refused() -> None:
    for about, why in (
        ({"budget": {"money": 1}}, "needs a `price`"),
        ({"mode": "live", "budget": {"requests": 1}}, "leave `budget` out"),
        ({"replicas": 2}, "leave `replicas` out"),
        ({"prompt": "{{ x }}"}, "leave `prompt` out"),
        ({"api": "chat"}, "needs a `prompt`"),
        ({"api": "chat", "prompt": "{{ x }}"}, "needs `model_name`"),
        ({"version": ""}, "version"),
        ({"url": "ftp://x"}, "url"),
    ):
        with pytest.raises(ValueError, match=why):
            config(**about)


def test_the_json_of_a_journal_is_readable(data: TransferSet, tmp_path: Path) -> None:
    server = CountingServer(latency_s=0.01)
    with server.serving() as url, pytest.raises(BudgetSpent):
        fill(config(url, budget={"requests": 10}), tasks := stores(tmp_path, data, config(url)))
    lines = [json.loads(line) for task in tasks for path in task.store.glob("journals/*") for line in path.open()]
    assert sum("sent" in line for line in lines) == sum("done" in line for line in lines) == 10


def test_an_answer_at_the_edge_of_what_is_taken_never_ends_a_run(data: TransferSet) -> None:
    """Whatever the endpoint's reader takes, the check of all teachers takes: else answers that are paid for would end it."""
    keys = np.arange(1, dtype=np.uint64)
    for output in ("probabilities", "log_probabilities"):
        question = Question.of(config(output=output), CLASSES, ["x"])
        teacher = LoadedTeacher(CLASSES, output, lambda batch: batch["x"])
        num_taken = 0
        for total in (edge + step * 1e-6 for edge in (0.99, 1.01) for step in range(-40, 41)):
            p = np.array([total / 3, total - total / 3])
            said = (np.log(p) if output == "log_probabilities" else p).astype(np.float32)
            (told,) = question.told({"scores": [said.tolist()]}, 1)
            if told.scores is not None:
                assert check_scores(told.scores[None], teacher, "asked", keys).tolist() == [said.tolist()]
                num_taken += 1
        assert 0 < num_taken < 162


def test_a_journal_that_cannot_be_opened_is_closed_again(tmp_path: Path) -> None:
    """It would be locked as long as this process lives: the next try would wait for itself for ever."""
    path = journal_of(tmp_path, 0)
    with journal(path) as written:
        answer(written, 1, 0.5)
    whole = path.read_bytes()
    broken = [b'{"said": {"no key": [[0.1, 0.9], null, null]}}\n', b'{"said": 3}\n', b'{"said": {"1": []}}\n']
    for line in broken:
        path.write_bytes(whole + line)
        with pytest.raises(CollegiumError, match=r"000000.jsonl: line 4 is no answer .*; move it away"):
            journal(path)
        assert not _has_open(os.getpid(), path)
    path.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(EnvironmentUnfit, match="make room there"):
            journal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not _has_open(os.getpid(), path)
    with journal(path) as again:
        answer(again, 1, 0.5)
