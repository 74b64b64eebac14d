"""What an endpoint is asked, and what its words mean: prompts over columns, first tokens, votes, JSON; and what `plan` tells of it."""

import base64
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from benchmarks.paid import CountingServer, fill, numbered, stores
from orchestrator.planning.planning import plan
from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import label_stage, teacher_digest
from teachers.config.endpoint import EndpointTeacher
from teachers.errors import EnvironmentUnfit, RecipeError, TeacherError
from teachers.labelling.endpoint import EndpointQuestioner
from teachers.models.endpoint.apis import Question
from teachers.models.endpoint.prompts import Prompt
from teachers.models.endpoint.rows import Fields
from teachers.models.endpoint.words import NoAnswer, of_first_token, of_json, of_word
from teachers.transfer_set.columns import Column
from teachers.transfer_set.transfer_set import TransferSet

httpx = pytest.importorskip("httpx", reason="httpx is not installed: no endpoint can be asked")

WORDS = ["even", "odd"]
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "answers.md"


def config(**about: Any) -> EndpointTeacher:
    chat = {"api": "chat", "model_name": "m", "prompt": "Is {{ x }} {{ classes | join(' or ') }}?"}
    return EndpointTeacher.model_validate({"kind": "endpoint", "url": "http://x/v1", "version": "1", **chat, **about})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    colour = np.array(["red", "blue"])[np.arange(30) % 2]
    return numbered(tmp_path_factory.mktemp("rows"), 30, colour=colour.tolist(), half=(np.arange(30) / 8).tolist())


def test_rows_are_told_by_the_columns_of_their_source(data: TransferSet) -> None:
    fields = Fields.of(data.columns, data.made_of)
    assert set(fields.names) == {"x", "half", "colour"}
    segment = data.of("train")[0]
    rows = fields.rows(data.inputs(segment))
    assert sorted(row["x"] for row in rows) == sorted(data.inputs(segment)["features"][:, 0].astype(int).tolist())
    assert all(row["half"] == row["x"] / 8 and row["colour"] == ("red", "blue")[row["x"] % 2] for row in rows)
    assert fields.rows(data.inputs(segment), {"x"}) == [{"x": row["x"]} for row in rows]


def test_text_images_lists_and_what_is_missing_are_told_too() -> None:
    columns = [
        Column("note", "text", (), (), ()),
        Column("image", "image", (2, 3, 1), (), ()),
        Column("features", "number", (2,), (), ()),
        Column("categories", "category", (1,), (), (), names=("c",), values=(("a", "b"),)),
    ]
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    batch = {
        "note": np.array(["é\0\n{{ x }}"], object),
        "image": pixels,
        "features": np.array([[0.1, np.nan]], np.float32),
        "categories": np.array([[0]], np.int32),
    }
    (row,) = Fields.of(columns, [{"name": "features", "sources": ["features"]}]).rows(batch)
    assert (row["note"], row["features"], row["c"]) == ("é\0\n{{ x }}", [0.1, None], None)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"])))), pixels[0, ..., 0])
    prompt = Prompt("{{ note }}|{{ c }}", "prompt", ["note", "c"], WORDS)
    assert prompt(row) == "é\0\n{{ x }}|"  # what a row says is no template, and what is missing is empty


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("What is it?", r"prompt: names no column, so it asks the same of every row; `\{\{ x \}\}`"),
        ("{{ classes }}", "prompt: names no column"),
        ("{{ colou }}", r"prompt: no column 'colou'; did you mean 'colour'\?"),
        ("a\n{{ x ", "prompt: line 2:"),
        ("{% for %}", "prompt: line 1:"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        Prompt(text, "prompt", ["x", "colour"], WORDS)


@pytest.mark.parametrize(
    "text", ["{{ x.__class__.__mro__ }}", "{{ x / 0 }}", "{{ row['none'] + 1 }}", "{{ x.upper.y }}"]
)
def test_a_prompt_that_reaches_too_far_or_fails_is_one_line(text: str) -> None:
    with pytest.raises(TeacherError, match="prompt: cannot be filled in"):
        Prompt(text, "prompt", ["x"], WORDS)({"x": 1})


def test_a_first_token_s_probability_goes_to_the_one_class_that_it_begins() -> None:
    log = math.log
    p = of_first_token({"even": log(0.5), " Even": log(0.1), "o": log(0.2), "?": log(0.15)}, WORDS)
    assert np.allclose(p, [0.75, 0.25])
    with pytest.raises(NoAnswer, match="its first token is 'The'"):
        of_first_token({"The": log(0.9), "even": log(0.05)}, WORDS)
    with pytest.raises(NoAnswer):  # begins both
        of_first_token({"re": log(0.9)}, ["red", "reddish"])
    with pytest.raises(NoAnswer):
        of_first_token({}, WORDS)
    for odd in (math.nan, math.inf):  # JSON as Python reads it may hold them
        with pytest.raises(NoAnswer, match="'even' has the log-probability"):
            of_first_token({"even": odd, "odd": log(0.5)}, WORDS)
    assert of_first_token({"even": -math.inf, "odd": log(0.5)}, WORDS).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "place"),
    [("even", 0), (" Odd.", 1), ('"odd"\n', 1), ("It is **even**!", 0), ("Even", 0)],
)
def test_a_word_names_its_class(text: str, place: int) -> None:
    assert of_word(text, WORDS) == place


@pytest.mark.parametrize("text", ["", "unevenly", "neither", "even or odd", "eve"])
def test_a_text_that_names_no_class_or_several_is_no_answer(text: str) -> None:
    with pytest.raises(NoAnswer, match="of the classes 'even', 'odd'"):
        of_word(text, WORDS)


def test_an_object_of_json_is_a_class_or_numbers() -> None:
    assert of_json('{"class": "odd"}', WORDS).tolist() == [0, 1]
    for text in (
        '{"even": 3, "odd": 1}',
        '{"probabilities": {"even": 0.75, "odd": 0.25}}',
        '{"even": 0.75, "odd": 0.25}',
    ):
        assert np.allclose(of_json(text, WORDS), [0.75, 0.25])
    for wrong in (
        "even",
        "[1, 2]",
        "{}",
        '{"even": -1}',
        '{"prime": 1}',
        '{"even": "much"}',
        '{"even": 0}',
        '{"even": NaN}',
        '{"even": true}',
        '{"even": 1e308, "odd": 1e308}',
    ):
        with pytest.raises(NoAnswer):
            of_json(wrong, WORDS)


def test_a_number_that_no_float_holds_is_no_answer() -> None:
    huge = 10**400
    for form, said in (
        ("json", {"message": {"content": json.dumps({"even": huge})}}),
        ("logprobs", {"message": {}, "logprobs": {"content": [{"top_logprobs": [{"token": "e", "logprob": -huge}]}]}}),
    ):
        with pytest.raises(NoAnswer, match=r"another form than `api: chat` \(OverflowError"):
            Question.of(config(answer=form), WORDS, ["x"]).told({"choices": [said]}, 1)


def chat_about(asked: Any, form: str) -> Any:
    """As OpenAI's servers answer."""
    text = asked.get("prompt") or asked["messages"][-1]["content"]
    number = re.search(r"\d+", text if isinstance(text, str) else text[0]["text"])
    assert number is not None
    word = WORDS[int(number[0]) % 2]
    other = WORDS[1 - int(number[0]) % 2]
    usage = {"prompt_tokens": 11, "completion_tokens": 1}
    top = [{"token": f" {word[0]}", "logprob": math.log(0.9)}, {"token": other, "logprob": math.log(0.1)}]
    if "messages" not in asked:
        tokens = {each["token"]: each["logprob"] for each in top}
        return {"choices": [{"text": word, "logprobs": {"top_logprobs": [tokens]}}], "usage": usage}
    said = {
        "votes": [word, word, "no idea", other, word][: asked.get("n", 1)],
        "json": [json.dumps({word: 9, other: 1})],
    }
    choices = [{"message": {"content": each, "reasoning_content": "because"}} for each in said.get(form, [word])]
    return {"choices": [{**each, "logprobs": {"content": [{"top_logprobs": top}]}} for each in choices], "usage": usage}


@pytest.mark.parametrize(
    ("about", "p"),
    [
        ({}, 0.9),
        ({"api": "completions"}, 0.9),
        ({"answer": "votes", "votes": 5}, 0.75),
        ({"answer": "json"}, 0.9),
        ({"system": "You count.", "body": {"seed": 1}, "keep": "text"}, 0.9),
    ],
)
def test_openai_s_forms_become_probabilities(
    data: TransferSet, tmp_path: Path, about: dict[str, Any], p: float
) -> None:
    server = CountingServer()
    how = config(**about)
    server.answer = lambda asked: chat_about(asked, how.answer)
    with server.serving() as url:
        how = how.model_copy(update={"url": url.removesuffix("/label")})
        fill(how, tasks := stores(tmp_path, data, how))
        questioner = EndpointQuestioner("q", how, data)
        segment = data.of("test")[0]
        found = np.exp(questioner.ask(data.inputs(segment), data.keys(segment)))
    x = data.inputs(segment)["features"][:, [column == "x" for column in _numbers(data)]].astype(int)[:, 0]
    assert np.allclose(found[np.arange(len(x)), x % 2], 0.999 * p + 0.0005, atol=1e-4)
    (path,) = {each["path"] for each in server.asked}
    assert path == ("/completions" if how.api == "completions" else "/chat/completions")
    assert {each["model"] for each in server.asked} == {"m"}
    if how.system:
        assert (
            server.asked[0]["messages"][0] == {"role": "system", "content": "You count."}
            and server.asked[0]["seed"] == 1
        )
        texts = [
            text
            for task in tasks
            for file in task.store.glob("texts/*")
            for text in parquet.read_table(file)["text"].to_pylist()
        ]
        assert len(texts) == 30 and set(texts) == {"because\n\neven", "because\n\nodd"}


def _numbers(data: TransferSet) -> list[str]:
    return next(list(plan["sources"]) for plan in data.made_of if plan["name"] == "features")


def test_votes_that_come_one_by_one_are_asked_for_until_there_are_enough(data: TransferSet) -> None:
    server = CountingServer()
    server.answer = lambda asked: chat_about({**asked, "n": 1}, "votes")  # a server that knows no `n`
    with server.serving() as url:
        how = config(answer="votes", votes=3, url=url.removesuffix("/label"))
        questioner = EndpointQuestioner("q", how, data)
        segment = data.of("test")[0]
        found = np.exp(questioner.ask(data.inputs(segment), data.keys(segment)))
    assert len(server.asked) == 3 * segment.num_rows
    assert [each["n"] for each in server.asked].count(1) == segment.num_rows
    assert np.isclose(found.max(1), 0.9995).all()


def test_images_go_with_a_chat_as_png() -> None:
    question = Question.of(config(prompt="What?", images=["image"]), WORDS, ["image"])
    request = question.request([{"image": "QUJD"}], 0)
    assert request["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ]
    assert question.columns == {"image"}
    for about, why in (
        ({"images": ["picture"]}, "images: no column 'picture'"),
        ({"words": {"prime": "p"}}, "words: no class 'prime'"),
        ({"words": {"even": "odd"}}, "words: 'odd' stands for 2 classes"),
    ):
        with pytest.raises(RecipeError, match=why):
            Question.of(config(prompt="{{ image }}", **about), WORDS, ["image"])


def test_the_server_of_the_guide_works_as_it_is_written(data: TransferSet, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 33
    (tmp_path / "server.py").write_text(code.replace("8765", "0").replace(".serve_forever()", "") + "\n")
    serve = "import server; s = server.ThreadingHTTPServer(('127.0.0.1', 0), server.Server); print(s.server_port, flush=True); s.serve_forever()"
    with subprocess.Popen([sys.executable, "-c", serve], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            how = EndpointTeacher(kind="endpoint", url=url, version="1", rows_per_request=4)
            questioner = EndpointQuestioner("q", how, data)
            segment = data.of("test")[0]
            p = np.exp(questioner.ask(data.inputs(segment), data.keys(segment)))
            raw = httpx.post(url, json={"rows": [{"x": 1}, {"x": 2}], "classes": ["a", "bb", "ccc"]}).json()
        finally:
            process.kill()
    assert np.allclose(p, [5 / 9, 4 / 9], atol=1e-3)
    assert raw["classes"] == ["a", "bb", "ccc"] and np.allclose(np.sum(raw["scores"], 1), 1)


def recipe(folder: Path, **about: Any) -> dict[str, Any]:
    table = {
        "x": np.arange(100.0),
        "y": np.array(WORDS)[np.arange(100) % 2],
        "note": [f"number {n}" for n in range(100)],
    }
    parquet.write_table(pa.table(table), folder / "rows.parquet")
    rows = {"source": {"kind": "parquet", "path": str(folder / "rows.parquet")}, "inputs": ["x"], "label": "y"}
    teacher = config(**about).model_dump(mode="json")
    return {"format": 1, "name": "r", "transfer_set": rows, "teachers": {"llm": teacher}}


def test_plan_prices_all_rows_and_tells_what_no_endpoint_can_be_asked(tmp_path: Path) -> None:
    about = {"price": {"million_input_tokens": 1000, "request": 0.01}, "limits": {"requests_per_minute": 10}}
    notes = plan(recipe(tmp_path, **about), tmp_path / "out").notes
    (told,) = [note for note in notes if note.startswith("teachers.llm: 100 rows")]
    found = re.search(r"about 100 requests, ([\d,]+) tokens, ([\d.]+) by its prices \(four characters a token", told)
    assert found is not None
    tokens = int(found[1])  # "Is 17 even or odd?" is 18 characters, 5 tokens; and one for the answer
    assert 500 <= tokens <= 700 and float(found[2]) == pytest.approx(100 * 0.01 + (tokens - 100) * 1e-3, rel=0.01)
    assert "at its limits 10.0 minutes" in told
    less = plan(recipe(tmp_path, budget={"requests": 0}), tmp_path / "out").notes
    assert any("its budget is less (0 requests), so labelling will end there with code 3" in note for note in less)
    for wrong, why in (
        ({"prompt": "What?"}, r"teachers\.llm\.prompt: names no column"),
        ({"prompt": "{{ note }}"}, r"teachers\.llm\.prompt: no column 'note'"),
        ({"words": {"prime": "p"}}, r"teachers\.llm\.words: no class 'prime'"),
    ):
        with pytest.raises(RecipeError, match=why):
            plan(recipe(tmp_path, **wrong), tmp_path / "out")
    with pytest.raises(EnvironmentUnfit, match=r"teachers\.llm\.key: there is no variable NOBODY_HAS_IT"):
        plan(recipe(tmp_path, key="${NOBODY_HAS_IT}"), tmp_path / "out")


def test_plan_check_reads_predictions_to_the_end(tmp_path: Path) -> None:
    told = recipe(tmp_path)
    told["transfer_set"]["id"] = "note"
    p = [[0.5, 0.5]] * 99 + [[0.5, 0.6]]
    parquet.write_table(pa.table({"note": [f"number {n}" for n in range(100)], "p": p}), tmp_path / "p.parquet")
    teacher = {
        "kind": "predictions",
        "path": str(tmp_path / "p.parquet"),
        "id": "note",
        "scores": "p",
        "output": "probabilities",
    }
    told["teachers"] = {"theirs": teacher}
    plan(told, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"teachers\.theirs: .*they are not, in 1 of 100 rows; rows p.parquet#99"):
        plan(told, tmp_path / "out", check=True)
    parquet.write_table(pa.table({"note": [f"number {n}" for n in range(90)], "p": p[:90]}), tmp_path / "p.parquet")
    with pytest.raises(RecipeError, match=r"teachers\.theirs: .* says nothing of 10 of 100 rows"):
        plan(told, tmp_path / "out", check=True)


def test_what_decides_an_endpoint_s_labels_and_what_does_not() -> None:
    def key(**about: Any) -> str:
        rows = {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": "y"}
        teacher = config(**about).model_dump(mode="json")
        made = Recipe.model_validate({"format": 1, "name": "r", "transfer_set": rows, "teachers": {"llm": teacher}})
        digest = teacher_digest(made, "llm", None, "s")
        stage = label_stage(made.teachers["llm"], "llm", ("train", "d"), digest, WORDS, "t")
        return f"{stage.key} {digest}"

    same = (
        {"url": "http://elsewhere/v1"},
        {"key": "${OTHER}", "key_header": "api-key"},
        {"budget": {"requests": 5}, "price": {"request": 1}, "limits": {"concurrency": 3}},
        {"keep": "text", "timeout_s": 1, "max_attempts": 2, "max_failed_share": 0.5, "patience_s": 1},
    )
    assert {key(**about) for about in same} == {key()}
    others = (
        {"version": "2"},
        {"prompt": "{{ x }}"},
        {"model_name": "n"},
        {"answer": "json"},
        {"words": {"odd": "o"}},
        {"body": {"seed": 2}},
    )
    assert len({key(), *(key(**about) for about in others)}) == 1 + len(others)
