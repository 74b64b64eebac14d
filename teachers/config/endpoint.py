"""What a recipe can say of a teacher that answers over HTTP: where it is, what it is asked, what that may cost. No torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .any_teacher import OutputKind, TeacherCommon
from .preprocess import Preprocess
from .strict import Config

ApiName = Literal["json", "chat", "completions"]
AnswerForm = Literal["logprobs", "votes", "json"]
Variable = Annotated[str, StringConstraints(pattern=r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$")]


class Limits(Config):
    """What the server lets through; null: only what it says itself (429, `Retry-After`) holds us back."""

    requests_per_minute: float | None = Field(None, gt=0)
    """Requests, evenly spread."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """Tokens of prompts and answers; before an answer says how many, four characters count as one."""
    concurrency: int = Field(64, ge=1, le=4096)
    """Requests under way at once, at most: how many do it good is found out (additive increase, multiplicative decrease)."""


class Price(Config):
    """What it costs, in any currency; what it does not say costs nothing."""

    request: float = Field(0.0, ge=0)
    """One request."""
    million_input_tokens: float = Field(0.0, ge=0)
    """A million tokens of prompts."""
    million_output_tokens: float = Field(0.0, ge=0)
    """A million tokens of answers."""


class Budget(Config):
    """What labelling may use in all, over every run in the same OUT; what is spent ends it with code 3, and a higher one goes on."""

    requests: int | None = Field(None, ge=0)
    """Requests, those that failed too."""
    tokens: int | None = Field(None, ge=0)
    """Tokens of prompts and answers."""
    money: float | None = Field(None, ge=0)
    """By `price`."""


class EndpointTeacher(TeacherCommon):
    """A model behind HTTP: a server of yours with the JSON batch API, or one that speaks OpenAI's chat or completions."""

    kind: Literal["endpoint"]
    url: Url
    """Of the JSON API as it is; of the others the base, `https://HOST/v1`. Where it is does not count, `version` does."""
    api: ApiName = "json"
    """`json`: rows in, scores out, many a request; `chat` and `completions`: a prompt in, words out, one row a request."""
    version: str = Field(min_length=1)
    """Of what answers there, which no digest of ours decides. Another version, other labels: everything is asked anew."""
    model_name: str | None = None
    """`model` in the requests of `chat` and `completions`."""
    key: Variable | None = None
    """`${NAME}`, the variable of the environment that holds the key; sent as `Authorization: Bearer`."""
    key_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]+$")
    """Another header for the key, which it then gets alone."""
    prompt: str | None = None
    """Of `chat` and `completions`: a Jinja template over the row's columns; `classes` are the words to answer with."""
    system: str | None = None
    """Of `chat`: the system's message, a template too."""
    images: list[str] = []
    """Of `chat`: columns that go with the prompt as PNG; in templates and in the JSON API an image is its PNG in base64."""
    answer: AnswerForm = "logprobs"
    """Of `chat` and `completions`: log-probabilities of the first token over the classes; `votes` that are counted; or `json`, an object with the class or with a probability for each."""
    words: dict[str, str] = {}
    """Word that stands for a class in the answer; a class without one is its own name."""
    votes: int = Field(5, ge=1, le=128)
    """Answers a row, of `answer: votes`."""
    max_tokens: int | None = Field(None, ge=1)
    """Of an answer; null: 1 for log-probabilities, 16 for a vote, 256 for JSON."""
    body: dict[str, Any] = {}
    """Further fields of each request of `chat` and `completions`, as they are: `{temperature: 0.7, seed: 1}`."""
    output: OutputKind = "probabilities"
    """What the numbers of the JSON API are."""
    rows_per_request: int = Field(32, ge=1, le=100_000)
    """Of the JSON API."""
    keep: Literal["text"] | None = None
    """`text`: what it wrote is kept beside its answers, in `texts/` of the store."""
    timeout_s: float = Field(60.0, gt=0)
    """Until a request counts as unanswered."""
    max_attempts: int = Field(6, ge=1)
    """Of a row that is not answered as it should be; then it is unknown, and the report lists it."""
    max_failed_share: float = Field(0.01, ge=0, le=1)
    """Share of the rows that may be unknown; more end the run."""
    patience_s: float = Field(300.0, ge=0)
    """So long nobody may answer at all (refused, too busy, `Retry-After`) before the run ends."""
    limits: Limits = Limits()
    """What the server lets through."""
    price: Price = Price()
    """What it costs; `plan` tells for all rows."""
    budget: Budget = Budget()
    """What may be used."""

    @model_validator(mode="after")
    def is_asked_for_words_or_for_numbers(self) -> Self:
        if self.api == "json":
            given = [
                each for each in ("model_name", "prompt", "system", "images", "words", "body") if getattr(self, each)
            ]
            if given:
                raise ValueError(f"`api: json` sends rows, not prompts: leave `{given[0]}` out, or say `api: chat`")
            return self
        if self.prompt is None:
            raise ValueError(
                f'`api: {self.api}` needs a `prompt`, for example `prompt: "Which of {{{{ classes }}}} is {{{{ text }}}}?"`'
            )
        if self.model_name is None:
            raise ValueError(f"`api: {self.api}` needs `model_name`")
        if self.api == "completions" and (self.system or self.images):
            raise ValueError("`api: completions` has a `prompt` alone: leave `system` and `images` out")
        if self.output != "probabilities":
            raise ValueError(f"of words come probabilities: leave `output` out with `api: {self.api}`")
        return self

    @model_validator(mode="after")
    def is_fed_by_its_prompt(self) -> Self:
        if self.preprocess != Preprocess():
            raise ValueError("an endpoint gets rows as they are: leave `preprocess` out")
        if self.replicas != 1:
            raise ValueError("one replica asks with as many requests at once as do it good: leave `replicas` out")
        return self

    @model_validator(mode="after")
    def can_keep_to_its_budget(self) -> Self:
        if self.budget.money is not None and self.price == Price():
            raise ValueError("`budget.money` needs a `price`")
        if self.mode == "live" and self.budget != Budget():
            raise ValueError(
                "of a live teacher nothing is kept, so nobody counts what it used before: leave `budget` out"
            )
        if self.mode == "live" and self.keep is not None:
            raise ValueError("of a live teacher nothing is kept: leave `keep` out")
        return self
