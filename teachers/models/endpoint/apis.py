"""The three ways to ask: what a request says, and what an answer means. A literal table.

Rows are mappings of columns. Raises NoAnswer for an answer that is none, TeacherError for one that no other try would mend.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config.endpoint import ApiName, EndpointTeacher
from ...config.task import AnswerName
from ...errors import RecipeError, TeacherError
from ...sources.files import nearest
from ..declared import SUM, undeclared
from .prompts import Prompt
from .purse import Tokens
from .rows import Row
from .words import NoAnswer, Scores, of_first_token, of_json, of_word

CHARACTERS_PER_TOKEN = 4
STRICTLY = 0.999
"""Of the tolerance that all teachers have: no sum that is taken once more may end a run whose answers are paid for."""
TOP = {"chat": 20, "completions": 5}
"""Most probable first tokens that are asked for: as many as OpenAI gives."""
MAX_TOKENS = {"logprobs": 1, "votes": 16, "json": 256}


@dataclass(frozen=True)
class Told:
    """What an answer says of one row: scores f32 [C] or, where votes are counted, f32 [C + 1]: how many each class got, and none."""

    scores: Scores | None = None
    votes: Scores | None = None
    text: str | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Question:
    """How an endpoint is asked about rows of these columns, in these words."""

    config: EndpointTeacher
    classes: tuple[str, ...]
    prompt: Prompt | None = None
    system: Prompt | None = None
    words: tuple[str, ...] = ()
    answer: AnswerName = "class_axis"

    @classmethod
    def of(
        cls, config: EndpointTeacher, classes: Sequence[str], columns: Sequence[str], answer: AnswerName = "class_axis"
    ) -> "Question":
        """Raises RecipeError for prompts, images and words that name what is not there."""
        words = tuple(config.words.get(name, name) for name in classes)
        _check_words(config, classes, words)
        if config.prompt is None:
            return cls(config, tuple(classes), words=words, answer=answer)
        if strange := [name for name in config.images if name not in columns]:
            raise _no_column("images", strange[0], columns)
        has_images = bool(config.images)
        prompt = Prompt(config.prompt, "prompt", columns, words, may_be_fixed=has_images)
        system = None if config.system is None else Prompt(config.system, "system", columns, words, may_be_fixed=True)
        return cls(config, tuple(classes), prompt, system, words)

    @property
    def columns(self) -> set[str] | None:
        """That a request is made of; None: all."""
        if self.prompt is None:
            return None
        return self.prompt.columns | set(self.config.images) | (self.system.columns if self.system else set())

    def request(self, rows: Sequence[Row], votes_left: int) -> dict[str, Any]:
        """The JSON of a request about these rows: of `chat` and `completions` one."""
        return REQUESTS[self.config.api](self, rows, votes_left)

    def told(self, document: Any, num_rows: int) -> list[Told]:
        """What an answer says of each of the rows of its request."""
        if not isinstance(document, Mapping):
            raise NoAnswer(f"the answer is a {type(document).__name__}, an object of JSON expected")
        try:
            return ANSWERS[self.config.api](self, document, num_rows)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise NoAnswer(
                f"the answer has another form than `api: {self.config.api}` ({type(error).__name__}: {error})"
            ) from None

    def expected(self, request: Mapping[str, Any]) -> Tokens:
        """Before anybody has counted: four characters a token, and the longest answer."""
        config = self.config
        if config.api == "json":
            return Tokens(_characters(request["rows"]) // CHARACTERS_PER_TOKEN, 0)
        texts = request.get("prompt") or [message["content"] for message in request["messages"]]
        most = int(request.get("max_tokens", 0)) * int(request.get("n", 1))
        return Tokens(-(-_characters(texts) // CHARACTERS_PER_TOKEN), most)


def counted(document: Any) -> Tokens | None:
    """As the server says it, under `usage`; None where it does not."""
    usage = document.get("usage") if isinstance(document, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    names = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    found = [next((usage[name] for name in pair if isinstance(usage.get(name), int)), 0) for pair in names]
    return Tokens(*found)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return 0 if value.get("type") == "image_url" else sum(_characters(each) for each in value.values())
    return sum(_characters(each) for each in value) if isinstance(value, list | tuple) else len(str(value))


def _check_words(config: EndpointTeacher, classes: Sequence[str], words: Sequence[str]) -> None:
    if strange := [name for name in config.words if name not in classes]:
        raise _no_column("words", strange[0], classes, "class")
    folded = [word.strip().casefold() for word in words]
    if twice := [word for word in folded if folded.count(word) > 1 or not word]:
        raise RecipeError(
            f"words: {twice[0]!r} stands for {folded.count(twice[0])} classes; give each a word of its own"
        )


def _no_column(key: str, name: str, known: Sequence[str], what: str = "column") -> RecipeError:
    return RecipeError(f"{key}: no {what} {name!r}{nearest(name, known)}")


def _json_request(question: Question, rows: Sequence[Row], votes_left: int) -> dict[str, Any]:
    config = question.config
    return {"version": config.version, "output": config.output, "classes": list(question.classes), "rows": list(rows)}


def _json_told(question: Question, document: Mapping[str, Any], num_rows: int) -> list[Told]:
    if (theirs := document.get("classes", document.get("names"))) is not None and list(theirs) != list(
        question.classes
    ):
        raise TeacherError(
            f"{question.config.url} scores the classes {list(theirs)[:10]}, asked for were {list(question.classes)[:10]}; name its "
            f"classes under `classes`, in its order, and map them in `class_map`"
        )
    scores, texts = document["scores"], document.get("texts") or [None] * num_rows
    if len(scores) != num_rows or len(texts) != num_rows:
        raise NoAnswer(f"{len(scores)} rows of scores for {num_rows} rows that were asked about")
    return [_scored(question, said, text) for said, text in zip(scores, texts, strict=True)]


def _scored(question: Question, said: Any, text: str | None) -> Told:
    if said is None:
        return Told(why_not="it gave no scores (null)", text=text)
    try:
        scores: NDArray[np.float32] = np.asarray(said, np.float32)
    except (TypeError, ValueError, OverflowError):
        return Told(why_not=f"{str(said)[:80]} are no scores", text=text)
    if scores.shape != (len(question.classes),):
        return Told(why_not=f"{scores.size} scores for {len(question.classes)} classes", text=text)
    if not np.isfinite(scores).all():
        return Told(why_not="NaN or infinity", text=text)
    output = question.config.output
    if undeclared(scores[None], output, question.answer, within=STRICTLY * SUM)[0]:
        p = np.exp(scores) if output == "log_probabilities" else scores
        why = ", which lie between 0 and 1" if question.answer == "class_set" else f": they add up to {p.sum():.6g}"
        return Told(why_not=f"{str(said)[:80]} are no `{output}`{why}", text=text)
    return Told(scores, text=text)


def _common(question: Question, votes_left: int) -> dict[str, Any]:
    config = question.config
    return {
        "model": config.model_name,
        "max_tokens": config.max_tokens or MAX_TOKENS[config.answer],
        **({"n": votes_left} if config.answer == "votes" else {}),
    }


def _chat_request(question: Question, rows: Sequence[Row], votes_left: int) -> dict[str, Any]:
    (row,), config = rows, question.config
    assert question.prompt is not None
    content: Any = question.prompt(row)
    if config.images:
        url = "data:image/png;base64,{}".format
        content = [{"type": "text", "text": content}]
        content += [{"type": "image_url", "image_url": {"url": url(row[name])}} for name in config.images]
    messages = [{"role": "system", "content": question.system(row)}] if question.system else []
    form: dict[str, Any] = {}
    if config.answer == "logprobs":
        form = {"logprobs": True, "top_logprobs": TOP["chat"]}
    elif config.answer == "json":
        form = {"response_format": {"type": "json_object"}}
    return {
        **_common(question, votes_left),
        "messages": [*messages, {"role": "user", "content": content}],
        **form,
        **config.body,
    }


def _completions_request(question: Question, rows: Sequence[Row], votes_left: int) -> dict[str, Any]:
    (row,), config = rows, question.config
    assert question.prompt is not None
    form = {"logprobs": TOP["completions"]} if config.answer == "logprobs" else {}
    return {**_common(question, votes_left), "prompt": question.prompt(row), **form, **config.body}


def _chat_told(question: Question, document: Mapping[str, Any], num_rows: int) -> list[Told]:
    choices = document["choices"]
    texts = [str(choice["message"].get("content") or "") for choice in choices]
    reasons = [choice["message"].get("reasoning_content") for choice in choices]
    kept = "\n\n".join(f"{reason}\n\n{text}" if reason else text for reason, text in zip(reasons, texts, strict=True))
    if question.config.answer != "logprobs":
        return [_worded(question, texts, kept)]
    top = choices[0]["logprobs"]["content"][0]["top_logprobs"]
    return [
        Told(of_first_token(_summed([(each["token"], each["logprob"]) for each in top]), question.words), text=kept)
    ]


def _completions_told(question: Question, document: Mapping[str, Any], num_rows: int) -> list[Told]:
    texts = [str(choice["text"]) for choice in document["choices"]]
    if question.config.answer != "logprobs":
        return [_worded(question, texts, "\n\n".join(texts))]
    top = document["choices"][0]["logprobs"]["top_logprobs"][0]
    return [Told(of_first_token(_summed(list(top.items())), question.words), text=texts[0])]


def _summed(tokens: Sequence[tuple[str, float]]) -> dict[str, float]:
    """By token; one that stands there twice (as bytes and as text) counts once, as the likelier."""
    found: dict[str, float] = {}
    for token, log_p in tokens:
        found[token] = max(float(log_p), found.get(token, float(log_p)))
    return found


def _worded(question: Question, texts: Sequence[str], kept: str) -> Told:
    if question.config.answer == "json":
        return Told(of_json(texts[0], question.words), text=kept)
    votes, others = np.zeros(len(question.words) + 1, np.float32), []
    for text in texts:
        try:
            votes[of_word(text, question.words)] += 1
        except NoAnswer as error:
            votes[-1] += 1
            others.append(str(error))
    if not votes[:-1].sum():
        raise NoAnswer(others[0] if others else "it gave no choices")
    return Told(votes=votes, text=kept)


REQUESTS: dict[ApiName, Callable[[Question, Sequence[Row], int], dict[str, Any]]] = {
    "json": _json_request,
    "chat": _chat_request,
    "completions": _completions_request,
}
ANSWERS: dict[ApiName, Callable[[Question, Mapping[str, Any], int], list[Told]]] = {
    "json": _json_told,
    "chat": _chat_told,
    "completions": _completions_told,
}
PATHS: dict[ApiName, str] = {"json": "", "chat": "/chat/completions", "completions": "/completions"}
"""Behind the recipe's `url`."""
